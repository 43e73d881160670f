"""A recurrent network: layers of cells, a topology and a linear readout, as pure functions.

::

    x (N, T, I) --time-major--> xs (T, N, I) --sequence.run--> states --topology.read--> h (N, H)
    pred (N, O) = h @ w_hy.T + b_y

A `Network` holds sizes and choices, never numbers. Parameters are a flat dict that goes in and
gradients are a flat dict with the same keys that comes out, so the caller owns all state.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from rnn_xp import initializers, losses, sequence
from rnn_xp._typing import Array, Loss, Namespace, Params, State
from rnn_xp.backend import Backend, array_namespace, device_of, float_dtype, get_backend
from rnn_xp.cells.rnn import RNNCell, RNNState
from rnn_xp.kernels.portable import RELU, TANH, sum_rows
from rnn_xp.topology import MANY_TO_ONE

__all__ = ["Network", "resolve_loss"]

_CELLS = {"rnn": RNNCell}
_ACTIVATIONS = {"tanh": TANH, "relu": RELU}
_TOPOLOGIES = {"many_to_one": MANY_TO_ONE}
_LOSSES: dict[str, Loss] = {"mse": losses.mse}


def resolve_loss(loss: str | Loss) -> Loss:
    """Turn the name of a loss into the function; a function is returned as it is."""
    return _choice("loss", loss, _LOSSES) if isinstance(loss, str) else loss


class _Pass(NamedTuple):
    """What a forward pass leaves for its backward."""

    xp: Namespace
    tape: sequence.Tape
    cell_params: Params
    h: Array  # what the readout saw; the other factor of dw_hy


@dataclass(frozen=True, kw_only=True)
class Network:
    """A recurrent network with a linear readout.

    Parameters
    ----------
    cell : {"rnn"}
        Kind of cell.
    input_size, hidden_size, output_size : int
        I, H and O.
    topology : {"many_to_one"}
        Which steps are read.
    activation : {"tanh", "relu"}
        The cell's f.

    Attributes
    ----------
    shapes : dict of str to tuple of int
        Names and shapes of all parameters, in the order in which they are drawn.
    num_parameters : int

    Notes
    -----
    ``forward``, ``vjp``, ``value_and_grad`` and ``grad_per_step`` compute in the namespace, dtype
    and device of the arrays they are given. They never move or cast, and check shapes and dtypes
    but not values. Errors: ValueError for a wrong shape or name, TypeError for arrays of different
    libraries or float dtypes.

    Examples
    --------
    >>> import rnn_xp as rx
    >>> net = rx.Network(input_size=1, hidden_size=50, output_size=1)
    >>> net.num_parameters
    2651
    >>> params = net.init(seed=0)
    >>> x, y = rx.make_windows([i / 100 for i in range(100)], seq_length=10)
    >>> backend = rx.get_backend()
    >>> loss, grads = net.value_and_grad(params, backend.asarray(x), backend.asarray(y))
    >>> grads["layer0.w_hh"].shape
    (50, 50)
    """

    cell: str = "rnn"
    input_size: int = 1
    hidden_size: int
    output_size: int = 1
    topology: str = "many_to_one"
    activation: str = "tanh"

    def __post_init__(self) -> None:
        for name in ("input_size", "hidden_size", "output_size"):
            size = getattr(self, name)
            if isinstance(size, bool) or not isinstance(size, int) or size < 1:
                raise ValueError(f"Network: {name} must be an integer >= 1, got {size!r}.")
        _choice("cell", self.cell, _CELLS)
        _choice("activation", self.activation, _ACTIVATIONS)
        _choice("topology", self.topology, _TOPOLOGIES)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of all parameters."""
        shapes = {f"layer0.{name}": shape for name, shape in self._cell.shapes().items()}
        shapes["readout.w_hy"] = (self.output_size, self.hidden_size)
        shapes["readout.b_y"] = (self.output_size,)
        return shapes

    @property
    def num_parameters(self) -> int:
        """Number of trainable values."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    @property
    def _cell(self) -> RNNCell:
        return _CELLS[self.cell](self.input_size, self.hidden_size, _ACTIVATIONS[self.activation])

    def init(self, seed: int = 0, backend: Backend | None = None) -> Params:
        """Draw initial parameters; the same numbers on every backend.

        Parameters
        ----------
        seed : int
            Non-negative.
        backend : Backend, optional
            Where the arrays shall live; `rnn_xp.get_backend` by default.

        Returns
        -------
        Params
            w_xh and w_hy Glorot uniform, w_hh orthogonal, biases zero
            (see `rnn_xp.initializers`).
        """
        backend = get_backend() if backend is None else backend
        weights = initializers.initial_weights(self.shapes, seed)
        return {name: backend.asarray(weight) for name, weight in weights.items()}

    def forward(
        self, params: Params, x: Array, state: State | None = None
    ) -> tuple[Array, RNNState]:
        """Predict.

        Parameters
        ----------
        params : Params
            With the shapes of `shapes`.
        x : Array (N, T, I)
        state : RNNState, optional
            Initial state, each field (1, N, H); zeros by default.

        Returns
        -------
        pred : Array (N, O)
        state : RNNState
            Final state, each field (1, N, H); give it to the next call to go on.
        """
        pred, final, _ = self._run(params, x, state)
        return pred, final

    def vjp(
        self, params: Params, x: Array, state: State | None = None
    ) -> tuple[Array, RNNState, Callable[..., dict[str, Any]]]:
        """Predict, and return the function that back-propagates through this very pass.

        Parameters
        ----------
        params, x, state : as for `forward`

        Returns
        -------
        pred : Array (N, O)
        state : RNNState
        back : callable
            ``grads = back(dpred, dstate=None)``: given dL/dpred (N, O) and, if the loss depends
            on it, dL/dstate of the final state, the gradients of all parameters and of ``"x"``
            (N, T, I) and ``"state"`` (an RNNState).

        Examples
        --------
        >>> import numpy as np
        >>> net = Network(hidden_size=4)
        >>> params = net.init(seed=0)
        >>> x = np.ones((3, 5, 1), dtype=np.float32)
        >>> pred, state, back = net.vjp(params, x)
        >>> grads = back(np.ones_like(pred))
        >>> grads["x"].shape, grads["state"].h.shape
        ((3, 5, 1), (1, 3, 4))
        """
        pred, final, done = self._run(params, x, state)

        def back(dpred: Array, dstate: State | None = None) -> dict[str, Any]:
            _check_shape("dpred", dpred, pred.shape)
            if dstate is not None:
                _check_shape("dstate.h", dstate.h, final.h.shape)
            grads, dzs, dinitial = self._run_back(params, done, dpred, dstate)
            cell_grads, dxs = sequence.collect(
                self._cell, done.cell_params, done.tape, dzs, wrt_input=True, xp=done.xp
            )
            grads |= _prefixed(cell_grads)
            grads["x"] = done.xp.permute_dims(dxs, (1, 0, 2))
            grads["state"] = RNNState(*(field[None, ...] for field in dinitial))
            return grads

        return pred, final, back

    def value_and_grad(
        self,
        params: Params,
        x: Array,
        y: Array,
        loss: str | Loss = "mse",
        sample_weight: Array | None = None,
        *,
        total: Any = None,
    ) -> tuple[Array, Params]:
        """Loss over the batch and its gradient by backpropagation through time.

        Parameters
        ----------
        params : Params
        x : Array (N, T, I)
        y : Array (N, O)
        loss : {"mse"} or callable
            See `rnn_xp.losses` for the signature.
        sample_weight : Array (N,), optional
        total : float or Array (), optional
            What the loss divides by, `rnn_xp.losses.total_weight` of this batch by default. Give
            the total of the whole data to have these rows' share of its mean.

        Returns
        -------
        value : Array ()
        grads : Params
            Keys and shapes of ``params``.
        """
        pred, _, done = self._run(params, x, None)
        value, dpred = resolve_loss(loss)(pred, y, sample_weight, total)
        grads, dzs, _ = self._run_back(params, done, dpred, None)
        cell_grads, _ = sequence.collect(
            self._cell, done.cell_params, done.tape, dzs, wrt_input=False, xp=done.xp
        )
        grads |= _prefixed(cell_grads)
        return value, {name: grads[name] for name in self.shapes}

    def grad_per_step(
        self,
        params: Params,
        x: Array,
        y: Array,
        loss: str | Loss = "mse",
        sample_weight: Array | None = None,
    ) -> Params:
        """Split the gradient of `value_and_grad` into the shares of the time steps.

        A weight is used at every step, so its gradient is a sum over steps; here are its terms.
        Far back steps with vanishing terms are steps the network cannot learn from.

        Parameters
        ----------
        params, x, y, loss, sample_weight : as for `value_and_grad`

        Returns
        -------
        Params
            Each gradient with a leading time axis T; their sum over it is the gradient. The
            readout is used at the last step only, so its other terms are zero.

        Examples
        --------
        >>> import numpy as np
        >>> net = Network(hidden_size=4)
        >>> params = net.init(seed=0)
        >>> x, y = np.ones((3, 5, 1), dtype=np.float32), np.ones((3, 1), dtype=np.float32)
        >>> net.grad_per_step(params, x, y)["layer0.w_hh"].shape
        (5, 4, 4)
        """
        pred, _, done = self._run(params, x, None)
        _, dpred = resolve_loss(loss)(pred, y, sample_weight)
        grads, dzs, _ = self._run_back(params, done, dpred, None)
        xp, steps = done.xp, x.shape[1]
        terms = {
            name: xp.stack([xp.zeros_like(grad)] * (steps - 1) + [grad])
            for name, grad in grads.items()
        }
        terms |= _prefixed(sequence.collect_per_step(self._cell, done.tape, dzs, xp=xp))
        return {name: terms[name] for name in self.shapes}

    def _run(self, params: Params, x: Array, state: State | None) -> tuple[Array, RNNState, _Pass]:
        xp = self._check(params, x, state)
        xs = xp.permute_dims(x, (1, 0, 2))
        if state is None:
            zeros = xp.zeros((x.shape[0], self.hidden_size), dtype=x.dtype, device=device_of(x))
            initial = RNNState(zeros)
        else:
            initial = RNNState(*(field[0, ...] for field in state))
        cell_params = {name: params[f"layer0.{name}"] for name in self._cell.shapes()}
        tape = sequence.run(self._cell, cell_params, xs, initial, xp=xp)
        h = _TOPOLOGIES[self.topology].read(tape.states[1:])
        pred = xp.matmul(h, xp.matrix_transpose(params["readout.w_hy"])) + params["readout.b_y"]
        final = RNNState(*(field[None, ...] for field in tape.states[-1]))
        return pred, final, _Pass(xp, tape, cell_params, h)

    def _run_back(
        self, params: Params, done: _Pass, dpred: Array, dstate: State | None
    ) -> tuple[Params, Array, RNNState]:
        """Adjoint of `_run` up to the cell's weight gradients: readout's grads, dzs, dstate_0."""
        xp, tape = done.xp, done.tape
        grads = {
            "readout.w_hy": xp.matmul(xp.matrix_transpose(dpred), done.h),
            "readout.b_y": sum_rows(dpred, xp=xp),
        }
        dh = xp.matmul(dpred, params["readout.w_hy"])
        dhs = _TOPOLOGIES[self.topology].read_back(dh, tape.xs.shape[0])
        if dstate is None:
            dfinal = RNNState(*(xp.zeros_like(field) for field in tape.states[0]))
        else:
            dfinal = RNNState(*(field[0, ...] for field in dstate))
        dzs, dinitial = sequence.backprop(self._cell, done.cell_params, tape, dhs, dfinal, xp=xp)
        return grads, dzs, dinitial

    def _check(self, params: Params, x: Array, state: State | None) -> Namespace:
        """Shapes, names, libraries and dtypes, once per call; the namespace of the arrays."""
        shapes = self.shapes
        if params.keys() != shapes.keys():
            missing, extra = shapes.keys() - params.keys(), params.keys() - shapes.keys()
            raise ValueError(
                f"Network: params have other names than this network: missing {sorted(missing)}, "
                f"unknown {sorted(extra)}. They must come from a network of the same "
                "configuration."
            )
        for name, shape in shapes.items():
            _check_shape(name, params[name], shape)
        if len(x.shape) != 3 or x.shape[2] != self.input_size or 0 in x.shape:
            raise ValueError(
                f"Network: x must have shape (N, T, {self.input_size}) with N, T >= 1, got "
                f"{tuple(x.shape)}. Axes are sample, time, feature; for windows of a single "
                "series give x[:, :, None]."
            )
        named = {"x": x, **params}
        if state is not None:
            shape = (1, x.shape[0], self.hidden_size)
            if not isinstance(state, RNNState):
                raise TypeError(f"Network: state must be an RNNState, got {type(state).__name__}.")
            _check_shape("state.h", state.h, shape)
            named["state.h"] = state.h
        xp = array_namespace(*named.values())
        float_dtype(**named)
        return xp


def _choice(what: str, given: str, valid: dict[str, Any]) -> Any:
    try:
        return valid[given]
    except (KeyError, TypeError):
        names = ", ".join(repr(name) for name in valid)
        raise ValueError(f"{what}={given!r} is not known. Valid: {names}.") from None


def _check_shape(name: str, array: Array, shape: tuple[int, ...]) -> None:
    if tuple(array.shape) != tuple(shape):
        raise ValueError(f"Network: {name} must have shape {shape}, got {tuple(array.shape)}.")


def _prefixed(grads: Params) -> Params:
    return {f"layer0.{name}": grad for name, grad in grads.items()}
