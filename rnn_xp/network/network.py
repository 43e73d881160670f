"""A recurrent network: layers of cells, a topology and a readout, as pure functions.

::

    x (N, T, I) --time-major--> xs (T, N, I) --layers--> hs (T, N, D*H) --read--> h
    pred = g(h @ w_hy.T + b_y)         h (N, D*H), or every step's
           (+ the last steps of x @ w_xy.T, with linear_lags)

A `Network` holds sizes and choices, never numbers. Parameters are a flat dict that goes in and
gradients are a flat dict with the same keys that comes out, so the caller owns all state.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rnn_xp._typing import Array, Loss, Params, State, Workspace
from rnn_xp.backend import Backend, get_backend
from rnn_xp.network import initializers, pipeline, prediction
from rnn_xp.network.call import Options, check, check_shape, check_state
from rnn_xp.network.configuration import Configuration
from rnn_xp.network.gradients import flows_by_name, loss_back
from rnn_xp.network.pipeline import Carry, Pass

__all__ = ["Network"]


@dataclass(frozen=True, kw_only=True)
class Network(Configuration):
    """A recurrent network with a readout.

    Parameters
    ----------
    cell : {"rnn", "gru", "lstm"}
    input_size, hidden_size, output_size : int
        I, H and O.
    topology : {"many_to_one", "many_to_many", "one_to_many"}
        Which steps have an input, and which a prediction.
    num_layers : int
    bidirectional : bool
        A second set of layers reads time backwards; D is then 2.
    activation : {"tanh", "relu"}
        f of the cell "rnn".
    output_activation : {"identity", "sigmoid", "tanh", "softmax"}
        g of the readout. The cross-entropy losses take the logits of "identity".
    read : {"last", "mean", "max"}
        Of many_to_one: the last unmasked step's state (bidirectional: both final states), or the
        mean or maximum over the unmasked steps; an empty row gives its initial state, or 0.
    feed : {"zeros", "repeat", "feedback"}
        Of one_to_many: what enters after the first step; "feedback" is the prediction, and its
        gradient flows back.
    dropout, recurrent_dropout : float
        Rates in [0, 1): between layers, and of the state before the recurrent product with the
        same mask at every step (Gal and Ghahramani 2016). Active only where an ``rng`` is given.
    layer_norm : bool
        Layer normalisation inside the cell, see `rnn_xp.cells.gates`.
    residual : bool
        Every layer but the first adds its input to its output.
    reset_after : bool
        Which of the two GRUs, see `rnn_xp.cells.gru`.
    linear_lags : int
        Of many_to_one: the last so many steps of x enter the prediction linearly too, beside the
        cells, as the autoregressive part of LSTNet (Lai et al. 2018). 0: no such path. Masked
        steps enter as 0; lengths and reset are not supported with it.

    Attributes
    ----------
    shapes : dict of str to tuple of int
        Names and shapes of all parameters: "layer0.w_xh", "layer1.reverse.b_h", "readout.w_hy".
    num_parameters : int

    Notes
    -----
    All methods compute in the namespace, dtype and device of the arrays they are given. They
    never move or cast, and check shapes and dtypes but not values. Errors: ValueError for a wrong
    shape or name, TypeError for arrays of different libraries or dtypes.

    Arguments that all of them share:

    x : Array (N, T, I)
        For one_to_many (N, 1, I).
    state : NamedTuple, optional
        Initial state, each field (num_layers * D, N, H), layer by layer, forward before reverse;
        zeros by default.
    lengths : Array (N,) of int, optional
        Steps of each row; what follows is padding. In any order; 0 is allowed.
    mask : Array (N, T) of bool, optional
        False: the step is skipped and the state carried on; its loss does not count.
    rng : numpy.random.Generator, optional
        Where dropout's masks are drawn from; without it there is no dropout.
    reset : Array (N, T) of bool, optional
        True: the row's state becomes zero before the step, as at the start of a new sequence.
    steps : int
        For one_to_many only: T, how many predictions.
    workspace : Workspace, optional
        Memory of one thread, for faster kernels, see `rnn_xp.kernels`.

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
            Input weights and readout Glorot uniform, recurrent ones orthogonal, biases zero but
            for the LSTM's forget gate, 1 (see `rnn_xp.network.initializers`).
        """
        backend = get_backend() if backend is None else backend
        weights = initializers.initial_weights(self.shapes, seed, self.constants)
        return {name: backend.asarray(weight) for name, weight in weights.items()}

    def forward(
        self,
        params: Params,
        x: Array,
        state: State | None = None,
        lengths: Array | None = None,
        mask: Array | None = None,
        *,
        reset: Array | None = None,
        steps: int | None = None,
        workspace: Workspace | None = None,
    ) -> tuple[Array, State]:
        """Predict, without dropout.

        Returns
        -------
        pred : Array (N, O), or (N, T, O) where every step is read
        state : NamedTuple
            Final state, fields as in ``state``; give it to the next call to go on.
        """
        options = Options(state, lengths, mask, reset, None, steps, workspace, tape=False)
        done = self._run(params, x, options)
        return pipeline.prediction(self, done), pipeline.final_state(self, done)

    def predict(
        self,
        params: Params,
        x: Array,
        state: State | None = None,
        lengths: Array | None = None,
        mask: Array | None = None,
        *,
        reset: Array | None = None,
        steps: int | None = None,
        block_rows: int | None = None,
    ) -> Array:
        """Predict any number of rows, in memory that does not grow with them.

        Rows go through the network in blocks, and nothing is kept for a backward pass. Layers
        that the library has a kernel for use it.

        Parameters
        ----------
        block_rows : int, optional
            Rows of a block. By default 1040 on a CPU and 65,536 on an accelerator, or fewer for
            very long sequences; it never depends on the memory that is free.

        Returns
        -------
        pred : Array (N, O), or (N, T, O) where every step is read
            As `forward` predicts, to rounding. N may be 0. The last bits of a row may depend on
            how many rows are in its block: matrix products of other sizes round differently.

        Examples
        --------
        >>> import numpy as np
        >>> net = Network(hidden_size=4)
        >>> params = net.init(seed=0)
        >>> net.predict(params, np.ones((5000, 10, 1), dtype=np.float32)).shape
        (5000, 1)
        """
        options = Options(state, lengths, mask, reset, None, steps)
        xp = check(self, params, x, options, fewest_rows=0)
        return prediction.predict(self, params, x, options, block_rows, xp=xp)

    def vjp(
        self,
        params: Params,
        x: Array,
        state: State | None = None,
        lengths: Array | None = None,
        mask: Array | None = None,
        rng: Any = None,
        *,
        reset: Array | None = None,
        steps: int | None = None,
    ) -> tuple[Array, State, Callable[..., dict[str, Any]]]:
        """Predict, and return the function that back-propagates through this very pass.

        Returns
        -------
        pred, state : as for `forward`
        back : callable
            ``grads = back(dpred, dstate=None)``: given dL/dpred and, if the loss depends on it,
            dL/dstate of the final state, the gradients of all parameters, of ``"x"`` and of the
            initial ``"state"``.

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
        done = self._run(params, x, Options(state, lengths, mask, reset, rng, steps))
        pred, final = pipeline.prediction(self, done), pipeline.final_state(self, done)

        def back(dpred: Array, dstate: State | None = None) -> dict[str, Any]:
            check_shape("dpred", dpred, pred.shape)
            if dstate is not None:
                check_state(self, "dstate", dstate, x.shape[0])
            result = pipeline.run_back(self, params, done, dpred, dstate, wrt_input=True)
            dinitial = pipeline.join_states(self, result.dstate, xp=done.xp)
            return {**result.grads, "x": result.dx, "state": dinitial}

        return pred, final, back

    def value_and_grad(
        self,
        params: Params,
        x: Array,
        y: Array,
        loss: str | Loss = "mse",
        sample_weight: Array | None = None,
        *,
        state: State | None = None,
        lengths: Array | None = None,
        mask: Array | None = None,
        reset: Array | None = None,
        rng: Any = None,
        total: Any = None,
        workspace: Workspace | None = None,
    ) -> tuple[Array, Params]:
        """Loss over the batch and its gradient by backpropagation through time.

        Parameters
        ----------
        y : Array (N, O) or (N, T, O); class indices (N,) or (N, T)
        loss : str or callable
            "mse", "mae", "huber", "cross_entropy", "binary_cross_entropy", or a function with the
            signature of those in `rnn_xp.losses`, such as ``Pinball((0.1, 0.5, 0.9))``.
        sample_weight : Array (N,) or (N, T), optional
        total : float or Array (), optional
            What the loss divides by, the total weight of this batch by default. Give the total of
            the whole data to have these rows' share of its mean.

        Returns
        -------
        value : Array ()
        grads : Params
            Keys and shapes of ``params``.
        """
        options = Options(state, lengths, mask, reset, rng, workspace=workspace)
        value, result, _ = loss_back(self, params, x, y, loss, sample_weight, options, total=total)
        return value, result.grads

    def segment_value_and_grad(
        self,
        params: Params,
        x: Array,
        y: Array,
        loss: str | Loss = "mse",
        sample_weight: Array | None = None,
        *,
        carry: int | None = None,
        total: Any = None,
        **batch: Any,
    ) -> tuple[Array, Params, Carry]:
        """`value_and_grad` of one segment of a long sequence, for truncated backpropagation.

        The gradient stops at the state that enters the segment. `rnn_xp.fit` with ``truncate``
        does the whole.

        Parameters
        ----------
        params, x, y, loss, sample_weight, total, **batch : as for `value_and_grad`
            A weight of 0 at a step makes it context only.
        carry : int, optional
            After how many steps of the segment the next one begins; after all by default.

        Returns
        -------
        value : Array ()
        grads : Params
        carry : Carry
            What enters the next segment: ``state`` and, of one_to_many, ``x``.
        """
        if self.bidirectional:
            raise ValueError(
                "truncated backpropagation needs bidirectional=False: the reverse direction would "
                "start from the future."
            )
        options = Options(**batch)
        value, result, done = loss_back(
            self, params, x, y, loss, sample_weight, options, total=total
        )
        steps = y.shape[1] if self.topology == "one_to_many" else x.shape[1]
        return value, result.grads, pipeline.carry_at(self, done, steps if carry is None else carry)

    def grad_per_step(
        self,
        params: Params,
        x: Array,
        y: Array,
        loss: str | Loss = "mse",
        sample_weight: Array | None = None,
        **batch: Any,
    ) -> Params:
        """Split the gradient of `value_and_grad` into the shares of the time steps.

        A weight is used at every step, so its gradient is a sum over steps; here are its terms.
        Far back steps with vanishing terms are steps the network cannot learn from.

        Parameters
        ----------
        params, x, y, loss, sample_weight, **batch : as for `value_and_grad`

        Returns
        -------
        Params
            Each gradient with a leading time axis T; their sum over it is the gradient. Where the
            sequence is read once, the readout's term stands at the last step.

        Examples
        --------
        >>> import numpy as np
        >>> net = Network(hidden_size=4)
        >>> params = net.init(seed=0)
        >>> x, y = np.ones((3, 5, 1), dtype=np.float32), np.ones((3, 1), dtype=np.float32)
        >>> net.grad_per_step(params, x, y)["layer0.w_hh"].shape
        (5, 4, 4)
        """
        options = Options(**batch)
        _, result, _ = loss_back(self, params, x, y, loss, sample_weight, options, per_step=True)
        return result.grads

    def gradient_flow(
        self,
        params: Params,
        x: Array,
        y: Array,
        loss: str | Loss = "mse",
        sample_weight: Array | None = None,
        **batch: Any,
    ) -> dict[str, Array]:
        """dL/dh_t at every step: how much of the loss reaches back how far.

        Parameters
        ----------
        params, x, y, loss, sample_weight, **batch : as for `value_and_grad`

        Returns
        -------
        dict of str to Array (T, N, H)
            By "layer0", "layer0.reverse", ...; with feedback "prediction" (T, N, O).

        Examples
        --------
        >>> import numpy as np
        >>> net = Network(hidden_size=4)
        >>> params = net.init(seed=0)
        >>> x, y = np.ones((3, 5, 1), dtype=np.float32), np.ones((3, 1), dtype=np.float32)
        >>> net.gradient_flow(params, x, y)["layer0"].shape
        (5, 3, 4)
        """
        options = Options(**batch)
        _, result, done = loss_back(self, params, x, y, loss, sample_weight, options, flow=True)
        return flows_by_name(self, result, xp=done.xp)

    def _run(self, params: Params, x: Array, options: Options) -> Pass:
        xp = check(self, params, x, options)
        return pipeline.run(self, params, x, options, xp=xp)
