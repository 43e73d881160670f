"""Check a gradient against the definition of a derivative.

Two oracles, neither of which knows anything about backpropagation:

complex step (default)
    ``imag(f(p + 1e-30j * u)) / 1e-30``. There is no subtraction, so no digits cancel, and the
    result is right to rounding: 1e-16 relative. It needs f to be analytic.
central difference
    ``(f(p + h * u) - f(p - h * u)) / (2 * h)``. Right to about 1e-10 relative in float64. For
    functions with kinks, away from them.

The oracle always runs on the host in double precision; the gradient under test may come from any
library, device and dtype, and is held to the tolerance of its own dtype.

References
----------
.. [1] W. Squire, G. Trapp, "Using complex variables to estimate derivatives of real functions",
       SIAM Review 40 (1998), 110-112.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnn_xp._typing import Array, Loss, Params, State
from rnn_xp.backend import backend_of, to_numpy
from rnn_xp.losses import resolve_loss
from rnn_xp.network import Network, pipeline
from rnn_xp.network.call import Options
from rnn_xp.network.sequence import map_state

__all__ = ["GradientError", "check_gradients", "compare_gradients"]

_STEP = {"complex_step": 1e-30, "central_difference": 1e-5}
_TOLERANCE = {
    ("complex_step", "float64"): 1e-12,
    ("central_difference", "float64"): 1e-7,
    ("complex_step", "float32"): 2e-5,
    ("central_difference", "float32"): 2e-5,
}

_Arguments = dict[str, NDArray[Any]]


class GradientError(AssertionError):
    """A gradient differs from the derivative of its function."""


def check_gradients(
    net: Network,
    params: Params,
    x: Array,
    y: Array,
    *,
    loss: str | Loss = "mse",
    sample_weight: Array | None = None,
    state: State | None = None,
    dropout_seed: int | None = None,
    method: str = "complex_step",
    every_entry: bool = False,
    tolerance: float | None = None,
    seed: int = 0,
    **batch: Array,
) -> dict[str, float]:
    """Check a network's gradients at given parameters and data.

    Of `Network.value_and_grad`, its value included, and of `Network.vjp` with an upstream gradient
    of the final state too: with respect to every parameter, the input ``"x"`` and, if given, the
    initial state.

    Parameters
    ----------
    net : Network
    params : Params
    x, y, loss, sample_weight : as for `Network.value_and_grad`
        A loss of your own must accept NumPy arrays too.
    state : NamedTuple, optional
        Initial state; its gradient is then checked too.
    dropout_seed : int, optional
        Check with dropout, its masks drawn from this seed.
    method : {"complex_step", "central_difference"}
        The second for losses or activations with kinks.
    every_entry : bool
        False: one random direction for each array. An error of any entry changes the derivative
        along it, by more than the tolerance unless the entry is tiny beside its array's others.
        True: every entry by itself, at the price of one evaluation each.
    tolerance : float, optional
        Largest relative error allowed: by default 1e-12 (complex step, float64), 1e-7 (central
        difference, float64) or 2e-5 (float32).
    seed : int
        Of the random directions.
    **batch
        ``lengths``, ``mask`` and ``reset``, as for `Network.value_and_grad`.

    Returns
    -------
    dict of str to float
        The relative error of each array. Four rounding units of the largest gradient of all are
        not counted as an error in another array.

    Raises
    ------
    GradientError
        Naming the worst entry, its gradient and the derivative.

    Examples
    --------
    >>> import numpy as np
    >>> import rnn_xp as rx
    >>> net = rx.Network(input_size=2, hidden_size=4, output_size=1)
    >>> params = net.init(seed=0, backend=rx.get_backend(dtype="float64"))
    >>> rng = np.random.default_rng(0)
    >>> x, y = rng.standard_normal((3, 5, 2)), rng.standard_normal((3, 1))
    >>> errors = check_gradients(net, params, x, y)
    >>> max(errors.values()) < 1e-12
    True
    """
    loss = resolve_loss(loss, net.output_activation)
    steps = {"steps": y.shape[1]} if net.topology == "one_to_many" else {}

    def noise() -> Any:  # the same masks at every call
        return None if dropout_seed is None else np.random.default_rng(dropout_seed)

    # What training uses: the loss, with respect to the parameters.
    value, grads = net.value_and_grad(
        params, x, y, loss, sample_weight, state=state, rng=noise(), **batch
    )
    # What else there is: the loss plus something random of the final state, with respect to all.
    pred, final, back = net.vjp(params, x, state, rng=noise(), **batch, **steps)
    weight = pipeline.loss_weight(net, x, y, sample_weight, Options(**batch))
    rng, backend = np.random.default_rng(seed), backend_of(x)
    dstate = map_state(lambda a: backend.asarray(rng.standard_normal(tuple(a.shape))), final)
    through = back(loss(pred, y, weight)[1], dstate)
    through |= _fields(through["state"])

    host = {name: to_numpy(param) for name, param in params.items()}
    inputs = {"x": to_numpy(x)}
    if state is not None:
        inputs |= {name: to_numpy(field) for name, field in _fields(state).items()}
    given: dict[str, Any] = {name: to_numpy(array) for name, array in batch.items()}
    host_y, host_weight = _double(y), None if weight is None else _double(weight)
    host_dstate = map_state(_double, dstate)

    def function(at: _Arguments, *, with_state: bool = False) -> Any:
        # What is not differentiated is held, in the one dtype that all arguments must share.
        dtype = next(iter(at.values())).dtype
        at = {name: array.astype(dtype) for name, array in (host | inputs).items()} | at
        initial = None if state is None else type(state)(*(at[name] for name in _fields(state)))
        own = {name: at[name] for name in net.shapes}
        pred, final, _ = net.vjp(own, at["x"], initial, rng=noise(), **given, **steps)
        total = loss(pred, host_y, host_weight)[0]
        if with_state:
            total = total + sum(np.sum(a * b) for a, b in zip(final, host_dstate, strict=True))
        return total

    def compare(function: Any, arguments: _Arguments, found: Any) -> dict[str, float]:
        gradients = {name: to_numpy(found[name]) for name in arguments}
        # An array whose gradients are nearly zero beside the others, such as the input's behind a
        # layer normalisation, cannot have more digits than the terms that cancel in it.
        return compare_gradients(
            function, arguments, gradients,
            method=method, every_entry=every_entry, tolerance=tolerance, seed=seed,
            rounding_units=4.0,
        )  # fmt: skip

    errors = compare(function, host, grads)
    _compare_values(to_numpy(value), function(_all_double(host)), tolerance)
    both = functools.partial(function, with_state=True)
    again = compare(both, host | inputs, through)
    return {name: max(error, errors.get(name, 0.0)) for name, error in again.items()}


def compare_gradients(
    function: Callable[[_Arguments], Any],
    arguments: Mapping[str, NDArray[Any]],
    gradients: Mapping[str, NDArray[Any]],
    *,
    method: str = "complex_step",
    every_entry: bool = False,
    tolerance: float | None = None,
    seed: int = 0,
    rounding_units: float = 0.0,
) -> dict[str, float]:
    """Compare gradients with the derivative of any scalar function of NumPy arrays.

    Parameters
    ----------
    function : callable
        From a dict like ``arguments`` to a scalar. For the complex step it must be analytic and
        take complex arrays: ``e * e`` and not ``abs(e)**2``, no comparison of complex values.
    arguments : mapping of str to ndarray
        Where to differentiate. The function is given all of them in float64 or, for the complex
        step, in complex128.
    gradients : mapping of str to ndarray
        What to check: for each argument an array of its shape.
    method, every_entry, tolerance, seed : as for `check_gradients`
    rounding_units : float
        How many units of rounding of the largest gradient of all are no error in another array.

    Returns
    -------
    dict of str to float
        For a single entry the error is relative to the array's largest entry; for a direction u,
        to ``sum(abs(g * u))``.

    Raises
    ------
    GradientError

    Examples
    --------
    >>> def cube(at):
    ...     return np.sum(at["w"] ** 3)
    >>> w = np.asarray([1.0, 2.0])
    >>> sorted(compare_gradients(cube, {"w": w}, {"w": 3 * w**2}))
    ['w']
    >>> compare_gradients(cube, {"w": w}, {"w": 3 * w})
    Traceback (most recent call last):
        ...
    rnn_xp.testing.GradientError: the gradient of w is wrong; worst entry w[1]: gradient 6, \
