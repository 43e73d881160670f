"""How the rows of a layer go through its steps: all that kernels know beside plain full sequences.

One mechanism serves every option. Before a step the state of a row may become zero (``reset``), and
the part of it that enters the product has factors (``keep``). Only the leading rows compute the
step (``counts``), so rows that are sorted by length cost nothing after their end; of these some
skip it (``idle``). A row that does not compute a step keeps its state, and its gradient passes by::

    before = 0 where reset, otherwise state          dstate = 0 where reset
    after  = step(before.h * keep, before)           the adjoint, with dh * keep
    state  = after, or before where left out         dstate, or what came where left out
"""

from __future__ import annotations

from typing import Any, NamedTuple

from rnn_xp._typing import Array

__all__ = ["Course", "Ends", "Feedback"]


class Ends(NamedTuple):
    """Where rows that are sorted by length end, as a GPU's kernels read it: int32 on the device.

    Attributes
    ----------
    lengths : Array (N,)
        Number of steps of each row, the longest first.
    offsets : Array (T + 1,)
        Number of rows that all steps before t compute together, from 0 on.
    """

    lengths: Array
    offsets: Array


class Feedback(NamedTuple):
    """Predictions that are the next input, x_{t+1} = pred_t = g(h_t @ w_hy.T + b_y).

    A kernel that is given this reads the first step of its input, (T, N, O), and no other. It
    returns the predictions (T, N, O) in place of the states. Its way back is given their gradients
    as one array, and gives those of ``w_hy`` and ``b_y`` as well; of the input's gradient it gives
    that of the first step, (1, N, O).

    Attributes
    ----------
    w_hy : Array (O, H)
    b_y : Array (O,)
    output : {"identity", "tanh", "sigmoid", "softmax"}
        The name of g.
    """

    w_hy: Array
    b_y: Array
    output: str


class Course(NamedTuple):
    """The order of the steps and the treatment of single rows; arrays are ordered by time.

    Attributes
    ----------
    reverse : bool
        If True, time runs from the last step to the first.
    counts : tuple of T int, Ends, or None
        Number of leading rows that compute each step; all rows by default. In the order of time
        it may not rise. The layers of `rnn_xp.kernels.cuda` take `Ends` as well, so that a step
        which does not read from the device can have lengths.
    idle : Array (T, N) of bool, or None
        Where True, the row skips the step.
    reset : Array (T, N) of bool, or None
        Where True, the row's state becomes zero before the step.
    keep : Array (N, H), or None
        Factors of the state that enters the recurrent product.
    factors : Array (T, N, I), or None
        Factors of the input; only a `rnn_xp._typing.Stack` is given them, for other kernels they
        are in the input.
    initial : tuple of Array (N, H), or None
        Fields of the state before the first step; zeros by default.
    brief : bool
        If True, nobody reads any states but the final ones. The others may then hold anything.
    feedback : Feedback or None
        The readout, if its prediction is the layer's next input; then neither ``reverse`` nor
        ``counts`` are given. The prediction, which is the first input before the first step, is a
        part of the state: where that becomes zero before a step, so does the step's input, and a
        row that skips the step keeps what would have entered it as its prediction.
    keeps : bool
        If False, nothing goes back: what only a way back would read may be overwritten by the next
        step.

    Examples
    --------
    >>> Course(reverse=True).in_order([1, 2, 3])
    [3, 2, 1]
    """

    reverse: bool = False
    counts: tuple[int, ...] | Ends | None = None
    idle: Array | None = None
    reset: Array | None = None
    keep: Array | None = None
    factors: Array | None = None
    initial: tuple[Array, ...] | None = None
    feedback: Feedback | None = None
    brief: bool = False
    keeps: bool = True

    def in_order(self, by_time: Any) -> Any:
        """Return what is ordered by time in the order in which the steps are computed."""
        return by_time[::-1] if self.reverse else by_time
