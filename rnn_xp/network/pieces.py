"""A long sequence in pieces of 100 steps, with the tapes of all of them or of few at a time.

::

    forward    state_0 -> piece 0 -> state_1 -> piece 1 -> ... -> state_P      predictions, loss
    backward   dstate_0 <- piece 0 <- dstate_1 <- piece 1 <- ... <- dstate_P   gradients, added up

The pieces, and the order in which their gradients are added, are part of the definition of the
result. A tape that was kept is not: a piece can as well be computed again from the state before it,
with the same bits. So the memory can be chosen. `Keep` says how many tapes and states are kept, and
with it all pieces but the last few are computed twice, or more often if there is not even room for
the state before each of them [1]_ [2]_ [3]_.

References
----------
.. [1] A. Griewank, A. Walther, "Algorithm 799: revolve: an implementation of checkpointing for the
       reverse or adjoint mode of computational differentiation", ACM TOMS 26 (2000), 19-45.
.. [2] T. Chen, B. Xu, C. Zhang, C. Guestrin, "Training deep nets with sublinear memory cost",
       arXiv:1604.06174 (2016).
.. [3] A. Gruslys, R. Munos, I. Danihelka, M. Lanctot, A. Graves, "Memory-efficient
       backpropagation through time", NeurIPS 2016.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

from rnn_xp._typing import Array, Namespace, Params, State
from rnn_xp.kernels import pointwise
from rnn_xp.network import pipeline
from rnn_xp.network.call import Options
from rnn_xp.network.configuration import Configuration
from rnn_xp.network.dropout import MasksOfPieces
from rnn_xp.network.passes import Pass

__all__ = ["PIECE", "Keep", "advance", "cut", "forward", "order", "value_and_grad"]

PIECE = 100
"""Number of steps of a piece; the first has what is left over."""


class Keep(NamedTuple):
    """What a backward pass may keep of the forward pass.

    Attributes
    ----------
    tapes : int
        Number of tapes of pieces, >= 1.
    states : int
        Number of states between pieces, apart from the initial one and the one at hand.
    """

    tapes: int
    states: int


def cut(net: Configuration, steps: int) -> list[range]:
    """Cut a sequence into pieces, or leave it whole.

    It stays whole where not all that a later piece needs is in the state: the reverse direction
    comes from the future, ``read="mean"`` and ``"max"`` see all steps, and one_to_many has no
    inputs to be cut.

    Examples
    --------
    >>> import rnn_xp as rx
    >>> cut(rx.Network(hidden_size=4), 250)
    [range(0, 50), range(50, 150), range(150, 250)]
    >>> cut(rx.Network(hidden_size=4, bidirectional=True), 250)
    [range(0, 250)]
    """
    if (
        net.bidirectional
        or net.topology == "one_to_many"
        or net.read != "last"
        or net.linear_lags > PIECE
    ):
        return [range(steps)]
    stops = range(steps, 0, -PIECE)
    return [range(max(0, stop - PIECE), stop) for stop in reversed(stops)]


def advance(pieces: int, states: int) -> int:
    """Return after how many pieces the next state is best kept, see [1]_ of this module.

    Parameters
    ----------
    pieces : int
        Number of pieces from a kept state to the end, >= 2.
    states : int
        Number of further states that can be kept.

    Examples
    --------
    >>> advance(10, states=9), advance(10, states=0), advance(10, states=2)
    (1, 9, 4)
    """
    slots, rounds = states + 1, 1
    while math.comb(slots + rounds, slots) < pieces:
        rounds += 1
    fewest = math.comb(slots + rounds - 2, slots) if rounds > 1 else 1
    return max(fewest, pieces - math.comb(states + rounds, states), 1)


def order(pieces: int, keep: Keep) -> Iterator[tuple[int, int, int, bool]]:
    """Yield what is computed: ``(start, first, stop, last)``, in this order.

    From the kept state before ``start``, the pieces up to ``first`` are computed without a tape and
    the state before ``first`` is kept; then, if ``last`` is True, the pieces first..stop-1 are
    computed with their tapes and go back, and the state before ``first`` is dropped.

    Examples
    --------
    >>> list(order(3, Keep(tapes=1, states=1)))
    [(0, 1, 3, False), (1, 2, 3, True), (1, 1, 2, True), (0, 0, 1, True)]
    """
    kept, stop = [0], pieces
    while kept:
        start = first = kept[-1]
        if (left := math.ceil((stop - start) / keep.tapes)) > 1:
            # The tapes of the end are full, so what is left over is at the start of this stretch.
            leaves = advance(left, max(0, keep.states - len(kept) + 1))
            first = stop - (left - leaves) * keep.tapes
            kept.append(first)
        last = stop - first <= keep.tapes
        yield start, first, stop, last
        if last:
            stop = kept.pop()


def forward(
    net: Configuration, params: Params, x: Array, options: Options, *, xp: Namespace
) -> tuple[Array, State]:
    """Predict, and return the final state; nothing is kept. The arguments have been checked."""
    pieces = cut(net, x.shape[1] if options.steps is None else options.steps)
    if len(pieces) == 1:
        whole = pipeline.run(net, params, x, options, xp=xp)
        return pipeline.prediction(net, whole), pipeline.final_state(net, whole)
    sequence = _Sequence(net, params, x, options, pieces, xp)
    state, preds = options.state, []
    for number in range(len(pieces)):
        passed = sequence.run(number, state, tape=False)
        preds.append(pipeline.prediction(net, passed))
        state = pipeline.final_state(net, passed)
        del passed  # so that its memory can be used again
    return sequence.join(preds), state


def value_and_grad(
    net: Configuration,
    params: Params,
    x: Array,
    options: Options,
    loss: Callable[[Array], tuple[Array, Array]],
    keep: Keep | None = None,
    *,
    xp: Namespace,
) -> tuple[Array, Params]:
    """Compute a loss and its gradient by the parameters. The arguments have been checked.

    Parameters
    ----------
    net, params, x, options : as for `rnn_xp.network.pipeline.run`
    loss : callable
        ``value, dpred = loss(pred)``.
    keep : Keep, optional
        What is kept from the forward pass, on which no bit depends; all tapes by default.
    xp : Namespace

    Returns
    -------
    value : Array ()
    grads : Params
    """
    pieces = cut(net, x.shape[1] if options.steps is None else options.steps)
    if len(pieces) == 1:
        whole = pipeline.run(net, params, x, options, xp=xp)
        value, dpred = loss(pipeline.prediction(net, whole))
        return value, pipeline.run_back(net, params, whole, dpred, None).grads
    sequence = _Sequence(net, params, x, options, pieces, xp)
    preds: dict[int, Array] = {}
    dpreds: list[Array] = []
    states = {0: options.state}
    grads: Params = {}
    dstate: State | None = None
    for start, first, stop, last in order(len(pieces), keep or Keep(len(pieces), 0)):
        state, passes = states[start], []
        for number in range(start, stop if last else first):
            passed = sequence.run(number, state, tape=number >= first, place=number - first)
            preds.setdefault(number, pipeline.prediction(net, passed))
            state = pipeline.final_state(net, passed)
            if number >= first:
                passes.append(passed)
            elif number + 1 == first:
                states[first] = state
            del passed
        if not last:
            continue
        if not dpreds:
            value, dpred = loss(sequence.join([preds[number] for number in range(len(pieces))]))
            dpreds = sequence.split(dpred)
        while passes:
            number = first + len(passes) - 1
            back = pipeline.run_back(
                sequence.net_of(number), params, passes.pop(), dpreds.pop(), dstate
            )
            dstate = pipeline.join_states(net, back.dstate, xp=xp) if number else None
            shared = [name for name in back.grads if name in grads]
            added = pointwise(_add, [(back.grads[n], grads[n]) for n in shared], xp=xp)
            grads |= back.grads | {n: total for n, (total,) in zip(shared, added, strict=True)}
        del states[first]
    return value, {name: grads[name] for name in net.shapes}


def _add(a: Array, b: Array, *, xp: Namespace) -> tuple[Array]:
    return (a + b,)


class _Sequence:
    """A sequence, which is computed piece by piece."""

    def __init__(
        self,
        net: Configuration,
        params: Params,
        x: Array,
        options: Options,
        pieces: list[range],
        xp: Namespace,
    ) -> None:
        self.net, self.params, self.x, self.options = net, params, x, options
        self.pieces, self.xp = pieces, xp
        self.masks = MasksOfPieces(net, params, x, pieces, options.rng, xp=xp)

    def net_of(self, number: int) -> Configuration:
        """Return the network as a piece needs it: the linear path belongs to the last steps."""
        if number == len(self.pieces) - 1 or not self.net.linear_lags:
            return self.net
        return dataclasses.replace(self.net, linear_lags=0)

    def run(self, number: int, state: State | None, *, tape: bool, place: int = 0) -> Pass:
        """Run a piece from the state before it; tapes with different places are kept apart."""
        piece, options, workspace = self.pieces[number], self.options, self.options.workspace
        steps = slice(piece.start, piece.stop)
        mask, reset = (None if a is None else a[:, steps] for a in (options.mask, options.reset))
        options = options._replace(
            state=state, lengths=self._left(piece), mask=mask, reset=reset,
            rng=self.masks[number], tape=tape,
            workspace=workspace.apart(place) if workspace is not None and place > 0 else workspace,
        )  # fmt: skip
        net = self.net_of(number)
        return pipeline.run(net, self.params, self.x[:, steps, :], options, xp=self.xp)

    def join(self, preds: list[Array]) -> Array:
        """Return the prediction of the whole sequence."""
        return preds[-1] if self.net.topology == "many_to_one" else self.xp.concat(preds, axis=1)

    def split(self, dpred: Array) -> list[Array]:
        """Adjoint of `join`."""
        if self.net.topology == "many_to_one":
            return [self.xp.zeros_like(dpred)] * (len(self.pieces) - 1) + [dpred]
        return [dpred[:, piece.start : piece.stop, :] for piece in self.pieces]

    def _left(self, piece: range) -> Array | None:
        """Return the number of steps of each row within a piece."""
        lengths, xp = self.options.lengths, self.xp
        if lengths is None:
            return None
        left = xp.astype(lengths, xp.arange(1).dtype) - piece.start
        left = xp.where(left < 0, xp.zeros_like(left), left)
        return xp.where(left > len(piece), xp.full_like(left, len(piece)), left)
