"""Gradients of a network: the methods of `rnn_xp.Network` that go backwards.

Each method runs one forward pass, one loss (or a gradient that the caller gives instead) and one
backward pass of `rnn_xp.network.pipeline`; the methods differ in what they return.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rnn_xp import losses
from rnn_xp._typing import Array, Loss, Namespace, Params, State, Workspace
from rnn_xp.backend import array_namespace
from rnn_xp.backend.arrays import dtype_name, require_arrays
from rnn_xp.losses import resolve_loss
from rnn_xp.network import pieces, pipeline
from rnn_xp.network.call import Options, check, check_shape, check_state
from rnn_xp.network.configuration import Configuration
from rnn_xp.network.memory import keep_within
from rnn_xp.network.passes import Carry, Pass, PassGrads
from rnn_xp.network.sequence import Terms

__all__ = ["Gradients", "loss_back", "loss_options"]


@dataclass(frozen=True, kw_only=True)
class Gradients(Configuration):
    """The methods of a network that go backwards; `rnn_xp.Network` documents their arguments."""

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
        per_sample: bool = False,
    ) -> tuple[Array, State, Callable[..., dict[str, Any]]]:
        """Predict, and return a function that back-propagates through this forward pass.

        Parameters
        ----------
        params, x, state, lengths, mask, rng, reset, steps : see `rnn_xp.Network`
        per_sample : bool
            If True, the gradients of the parameters are not added up over the samples: they have
            the shapes (N, *shape), in N * P numbers. `rnn_xp.Network.jacobian` and
            `rnn_xp.Network.per_sample_grads` are made of this.

        Returns
        -------
        pred, state
            As `rnn_xp.Network.forward` returns them.
        back : callable
            ``grads = back(dpred, dstate=None)`` takes dL/dpred and, if the loss depends on the
            final state, dL/dstate. It returns a dict with the gradient of every parameter, of
            ``"x"`` and of the initial ``"state"``.

        Examples
        --------
        >>> import numpy as np
        >>> import rnn_xp as rx
        >>> net = rx.Network(hidden_size=4)
        >>> params = net.init(seed=0)
        >>> x = np.ones((3, 5, 1), dtype=np.float32)
        >>> pred, state, back = net.vjp(params, x)
        >>> grads = back(np.ones_like(pred))
        >>> grads["x"].shape, grads["state"].h.shape
        ((3, 5, 1), (1, 3, 4))
        """
        options = Options(state, lengths, mask, reset, rng, steps)
        xp = check(self, params, x, options)
        forward = pipeline.run(self, params, x, options, xp=xp)
        pred, final = pipeline.prediction(self, forward), pipeline.final_state(self, forward)

        def back(dpred: Array, dstate: State | None = None) -> dict[str, Any]:
            check_shape("dpred", dpred, pred.shape)
            if dstate is not None:
                check_state(self, "dstate", dstate, x.shape[0])
            result = pipeline.run_back(
                self, params, forward, dpred, dstate,
                wrt_input=True, terms="sample" if per_sample else None,
            )  # fmt: skip
            dinitial = pipeline.join_states(self, result.dstate, xp=xp)
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
        memory_budget: int | None = None,
    ) -> tuple[Array, Params]:
        """Compute the loss of a batch and its gradient by backpropagation through time.

        Parameters
        ----------
        params, x, state, lengths, mask, reset, rng, workspace : see `rnn_xp.Network`
        y : Array (N, O) or (N, T, O)
            Targets; class indices (N,) or (N, T) for a loss of classes.
        loss : str or callable
            "mse", "mae", "huber", "cross_entropy", "binary_cross_entropy", or a function with the
            signature of those in `rnn_xp.losses`, such as ``Pinball((0.1, 0.5, 0.9))``.
        sample_weight : Array (N,) or (N, T), optional
            Weight of each row or step in the loss; 1 by default.
        total : float or Array (), optional
            Divisor of the weighted sum of losses; by default the total weight of this batch. With
            the total weight of a larger data set, the result is this batch's term of its mean.
        memory_budget : int, optional
            Maximum memory for activations, in bytes, as an estimate from sizes. If the activations
            of a long sequence need more, those of some pieces of 100 steps are dropped and computed
            again from the state before the piece: the same bits in up to 4/3 of the time, or in
            more time if not even the states between the pieces have room.

        Returns
        -------
        value : Array ()
            The loss.
        grads : Params
            The gradient, with the keys and shapes of ``params``.

        Raises
        ------
        ValueError
            If ``memory_budget`` is too little even so. Networks that are bidirectional, read the
            mean or maximum, or have the topology one_to_many keep all activations.
        """
        options = Options(state, lengths, mask, reset, rng, workspace=workspace)
        options = loss_options(self, y, options)
        xp = check(self, params, x, options)
        keep = None
        if memory_budget is not None:
            steps = x.shape[1] if options.steps is None else options.steps
            size = 4 if dtype_name(x.dtype) == "float32" else 8
            keep = keep_within(self, steps, x.shape[0], size, memory_budget)
        score = _scorer(self, x, y, loss, sample_weight, options, total)
        return pieces.value_and_grad(self, params, x, options, score, keep, xp=xp)

    def segment_value_and_grad(
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
        carry: int | None = None,
    ) -> tuple[Array, Params, Carry]:
        """Compute `value_and_grad` of one segment of a long sequence, truncating the gradient.

        The gradient stops at the state that enters the segment. `rnn_xp.fit` with ``truncate``
        trains on all segments of a sequence.

        Parameters
        ----------
        params, x, y, loss, sample_weight, state, lengths, mask, reset, rng, total
            As for `value_and_grad`. A step whose weight is 0 is context only.
        carry : int, optional
            Number of steps of this segment before the next one begins; all by default.

        Returns
        -------
        value : Array ()
        grads : Params
        carry : Carry
            The ``state`` that enters the next segment and, for one_to_many, its ``x``.

        Raises
        ------
        ValueError
            If the network is bidirectional.
        """
        if self.bidirectional:
            raise ValueError(
                "truncated backpropagation needs bidirectional=False: the reverse direction would "
                "start from the future."
            )
        options = Options(state, lengths, mask, reset, rng)
        value, result, forward = loss_back(
            self, params, x, y, loss, sample_weight, options, total=total
        )
        steps = y.shape[1] if self.topology == "one_to_many" else x.shape[1]
        return (
            value,
            result.grads,
            pipeline.carry_at(self, forward, steps if carry is None else carry),
        )

    def grad_per_step(
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
    ) -> Params:
        """Split the gradient of `value_and_grad` into one term for each time step.

        A weight is used at every step, so its gradient is a sum over steps. The network cannot
        learn from early steps whose terms vanish.

        Parameters
        ----------
        params, x, y, loss, sample_weight, state, lengths, mask, reset, rng
            As for `value_and_grad`. There is no ``workspace``: kernels do not split gradients.

        Returns
        -------
        Params
            Terms with a leading time axis T, whose sum over it is the gradient. If the sequence is
            read once, the readout's term belongs to the last step.

        Examples
        --------
        >>> import numpy as np
        >>> import rnn_xp as rx
        >>> net = rx.Network(hidden_size=4)
        >>> params = net.init(seed=0)
        >>> x, y = np.ones((3, 5, 1), dtype=np.float32), np.ones((3, 1), dtype=np.float32)
        >>> net.grad_per_step(params, x, y)["layer0.w_hh"].shape
        (5, 4, 4)
        """
        options = Options(state, lengths, mask, reset, rng)
        _, result, _ = loss_back(self, params, x, y, loss, sample_weight, options, terms="step")
        return result.grads

    def gradient_flow(
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
    ) -> dict[str, Array]:
        """Compute dL/dh_t at every step, which shows how far back the loss reaches.

        Parameters
        ----------
        params, x, y, loss, sample_weight, state, lengths, mask, reset, rng
            As for `value_and_grad`. There is no ``workspace``: kernels do not keep dL/dh_t.

        Returns
        -------
        dict of str to Array (T, N, H)
            The keys are "layer0", "layer0.reverse" and so on; with feedback there is one entry
            "prediction" (T, N, O).

        Examples
        --------
        >>> import numpy as np
        >>> import rnn_xp as rx
        >>> net = rx.Network(hidden_size=4)
        >>> params = net.init(seed=0)
        >>> x, y = np.ones((3, 5, 1), dtype=np.float32), np.ones((3, 1), dtype=np.float32)
        >>> net.gradient_flow(params, x, y)["layer0"].shape
        (5, 3, 4)
        """
        options = Options(state, lengths, mask, reset, rng)
        _, result, forward = loss_back(self, params, x, y, loss, sample_weight, options, flow=True)
        return _flows_by_name(self, result, xp=forward.xp)


def loss_back(
    net: Configuration,
    params: Params,
    x: Array,
    y: Array,
    loss: str | Loss,
    sample_weight: Array | None,
    options: Options,
    *,
    total: Any = None,
    terms: Terms = None,
    flow: bool = False,
) -> tuple[Array, PassGrads, Pass]:
    """Compute a loss and back-propagate it through the whole network.

    Parameters
    ----------
    net : Configuration
    params, x, y, loss, sample_weight, total : as for `rnn_xp.Network.value_and_grad`
    options : Options
    terms : {None, "step", "sample"}
        Terms that weight gradients keep apart, in a leading axis T or N.
    flow : bool
        If True, dL/dh_t of every step is kept.

    Returns
    -------
    value : Array ()
    grads : PassGrads
    forward : Pass
        The forward pass, with its states.

    Raises
    ------
    ValueError
        For a wrong shape or name.
    TypeError
        For arrays of different libraries or dtypes.
    """
    options = loss_options(net, y, options)
    xp = check(net, params, x, options)
    score = _scorer(net, x, y, loss, sample_weight, options, total)
    forward = pipeline.run(net, params, x, options, xp=xp)
    value, dpred = score(pipeline.prediction(net, forward))
    grads = pipeline.run_back(net, params, forward, dpred, None, terms=terms, flow=flow)
    return value, grads, forward


def _scorer(
    net: Configuration,
    x: Array,
    y: Array,
    loss: str | Loss,
    sample_weight: Array | None,
    options: Options,
    total: Any,
) -> Callable[[Array], tuple[Array, Array]]:
    """Return the function ``value, dpred = score(pred)``."""
    function = resolve_loss(loss, net.output_activation)

    def score(pred: Array) -> tuple[Array, Array]:
        weight = pipeline.loss_weight(net, x, y, sample_weight, options)
        whole = losses.total_weight(y, weight) if total is None else total
        value, dpred = function(pred, y, weight, whole)
        return _as_precise_as(pred, value), _as_precise_as(pred, dpred)

    return score


def _as_precise_as(pred: Array, made: Array) -> Array:
    """Return what a loss made, in the precision of the predictions.

    A loss of the user's own may give float64 for float32, as NumPy 2 and CuPy 14 compute from a
    number such as ``np.sqrt(2)``. Kernels would take its bits for those of float32.
    """
    dtypes = tuple(dtype_name(getattr(a, "dtype", "")) for a in (pred, made))
    if dtypes != ("float32", "float64"):
        return made
    return array_namespace(made).astype(made, pred.dtype)


def loss_options(net: Configuration, y: Array, options: Options) -> Options:
    """Return the options with the number of steps, which the targets of one_to_many say."""
    if net.topology != "one_to_many":
        return options
    require_arrays("Network", y=y)
    if len(y.shape) < 2:
        raise ValueError(f"Network: y must have T steps, (N, T, ...), got {y.shape}.")
    return options._replace(steps=y.shape[1])


def _flows_by_name(net: Configuration, grads: PassGrads, *, xp: Namespace) -> dict[str, Array]:
    """Stack dL/dh_t over time, (T, N, H), by the name of the layer and direction."""
    names = ["prediction"]
    if not net.feedback:
        names = [
            net.layers.prefix(layer, direction).removesuffix(".")
            for layer in range(net.num_layers)
            for direction in range(net.directions)
        ]
    return {name: xp.stack(flow) for name, flow in zip(names, grads.flows, strict=True)}
