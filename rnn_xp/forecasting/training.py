"""Training of a forecaster's networks: what is trained on, and where training starts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rnn_xp import optim
from rnn_xp._typing import Params
from rnn_xp.backend import Backend, to_numpy
from rnn_xp.forecasting.baselines import fit_linear_ar
from rnn_xp.forecasting.design import Design
from rnn_xp.losses import Pinball
from rnn_xp.network import Network
from rnn_xp.optim import Optimizer
from rnn_xp.training.inputs import split_rows
from rnn_xp.training.trainer import fit

__all__ = ["Cut", "cut", "first_validated", "joined", "train"]

_RATE = 0.01  # of Adam, at first

_Floats = NDArray[np.float64]


class Cut(NamedTuple):
    """Windows x (N, T, I), where their values are known (N, T), and targets (N, reach)."""

    x: _Floats
    mask: NDArray[np.bool_]
    y: _Floats


def first_validated(
    rows: int, seq_length: int, offset: int, horizon: int, validation: float
) -> int:
    """Give the row of a series that is the first target of the validation part.

    Raises
    ------
    ValueError
        If the series is too short, saying how many values are missing.

    Examples
    --------
    >>> first_validated(100, seq_length=10, offset=0, horizon=1, validation=0.2)
    82
    """

    def find(n: int) -> int | None:
        windows = n - seq_length - offset - horizon + 1
        try:
            trained, held_out = split_rows(windows, validation, seq_length + horizon - 1)
        except ValueError:
            return None
        return windows - held_out + seq_length + offset if trained >= 2 else None

    if (found := find(rows)) is not None:
        return found
    needed = rows + 1
    while find(needed) is None:
        needed += 1
    raise ValueError(
        f"a series of {rows} values is too short for seq_length={seq_length}, horizon={horizon} "
        f"and validation={validation:g}: at least {needed} are required, {needed - rows} more."
    )


def cut(design: Design, first: int, seq_length: int, horizon: int, reach: int) -> tuple[Cut, Cut]:
    """Cut windows to train on, and windows to validate on, whose targets begin at row ``first``.

    Between the two lie seq_length + horizon - 1 that would share values with both.
    """
    found = []
    for ends in (
        np.arange(seq_length + design.offset, first - seq_length - horizon + 1),
        np.arange(first, len(design.levels) - reach + 1),
    ):
        windows = design.windows(ends, seq_length, reach, design.future[:0])
        y, complete = design.targets(ends, reach)
        if not complete.any():
            raise ValueError("a part of the series has no window whose targets are all known.")
        found.append(Cut(windows.x[complete], windows.mask[complete], y[complete]))
    return found[0], found[1]


def joined(parts: Sequence[Cut]) -> Cut:
    """Windows of all series as one."""
    return Cut(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def train(
    net: Network,
    trained: Cut,
    validated: Cut,
    quantiles: Sequence[float],
    optimizer: Optimizer | None,
    backend: Backend,
    **options: Any,
) -> tuple[Params, dict[str, list[float]]]:
    """Train a network, and keep the parameters with the lowest validation loss.

    Parameters
    ----------
    net : Network
    trained, validated : Cut
    quantiles : sequence of float
        (0.5,) for the mean squared error, or several for the pinball loss.
    optimizer : Optimizer, optional
        L-BFGS by default; Adam for quantiles, whose loss has kinks.
    backend : Backend
    **options : for `rnn_xp.fit`

    Returns
    -------
    params : Params
    history : dict
    """
    several = len(quantiles) > 1
    reach = trained.y.shape[1]
    if optimizer is None:
        rate = optim.Cosine(_RATE, options["epochs"])
        optimizer = optim.adam(rate) if several else optim.lbfgs()
    masked = not (trained.mask.all() and validated.mask.all())

    def data(part: Cut) -> dict[str, Any]:
        y = np.repeat(part.y, len(quantiles), axis=1)
        given = {
            name: np.ascontiguousarray(array, dtype=backend.dtype_name)
            for name, array in (("x", part.x), ("y", y))
        }
        return {**given, "mask": part.mask} if masked else given

    result = fit(
        net, **data(trained), optimizer=optimizer,
        loss=Pinball(tuple(quantiles) * reach) if several else "mse",
        validation=data(validated), backend=backend,
        params=_linear_start(net, trained, quantiles, options["seed"], backend), **options,
    )  # fmt: skip
    params = result.params if result.best_params is None else result.best_params
    return params, result.history


def _linear_start(
    net: Network, trained: Cut, quantiles: Sequence[float], seed: int, backend: Backend
) -> Params | None:
    """Parameters that make the network the linear autoregression of least squares.

    The readout of the cells starts at zero, so that they add nothing yet; their own weights are
    drawn as always.
    """
    if not net.linear_lags:
        return None
    params = {name: to_numpy(p) for name, p in net.init(seed, backend).items()}
    model = fit_linear_ar(trained.x, trained.y)
    weights = np.moveaxis(model.coef, -1, 0).reshape(trained.y.shape[1], -1)
    params["readout.w_xy"] = np.repeat(weights, len(quantiles), axis=0)
    params["readout.w_hy"] = np.zeros_like(params["readout.w_hy"])
    residuals = trained.y - model.predict(trained.x)
    shifts = np.quantile(residuals, quantiles, axis=0).T if len(quantiles) > 1 else 0.0
    params["readout.b_y"] = np.ravel(model.intercept[:, None] + shifts)
    return {name: backend.asarray(p) for name, p in params.items()}
