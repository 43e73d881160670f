"""Training of a forecaster's networks: the windows, the optimiser and the start."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rnn_xp import optim
from rnn_xp._checks import Argument, ParameterError
from rnn_xp._typing import Params
from rnn_xp.backend import Backend, to_numpy
from rnn_xp.data.windows import num_windows
from rnn_xp.distributed import Comm
from rnn_xp.forecasting.baselines import fit_linear_ar
from rnn_xp.forecasting.design import Design
from rnn_xp.forecasting.settings import Settings
from rnn_xp.losses import Pinball
from rnn_xp.network import Network
from rnn_xp.optim import Optimizer
from rnn_xp.training.inputs import split_rows
from rnn_xp.training.result import FitResult
from rnn_xp.training.trainer import fit

__all__ = ["Cut", "cut", "default_optimizer", "first_validated", "joined", "linear_start", "train"]

_RATE = 0.01  # of Adam, at first

_Floats = NDArray[np.float64]


class Cut(NamedTuple):
    """Windows x (N, T, I), a mask of their known values (N, T), and targets (N, reach)."""

    x: _Floats
    mask: NDArray[np.bool_]
    y: _Floats


def first_validated(
    rows: int, seq_length: int, offset: int, horizon: int, validation: float | None
) -> int:
    """Return the row of a series that is the first target of the validation part.

    Parameters
    ----------
    rows, seq_length, offset, horizon : int
        Number of values of the series, T, number of rows that differencing removes, and number of
        steps ahead.
    validation : float or None
        Fraction of the windows to validate on. If None, there is no validation and the result is
        ``rows``.

    Returns
    -------
    int

    Raises
    ------
    ParameterError
        If the series is too short; the message says how many more values are required.

    Examples
    --------
    >>> first_validated(100, seq_length=10, offset=0, horizon=1, validation=0.2)
    82
    """
    if validation is None:
        num_windows(rows - offset, seq_length, horizon)
        return rows

    def find(n: int) -> int | None:
        windows = n - seq_length - offset - horizon + 1
        try:
            trained, held_out = split_rows(windows, validation, seq_length + horizon - 1)
        except ValueError:
            return None
        return windows - held_out + seq_length + offset if trained >= 2 else None

    if (first := find(rows)) is not None:
        return first
    needed = rows + 1
    while find(needed) is None:
        needed += 1
    raise ParameterError(
        f"a series of {rows} values is too short for {{0}}, {{1}} and {{2}}: at least {needed} are "
        f"required, {needed - rows} more.",
        Argument("seq_length", seq_length),
        Argument("horizon", horizon),
        Argument("validation", validation),
    )


def cut(
    design: Design, first: int, seq_length: int, horizon: int, reach: int, validate: bool = True
) -> tuple[Cut, Cut | None]:
    """Cut windows to train on, and windows to validate on.

    Parameters
    ----------
    design : Design
    first : int
        First row of the targets to validate on. The seq_length + horizon - 1 windows between the
        two parts are left out, because they share values with both.
    seq_length, horizon, reach : int
        T, the number of steps ahead, and the number of steps that the network forecasts at once.
    validate : bool
        If False, all windows are trained on.

    Returns
    -------
    trained : Cut
    validated : Cut or None
    """
    last = len(design.levels) - reach + 1
    begin = seq_length + design.offset
    ends = [np.arange(begin, last)]
    if validate:
        ends = [np.arange(begin, first - seq_length - horizon + 1), np.arange(first, last)]
    cuts = []
    for rows in ends:
        windows = design.windows(rows, seq_length, reach, design.future[:0])
        y, complete = design.targets(rows, reach)
        if not complete.any():
            raise ValueError("a part of the series has no window whose targets are all known.")
        cuts.append(Cut(windows.x[complete], windows.mask[complete], y[complete]))
    return cuts[0], cuts[1] if validate else None


def joined(parts: Sequence[Cut]) -> Cut:
    """Join the windows of all series."""
    return Cut(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def default_optimizer(settings: Settings, net: Network, rows: int) -> Optimizer:
    """Return the optimiser for a number of windows.

    It is that of `rnn_xp.optim.suited` for the full batch, and Adam with a cosine schedule over all
    updates if the loss has kinks (quantiles) or noise (minibatches, dropout).
    """
    batch = settings.batch_size or rows
    exact = batch >= rows and not (settings.dropout or settings.recurrent_dropout)
    if exact and settings.intervals != "quantile":
        return optim.suited(net.num_parameters, rows, net.output_size)
    return optim.adam(optim.Cosine(_RATE, settings.epochs * -(-rows // batch)))


def train(
    settings: Settings, net: Network, trained: Cut, validated: Cut | None, backend: Backend,
    seed: int, *, path: Any = None, epochs: int | None = None, resume: Any = None,
    comm: Comm | None = None, **arguments: Any,
) -> FitResult:  # fmt: skip
    """Train one network.

    Parameters
    ----------
    settings : Settings
    net : Network
    trained : Cut
    validated : Cut or None
    backend : Backend
    seed : int
    path : tuple of ndarray, optional
        The linear path to start from, see `rnn_xp.forecasting.prepared.Prepared`.
    epochs : int, optional
        Number of epochs; by default ``settings.epochs``. The schedule of the default optimiser is
        that of ``settings.epochs`` in any case.
    resume, comm, **arguments : as for `rnn_xp.fit`

    Returns
    -------
    FitResult
    """
    quantiles = settings.levels_of_quantiles
    parts = [part for part in (trained, validated) if part is not None]
    masked = not (net.linear_lags or all(part.mask.all() for part in parts))

    def data(part: Cut) -> dict[str, Any]:
        y = np.repeat(part.y, len(quantiles), axis=1)
        arrays: dict[str, Any] = {
            name: np.ascontiguousarray(array, dtype=backend.dtype_name)
            for name, array in (("x", part.x), ("y", y))
        }
        return {**arrays, "mask": part.mask} if masked else arrays

    start = None
    if net.linear_lags and resume is None:
        start = linear_start(net, trained, quantiles, seed, backend, comm, path)
    return fit(
        net, **data(trained),
        optimizer=settings.optimizer or default_optimizer(settings, net, len(trained.x)),
        loss=Pinball(tuple(quantiles) * settings.reach) if len(quantiles) > 1 else "mse",
        validation=None if validated is None else data(validated),
        epochs=settings.epochs if epochs is None else epochs, batch_size=settings.batch_size,
        patience=settings.patience if epochs is None else None,
        backend=backend, params=start, seed=seed, resume=resume, comm=comm, **arguments,
    )  # fmt: skip


def linear_start(
    net: Network, trained: Cut, quantiles: Sequence[float], seed: int, backend: Backend,
    comm: Comm | None, path: Any = None,
) -> Params:  # fmt: skip
    """Return parameters with which the network equals the linear path.

    Without a given one, because there are features, it is the least-squares autoregression for
    each step, fitted on the windows without a gap, unless they are fewer than its coefficients:
    then estimates stand for missing values, see `rnn_xp.forecasting.gaps`. The readout of the cells
    starts at zero, so their output is zero at first; their other weights are drawn as usual. All
    ranks use the numbers of the first rank, because the last digits of a
    solver may differ between machines.
    """
    params = {name: to_numpy(p) for name, p in net.init(seed, backend).items()}
    seen = np.flatnonzero(trained.mask.all(axis=1))
    if len(seen) <= trained.x[0].size:
        seen = np.arange(len(trained.x))
    if path is None:
        model = fit_linear_ar(trained.x[seen], trained.y[seen])
        weights = np.moveaxis(model.coef, -1, 0).reshape(trained.y.shape[1], -1)
        intercept = model.intercept
    else:
        lags, intercept = path
        weights = np.zeros((len(lags), *trained.x.shape[1:]))
        weights[:, :, 0] = lags
        weights = weights.reshape(len(lags), -1)
    flat = trained.x[seen].reshape(len(seen), -1)
    residuals = trained.y[seen] - (flat @ weights.T + intercept)
    shifts = np.quantile(residuals, quantiles, axis=0).T if len(quantiles) > 1 else 0.0
    start = {
        "readout.w_xy": np.repeat(weights, len(quantiles), axis=0),
        "readout.b_y": np.ravel(intercept[:, None] + shifts),
    }
    if comm is not None:
        start = {name: comm.gather(p.ravel())[0].reshape(p.shape) for name, p in start.items()}
    params |= {**start, "readout.w_hy": np.zeros_like(params["readout.w_hy"])}
    return {name: backend.asarray(p) for name, p in params.items()}