complex step 12, relative error 0.5 (tolerance 1e-12).
    """
    if method not in _STEP:
        raise ValueError(f"method={method!r} is not known. Valid: {', '.join(map(repr, _STEP))}.")
    rng = np.random.default_rng(seed)
    # All arguments in one dtype: the functions under test refuse to mix them.
    dtype = np.complex128 if method == "complex_step" else np.float64
    at = {name: np.asarray(value).astype(dtype) for name, value in arguments.items()}
    largest = max((float(np.max(np.abs(g), initial=0.0)) for g in gradients.values()), default=0.0)
    errors = {}
    for name, value in at.items():
        gradient = np.asarray(gradients[name])
        if gradient.shape != value.shape:
            raise GradientError(
                f"the gradient of {name} has shape {gradient.shape}, its argument {value.shape}."
            )
        given = np.asarray(arguments[name]).dtype
        if gradient.dtype != given or given.name not in ("float32", "float64"):
            raise GradientError(
                f"the gradient of {name} is {gradient.dtype}, its argument {given}; both must be "
                "float32 or both float64."
            )
        usual = _TOLERANCE[method, given.name]
        allowed = usual if tolerance is None else tolerance
        least = rounding_units * float(np.finfo(given).eps) * largest / usual
        if every_entry:
            errors[name] = _worst_entry(function, at, name, gradient, method, least)[0]
        else:
            u = rng.standard_normal(value.shape)
            terms = gradient * u
            expected = _derivative(function, at, name, u, method)
            errors[name] = _relative(
                float(np.sum(terms)) - expected, max(float(np.sum(np.abs(terms))), least)
            )
        if not errors[name] <= allowed:
            error, index, expected = _worst_entry(function, at, name, gradient, method, least)
            where = ", ".join(map(str, index))
            raise GradientError(
                f"the gradient of {name} is wrong; worst entry {name}[{where}]: gradient "
                f"{gradient[index]:.9g}, {method.replace('_', ' ')} {expected:.9g}, relative "
                f"error {error:.2g} (tolerance {allowed:g})."
            )
    return errors


def _derivative(
    function: Callable[[_Arguments], Any],
    at: _Arguments,
    name: str,
    direction: NDArray[np.float64],
    method: str,
) -> float:
    """Differentiate the function along a direction of one argument."""

    def shifted(step: complex) -> Any:
        return function({**at, name: at[name] + step * direction})

    h = _STEP[method]
    if method == "complex_step":
        return float(np.imag(shifted(h * 1j)) / h)
    h /= float(np.sqrt(np.sum(direction * direction)))
    return float((shifted(h) - shifted(-h)) / (2.0 * h))


def _worst_entry(
    function: Callable[[_Arguments], Any],
    at: _Arguments,
    name: str,
    gradient: NDArray[Any],
    method: str,
    least: float,
) -> tuple[float, tuple[int, ...], float]:
    """Error, index and derivative of the entry that is furthest off."""
    expected = np.zeros(gradient.shape)
    for index in np.ndindex(gradient.shape):
        one = np.zeros(gradient.shape)
        one[index] = 1.0
        expected[index] = _derivative(function, at, name, one, method)
    difference = np.abs(gradient - expected)
    # A gradient that is not finite is the worst of all.
    difference = np.where(np.isfinite(difference), difference, np.inf)
    index = tuple(int(i) for i in np.unravel_index(np.argmax(difference), difference.shape))
    scale = max(float(np.max(np.abs(expected))), float(np.max(np.abs(gradient))), least)
    return _relative(float(difference[index]), scale), index, float(expected[index])


def _relative(difference: float, scale: Any) -> float:
    """Relative error: 0 for 0 / 0, infinite for anything else that is not a number."""
    if difference == 0.0:
        return 0.0
    error = abs(difference) / float(scale) if scale > 0.0 else float("inf")
    return error if np.isfinite(error) else float("inf")


def _compare_values(value: NDArray[Any], expected: Any, tolerance: float | None) -> None:
    allowed = _TOLERANCE["complex_step", value.dtype.name] if tolerance is None else tolerance
    error = _relative(float(value) - float(expected), abs(float(expected)))
    if not error <= allowed:
        raise GradientError(
            f"value_and_grad returned the value {float(value):.9g}, but the loss is "
            f"{float(expected):.9g}: relative error {error:.2g} (tolerance {allowed:g})."
        )


def _all_double(arrays: _Arguments) -> _Arguments:
    return {name: array.astype(np.float64) for name, array in arrays.items()}


def _double(array: Array) -> NDArray[Any]:
    """On the host, floats in double precision; classes stay integers."""
    host = to_numpy(array)
    return host.astype(np.float64) if host.dtype.kind == "f" else host


def _fields(state: State) -> dict[str, Array]:
    return {f"state.{name}": value for name, value in zip(state._fields, state, strict=True)}
