"""`Forecaster`: from a series to forecasts with intervals, and to the truth about them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from rnn_xp._checks import Argument, ParameterError
from rnn_xp.backend import Backend, get_backend
from rnn_xp.forecasting.backtest import Backtest, row_of, run
from rnn_xp.forecasting.files import load_fitted, save_fitted
from rnn_xp.forecasting.fitted import Fitted, finish
from rnn_xp.forecasting.panel import as_panel
from rnn_xp.forecasting.predictor import Predictor
from rnn_xp.forecasting.prepared import Prepared, prepare
from rnn_xp.forecasting.settings import Settings, check_data
from rnn_xp.forecasting.training import train

__all__ = ["Forecaster", "NotFittedError"]

_TRAINING = {"workers", "memory_budget", "callbacks", "comm", "reduction", "resume"}


class NotFittedError(ValueError, AttributeError):
    """Raised by a `Forecaster` that was not fitted yet."""


class Forecaster(Settings):
    """Forecast a series, or several with one network, by a recurrent network beside a linear path.

    Each forecast is a linear autoregression plus what a recurrent network adds to it. Training
    starts from the autoregression that least squares give, with a network that adds nothing, so
    what is learnt comes on top. The last part of the series is kept for validation: it chooses the
    epoch, and its errors make the intervals.

    Settings take effect at the next `fit`; forecasts are those of the settings that were fitted.

    Parameters
    ----------
    seq_length : int
        T, number of values that a forecast is made from.
    horizon : int
        Number of steps ahead that are trained and judged.
    cell, hidden_size, num_layers : as for `rnn_xp.Network`
    strategy : {"direct", "recursive"}
        One output for each step of the horizon; or a network for one step that is fed with its own
        forecasts.
    target : {"level", "diff", "logret"}
        The form of the values that the network forecasts, see `rnn_xp.forecasting.targets`. A
        series with a trend needs one of the latter two.
    linear : bool
        If True, a linear path from the window to the forecast runs beside the network.
    scaler : {"standard", "minmax", "none"}
        Fitted on the training part, for each series and feature.
    missing : {"error", "mask"}
        NaN is refused; or the step is skipped, and windows whose targets are missing are left out.
    intervals : {"adaptive", "split", "quantile", None}
        See `rnn_xp.forecasting.intervals`; "quantile" trains the ends of the interval themselves,
        by the pinball loss.
    level : float
        Nominal coverage of the intervals.
    optimizer : Optimizer, optional
        By default L-BFGS; Adam with a cosine schedule for quantiles, minibatches and dropout.
    epochs, batch_size, patience : as for `rnn_xp.fit`
    validation : float or None
        Share of the windows to validate on, the last ones, after a gap. With None all are trained
        on, the last parameters are kept, and no errors are known to make intervals of.
    n_seeds : int
        Number of networks, from different seeds, whose mean is the forecast.
    random_state : int
        Seed of the first network; the others follow it.
    backend : Backend, optional
        `rnn_xp.get_backend` by default.
    verbose : bool
        If True, `fit` prints how the forecasts of the validation part compare with the baselines.
    bidirectional, activation, read, dropout, recurrent_dropout, layer_norm, residual, reset_after
        As for `rnn_xp.Network`.

    Attributes
    ----------
    report_ : Backtest or None
        Judgement of the validation part. It has chosen the epoch, so this flatters a little;
        `backtest` does not. None without validation.
    predictor_ : rnn_xp.forecasting.predictor.Predictor
        The network, and its parameters by seed.
    history_ : list of dict
        History of each training, see `rnn_xp.FitResult`.
    results_ : list of FitResult
        The trainings, by seed.

    Notes
    -----
    A forecast for more than ``horizon`` steps goes on from its own forecasts.

    References
    ----------
    .. [1] G. Lai, W.-C. Chang, Y. Yang, H. Liu, "Modeling long- and short-term temporal patterns
           with deep neural networks", SIGIR 2018, section 3.5: the linear path.

    Examples
    --------
    >>> import numpy as np
    >>> import rnn_xp as rx
    >>> series = np.sin(np.arange(200) / 5.0) + 0.01 * np.arange(200) % 0.07
    >>> f = rx.Forecaster(seq_length=12, horizon=3, hidden_size=8, epochs=20, verbose=False)
    >>> f.fit(series).predict(steps=5).shape
    (5,)
    >>> low, high = f.predict_interval()
    >>> low.shape, bool((low < high).all())
    ((3,), True)
    """

    def fit(
        self, series: Any, *, past: Any = None, future: Any = None, **training: Any
    ) -> Forecaster:
        """Train.

        Parameters
        ----------
        series : list, array (n,), pandas Series or `rnn_xp.data.datasets.Series`
            In time order. Several series: array (n, S), DataFrame, or mapping of names to series.
        past : array (n, k) or DataFrame, or mapping of names to those, optional
            Features that are known up to now. One for all series, or one for each.
        future : array (n, k) or DataFrame, or mapping of names to those, optional
            Features that are known ahead, such as the calendar; `predict` needs those to come.
        **training
            Further arguments of `rnn_xp.fit` on how it computes: ``workers``, ``memory_budget``,
            ``callbacks``, ``comm``, ``reduction``, and ``resume``, for one network only.

        Returns
        -------
        Forecaster
            Itself.

        Raises
        ------
        ValueError, TypeError
            For settings that contradict each other, a series that is too short, constant, not in
            order or with gaps; before anything of an earlier fit is changed.
        """
        return self.fit_prepared(prepare(self, as_panel(series), past, future), **training)

    def fit_prepared(self, prepared: Prepared, **training: Any) -> Forecaster:
        """Train on series that have been read, see `fit`."""
        settings = prepared.settings
        if unknown := training.keys() - _TRAINING:
            raise TypeError(
                f"Forecaster.fit has no argument {min(unknown)!r}; {', '.join(sorted(_TRAINING))} "
                "are passed on to rnn_xp.fit."
            )
        if settings.n_seeds > 1 and training.get("resume") is not None:
            raise ParameterError(
                "a training is resumed for one network, but {0} trains several: begin it anew.",
                Argument("n_seeds", settings.n_seeds),
            )
        backend = get_backend() if settings.backend is None else settings.backend
        results = [
            train(
                settings, prepared.net, prepared.trained, prepared.validated, backend,
                settings.random_state + k, **training,
            )
            for k in range(settings.n_seeds)
        ]  # fmt: skip
        networks = tuple(r.params if r.best_params is None else r.best_params for r in results)
        fitted, report = finish(prepared, networks, backend)
        # From here on nothing can fail: an earlier fit is replaced as a whole.
        self._fitted, self.report_, self.results_ = fitted, report, results
        self.history_ = [result.history for result in results]
        if settings.verbose and settings.validation is not None:
            part = f"validation part, the last {100 * settings.validation:g} % of the windows"
            sys.stdout.write(f"{part}:\n{report}\n")
        return self

    def predict(self, steps: int | None = None, *, future: Any = None) -> Any:
        """Forecast what follows the series that was trained on.

        Parameters
        ----------
        steps : int, optional
            The horizon by default.
        future : array (steps, k) or DataFrame, or mapping of names to those
            Features to come, if `fit` was given some: a row for each of the steps, and of the
            horizon where that is longer.

        Returns
        -------
        array (steps,), pandas Series, array (steps, S), DataFrame or dict
            In original units, as the series were given.
        """
        return self.fitted.predict(steps, future)

    def predict_interval(
        self, steps: int | None = None, *, level: float | None = None, future: Any = None
    ) -> tuple[Any, Any]:
        """Return the lower and upper ends of prediction intervals.

        Split-conformal around the forecast: they assume that errors to come are like those of the
        validation part. `backtest` and `evaluate` measure whether they are.

        Parameters
        ----------
        steps : int, optional
            At most the horizon, for whose steps alone errors are known.
        level : float, optional
            Nominal coverage; the forecaster's by default.
        future : as for `predict`

        Returns
        -------
        low, high : as `predict`
        """
        return self.fitted.predict_interval(steps, level, future)

    def apply(self, series: Any, *, past: Any = None, future: Any = None) -> Forecaster:
        """Return this forecaster at the end of other values, trained as it is.

        Parameters
        ----------
        series : as for `fit`
            Newer values of the series, or another one; scaled as those that were trained on.
        past, future : as for `fit`

        Returns
        -------
        Forecaster
            A new one, whose `predict` goes on from these values.

        Examples
        --------
        >>> import numpy as np
        >>> import rnn_xp as rx
        >>> series = np.sin(np.arange(120) / 5.0)
        >>> f = rx.Forecaster(hidden_size=4, epochs=5, verbose=False).fit(series[:100])
        >>> bool(np.isclose(f.apply(series[:110]).predict()[0], series[110], atol=0.1))
        True
        """
        return _with(self.fitted.apply(as_panel(series), past, future))

    def evaluate(
        self, series: Any, *, past: Any = None, future: Any = None, stride: int = 1
    ) -> Backtest:
        """Judge forecasts of values that came after those that were trained on.

        Parameters
        ----------
        series : as for `fit`
            The values trained on **and** those that came after, in one piece.
        past, future : as for `fit`, for the whole
        stride : int
            Number of steps between two forecasts.

        Returns
        -------
        Backtest
        """
        panel, fitted = as_panel(series), self.fitted
        if panel.names != fitted.panel.names:
            names = ", ".join(fitted.panel.names)
            raise ValueError(f"the series must be those of fit, {names}.")
        return fitted.evaluate_rows(panel, past, future, fitted.rows, stride)

    def backtest(
        self,
        series: Any,
        start: float | int = 0.8,
        *,
        stride: int = 1,
        retrain: bool | int = False,
        past: Any = None,
        future: Any = None,
    ) -> Backtest:
        """Train on the first part of a series and forecast the rest, from one origin after another.

        This forecaster is left as it is; others are trained, with the settings that it was fitted
        with, or, before any fit, with its own.

        Parameters
        ----------
        series, past, future : as for `fit`
        start : float or int
            The beginning of the rest: a share of the rows in (0, 1), or the number of a row.
        stride : int
            Number of steps between two origins.
        retrain : bool or int
            If an integer, train again after that many origins on all that is known by then; True
            is 1. If False, train once.

        Returns
        -------
        Backtest
        """
        settings = self._fitted.settings if hasattr(self, "_fitted") else self.frozen()
        settings.check()
        panel = as_panel(series)
        if isinstance(stride, bool) or not isinstance(stride, int) or stride < 1:
            raise ParameterError(
                "{0:name} must be an integer >= 1, got {0:value}.", Argument("stride", stride)
            )
        tables = check_data(settings, panel, past, future)
        starts = [row_of(start, len(column)) for column in panel.columns]

        def trained(prepared: Prepared) -> Fitted:
            return Forecaster().set_params(verbose=False).fit_prepared(prepared).fitted

        quiet = Settings(**{**settings.get_params(), "verbose": False})
        return run(quiet, trained, panel, tables, starts, stride, int(retrain) or None)

    def save(self, path: str | Path) -> None:
        """Write what was fitted to a safetensors file; not the optimizer and the backend.

        Parameters
        ----------
        path : path
        """
        save_fitted(path, self.fitted)

    @classmethod
    def load(cls, path: str | Path, backend: Backend | None = None) -> Forecaster:
        """Read what `save` or ``rnn-xp train`` wrote, on any backend.

        The result has all but `report_`, `results_` and `history_`.

        Parameters
        ----------
        path : path
            The file, or the folder of a run, whose model.safetensors is read.
        backend : Backend, optional
            `rnn_xp.get_backend` by default.

        Returns
        -------
        Forecaster

        Raises
        ------
        CheckpointError
            If the file is damaged, of another kind or of another version.
        """
        return _with(load_fitted(path, get_backend() if backend is None else backend))

    @property
    def fitted(self) -> Fitted:
        """The model that the last fit left, frozen."""
        if not hasattr(self, "_fitted"):
            raise NotFittedError("this Forecaster is not fitted yet: call fit first.")
        return self._fitted

    @property
    def predictor_(self) -> Predictor:
        """The network, and its parameters by seed."""
        return self.fitted.predictor


def _with(fitted: Fitted) -> Forecaster:
    """Return a forecaster of a fitted model."""
    forecaster = Forecaster(**fitted.settings.get_params())
    forecaster._fitted = fitted
    return forecaster
