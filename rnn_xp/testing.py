"""The public gradient checker, which compares a gradient with the derivative of its function.

There are two oracles, neither of which knows anything about backpropagation:

complex step (default)
    ``imag(f(p + 1e-30j * u)) / 1e-30``. There is no subtraction, so no digits cancel, and the
    result is exact to rounding, 1e-16 relative. f must be analytic.
central difference
    ``(f(p + h * u) - f(p - h * u)) / (2 * h)``, exact to about 1e-10 relative in float64. It suits
    functions with kinks, away from the kinks.

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
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rnn_xp._typing import Array, Loss, Params, State
from rnn_xp.backend import backend_of, to_numpy
from rnn_xp.losses import resolve_loss
from rnn_xp.network import Network, pipeline
from rnn_xp.network.call import Options
from rnn_xp.network.sequence import map_state

__all__ = [
    "TOLERANCE",
    "GradientError",
    "WorstEntry",
    "check_gradients",
    "compare_gradients",
    "worst_entry",
]

_STEP = {"complex_step": 1e-30, "central_difference": 1e-5}
TOLERANCE: dict[tuple[str, str], float] = {
    ("complex_step", "float64"): 1e-12,
    ("central_difference", "float64"): 1e-7,
    ("complex_step", "float32"): 2e-5,
    ("central_difference", "float32"): 2e-5,
}
"""Largest relative error that is allowed, by method and dtype."""

_Arguments = dict[str, NDArray[Any]]


class GradientError(AssertionError):
    """A gradient differs from the derivative of its function."""


class WorstEntry(NamedTuple):
    """The entry of an array whose gradient is furthest from the derivative.

    Attributes
    ----------
    error : float
        Error, relative to the largest gradient or derivative of the array.
    at : tuple of int
        Index of the entry.
    gradient, derivative : float
    entries : int
        Number of entries that were compared.
    """

    error: float
    at: tuple[int, ...]
    gradient: float
    derivative: float
    entries: int


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

    This checks `Network.value_and_grad`, its value included, and `Network.vjp` with an upstream
    gradient of the final state: with respect to every parameter, the input ``"x"`` and, if given,
    the initial state.

    Parameters
    ----------
    net : Network
    params : Params
    x, y, loss, sample_weight : as for `Network.value_and_grad`
        A loss of your own must accept NumPy arrays as well.
    state : NamedTuple, optional
        Initial state. If given, its gradient is checked as well.
    dropout_seed : int, optional
        If given, check with dropout, whose masks are drawn from this seed.
    method : {"complex_step", "central_difference"}
        Use the second for losses or activations with kinks.
    every_entry : bool
        If True, compare every entry, at the cost of one evaluation for each. If False, compare
        along one random direction for each array: an error in any entry changes the derivative,
        by more than the tolerance unless the entry is tiny compared with the array's others.
    tolerance : float, optional
        Largest relative error allowed: by default 1e-12 (complex step, float64), 1e-7 (central
        difference, float64) or 2e-5 (float32).
    seed : int
        Seed of the random directions.
    **batch
        ``lengths``, ``mask`` and ``reset``, as for `Network.value_and_grad`.

    Returns
    -------
    dict of str to float
        Relative error of each array. Four rounding units of the largest gradient of all arrays do
        not count as an error in another array.

    Raises
    ------
    GradientError
        If an error exceeds the tolerance; the message names the worst entry, its gradient and the
        derivative.

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

    # As in training: the loss, with respect to the parameters.
    value, grads = net.value_and_grad(
        params, x, y, loss, sample_weight, state=state, rng=noise(), **batch
    )
    # And everything else: the loss plus a random function of the final state, with respect to all.
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
    on_host: dict[str, Any] = {name: to_numpy(array) for name, array in batch.items()}
    host_y, host_weight = _double(y), None if weight is None else _double(weight)
    host_dstate = map_state(_double, dstate)

    def function(at: _Arguments, *, with_state: bool = False) -> Any:
        # The other arguments are held fixed, in the one dtype that all arguments must share.
        dtype = next(iter(at.values())).dtype
        at = {name: array.astype(dtype) for name, array in (host | inputs).items()} | at
        initial = None if state is None else type(state)(*(at[name] for name in _fields(state)))
        weights = {name: at[name] for name in net.shapes}
        pred, final, _ = net.vjp(weights, at["x"], initial, rng=noise(), **on_host, **steps)
        total = loss(pred, host_y, host_weight)[0]
        if with_state:
            total = total + sum(np.sum(a * b) for a, b in zip(final, host_dstate, strict=True))
        return total

    def compare(function: Any, arguments: _Arguments, tested: Any) -> dict[str, float]:
        gradients = {name: to_numpy(tested[name]) for name in arguments}
        # An array whose gradients nearly vanish compared with the others, such as the input's below
        # a layer normalisation, cannot have more digits than the terms that cancel in it.
        return compare_gradients(
            function, arguments, gradients,
            method=method, every_entry=every_entry, tolerance=tolerance, seed=seed,
            rounding_units=4.0,
        )  # fmt: skip

    errors = compare(function, host, grads)
    _compare_values(
        to_numpy(value), function({name: _double(param) for name, param in host.items()}), tolerance
    )
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
        Function of a dict like ``arguments`` that returns a scalar. For the complex step it must be
        analytic and take complex arrays: ``e * e`` instead of ``abs(e)**2``, and no comparison of
        complex values.
    arguments : mapping of str to ndarray
        The point at which to differentiate. The function receives all arguments in float64 or, for
        the complex step, in complex128.
    gradients : mapping of str to ndarray
        Gradients to check: for each argument an array of its shape.
    method, every_entry, tolerance, seed : as for `check_gradients`
    rounding_units : float
        Number of rounding units of the largest gradient of all arrays that do not count as an error
        in another array.

    Returns
    -------
    dict of str to float
        Relative errors: for a single entry, relative to the largest entry of the array; for a
        direction u, relative to ``sum(abs(g * u))``.

    Raises
    ------
    GradientError
        If an error exceeds the tolerance, or a gradient has another shape or dtype than its
        argument.

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
        argument_dtype = np.asarray(arguments[name]).dtype
        if gradient.dtype != argument_dtype or argument_dtype.name not in ("float32", "float64"):
            raise GradientError(
                f"the gradient of {name} is {gradient.dtype}, its argument {argument_dtype}; both "
                "must be float32 or both float64."
            )
        usual = TOLERANCE[method, argument_dtype.name]
        allowed = usual if tolerance is None else tolerance
        least = rounding_units * float(np.finfo(argument_dtype).eps) * largest / usual
        if every_entry:
            errors[name] = worst_entry(function, at, name, gradient, method, least=least).error
        else:
            u = rng.standard_normal(value.shape)
            terms = gradient * u
            expected = _derivative(function, at, name, u, method)
            errors[name] = _relative(
                float(np.sum(terms)) - expected, max(float(np.sum(np.abs(terms))), least)
            )
        if not errors[name] <= allowed:
            worst = worst_entry(function, at, name, gradient, method, least=least)
            where = ", ".join(map(str, worst.at))
            raise GradientError(
                f"the gradient of {name} is wrong; worst entry {name}[{where}]: gradient "
                f"{worst.gradient:.9g}, {method.replace('_', ' ')} {worst.derivative:.9g}, "
                f"relative error {worst.error:.2g} (tolerance {allowed:g})."
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


def worst_entry(
    function: Callable[[_Arguments], Any],
    arguments: Mapping[str, NDArray[Any]],
    name: str,
    gradient: NDArray[Any],
    method: str = "complex_step",
    *,
    most: int | None = None,
    least: float = 0.0,
) -> WorstEntry:
    """Differentiate entry by entry, and return the entry whose gradient is furthest off.

    Parameters
    ----------
    function, arguments, method : as for `compare_gradients`
    name : str
        Argument with respect to which the function is differentiated.
    gradient : ndarray
        Gradient with respect to this argument.
    most : int, optional
        Maximum number of entries to compare, evenly spaced; all by default.
    least : float
        Smallest size to which an error is relative.

    Examples
    --------
    >>> w = np.asarray([1.0, 2.0])
    >>> worst_entry(lambda at: np.sum(at["w"] ** 3), {"w": w}, "w", 3 * w).at
    (1,)
    """
    dtype = np.complex128 if method == "complex_step" else np.float64
    at = {key: np.asarray(value).astype(dtype) for key, value in arguments.items()}
    indices = list(np.ndindex(gradient.shape))
    indices = indices[:: 1 if most is None else -(-len(indices) // most)]
    gradients, derivatives = np.zeros(len(indices)), np.zeros(len(indices))
    for i, index in enumerate(indices):
        one = np.zeros(gradient.shape)
        one[index] = 1.0
        gradients[i], derivatives[i] = gradient[index], _derivative(function, at, name, one, method)
    difference = np.abs(gradients - derivatives)
    difference = np.where(np.isnan(difference), np.inf, difference)  # NaN is the worst of all
    i = int(np.argmax(difference))
    scale = max(float(np.max(np.abs(derivatives))), float(np.max(np.abs(gradients))), least)
    error = _relative(float(difference[i]), scale)
    return WorstEntry(error, indices[i], float(gradients[i]), float(derivatives[i]), len(indices))


def _relative(difference: float, scale: Any) -> float:
    """Return the relative error: 0 for 0 / 0, infinite for anything else that is not a number."""
    if difference == 0.0:
        return 0.0
    error = abs(difference) / float(scale) if scale > 0.0 else float("inf")
    return error if np.isfinite(error) else float("inf")


def _compare_values(value: NDArray[Any], expected: Any, tolerance: float | None) -> None:
    allowed = TOLERANCE["complex_step", value.dtype.name] if tolerance is None else tolerance
    error = _relative(float(value) - float(expected), abs(float(expected)))
    if not error <= allowed:
        raise GradientError(
            f"value_and_grad returned the value {float(value):.9g}, but the loss is "
            f"{float(expected):.9g}: relative error {error:.2g} (tolerance {allowed:g})."
        )


def _double(array: Array) -> NDArray[Any]:
    """Copy to the host, with floats in double precision; classes stay integers."""
    host = to_numpy(array)
    return host.astype(np.float64) if host.dtype.kind == "f" else host


def _fields(state: State) -> dict[str, Array]:
    return {f"state.{name}": value for name, value in zip(state._fields, state, strict=True)}
