"""`Forecaster`: from a series to forecasts with intervals, and to the truth about them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnn_xp.backend import Backend, get_backend
from rnn_xp.forecasting.backtest import (
    Backtest,
    Judged,
    judge,
    judge_forecasts,
    row_of,
    run,
)
from rnn_xp.forecasting.design import make_design
from rnn_xp.forecasting.files import load_into, save_to
from rnn_xp.forecasting.intervals import check_level, conformal_radii
from rnn_xp.forecasting.panel import Panel, as_panel
from rnn_xp.forecasting.predictor import Predictor
from rnn_xp.forecasting.settings import Settings, check_ahead, check_data
from rnn_xp.forecasting.training import cut, first_validated, joined, train
from rnn_xp.network import Network

__all__ = ["Forecaster"]

_Floats = NDArray[np.float64]


class Forecaster(Settings):
    """Forecast a series, or several with one network, by a recurrent network beside a linear path.

    Each forecast is a linear autoregression plus what a recurrent network adds to it. Training
    starts from the autoregression that least squares give, with a network that adds nothing, so
    what is learnt comes on top. The last part of the series is kept for validation: it chooses the
    epoch, and its errors make the intervals.

    Parameters
    ----------
    seq_length : int
        T, values that a forecast is made from.
    horizon : int
        Steps ahead that are trained and judged.
    cell, hidden_size, num_layers : as for `rnn_xp.Network`
    strategy : {"direct", "recursive"}
        One output for each step of the horizon; or a network for one step that is fed with its own
        forecasts.
    target : {"level", "diff", "logret"}
        What the network forecasts, see `rnn_xp.forecasting.targets`. A series with a trend needs
        one of the latter two.
    linear : bool
        Whether there is a linear path.
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
        L-BFGS by default; Adam with a cosine schedule for quantiles.
    epochs, batch_size, patience : as for `rnn_xp.fit`
    validation : float
        Share of the windows to validate on, the last ones, after a gap.
    n_seeds : int
        Networks from different seeds, whose mean is the forecast.
    random_state : int
    backend : Backend, optional
        `rnn_xp.get_backend` by default.
    verbose : bool
        Whether `fit` prints how the forecasts of the validation part compare with the baselines.

    Attributes
    ----------
    report_ : Backtest
        Of the validation part. It has chosen the epoch, so this flatters a little; `backtest` does
        not.
    predictor_ : rnn_xp.forecasting.predictor.Predictor
        The network, and its parameters by seed.
    history_ : list of dict
        Of the trainings, see `rnn_xp.FitResult`.

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

    def fit(self, series: Any, *, past: Any = None, future: Any = None) -> Forecaster:
        """Train.

        Parameters
        ----------
        series : list, array (n,), pandas Series or `rnn_xp.data.datasets.Series`
            In time order. Several series: array (n, S), DataFrame, or mapping of names to series.
        past : array (n, k) or DataFrame, or mapping of names to those, optional
            Features that are known up to now. One for all series, or one for each.
        future : array (n, k) or DataFrame, or mapping of names to those, optional
            Features that are known ahead, such as the calendar; `predict` needs those to come.

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
        self.check()
        return self.fit_panel(as_panel(series), past, future)

    def fit_panel(self, panel: Panel, past: Any, future: Any) -> Forecaster:
        """`fit` of series that have been read."""
        tables = check_data(self, panel, past, future)
        reach, quantiles = self.reach, self.levels_of_quantiles
        first = [
            first_validated(
                len(column), self.seq_length, self.target != "level", self.horizon, self.validation
            )
            for column in panel.columns
        ]
        designs = [
            make_design(column, p, f, target=self.target, scaler=self.scaler, train=at)
            for column, p, f, at in zip(panel.columns, *tables, first, strict=True)
        ]
        cuts = [
            cut(design, at, self.seq_length, self.horizon, reach)
            for design, at in zip(designs, first, strict=True)
        ]
        trained, validated = (joined([each[k] for each in cuts]) for k in (0, 1))
        net = Network(
            cell=self.cell, input_size=trained.x.shape[2], hidden_size=self.hidden_size,
            num_layers=self.num_layers, output_size=reach * len(quantiles),
            linear_lags=self.seq_length if self.linear else 0,
        )  # fmt: skip
        backend = get_backend() if self.backend is None else self.backend
        found = [
            train(
                net, trained, validated, quantiles, self.optimizer, backend, epochs=self.epochs,
                batch_size=self.batch_size, patience=self.patience, seed=self.random_state + k,
            )
            for k in range(self.n_seeds)
        ]  # fmt: skip
        networks, history = (list(each) for each in zip(*found, strict=True))
        predictor = Predictor(net, networks, backend, self.seq_length, reach, len(quantiles))
        parts = judge_forecasts(self, predictor, panel, designs, first)
        report = judge(parts, self.cell, None)
        # From here on nothing can fail: an earlier fit is replaced as a whole.
        self.predictor_, self.history_, self.report_ = predictor, history, report
        self._panel, self._designs = panel, designs
        self._rows = [len(column) for column in panel.columns]
        self._errors = np.concatenate(
            [
                np.abs(part.truth - part.forecast) / design.unit
                for part, design in zip(parts, designs, strict=True)
            ]
        )
        if self.verbose:
            part = f"validation part, the last {100 * self.validation:g} % of the windows"
            sys.stdout.write(f"{part}:\n{self.report_}\n")
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
        found = self._ahead(steps, future)
        return self._panel.restore([levels[0, :, levels.shape[2] // 2] for levels in found])

    def predict_interval(
        self, steps: int | None = None, *, level: float | None = None, future: Any = None
    ) -> tuple[Any, Any]:
        """Lower and upper ends of prediction intervals.

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
        level = self.level if level is None else level
        check_level(level)
        if self.intervals is None:
            raise ValueError("there are no intervals: intervals=None.")
        if self.intervals == "quantile" and level != self.level:
            raise ValueError(f"quantiles were trained for level={self.level:g} alone.")
        found = self._ahead(steps, future)
        count = found[0].shape[1]
        if count > self.horizon:
            raise ValueError(
                f"intervals reach {self.horizon} steps, the horizon that errors are known of; "
                f"got steps={count}. Train with a longer horizon."
            )
        sides = []
        for sign, side in ((-1.0, 0), (1.0, -1)):
            ends = []
            for levels, design in zip(found, self._designs, strict=True):
                if self.intervals == "quantile":
                    ends.append(levels[0, :, side])
                    continue
                radii = conformal_radii(self._errors, level)[:count] * design.unit
                ends.append(levels[0, :, 0] + sign * radii)
            sides.append(self._panel.restore(ends))
        return sides[0], sides[1]

    def _ahead(self, steps: int | None, future: Any) -> list[_Floats]:
        """Forecasts (1, steps, Q) of each series from its end."""
        self._require_fit()
        steps, tables = check_ahead(self, steps, future, self._designs[0], self._panel.names)
        found = []
        for design, table in zip(self._designs, tables, strict=True):
            ahead, end = design.scaled_future(table), np.asarray([len(design.levels)])
            windows = design.windows(end, self.seq_length, self.reach, ahead)
            found.append(self.predictor_.forecast(design, windows, ahead[None], steps))
        return found

    def evaluate(
        self, series: Any, *, past: Any = None, future: Any = None, stride: int = 1
    ) -> Backtest:
        """Judge forecasts of values that came after those that were trained on.

        Parameters
        ----------
        series : as for `fit`
            Those that were trained on **and** what came after, whole.
        past, future : as for `fit`, for the whole
        stride : int
            Steps between two forecasts.

        Returns
        -------
        Backtest
        """
        self._require_fit()
        panel, ends = as_panel(series), self._rows
        if panel.names != self._panel.names:
            raise ValueError(f"the series must be those of fit, {', '.join(self._panel.names)}.")
        return self.evaluate_rows(panel, past, future, ends, stride)

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

        This forecaster is left as it is; copies of it are trained.

        Parameters
        ----------
        series, past, future : as for `fit`
        start : float or int
            Where the rest begins: a share, or a row.
        stride : int
            Steps between two origins.
        retrain : bool or int
            Never after the first training; or after every so many origins, True being one, on all
            that is known by then.

        Returns
        -------
        Backtest
        """
        self.check()
        panel = as_panel(series)
        if isinstance(stride, bool) or not isinstance(stride, int) or stride < 1:
            raise ValueError(f"stride must be an integer >= 1, got {stride!r}.")
        tables = check_data(self, panel, past, future)
        starts = [row_of(start, len(column)) for column in panel.columns]
        every = int(retrain) if retrain else None
        return run(self, panel, tables, starts, stride, every)

    def save(self, path: str | Path) -> None:
        """Write what was fitted to a safetensors file; not the optimizer and the backend.

        Parameters
        ----------
        path : path
        """
        self._require_fit()
        save_to(path, self)

    @classmethod
    def load(cls, path: str | Path, backend: Backend | None = None) -> Forecaster:
        """Read what `save` wrote, on any backend.

        It has all but `report_` and `history_`.

        Parameters
        ----------
        path : path
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
        loaded = cls()
        load_into(loaded, path, backend)
        return loaded

    def evaluate_rows(
        self, panel: Panel, past: Any, future: Any, starts: list[int], stride: int
    ) -> Backtest:
        """Judge forecasts of every series from these rows on."""
        parts = self.judge_rows(panel, past, future, starts, stride)
        if missing := set(panel.names) - {part.name for part in parts}:
            raise ValueError(
                f"{min(missing)!r} has nowhere {self.horizon} new values together, as judging a "
                "forecast of so many steps needs."
            )
        level = None if self.intervals is None else self.level
        return judge(parts, self.cell, level)

    def judge_rows(
        self, panel: Panel, past: Any, future: Any, starts: list[int], stride: int,
        most: int | None = None,
    ) -> tuple[Judged, ...]:  # fmt: skip
        """Forecast from these rows on, ``most`` times, with the scalers that were fitted."""
        tables = check_data(self, panel, past, future)
        designs = [
            make_design(c, p, f, target=self.target, scaler=own.scaler, unit=own.unit, train=0)
            for c, p, f, own in zip(panel.columns, *tables, self._designs, strict=True)
        ]
        return judge_forecasts(
            self, self.predictor_, panel, designs, starts, stride, most, self._errors
        )

    def _require_fit(self) -> None:
        if not hasattr(self, "predictor_"):
            raise ValueError("this Forecaster is not fitted yet: call fit first.")
