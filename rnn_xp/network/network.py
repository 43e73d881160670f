"""A recurrent network: layers of cells, a topology and a readout, as pure functions.

::

    x (N, T, I) --time-major--> xs (T, N, I) --layers--> hs (T, N, D*H) --read--> h
    pred = g(h @ w_hy.T + b_y)         h (N, D*H), or every step's
           (+ the last steps of x @ w_xy.T, with linear_lags)

A `Network` holds sizes and choices, never numbers. Parameters are a flat dict that goes in and
gradients are a flat dict with the same keys that comes out, so the caller owns all state.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rnn_xp._typing import Array, Params, State, Workspace
from rnn_xp.backend import Backend, get_backend
from rnn_xp.backend.arrays import detached, require_arrays
from rnn_xp.network import dropout, initializers, pieces, prediction
from rnn_xp.network.call import Options, check
from rnn_xp.network.second_order import SecondOrder

__all__ = ["Network"]


@dataclass(frozen=True, kw_only=True)
class Network(SecondOrder):
    """A recurrent network with a readout.

    Parameters
    ----------
    cell : {"rnn", "gru", "lstm"}
        Kind of the recurrent cell.
    input_size : int
        Number of inputs per time step, I.
    hidden_size : int
        Number of hidden units of each layer and direction, H.
    output_size : int
        Number of outputs per prediction, O.
    topology : {"many_to_one", "many_to_many", "one_to_many"}
        Steps that have an input, and steps that have a prediction.
    num_layers : int
        Number of recurrent layers, L. Each layer reads the outputs of the one below it.
    bidirectional : bool
        If True, each layer has a second direction that reads time backwards, and D is 2.
    activation : {"tanh", "relu"}
        Activation f of the cell "rnn".
    output_activation : {"identity", "sigmoid", "tanh", "softmax"}
        Activation g of the readout. The cross-entropy losses take logits, hence "identity".
    read : {"last", "mean", "max"}
        Vector that the readout of a many_to_one network sees: the state of the last unmasked step
        (bidirectional: both final states), or the mean or maximum over the unmasked steps. A row
        without any unmasked step has its initial state, or 0.
    feed : {"zeros", "repeat", "feedback"}
        Input of a one_to_many network after the first step: zeros, the first input again, or the
        last prediction, whose gradient flows back.
    dropout : float
        Dropout rate in [0, 1) between layers. Dropout is active only where an ``rng`` is given.
    recurrent_dropout : float
        Dropout rate in [0, 1) of the state before the recurrent product, with the same mask at
        every step (Gal and Ghahramani 2016).
    layer_norm : bool
        If True, the cell normalises its projections, see `rnn_xp.cells.gates`.
    residual : bool
        If True, every layer but the first adds its input to its output.
    reset_after : bool
        If True, the reset gate of a GRU acts after the recurrent product, else before it, see
        `rnn_xp.cells.gru`.
    linear_lags : int
        Number of last steps of x that also enter the prediction of a many_to_one network
        linearly, beside the cells, as in the autoregressive part of LSTNet (Lai et al. 2018); 0
        for none. Masked steps enter as 0. ``lengths`` and ``reset`` are not supported with it.

    Attributes
    ----------
    shapes : dict of str to tuple of int
        Names and shapes of all parameters, such as "layer0.w_xh", "layer1.reverse.b_h" and
        "readout.w_hy".
    num_parameters : int
        Number of trainable values.

    Raises
    ------
    ValueError
        If a choice is unknown, a size or rate is out of range, or two choices exclude each other.

    Notes
    -----
    All methods compute in the namespace and dtype and on the device of the arrays they are given.
    They never move or cast, and check shapes and dtypes but not values. They raise ValueError for
    a wrong shape or name, and TypeError for arrays of different libraries or dtypes.

    The methods share these arguments:

    params : Params
        Parameters by name, as `init` returns them.
    x : Array (N, T, I)
        Inputs; (N, 1, I) for one_to_many.
    state : NamedTuple, optional
        Initial state, each field (num_layers * D, N, H), layer by layer, forward before reverse;
        zeros by default.
    lengths : Array (N,) of int, optional
        Number of steps of each row, in any order; later steps are padding. 0 is allowed.
    mask : Array (N, T) of bool, optional
        A step with False is skipped, the state is carried on and the loss does not count.
    rng : numpy.random.Generator or dict of arrays, optional
        Source of the dropout masks, or the masks, as `dropout_masks` returns them; there is no
        dropout by default. A generator is refused with a TypeError while ``jax.jit``, ``jax.vmap``
        or ``torch.func.vmap`` traces the arrays, because all calls would have the same masks.
    reset : Array (N, T) of bool, optional
        A True sets the row's state to zero before the step, as at the start of a sequence.
    steps : int
        Number of predictions, T, of a one_to_many network; not accepted otherwise.
    workspace : Workspace, optional
        Memory of one thread with the library's kernels, see `rnn_xp.kernels`.

    References
    ----------
    .. [1] Y. Gal, Z. Ghahramani, "A theoretically grounded application of dropout in recurrent
           neural networks", NeurIPS 2016.
    .. [2] G. Lai, W.-C. Chang, Y. Yang, H. Liu, "Modeling long- and short-term temporal patterns
           with deep neural networks", SIGIR 2018.

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
        """Draw initial parameters, the same numbers on every backend.

        Parameters
        ----------
        seed : int
            Non-negative seed of the random numbers.
        backend : Backend, optional
            Library, device and dtype of the arrays; `rnn_xp.get_backend` by default.

        Returns
        -------
        Params
            Input and readout weights are Glorot uniform, recurrent weights are orthogonal, and
            biases are zero except that of the LSTM's forget gate, which is 1.
        """
        backend = get_backend() if backend is None else backend
        weights = initializers.initial_weights(self.parameters, seed)
        return {name: backend.asarray(weight) for name, weight in weights.items()}

    def dropout_masks(self, rng: Any, x: Array, steps: int | None = None) -> dict[str, Array]:
        """Draw the masks of dropout, for functions that are compiled or mapped.

        Parameters
        ----------
        rng : numpy.random.Generator
            The source, which draws what it would draw in a call with ``rng=rng``.
        x, steps : see `Network`

        Returns
        -------
        dict of str to Array
            Masks to be given as ``rng=``, with entries 0 or 1 / (1 - rate): ``"layer1.input"``
            (T, N, D*H) and so on for ``dropout``, and ``"layer0.recurrent"``,
            ``"layer0.reverse.recurrent"`` (N, H) and so on for ``recurrent_dropout``.

        Examples
        --------
        >>> import numpy as np
        >>> net = Network(hidden_size=4, recurrent_dropout=0.5)
        >>> masks = net.dropout_masks(np.random.default_rng(0), np.ones((3, 5, 1)))
        >>> {name: mask.shape for name, mask in masks.items()}
        {'layer0.recurrent': (3, 4)}
        """
        xp = require_arrays("Network", x=x)
        steps = x.shape[1] if steps is None else steps
        return dropout.draw_masks(self, x, steps, rng, xp=xp)

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
        """Predict all rows at once, without dropout.

        `predict` does the same in blocks.

        Parameters
        ----------
        params, x, state, lengths, mask, reset, steps, workspace : see `Network`

        Returns
        -------
        pred : Array (N, O), or (N, T, O) where every step is read
            The predictions.
        state : NamedTuple
            Final state, with the fields of ``state``. The next call can start from it.
        """
        options = Options(state, lengths, mask, reset, None, steps, workspace, tape=False)
        xp = check(self, params, x, options)
        return pieces.forward(self, params, x, options, xp=xp)

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

        Rows go through the network in blocks, and nothing is kept for a backward pass: tensors of
        torch are detached from their graph. Layers for which the library has a kernel use it.

        Parameters
        ----------
        params, x, state, lengths, mask, reset, steps : see `Network`
            N may be 0.
        block_rows : int, optional
            Number of rows in a block. The default depends on the library, the network and T, and
            never on how much memory is free: on an accelerator 65,536 rows or fewer, on a CPU 32 to
            1040.

        Returns
        -------
        pred : Array (N, O), or (N, T, O) where every step is read
            Equal to the predictions of `forward` up to rounding. Layers that are compiled (with
            numba, float32) give a row the same bits alone, in any batch, at any place in it, and on
            any number of threads. Elsewhere the last bits depend on the other rows, because a
            library's products of other sizes, and even equal rows of one product, may round
            differently; there ``block_rows=1`` computes every row alone, slowly.

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
        params, x = {name: detached(p) for name, p in params.items()}, detached(x)
        if state is not None:
            options = options._replace(state=type(state)(*map(detached, state)))
        return prediction.predict(self, params, x, options, block_rows, xp=xp)
