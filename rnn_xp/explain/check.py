"""Check a network's gradient, and name the entry that is furthest off."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnn_xp._typing import Array, Params
from rnn_xp.backend import to_numpy
from rnn_xp.losses import resolve_loss
from rnn_xp.network import Network
from rnn_xp.testing import TOLERANCE, check_gradients, worst_entry

__all__ = ["GradientCheck", "check_network"]

_Arguments = dict[str, NDArray[Any]]

# Entries that are compared one by one, each at the cost of a forward pass.
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
        Worst entry of the worst array, its gradient, its derivative and their difference.
    ok : bool
        True if no error exceeds the tolerance.
    """

    method: str
    tolerance: float
    errors: dict[str, float]
    worst: str
    ok: bool

    def table(self) -> list[str]:
        """Format the check as lines of text."""
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

    This uses `rnn_xp.testing.check_gradients`, with dropout if the network has any. The oracle is
    the complex step or, for networks with kinks (activation "relu", read "max"), the central
    difference.

    Parameters
    ----------
    net : Network
    params : Params
        Parameters in float64.
    x, y : Array
        A few rows, as for `Network.value_and_grad`.

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
    tolerance = TOLERANCE[method, "float64"]
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

    most = _MOST_ENTRIES if ok else None  # a wrong entry shall be found
    worst = worst_entry(function, at, name, gradient, method, most=most)
    where = ", ".join(map(str, worst.at))
    some = "" if worst.entries == gradient.size else f" (of {worst.entries} entries looked at)"
    text = (
        f"{name}[{where}]{some}: gradient {worst.gradient:.9g}, {method.replace('_', ' ')} "
        f"{worst.derivative:.9g}, difference {abs(worst.gradient - worst.derivative):.1e}"
    )
    return GradientCheck(method, tolerance, errors, text, ok)
