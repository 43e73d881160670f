"""Whether a network's gradient is right, and where it is furthest off."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnn_xp._typing import Array, Params
from rnn_xp.backend import to_numpy
from rnn_xp.losses import resolve_loss
from rnn_xp.network import Network
from rnn_xp.testing import check_gradients

__all__ = ["GradientCheck", "check_network"]

_Floats = NDArray[np.float64]
_Arguments = dict[str, NDArray[Any]]

_TOLERANCE = {"complex_step": 1e-12, "central_difference": 1e-7}
# One forward pass for each entry that is looked at alone.
_MOST_ENTRIES = 2500
_DROPOUT_SEED = 0


@dataclass(frozen=True)
class GradientCheck:
    """Outcome of `check_network`.

    Attributes
    ----------
    method : {"complex_step", "central_difference"}
    tolerance : float
    errors : dict of str to float
        Relative error of each array, along a random direction.
    worst : str
        The worst array's worst entry, its gradient, its derivative and their difference.
    ok : bool
    """

    method: str
    tolerance: float
    errors: dict[str, float]
    worst: str
    ok: bool

    def table(self) -> list[str]:
        """Lay the check out as lines of text."""
        width = max(map(len, self.errors))
        lines = [f"  {name:{width}}  {error:.1e}" for name, error in self.errors.items()]
        outcome = "passed" if self.ok else "FAILED"
        return [
            *lines,
            f"worst    {self.worst}",
            f"check    {outcome}: {self.method.replace('_', ' ')}, tolerance {self.tolerance:g}",
        ]


def check_network(net: Network, params: Params, x: Array, y: Array) -> GradientCheck:
    """Check the gradients of the mean squared error, and name the worst entry.

    With `rnn_xp.testing.check_gradients`, dropout included: against the complex step, or central
    differences where the network has kinks (activation "relu", read "max").

    Parameters
    ----------
    net : Network
    params : Params
        In float64.
    x, y : Array
        Few rows; as for `Network.value_and_grad`.

    Returns
    -------
    GradientCheck

    Examples
    --------
    >>> import rnn_xp as rx
    >>> net = Network(hidden_size=4)
    >>> params = net.init(seed=0, backend=rx.get_backend(dtype="float64"))
    >>> x, y = rx.make_windows([i % 7 / 7 for i in range(12)], seq_length=5)
    >>> check = check_network(net, params, x[:3], y[:3])
    >>> check.ok, sorted(check.errors)[0]
    (True, 'layer0.b_h')
    """
    kinks = net.activation == "relu" or net.read == "max"
    method = "central_difference" if kinks else "complex_step"
    tolerance = _TOLERANCE[method]
    loss = resolve_loss("mse")
    steps = y.shape[1] if net.topology == "one_to_many" else None
    noisy = bool(net.dropout or net.recurrent_dropout)

    def noise() -> Any:  # the same masks at every call
        return np.random.default_rng(_DROPOUT_SEED) if noisy else None

    errors = check_gradients(
        net,
        params,
        x,
        y,
        dropout_seed=_DROPOUT_SEED if noisy else None,
        method=method,
        tolerance=float("inf"),  # so that a wrong array does not hide those after it
    )
    name = max(errors, key=lambda name: errors[name])
    ok = errors[name] <= tolerance

    if name == "x":
        pred, _, back = net.vjp(params, x, rng=noise(), steps=steps)
        gradient = to_numpy(back(loss(pred, y)[1])["x"])
    else:
        gradient = to_numpy(net.value_and_grad(params, x, y, loss, rng=noise())[1][name])
    at = {key: to_numpy(array) for key, array in {**params, "x": x}.items()}
    host_y = to_numpy(y)

    def function(at: _Arguments) -> Any:
        weights = {key: at[key] for key in net.shapes}
        pred, _, _ = net.vjp(weights, at["x"], rng=noise(), steps=steps)
        return loss(pred, host_y)[0]

    most = _MOST_ENTRIES if ok else gradient.size  # one that is wrong shall be found
    worst = name + _worst_entry(function, at, name, gradient, complex_step=not kinks, most=most)
    return GradientCheck(method, tolerance, errors, worst, ok)


def _worst_entry(
    function: Callable[[_Arguments], Any],
    at: _Arguments,
    name: str,
    gradient: _Floats,
    *,
    complex_step: bool,
    most: int,
) -> str:
    """Differentiate entry by entry, and describe the one that is furthest off."""
    step = 1e-30j if complex_step else 1e-5
    at = {key: value.astype(type(step)) for key, value in at.items()}
    every = list(np.ndindex(gradient.shape))
    looked_at = every[:: -(-len(every) // most)]
    found = []
    for index in looked_at:
        shift = np.zeros(gradient.shape, dtype=type(step))
        shift[index] = step
        ahead = function({**at, name: at[name] + shift})
        if complex_step:
            expected = float(np.imag(ahead)) / abs(step)
        else:
            behind = function({**at, name: at[name] - shift})
            expected = float(ahead - behind) / (2.0 * abs(step))
        difference = abs(float(gradient[index]) - expected)
        found.append((difference if np.isfinite(difference) else np.inf, index, expected))
    difference, index, expected = max(found)
    where = ", ".join(map(str, index))
    some = "" if len(looked_at) == len(every) else f" (of {len(looked_at)} entries looked at)"
    return (
        f"[{where}]{some}: gradient {gradient[index]:.9g}, "
        f"{'complex step' if complex_step else 'central difference'} {expected:.9g}, "
        f"difference {difference:.1e}"
    )
