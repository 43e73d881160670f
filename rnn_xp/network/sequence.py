"""The only time loop of the library, and its backpropagation through time.

Everything here is time-major: xs (T, N, I). A cell knows one step and nothing of time; this module
knows time and nothing of what a step computes.

::

    run:       state_0 -> step 1 -> state_1 -> step 2 -> ... -> step T -> state_T
    backprop:  step_back T, with dhs[T]  ->  step_back T-1, with dhs[T-1]  ->  ...  ->  dstate_0
    collect:   weight gradients, one matrix product over all T*N rows

The gradient that reaches h_t has two shares: the loss's own, if step t is read (``dhs[t]``), and
what comes back through h_{t+1}. `backprop` adds them, and this addition is the whole of
"through time".

A state is a tuple, nested or not, of arrays (N, .); its first entry is the cell's output.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from rnn_xp._typing import Array, Cell, Namespace, Params, State, Stepper

__all__ = [
    "Backward",
    "Schedule",
    "Segment",
    "Tape",
    "backprop",
    "collect",
    "collect_per_step",
    "input_back",
    "map_state",
    "project",
    "run",
    "segments",
    "stack_rows",
]


class Schedule(NamedTuple):
    """What happens at which step to which row, the same in the forward and the backward pass.

    Attributes
    ----------
    mask : Array (T, N, 1) of bool, or None
        False: the step does nothing to the row, whose state is carried on.
    reset : Array (T, N, 1) of bool, or None
        True: the row's state becomes zero before the step.
    reverse : bool
        Whether time runs from the last step to the first.
    """

    mask: Array | None = None
    reset: Array | None = None
    reverse: bool = False

    def order(self, steps: int) -> range:
        """Steps in the order in which they are done."""
        return range(steps - 1, -1, -1) if self.reverse else range(steps)


_STRAIGHT = Schedule()


class Tape(NamedTuple):
    """What a forward pass over a sequence leaves for its backward, each list by time.

    Attributes
    ----------
    initial : state
        The state that entered the first step done.
    states : list of T states
        ``states[t]`` is the state after step t.
    caches : list of T caches
        From the cell.
    """

    initial: State
    states: list[State]
    caches: list[Any]


class Backward(NamedTuple):
    """What backpropagation through time yields, each list by time.

    Attributes
    ----------
    shares : list of T
        Each step's share in the weight gradients, for `stack_rows` and `collect`.
    dinitial : state
        Gradient with respect to the initial state.
    dhs : list of T arrays (N, H), or empty
        dL/dh_t, both shares of it, if asked for.
    """

    shares: list[Any]
    dinitial: State
    dhs: list[Array]


class Segment(NamedTuple):
    """A piece of a long sequence for truncated backpropagation: steps start..stop-1.

    Steps before ``first`` are context: they are run again so that the gradient reaches them, but
    their losses belong to an earlier segment.
    """

    start: int
    first: int
    stop: int


def segments(steps: int, k1: int, k2: int) -> list[Segment]:
    """Cut a sequence for truncated backpropagation through time, TBPTT(k1, k2).

    Parameters
    ----------
    steps : int
        T.
    k1 : int
        Steps between two updates.
    k2 : int
        How many steps each gradient reaches back, >= k1.

    Returns
    -------
    list of Segment
        Their steps first..stop-1 are all T steps, once each.

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
    """Do the part of all steps that does not depend on h, in one product over T*N rows.

    Parameters
    ----------
    cell : Cell
    params : Params
        The cell's own, without prefix.
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
        Such as those of `rnn_xp.cells`.
    params : Params
        The cell's own parameters, without prefix.
    projected : sequence of T
        What each step is given; usually from `project`.
    state : state
        Before the first step done.
    schedule : Schedule
    keep : Array (N, H), optional
        Mask of recurrent dropout, the same at every step.
    tape : bool
        If False, the caches are dropped step by step: nothing will go back.
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
        The loss's own share of dL/dh_t; None where step t is not read.
    dstate : state
        Gradient with respect to the state after the last step done.
    flow : bool
        Whether to keep dL/dh_t of every step; training does not, for the memory's sake.
    xp : Namespace

    Returns
    -------
    Backward
    """
    steps = len(tape.caches)
    shares: list[Any] = [None] * steps
    totals: list[Array] = [None] * steps if flow else []
    for t in reversed(schedule.order(steps)):
        own = dhs[t]
        if own is not None:
            dstate = type(dstate)(dstate[0] + own, *dstate[1:])
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


def stack_rows(shares: Sequence[Any], *, xp: Namespace) -> Any:
    """Join the shares of T steps (N, .) into one of T*N rows, array by array."""

    def stack(*arrays: Array) -> Array:
        return xp.reshape(xp.stack(arrays), (-1, arrays[0].shape[1]))

    return map_state(stack, *shares)


def collect(cell: Cell, params: Params, xs: Array, share: Any, *, xp: Namespace) -> Params:
    """Weight gradients, summed over all steps and samples in one product over T*N rows.

    Parameters
    ----------
    cell, params : as given to `backprop`
    xs : Array (T, N, I)
        The input; the other factor of dw_xh.
    share : share of T*N rows
        From `backprop` and `stack_rows`.
    xp : Namespace

    Returns
    -------
    Params
    """
    return cell.collect(params, xp.reshape(xs, (-1, xs.shape[2])), share, xp=xp)


def input_back(cell: Cell, params: Params, xs: Array, share: Any, *, xp: Namespace) -> Array:
    """Adjoint of `project` with respect to its input: dxs (T, N, I). Arguments as for `collect`."""
    dxs = cell.input_back(params, xp.reshape(xs, (-1, xs.shape[2])), share, xp=xp)
    return xp.reshape(dxs, xs.shape)


def collect_per_step(
    cell: Cell, params: Params, xs: Array, shares: Sequence[Any], *, xp: Namespace
) -> Params:
    """Each step's own term of the sum over time, for example dz_t.T @ h_{t-1} for w_hh.

    Returns
    -------
    Params
        Each gradient with a leading axis T; summing over it gives what `collect` returns.
    """
    terms = [cell.collect(params, xs[t, ...], share, xp=xp) for t, share in enumerate(shares)]
    return {name: xp.stack([term[name] for term in terms]) for name in terms[0]}


def _choose(mask: Array, new: State, old: State, *, xp: Namespace) -> State:
    return map_state(lambda a, b: xp.where(mask, a, b), new, old)


def _zero_where(mask: Array, state: State, *, xp: Namespace) -> State:
    return map_state(lambda a: xp.where(mask, xp.zeros_like(a), a), state)
