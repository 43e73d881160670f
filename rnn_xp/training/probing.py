"""Probe an array library: its functions, and tiny networks that compute and train beside NumPy.

`fit` asks for the probe of a library that has no adapter, once for each device and dtype, and
refuses by its words a library that does not pass.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from rnn_xp import optim
from rnn_xp._typing import Array, Params
from rnn_xp.backend import Backend, backend_of, to_numpy
from rnn_xp.backend.adapters import ADAPTERS
from rnn_xp.backend.functions import try_functions
from rnn_xp.backend.libraries import first_line
from rnn_xp.network import Network
from rnn_xp.testing import TOLERANCE, check_gradients

__all__ = ["Fit", "Outcome", "Probe", "admit", "run_probe"]

Fit = Callable[..., Any]
"""`rnn_xp.fit`, which is passed on because it asks for the probe itself."""

_NEEDED = ("forward", "value_and_grad", "fit")  # by a training
_NETS = tuple(
    Network(cell=cell, input_size=2, hidden_size=3, output_size=2)
    for cell in ("rnn", "gru", "lstm")
)


class Outcome(NamedTuple):
    """What came of one step of a probe.

    Attributes
    ----------
    error : float
        Largest difference to NumPy, or of a gradient to the derivative, relative to the largest
        entry of its array; NaN if there was no result.
    reason : str
        Why the step does not work; empty if it does.
    """

    error: float
    reason: str


@dataclass(frozen=True)
class Probe:
    """What a library can do, on one device and in one dtype; as text it is a table.

    Attributes
    ----------
    library, version, device, dtype : str
    functions : dict of str to str
        For each function, see `rnn_xp.backend.functions.FUNCTIONS`, the reason why it cannot be
        used, or an empty string.
    outcomes : dict of str to Outcome
        For ``"forward"``, ``"value_and_grad"``, ``"vjp"`` and ``"fit"``, the difference to NumPy;
        for ``"gradient check"``, the error of `rnn_xp.testing.check_gradients`.
    tolerance : float
        The largest error with which a step counts as working.
    """

    library: str
    version: str
    device: str
    dtype: str
    functions: dict[str, str]
    outcomes: dict[str, Outcome]
    tolerance: float

    @property
    def works(self) -> bool:
        """True if all steps work, whatever function is missing for other purposes."""
        return not any(outcome.reason for outcome in self.outcomes.values())

    @property
    def missing(self) -> dict[str, str]:
        """The functions that cannot be used, with the reasons."""
        return {name: reason for name, reason in self.functions.items() if reason}

    def __str__(self) -> str:
        usable = f"{len(self.functions) - len(self.missing)} of {len(self.functions)}"
        lines = [
            f"{self.library} {self.version}, {self.device}, {self.dtype} (to {self.tolerance:.0e})",
            f"  {'functions':15} {usable}",
        ]
        for name, (error, reason) in self.outcomes.items():
            lines.append(f"  {name:15} {reason or f'works to {error:.0e}'}")
        lines += [f"  missing: {name} ({reason})" for name, reason in self.missing.items()]
        return "\n".join(lines)


def run_probe(like: Array, fit: Fit) -> Probe:
    """Probe the library of an array; see `rnn_xp.backends`."""
    backend = backend_of(like)
    tolerance = TOLERANCE["complex_step", backend.dtype_name]
    with _admitted(backend):
        outcomes = {
            name: _outcome(backend, step, _NETS, tolerance, fit) for name, step in _STEPS.items()
        }
    return Probe(
        library=backend.name,
        version=backend.version,
        device=backend.device_name,
        dtype=backend.dtype_name,
        functions=try_functions(like, tolerance),
        outcomes=outcomes,
        tolerance=tolerance,
    )


def admit(backend: Backend, fit: Fit) -> None:
    """Refuse to train on a library without an adapter that does not pass the probe.

    The result is kept for the library, the device and the dtype.

    Raises
    ------
    TypeError
        With the probe's words.
    """
    if backend.name in ADAPTERS:
        return
    key = _key(backend)
    if key not in _REFUSALS:
        with _admitted(backend):
            reason = _refusal(backend, fit)
        _REFUSALS[key] = reason
    if reason := _REFUSALS[key]:
        raise TypeError(
            f"fit: {backend} does not pass the probe: {reason}. rnn_xp.backends(probe=x) prints "
            "all of it. Give the data as NumPy arrays, for instance rnn_xp.backend.to_numpy(x), "
            f"which train on the backend that you choose, one of: {', '.join(ADAPTERS)}."
        )


_REFUSALS: dict[tuple[str, ...], str] = {}


@contextlib.contextmanager
def _admitted(backend: Backend) -> Iterator[None]:
    """Let the training that is part of a probe begin."""
    before = _REFUSALS.get(_key(backend))
    _REFUSALS[_key(backend)] = ""
    try:
        yield
    finally:
        del _REFUSALS[_key(backend)]
        if before is not None:
            _REFUSALS[_key(backend)] = before


def _key(backend: Backend) -> tuple[str, ...]:
    return backend.name, backend.device_name, backend.dtype_name


def _refusal(backend: Backend, fit: Fit) -> str:
    tolerance = TOLERANCE["complex_step", backend.dtype_name]
    for name in _NEEDED:
        reason = _outcome(backend, _STEPS[name], _NETS[:1], tolerance, fit).reason
        if reason:
            return f"{name}: {reason}"
    return ""


def _outcome(
    backend: Backend, step: Any, nets: Sequence[Network], tolerance: float, fit: Fit
) -> Outcome:
    """Run a step for some networks, and keep its largest error or the first reason."""
    worst = 0.0
    for net in nets:
        try:
            error = step(backend, net, fit)
        except Exception as raised:  # a library may fail in any way
            return Outcome(float("nan"), f"{net.cell}: {first_line(raised)}")
        if not error <= tolerance:
            return Outcome(error, f"{net.cell}: wrong by {error:.0e}")
        worst = max(worst, error)
    return Outcome(worst, "")


def _forward(backend: Backend, net: Network, fit: Fit) -> float:
    def compute(params: Params, x: Array, y: Array) -> Iterator[Array]:
        pred, state = net.forward(params, x)
        yield from (pred, *state)

    return _beside_numpy(backend, net, compute)


def _value_and_grad(backend: Backend, net: Network, fit: Fit) -> float:
    def compute(params: Params, x: Array, y: Array) -> Iterator[Array]:
        value, grads = net.value_and_grad(params, x, y)
        yield from (value, *grads.values())

    return _beside_numpy(backend, net, compute)


def _vjp(backend: Backend, net: Network, fit: Fit) -> float:
    def compute(params: Params, x: Array, y: Array) -> Iterator[Array]:
        pred, state, back = net.vjp(params, x)
        grads = back(pred, state)
        yield from grads.pop("state")
        yield from grads.values()

    return _beside_numpy(backend, net, compute)


def _fit(backend: Backend, net: Network, fit: Fit) -> float:
    def compute(params: Params, x: Array, y: Array) -> Iterator[Array]:
        place = backend_of(x)
        result = fit(net, x, y, optimizer=optim.adam(0.01), epochs=2, params=params, backend=place)
        yield from result.params.values()
        yield np.asarray(result.history["loss"])

    return _beside_numpy(backend, net, compute)


def _gradient_check(backend: Backend, net: Network, fit: Fit) -> float:
    params, x, y = _data(backend, net)
    return max(check_gradients(net, params, x, y, tolerance=float("inf")).values())


_STEPS = {
    "forward": _forward,
    "value_and_grad": _value_and_grad,
    "vjp": _vjp,
    "fit": _fit,
    "gradient check": _gradient_check,
}


def _beside_numpy(backend: Backend, net: Network, compute: Any) -> float:
    """Return the largest difference between the arrays that are computed here and on NumPy."""
    there = _data(backend, net)
    here = map(to_numpy, compute(*there))
    params, x, y = there
    reference = {name: to_numpy(array) for name, array in params.items()}
    errors = []
    for got, want in zip(here, compute(reference, to_numpy(x), to_numpy(y)), strict=True):
        if got.dtype != want.dtype or got.shape != want.shape:
            raise TypeError(f"{got.dtype}{got.shape} instead of {want.dtype}{want.shape}")
        difference = np.where(np.isfinite(got), np.abs(got - want), np.inf)
        errors.append(float(np.max(difference) / max(np.max(np.abs(want)), 1e-300)))
    return max(errors)


def _data(backend: Backend, net: Network) -> tuple[Params, Array, Array]:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((4, 2, 2)), rng.standard_normal((4, 2))
    return net.init(0, backend), backend.asarray(x), backend.asarray(y)
