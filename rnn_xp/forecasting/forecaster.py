"""`Forecaster`: forecasts of series with intervals, and a judgement of how good they are."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from rnn_xp._checks import Argument, ParameterError, whole
from rnn_xp.backend import Backend, get_backend
from rnn_xp.forecasting.backtest import Backtest, row_of, run
from rnn_xp.forecasting.exporting import Exported
from rnn_xp.forecasting.files import load_fitted, save_fitted
from rnn_xp.forecasting.fitted import Fitted, NotFittedError, finish
from rnn_xp.forecasting.panel import as_panel
from rnn_xp.forecasting.predictor import Predictor
from rnn_xp.forecasting.prepared import Prepared, prepare
from rnn_xp.forecasting.settings import Settings, check_data
from rnn_xp.forecasting.trainings import train_networks
from rnn_xp.training.callbacks import Callback

__all__ = ["Forecaster"]

_TRAINING = {"workers", "memory_budget", "callbacks", "comm", "reduction", "resume"}


class Forecaster(Exported, Settings):
    """Forecast one or several series with a recurrent network and a linear path beside it.

    Each forecast is the sum of a linear autoregression and the output of a recurrent network.
    Training starts from an autoregression whose coefficients are shrunk, see
    `rnn_xp.forecasting.linear`, with a network whose output is zero, so the network learns a
    correction to it. The last part of the series is held out for validation:
    it selects the number of epochs, and its errors determine the intervals. Then the network is
    trained again on all windows for this number of epochs.

    Changed settings take effect at the next `fit`; until then, forecasts use the fitted settings.

    Parameters
    ----------
    seq_length : int or "auto"
        Number of past values that forecasts are made from, T; "auto" is two seasons, if they fit.
    horizon : int
        Number of steps ahead for which the model is trained and judged.
    cell, hidden_size, num_layers : as for `rnn_xp.Network`
        A hidden size of "auto" is one unit for 20 windows, from 4 to 50.
    strategy : {"direct", "recursive"}
        "direct" has one output for each step of the horizon; "recursive" forecasts one step and
        feeds each forecast back in as an input.
    target : {"level", "diff", "log", "logret", "auto"}
        What the network forecasts, see `rnn_xp.forecasting.targets`. "auto" takes logarithms and
        changes if tests on the training rows call for them, see `rnn_xp.forecasting.choices`, which
        makes the other choices of "auto" as well.
    linear : bool
        If True, a linear path from the window to the forecast runs beside the network.
    fallback : bool
        If True, the linear path forecasts alone if the network earns nothing on the validation
        part, see `rnn_xp.forecasting.trainings`. The report then says so.
    scaler : {"standard", "minmax", "none"}
        Kind of scaling, fitted on the training part for each series and feature separately.
    missing : {"error", "mask"}
        With "error", NaN is refused. With "mask", windows whose targets are missing are left out,
        and missing values within windows are estimated from the values before them if there is a
        linear path, see `rnn_xp.forecasting.gaps`; without one, the network skips these steps.
    intervals : {"adaptive", "split", "quantile", None}
        Method of the prediction intervals, see `rnn_xp.forecasting.intervals`; "quantile" trains
        the network to forecast both ends of the interval with the pinball loss.
    level : float
        Nominal coverage of the intervals.
    optimizer : Optimizer, optional
        The optimiser; by default L-BFGS, or Adam with a cosine schedule if there are quantiles,
        minibatches or dropout.
    epochs, batch_size, patience : as for `rnn_xp.fit`
    validation : float or None
        Fraction of the windows to validate on, taken from the end, after a gap. If None, all
        windows are trained on, the last parameters are kept, and no errors are known from which to
        make intervals.
    refit : bool
        If True, each network is trained again, from its seed, on **all** windows for the number of
        epochs with the lowest validation loss, with scalers fitted on all rows. This takes at most
        as long again. `report_`, `history_` and the errors that make the intervals are those of the
        networks before. If False, those networks make the forecasts, and the last windows of the
        series are never trained on.
    n_seeds : int
        Number of networks, from different seeds, whose mean is the forecast.
    random_state : int
        Seed of the first network; the others follow it.
    backend : Backend, optional
        Backend to train on; by default `rnn_xp.get_backend` selects it.
    verbose : bool
        If True, `fit` prints what "auto" stands for and how the forecasts of the validation part
        compare with the baselines.
    bidirectional, activation, read, dropout, recurrent_dropout, layer_norm, residual, reset_after
        As for `rnn_xp.Network`.

    Attributes
    ----------
    report_ : Backtest or None
        Scores on the validation part; None without validation. They are slightly optimistic,
        because the same part selected the epoch; the scores of `backtest` are not.
    predictor_ : rnn_xp.forecasting.predictor.Predictor
        The network, and the parameters for each seed.
    history_ : list of dict
        The history of each training, in the order of the seeds, see `rnn_xp.FitResult`.
    results_ : list of FitResult
        The result of each training, in the order of the seeds.
    refits_ : list of FitResult
        The result of each training on all windows; empty if there was none.

    Notes
    -----
    Beyond ``horizon`` steps, forecasts are fed back in as inputs.

    Intervals are made from errors of networks that had not seen the last part of the series, so
    those around forecasts of a refitted network, which has, tend to be too wide rather than too
    narrow.

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
        self, series: Any, *, past: Any = None, future: Any = None, static: Any = None,
        **training: Any,
    ) -> Forecaster:  # fmt: skip
        """Train on one or several series.

        Parameters
        ----------
        series : list, array (n,), pandas Series or `rnn_xp.data.datasets.Series`
            The values in time order. Several series are given as an array (n, S), a DataFrame, or a
            mapping of names to series. Series and tables of polars, pyarrow, xarray and darts are
            taken, too; if they have times, forecasts are pandas objects.
        past : array (n, k) or DataFrame, or mapping of names to those, optional
            Features that are known up to the present, one table for all series or one for each. The
            rows of an array are taken by position. The rows of a DataFrame are matched with those
            of the series by time, and may be more; its columns are matched with those of other
            calls by name.
        future : array (n, k) or DataFrame, or mapping of names to those, optional
            Features that are known in advance, such as the calendar; `predict` needs their values
            for the steps to forecast. They are matched as those of ``past``.
        static : table, optional
            What does not change: a row for each series, see
            `rnn_xp.forecasting.static.read_static`; later calls know it by their names.
        **training
            Further arguments of `rnn_xp.fit`: ``workers``, ``memory_budget``, ``callbacks``,
            ``comm``, ``reduction`` and, for a single network only, ``resume``. Callbacks watch the
            first training; it is this one that is resumed.

        Returns
        -------
        Forecaster

        Raises
        ------
        ValueError, TypeError
            If settings contradict each other, or a series is too short, constant, not in time order
            or has gaps. An earlier fit is then left unchanged.
        """
        prepared = prepare(self, as_panel(series).described(static), past, future)
        return self.fit_prepared(prepared, **training)

    def fit_prepared(
        self, prepared: Prepared, *, stop: Callback | None = None, **training: Any
    ) -> Forecaster:
        """Train on prepared series, see `fit`.

        Parameters
        ----------
        prepared : Prepared
        stop : callback, optional
            A callback of all trainings, those on all windows included, which may end them.
        **training
            As for `fit`.
        """
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
        backend = settings.backend or get_backend()
        trained = train_networks(prepared, backend, stop, training)
        fitted, report = finish(
            trained.prepared, trained.networks, backend, (trained.whole, trained.refitted),
            alone=trained.alone is not None, earlier=trained.earlier,
        )  # fmt: skip
        # From here on nothing can fail: an earlier fit is replaced as a whole.
        self._fitted, self.report_ = fitted, report
        self.results_, self.refits_ = trained.results, trained.refits
        self.history_ = [result.history for result in trained.results]
        if settings.verbose:
            sys.stdout.writelines(f"{choice}\n" for choice in prepared.choices)
            if settings.validation is not None:
                part = f"validation part, the last {100 * settings.validation:g} % of the windows"
                sys.stdout.write(f"{part}:\n{report}\n")
        return self

    def predict(self, steps: int | None = None, *, future: Any = None) -> Any:
        """Forecast the values that follow the training series.

        Parameters
        ----------
        steps : int, optional
            Number of steps to forecast; the horizon by default.
        future : array (steps, k) or DataFrame, or mapping of names to those
            Future features, required if `fit` was given some: one row for each step, and at least
            as many rows as the horizon. A DataFrame must hold the times that follow the series; it
            may hold others, too.

        Returns
        -------
        array (steps,), pandas Series, array (steps, S), DataFrame or dict
            The forecasts in original units, in the type in which the series were given.
        """
        return self.fitted.predict(steps, future)

    def predict_interval(
        self, steps: int | None = None, *, level: Any = None, future: Any = None
    ) -> tuple[Any, Any]:
        """Return the lower and upper ends of prediction intervals.

        With ``intervals="quantile"`` the ends are quantiles that the network forecasts. Conformal
        intervals begin with the errors on the validation part; adaptive ones follow those on newer
        values, which `apply` brings. `backtest` and `evaluate` judge these very intervals.

        Parameters
        ----------
        steps : int, optional
            Number of steps, at most the horizon, because errors are known for these steps only.
        level : float or list, optional
            Nominal coverage in (0, 1), by default the forecaster's ``level``; or a list of shares
            or percentages, such as ``[80, 95]``, whose intervals lie within each other.
        future : as for `predict`

        Returns
        -------
        low, high : in the type that `predict` returns; of a list of levels, dicts of these by level
        """
        return self.fitted.predict_interval(steps, level, future)

    def apply(self, series: Any, *, past: Any = None, future: Any = None) -> Forecaster:
        """Return a forecaster with the same networks at the end of other values.

        Parameters
        ----------
        series : as for `fit`
            All values of the same series with newer ones, or another series; they are scaled like
            the training series. Adaptive intervals adapt to the errors on the newer values.
        past, future : as for `fit`

        Returns
        -------
        Forecaster, whose `predict` continues these values

        Examples
        --------
        >>> import numpy as np
        >>> import rnn_xp as rx
        >>> series = np.sin(np.arange(120) / 5.0)
        >>> f = rx.Forecaster(hidden_size=4, epochs=5, verbose=False).fit(series[:100])
        >>> bool(np.isclose(f.apply(series[:110]).predict()[0], series[110], atol=0.1))
        True
        """
        panel = as_panel(series).in_order_of(self.fitted.panel.names)
        return _with(self.fitted.apply(panel, past, future))

    def evaluate(
        self, series: Any, *, past: Any = None, future: Any = None, stride: int = 1
    ) -> Backtest:
        """Score forecasts of values that follow the training series.

        Parameters
        ----------
        series : as for `fit`
            The complete series: the training values **and** the values after them.
        past, future : as for `fit`, for all rows of the complete series
        stride : int
            Number of steps between two forecasts.

        Returns
        -------
        Backtest
        """
        return self.fitted.evaluate(as_panel(series), past, future, stride)

    def backtest(
        self,
        series: Any,
        start: float | int = 0.8,
        *,
        stride: int = 1,
        retrain: bool | int = False,
        past: Any = None,
        future: Any = None,
        static: Any = None,
    ) -> Backtest:
        """Train on the first part of a series and forecast the rest, from one origin after another.

        This forecaster is not changed. New ones are trained, with the settings of its last fit or,
        before any fit, with its current settings.

        Parameters
        ----------
        series, past, future, static : as for `fit`
        start : float or int
            The first row to forecast, as a fraction of the series (float) or as a row number (int).
        stride : int
            Number of steps between two origins.
        retrain : bool or int
            If an integer n, train again after every n origins on all values known by then; True
            means 1. If False, train once. Adaptive intervals go on from one training to the next,
            while a forecaster that is fitted anew begins with the errors of its own validation.

        Returns
        -------
        Backtest
        """
        settings = self._fitted.settings if hasattr(self, "_fitted") else self.frozen()
        settings.check()
        stride, panel = whole("stride", stride, 1), as_panel(series).described(static)
        panel, tables = check_data(settings, panel, past, future)
        starts = [row_of(start, len(column)) for column in panel.columns]
        quiet = Settings(**{**settings.get_params(), "verbose": False})

        def trained(prepared: Prepared) -> Fitted:
            return Forecaster().fit_prepared(prepared).fitted

        return run(quiet, trained, panel, tables, starts, stride, int(retrain) or None)

    def save(self, path: str | Path) -> None:
        """Write the fitted model to a safetensors file, without the optimiser and the backend.

        Parameters
        ----------
        path : path
        """
        save_fitted(path, self.fitted)

    @classmethod
    def load(cls, path: str | Path, backend: Backend | None = None) -> Forecaster:
        """Read a model that `save` or ``rnn-xp train`` wrote on any backend.

        The result lacks `report_`, `results_`, `refits_` and `history_`, which are not saved.

        Parameters
        ----------
        path : path
            The file, or the folder of a run, whose model.safetensors is read.
        backend : Backend, optional
            Backend of the parameters; by default `rnn_xp.get_backend` selects it.

        Returns
        -------
        Forecaster

        Raises
        ------
        CheckpointError
            If the file is damaged, or of another kind or version.
        """
        return _with(load_fitted(path, get_backend() if backend is None else backend))

    @property
    def fitted(self) -> Fitted:
        """The model of the last fit, which later changes of settings do not affect."""
        if not hasattr(self, "_fitted"):
            raise NotFittedError("this Forecaster is not fitted yet: call fit first.")
        return self._fitted

    @property
    def predictor_(self) -> Predictor:
        """The network, and the parameters for each seed."""
        return self.fitted.predictor


def _with(fitted: Fitted) -> Forecaster:
    """Return a forecaster that holds a fitted model."""
    forecaster = Forecaster(**fitted.settings.get_params())
    forecaster._fitted = fitted
    return forecaster
