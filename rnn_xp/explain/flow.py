"""How the gradient changes on its way back through time: vanishing and exploding, in numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnn_xp._typing import Array, Loss, Params
from rnn_xp.backend import to_numpy
from rnn_xp.network import Network

__all__ = ["GradientFlow", "measure_flow"]

_Floats = NDArray[np.float64]

# From the first step to the last, a factor of ten is called vanishing or exploding.
_FACTOR = 10.0


@dataclass(frozen=True)
class GradientFlow:
    """Norms of gradients at each time step, on the host, arrays (T,) by layer.

    Attributes
    ----------
    loss : float
    dh : dict of str to ndarray
        |dL/dh_t| over the whole batch. Keys "layer0", "layer0.reverse", ...; with feedback
        only "prediction", for |dL/dpred_t|.
    terms : dict of str to ndarray
        Norm of each step's term of dL/dw_hh. Keys "layer0", ...
    shares : dict of str to ndarray
        How much each term contributes to dL/dw_hh, along its direction; they add up to 1, and one
        that pulls the other way is negative.
    every_step : bool
        Whether the loss enters at every step and not only at the last.
    """

    loss: float
    dh: dict[str, _Floats]
    terms: dict[str, _Floats]
    shares: dict[str, _Floats]
    every_step: bool

    def relative(self, name: str) -> _Floats:
        """|dL/dh_t| relative to the step where the way back begins: the last, reversed the first.

        NaN where no gradient arrives there.
        """
        dh = self.dh[name]
        start = dh[0 if name.endswith("reverse") else -1]
        return dh / start if start > 0.0 else np.full(dh.shape, np.nan)

    def factor(self, name: str) -> float:
        """By what |dL/dh_t| is multiplied with each step back, the geometric mean; NaN for T = 1."""
        steps = len(self.dh[name]) - 1
        end = self.relative(name)[-1 if name.endswith("reverse") else 0]
        return float(end ** (1.0 / steps)) if steps else float("nan")

    def verdict(self, name: str) -> str:
        """Say in a sentence whether the gradient vanishes, explodes or stays."""
        what = "|dL/dpred_t|" if name == "prediction" else "|dL/dh_t|"
        dh, steps = self.dh[name], len(self.dh[name]) - 1
        if not np.isfinite(dh).all():
            return f"{name}: gradients explode: {what} is no longer finite."
        if not steps:
            return f"{name}: a single step, so nothing flows back through time."
        if not dh.any():
            return f"{name}: no gradient at all: the loss does not change with this layer."
        end, factor = self.relative(name)[-1 if name.endswith("reverse") else 0], self.factor(name)
        if np.isnan(end):
            return f"{name}: no gradient at the step where the way back begins."
        kind = "stay within a factor of ten"
        if end <= 1.0 / _FACTOR:
            kind = "vanish"
        elif end >= _FACTOR:
            kind = "explode"
        there = "from step 1 to step T" if name.endswith("reverse") else "from step T back to step 1"
        sentence = (
            f"{name}: gradients {kind}: {there}, {what} is multiplied by {factor:.3g} per step, "
            f"by {end:.3g} over {steps} step{'s' if steps > 1 else ''}."
        )
        if self.every_step:
            sentence += " (The loss enters at every step; this is its sum with what comes back.)"
        return sentence

    def table(self, name: str, most: int = 20) -> list[str]:
        """Lay the numbers of a layer out as lines; of many steps, evenly spaced ones."""
        names = ["prediction"] if name == "prediction" else [name]
        dh, terms = self.dh.get(name), self.terms.get(name)
        steps = len(next(iter(self.dh.values())))
        shown = sorted({round(i) for i in np.linspace(0, steps - 1, min(most, steps))})
        heading = f"{names[0]:>4}"
        return [heading, *(f"{t}" for t in shown if dh is not None or terms is not None)]


def measure_flow(
    net: Network, params: Params, x: Array, y: Array, loss: str | Loss = "mse"
) -> GradientFlow:
    """Measure the gradient at each step, without dropout.

    Parameters
    ----------
    net : Network
    params : Params
    x, y : Array
        As for `Network.value_and_grad`, on any backend.
    loss : str or callable

    Returns
    -------
    GradientFlow

    Examples
    --------
    >>> import numpy as np
    >>> net = Network(hidden_size=4)
    >>> params = net.init(seed=0)
    >>> x, y = np.ones((3, 5, 1), dtype=np.float32), np.ones((3, 1), dtype=np.float32)
    >>> flow = measure_flow(net, params, x, y)
    >>> flow.dh["layer0"].shape, float(flow.terms["layer0"][0])  # h_0 is zero
    ((5,), 0.0)
    """
