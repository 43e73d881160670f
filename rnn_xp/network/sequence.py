"""The only time loop of the library, and its backpropagation through time.

Everything here is time-major: xs (T, N, I). A cell knows one step and nothing of time; this module
knows time and nothing of what a step computes.

::

    run:       state_0 -> step 1 -> state_1 -> step 2 -> ... -> step T -> state_T
    backprop:  step_back T, with dhs[T]  ->  step_back T-1, with dhs[T-1]  ->  ...  ->  dstate_0
    collect:   weight gradients, one matrix product over all T*N rows; or, before the sum over
               samples or over steps, one product for each sample or step

The gradient that reaches h_t has two parts: the loss's own, if step t is read (``dhs[t]``), and the
part that comes back through h_{t+1}. `backprop` adds them, and this addition is all that "through
time" means.

A state is a tuple of arrays (N, .), possibly nested; its first entry is the cell's output.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

from rnn_xp._typing import Array, Namespace, Params, State, Stepper
from rnn_xp.cells import Cell

__all__ = [
    "Backward",
    "Schedule",
    "Segment",
    "Tape",
    "Terms",
    "arrange",
    "backprop",
    "collect",
    "input_back",
    "map_state",
    "project",
    "run",
    "segments",
    "stack",
]

Terms: TypeAlias = Literal["step", "sample"] | None
"""Terms of the sum over T steps and N samples that gradients keep apart; None: their sum alone."""


class Schedule(NamedTuple):
    """Order of the steps, and treatment of single rows, in the forward and the backward pass.

    Attributes
    ----------
    mask : Array (T, N, 1) of bool, or None
        Where False, the step is skipped for the row, whose state is carried over.
    reset : Array (T, N, 1) of bool, or None
        Where True, the row's state becomes zero before the step.
    reverse : bool
        If True, time runs from the last step to the first.
    """

    mask: Array | None = None
    reset: Array | None = None
    reverse: bool = False

    def order(self, steps: int) -> range:
        """Return the steps in the order of their computation."""
        return range(steps - 1, -1, -1) if self.reverse else range(steps)


_STRAIGHT = Schedule()


class Tape(NamedTuple):
    """A forward pass over a sequence, kept for its backward; lists are by time.

    Attributes
    ----------
    initial : state
        State before the first computed step.
    states : list of T states
        ``states[t]`` is the state after step t.
    caches : list of T caches
        Caches of the cell.
    """

    initial: State
    states: list[State]
    caches: list[Any]


class Backward(NamedTuple):
    """Result of backpropagation through time; lists are by time.

    Attributes
    ----------
    shares : list of T
        Each step's share in the weight gradients, for `stack` and `collect`.
    dinitial : state
        Gradient with respect to the initial state.
    dhs : list of T arrays (N, H)
        dL/dh_t, the sum of both parts; empty unless requested.
    """

    shares: list[Any]
    dinitial: State
    dhs: list[Array]


class Segment(NamedTuple):
    """A piece of a long sequence for truncated backpropagation: steps start..stop-1.

    The steps before ``first`` are context: they are recomputed so that the gradient reaches them,
    but their losses belong to an earlier segment.
    """

    start: int
    first: int
    stop: int


def segments(steps: int, k1: int, k2: int) -> list[Segment]:
    """Divide a sequence into segments for truncated backpropagation through time, TBPTT(k1, k2).

    Parameters
    ----------
    steps : int
        Number of steps of the sequence, T.
    k1 : int
        Number of steps between two updates.
    k2 : int
        Number of steps that each gradient reaches back, >= k1.

    Returns
    -------
    list of Segment
        The segments, whose steps first..stop-1 together cover all T steps once.

    Raises
    ------
    ValueError
        Unless 1 <= k1 <= k2.

    References
    ----------
    .. [1] R. J. Williams, J. Peng, "An efficient gradient-based algorithm for on-line training of
           recurrent network trajectories", Neural Computation 2 (1990), 490-501.

    Examples
    --------
    >>> [tuple(s) for s in segments(5, k1=2, k2=3)]
    [(0, 0, 2), (1, 2, 4), (2, 4, 5)]
    """
    if not 1 <= k1 <= k2:
        raise ValueError(f"truncate=(k1, k2) must have 1 <= k1 <= k2, got ({k1}, {k2}).")
    stops = [min(first + k1, steps) for first in range(0, steps, k1)]
    return [
        Segment(max(0, stop - k2), first, stop)
        for first, stop in zip(range(0, steps, k1), stops, strict=True)
    ]


def map_state(function: Callable[..., Array], *states: State) -> State:
    """Apply a function to corresponding arrays of nested tuples; None stays None.

    Examples
    --------
    >>> map_state(lambda a, b: a + b, (1, (2, None)), (10, (20, None)))
    (11, (22, None))
    """
    first = states[0]
    if first is None:
        return None
    if not isinstance(first, tuple):
        return function(*states)
    parts = [map_state(function, *entries) for entries in zip(*states, strict=True)]
    return type(first)(*parts) if hasattr(first, "_fields") else tuple(parts)


def project(cell: Cell, params: Params, xs: Array, *, xp: Namespace) -> list[Array]:
    """Compute the part that does not depend on h, for all steps, in one product of T*N rows.

    Parameters
    ----------
    cell : Cell
    params : Params
        The cell's own parameters, without prefix.
    xs : Array (T, N, I)
    xp : Namespace

    Returns
    -------
    list of T arrays (N, G*H)
    """
    steps, rows, inputs = xs.shape
    flat = cell.project(params, xp.reshape(xs, (steps * rows, inputs)), xp=xp)
    projected = xp.reshape(flat, (steps, rows, flat.shape[1]))
    return [projected[t, ...] for t in range(steps)]


def run(
    cell: Stepper,
    params: Params,
    projected: Sequence[Any],
    state: State,
    schedule: Schedule = _STRAIGHT,
    keep: Any = None,
    *,
    tape: bool = True,
    xp: Namespace,
) -> Tape:
    """Run a cell over a sequence.

    Parameters
    ----------
    cell : Stepper
        A cell, such as one of `rnn_xp.cells`.
    params : Params
        The cell's own parameters, without prefix.
    projected : sequence of T
        Input of each step, usually from `project`.
    state : state
        State before the first computed step.
    schedule : Schedule
    keep : Array (N, H), optional
        Mask of recurrent dropout, the same at every step.
    tape : bool
        If False, the caches are dropped at every step, because no backward pass follows.
    xp : Namespace

    Returns
    -------
    Tape
    """
    steps = len(projected)
    states: list[State] = [None] * steps
    caches: list[Any] = [None] * steps
    initial = state
    for t in schedule.order(steps):
        if schedule.reset is not None:
            state = _zero_where(schedule.reset[t, ...], state, xp=xp)
        new, cache = cell.step(params, projected[t], state, keep, xp=xp)
        caches[t] = cache if tape else None
        state = new if schedule.mask is None else _choose(schedule.mask[t, ...], new, state, xp=xp)
        states[t] = state
    return Tape(initial, states, caches)


def backprop(
    cell: Stepper,
    params: Params,
    tape: Tape,
    dhs: Sequence[Array | None],
    dstate: State,
    schedule: Schedule = _STRAIGHT,
    *,
    flow: bool = False,
    xp: Namespace,
) -> Backward:
    """Backpropagation through time: the adjoint of `run`, up to the weight gradients.

    Parameters
    ----------
    cell, params, schedule : as given to `run`
    tape : Tape
        From the matching `run`.
    dhs : sequence of T arrays (N, H) or None
        The loss's own part of dL/dh_t; None if step t is not read.
    dstate : state
        Gradient with respect to the state after the last computed step.
    flow : bool
        If True, keep dL/dh_t of every step; training does not, which saves memory.
    xp : Namespace

    Returns
    -------
    Backward
    """
    steps = len(tape.caches)
    shares: list[Any] = [None] * steps
    totals: list[Array] = [None] * steps if flow else []
    for t in reversed(schedule.order(steps)):
        dh = dhs[t]
        if dh is not None:
            dstate = type(dstate)(dstate[0] + dh, *dstate[1:])
        if flow:
            totals[t] = dstate[0]
        if schedule.mask is None:
            shares[t], dstate = cell.step_back(params, dstate, tape.caches[t], xp=xp)
        else:  # where the step did nothing, the gradient passes it by
            mask = schedule.mask[t, ...]
            through = _zero_where(~mask, dstate, xp=xp)
            beside = _zero_where(mask, dstate, xp=xp)
            shares[t], dstate = cell.step_back(params, through, tape.caches[t], xp=xp)
            dstate = map_state(lambda a, b: a + b, dstate, beside)
        if schedule.reset is not None:
            dstate = _zero_where(schedule.reset[t, ...], dstate, xp=xp)
    return Backward(shares, dstate, totals)


def stack(shares: Sequence[Any], *, xp: Namespace) -> Any:
    """Stack the shares of T steps (N, .) to one share (T, N, .), array by array."""
    return map_state(lambda *arrays: xp.stack(arrays), *shares)


def arrange(stacked: Any, terms: Terms, *, xp: Namespace) -> Any:
    """Arrange arrays (T, N, K) so that the axes that a gradient sums over come second to last.

    Returns
    -------
    Array, or nested tuples of them
        (T*N, K), all rows in one sum; (T, N, K) for the terms of the steps; (N, T, K) for those
        of the samples.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> [arrange(xp.zeros((5, 3, 2)), terms, xp=xp).shape for terms in (None, "step", "sample")]
    [(15, 2), (5, 3, 2), (3, 5, 2)]
    """
    if terms == "step":
        return stacked
    if terms == "sample":
        return map_state(lambda a: xp.permute_dims(a, (1, 0, 2)), stacked)
    return map_state(lambda a: xp.reshape(a, (-1, a.shape[2])), stacked)


def collect(
    cell: Cell, params: Params, xs: Array, share: Any, terms: Terms = None, *, xp: Namespace
) -> Params:
    """Return the weight gradients, summed over all steps and samples in one product of T*N rows.

    Parameters
    ----------
    cell, params : as given to `backprop`
    xs : Array (T, N, I)
        Input of the layer, which is the other factor of dw_xh.
    share : share (T, N, .)
        From `backprop` and `stack`.
    terms : {None, "step", "sample"}
        Terms that are not added up, for example dz_t.T @ h_{t-1} of each step for w_hh: gradients
        then have a leading axis T or N, and their sum over it is the gradient.
    xp : Namespace

    Returns
    -------
    Params
    """
    return cell.collect(params, arrange(xs, terms, xp=xp), arrange(share, terms, xp=xp), xp=xp)


def input_back(cell: Cell, params: Params, xs: Array, share: Any, *, xp: Namespace) -> Array:
    """Adjoint of `project`: return dxs (T, N, I); the arguments are those of `collect`."""
    rows = arrange(share, None, xp=xp)
    dxs = cell.input_back(params, arrange(xs, None, xp=xp), rows, xp=xp)
    return xp.reshape(dxs, xs.shape)


def _choose(mask: Array, new: State, old: State, *, xp: Namespace) -> State:
    return map_state(lambda a, b: xp.where(mask, a, b), new, old)


def _zero_where(mask: Array, state: State, *, xp: Namespace) -> State:
    return map_state(lambda a: xp.where(mask, xp.zeros_like(a), a), state)
