"""Optional arguments of a call, and the checks of all its arguments.

Shapes, names, libraries and dtypes are checked at every call. Values are not, because the host
would have to wait for the device; `rnn_xp.fit` checks them once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from rnn_xp._typing import Array, Namespace, Params, State, Workspace
from rnn_xp.backend import device_of, float_dtype
from rnn_xp.backend.arrays import require_arrays
from rnn_xp.backend.functions import require_basics
from rnn_xp.kernels.course import Ends
from rnn_xp.network.configuration import Configuration
from rnn_xp.network.dropout import check_masks

__all__ = ["Options", "check", "check_shape", "check_state"]


class Options(NamedTuple):
    """Optional arguments of the methods of `rnn_xp.Network`, which documents them."""

    state: State | None = None
    lengths: Array | None = None
    mask: Array | None = None
    reset: Array | None = None
    rng: Any = None
    steps: int | None = None
    workspace: Workspace | None = None
    tape: bool = True  # if False, nothing will go back
    ends: Ends | None = None  # of rows that come sorted by length, in place of reads by the host

    def joint_mask(self, steps: int, *, xp: Namespace) -> Array | None:
        """Combine ``mask`` and ``lengths`` to one mask (N, T)."""
        if self.lengths is None:
            return self.mask
        # In the default integer dtype: positions may not fit in that of the lengths, such as int8.
        positions = xp.arange(steps, device=device_of(self.lengths))
        inside = positions[None, :] < xp.astype(self.lengths, positions.dtype)[:, None]
        return inside if self.mask is None else inside & self.mask

    def rows(self, start: int, stop: int) -> Options:
        """Return the options of rows start..stop-1."""
        state = self.state
        if state is not None:
            state = type(state)(*(field[:, start:stop, ...] for field in state))
        lengths, mask, reset = (
            None if a is None else a[start:stop, ...] for a in (self.lengths, self.mask, self.reset)
        )
        return self._replace(state=state, lengths=lengths, mask=mask, reset=reset)


def check(
    net: Configuration, params: Params, x: Array, options: Options, *, fewest_rows: int = 1
) -> Namespace:
    """Check the arguments of a call, and return the namespace of its arrays.

    Raises
    ------
    ValueError
        If a shape or a name is wrong.
    TypeError
        If arrays belong to different libraries or have different dtypes.
    """
    named = _named(params, x, options)
    xp = require_arrays("Network", **named)
    require_basics("Network", x)
    _check_params(net, params)
    one_to_many = net.topology == "one_to_many"
    wanted = "1" if one_to_many else "T"
    least = "N, T >= 1" if fewest_rows else "T >= 1"
    if (
        len(x.shape) != 3
        or x.shape[2] != net.input_size
        or x.shape[0] < fewest_rows
        or x.shape[1] == 0
        or (one_to_many and x.shape[1] != 1)
    ):
        raise ValueError(
            f"Network: x must have shape (N, {wanted}, {net.input_size}) with {least}, got "
            f"{tuple(x.shape)}. Axes are sample, time, feature; for windows of a single "
            "series give x[:, :, None]."
        )
    if net.linear_lags:
        _check_linear(net, x, options)
    shape = (x.shape[0], _check_steps(options) if one_to_many else x.shape[1])
    if options.steps is not None and not one_to_many:
        raise ValueError(
            "Network: steps= is for one_to_many; here x says how many steps there are."
        )
    if options.state is not None:
        check_state(net, "state", options.state, x.shape[0])
    if isinstance(options.rng, dict):
        check_masks(net, x, shape[1], options.rng)
    float_dtype(**{name: a for name, a in named.items() if name not in _NOT_FLOATS})
    for name, array in (("mask", options.mask), ("reset", options.reset)):
        if array is not None:
            check_shape(name, array, shape)
            if not xp.isdtype(array.dtype, "bool"):
                raise TypeError(f"Network: {name} must be bool, got {array.dtype}.")
    if options.lengths is not None:
        check_shape("lengths", options.lengths, shape[:1])
        if not xp.isdtype(options.lengths.dtype, "integral"):
            raise TypeError(f"Network: lengths must be integers, got {options.lengths.dtype}.")
    return xp


_NOT_FLOATS = ("lengths", "mask", "reset")


def _named(params: Params, x: Array, options: Options) -> dict[str, Array]:
    """Return all arrays of a call under the names that error messages use."""
    if not isinstance(params, Mapping):
        raise TypeError(
            "Network: params must be a dict of arrays, as Network.init returns it, got a "
            f"{type(params).__name__}."
        )
    named = {"x": x, **params}
    if isinstance(options.state, tuple) and hasattr(options.state, "_asdict"):
        named |= {f"state.{name}": field for name, field in options.state._asdict().items()}
    if isinstance(options.rng, dict):
        named |= options.rng
    given = {name: getattr(options, name) for name in _NOT_FLOATS}
    return named | {name: array for name, array in given.items() if array is not None}


def check_state(net: Configuration, name: str, state: Any, rows: int) -> None:
    """Check the type and the shapes of a state."""
    if not isinstance(state, net.state_type):
        raise TypeError(
            f"Network: {name} must be the {net.state_type.__name__} of cell={net.cell!r}, got "
            f"{type(state).__name__}."
        )
    shape = (net.num_layers * net.directions, rows, net.hidden_size)
    for field, array in zip(state._fields, state, strict=True):
        check_shape(f"{name}.{field}", array, shape)


def check_shape(name: str, array: Array, shape: tuple[int, ...]) -> None:
    """Check the shape of an array."""
    if tuple(array.shape) != tuple(shape):
        raise ValueError(f"Network: {name} must have shape {shape}, got {tuple(array.shape)}.")


def _check_params(net: Configuration, params: Params) -> None:
    shapes = net.shapes
    if params.keys() != shapes.keys():
        missing, extra = shapes.keys() - params.keys(), params.keys() - shapes.keys()
        raise ValueError(
            f"Network: params have other names than this network: missing {sorted(missing)}, "
            f"unknown {sorted(extra)}. They must come from a network of the same configuration."
        )
    for name, shape in shapes.items():
        check_shape(name, params[name], shape)


def _check_linear(net: Configuration, x: Array, options: Options) -> None:
    if x.shape[1] < net.linear_lags:
        raise ValueError(
            f"Network: linear_lags={net.linear_lags} needs as many steps, got x with {x.shape[1]}."
        )
    for name in ("lengths", "reset"):
        if getattr(options, name) is not None:
            raise ValueError(
                f"Network: linear_lags needs every row to reach to the last step: {name}= is not "
                "supported with it. A mask is; a masked step enters the linear path as 0."
            )


def _check_steps(options: Options) -> int:
    if options.lengths is not None:
        raise ValueError("Network: lengths= have no meaning for one_to_many; use mask=.")
    if options.steps is None or options.steps < 1:
        raise ValueError(
            f"Network: one_to_many needs steps= >= 1, how many predictions to make, got "
            f"{options.steps}."
        )
    return options.steps
