"""Predictions as the data come: a network that carries its state from one call to the next."""

from __future__ import annotations

from typing import Any

from rnn_xp._checks import whole
from rnn_xp._typing import Array, Params, State
from rnn_xp.backend import device_of
from rnn_xp.backend.arrays import detached, require_arrays
from rnn_xp.kernels import make_workspace
from rnn_xp.network import pieces
from rnn_xp.network.call import Options, check, check_shape
from rnn_xp.network.configuration import Configuration
from rnn_xp.network.layers import layer_params
from rnn_xp.network.prediction import backend_of_rows

__all__ = ["Stream"]


class Stream:
    """A network that reads sequences as they come, a step or some steps at a time.

    The state after a call is where the next call starts. The parameters are prepared once, so a
    call costs little beside its arithmetic: with compiled kernels (float32, numba) a step of one
    row takes about ten microseconds. A stream belongs to one thread.

    Parameters
    ----------
    net : Network
        One direction; many_to_many, or many_to_one with ``read="last"``; no ``linear_lags``.
    params : Params
        Later changes of their arrays have no effect.
    rows : int
        Number of sequences that are read side by side, N.
    state : NamedTuple, optional
        State to start from, as `rnn_xp.Network.forward` returns it; zeros by default.

    Attributes
    ----------
    state : NamedTuple
        The present state, each field (L, N, H), as a copy. It can be set.

    Raises
    ------
    ValueError
        If the network needs more than the state to go on, or if a shape is wrong.

    Examples
    --------
    >>> import numpy as np
    >>> import rnn_xp as rx
    >>> net = rx.Network(cell="gru", hidden_size=4, input_size=1)
    >>> params = net.init(seed=0)
    >>> x = np.ones((1, 5, 1), dtype=np.float32)
    >>> stream = rx.Stream(net, params)
    >>> for t in range(5):
    ...     pred = stream.step(x[:, t])
    >>> bool(abs(pred - net.forward(params, x)[0]) < 1e-6)
    True
    """

    def __init__(
        self, net: Configuration, params: Params, rows: int = 1, state: State | None = None
    ) -> None:
        rows = whole("Stream: rows", rows, 1)
        _refuse(net)
        xp = require_arrays("Stream", **params)
        params = {name: xp.asarray(detached(p), copy=True) for name, p in params.items()}
        like = next(iter(params.values()))
        self._like: dict[str, Any] = {"dtype": like.dtype, "device": device_of(like)}
        self.net, self.rows, self._params, self._xp = net, rows, params, xp
        self._kind = type(like)
        zeros = xp.zeros((net.num_layers, rows, net.hidden_size), **self._like)
        self._zeros = net.state_type(*[zeros] * len(net.state_type._fields))
        self._check_state(self._zeros)
        backend = backend_of_rows(like)
        self._workspace: Any = None if backend is None else make_workspace(backend)
        self._prepared: Any = None
        if self._workspace is not None:
            cells = enumerate(net.layers.cells)
            weights = [layer_params(params, net.layers.prefix(layer, 0)) for layer, _ in cells]
            self._prepared = self._workspace.prepare(
                [cell.kernel for cell in net.layers.cells], weights, rows,
                len(self._zeros), net.residual,
            )  # fmt: skip
        self._w_hy = xp.matrix_transpose(params["readout.w_hy"])
        self._b_y = params["readout.b_y"]
        self._activate = net.output_function.forward
        self.state = self._zeros if state is None else state

    @property
    def state(self) -> State:
        """The present state."""
        if self._prepared is None:
            return self._state
        return self.net.state_type(*(field.copy() for field in self._prepared.state))

    @state.setter
    def state(self, state: State) -> None:
        self._check_state(state)
        self._begin(state)

    def reset(self) -> None:
        """Return to a state of zeros, as before a new sequence."""
        self._begin(self._zeros)

    def _begin(self, state: State) -> None:
        self._state = state
        if self._prepared is not None:
            self._prepared.begin(state)

    def _check_state(self, state: State) -> None:
        x = self._xp.zeros((self.rows, 1, self.net.input_size), **self._like)
        check(self.net, self._params, x, Options(state))

    def step(self, x: Array) -> Array:
        """Read one step.

        Parameters
        ----------
        x : Array (N, I)

        Returns
        -------
        pred : Array (N, O)
            The prediction after this step.
        """
        if len(x.shape) != 2:
            check_shape("x of a step", x, (self.rows, self.net.input_size))  # raises
        return self._run(x[:, None, :], last=True)

    def run(self, x: Array) -> Array:
        """Read some steps.

        Parameters
        ----------
        x : Array (N, T, I)

        Returns
        -------
        pred : Array (N, O), or (N, T, O) where every step is read
        """
        return self._run(x, last=self.net.topology == "many_to_one")

    def _run(self, x: Array, *, last: bool) -> Array:
        if self._prepared is None:
            return self._forward(x, last=last)
        shape = x.shape
        if not (
            isinstance(x, self._kind)
            and x.dtype == self._like["dtype"]
            and len(shape) == 3
            and shape[0] == self.rows
            and shape[2] == self.net.input_size
            and shape[1] > 0
        ):
            self._check(x)  # raises
        hs, xp = self._prepared.run(x), self._xp
        if last:
            return self._activate(xp.matmul(hs[-1], self._w_hy) + self._b_y, xp=xp)
        steps, rows, _ = hs.shape
        y = xp.matmul(xp.reshape(hs, (steps * rows, hs.shape[2])), self._w_hy) + self._b_y
        pred = xp.reshape(self._activate(y, xp=xp), (steps, rows, self.net.output_size))
        return xp.permute_dims(pred, (1, 0, 2))

    def _forward(self, x: Array, *, last: bool) -> Array:
        self._check(x)
        options = Options(self._state, workspace=self._workspace, tape=False)
        pred, self._state = pieces.forward(self.net, self._params, x, options, xp=self._xp)
        return pred[:, -1, :] if last and len(pred.shape) == 3 else pred

    def _check(self, x: Array) -> None:
        check(self.net, self._params, x, Options())
        check_shape("x", x, (self.rows, x.shape[1], self.net.input_size))


def _refuse(net: Configuration) -> None:
    """Refuse networks that need more than the state to go on."""
    for condition, needed in (
        (not net.bidirectional, "bidirectional=False: the reverse direction comes from the future"),
        (net.topology != "one_to_many", "an input at every step, which one_to_many has not"),
        (net.read == "last", f'read="last": read="{net.read}" sees all steps'),
        (not net.linear_lags, f"linear_lags=0, got {net.linear_lags}: it sees earlier inputs"),
    ):
        if not condition:
            raise ValueError(f"Stream: a stream needs {needed}. Use Network.predict.")
