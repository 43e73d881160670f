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
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from rnn_xp._typing import Array, Cell, Namespace, Params, State

__all__ = ["Tape", "backprop", "collect", "collect_per_step", "run"]


class Tape(NamedTuple):
    """What a forward pass over a sequence leaves for its backward.

    Attributes
    ----------
    xs : Array (T, N, I)
        The input: the other factor of dw_xh.
    states : tuple
        T + 1 states. ``states[0]`` is the initial state and ``states[t]`` the one after step t,
        so that the state which *entered* step t is ``states[t - 1]``, for t = 1 too.
    caches : tuple
        T caches, from the cell.
    """

    xs: Array
    states: tuple[State, ...]
    caches: tuple[Any, ...]


def run(cell: Cell, params: Params, xs: Array, state: State, *, xp: Namespace) -> Tape:
    """Run a cell over a sequence.

    Parameters
    ----------
    cell : Cell
    params : Params
        The cell's own parameters, without prefix.
    xs : Array (T, N, I)
    state : NamedTuple
        The initial state, each field (N, H).
    xp : Namespace

    Returns
    -------
    Tape
    """
    steps, rows, inputs = xs.shape
    flat = cell.project(params, xp.reshape(xs, (steps * rows, inputs)), xp=xp)
    projected = xp.reshape(flat, (steps, rows, flat.shape[1]))
    states, caches = [state], []
    for t in range(steps):
        state, cache = cell.step(params, projected[t, ...], state, xp=xp)
        states.append(state)
        caches.append(cache)
    return Tape(xs, tuple(states), tuple(caches))


def backprop(
    cell: Cell,
    params: Params,
    tape: Tape,
    dhs: Sequence[Array | None],
    dstate: State,
    *,
    xp: Namespace,
) -> tuple[Array, State]:
    """Backpropagation through time: the adjoint of `run`, up to the weight gradients.

    Parameters
    ----------
    cell, params : as given to `run`
    tape : Tape
        From the matching `run`.
    dhs : sequence of T arrays (N, H) or None
        The loss's own share of dL/dh_t; None where step t is not read.
    dstate : NamedTuple
        Gradient with respect to the final state, each field (N, H).
    xp : Namespace

    Returns
    -------
    dzs : Array (T, N, G*H)
        dL/dz_t of every step, the factor that all weight gradients share.
    dstate : NamedTuple
        Gradient with respect to the initial state.
    """
    backwards = []
    for cache, dh in zip(reversed(tape.caches), reversed(dhs), strict=True):
        if dh is not None:
            dstate = dstate._replace(h=dstate.h + dh)
        dz, dstate = cell.step_back(params, dstate, cache, xp=xp)
        backwards.append(dz)
    return xp.stack(backwards[::-1]), dstate


def collect(
    cell: Cell, params: Params, tape: Tape, dzs: Array, *, wrt_input: bool, xp: Namespace
) -> tuple[Params, Array | None]:
    """Weight gradients, summed over all steps and samples in one product over T*N rows.

    Parameters
    ----------
    cell, params, tape : as given to `backprop`
    dzs : Array (T, N, G*H)
        From `backprop`.
    wrt_input : bool
        Whether dL/dxs is wanted; training the first layer does not need it.
    xp : Namespace

    Returns
    -------
    grads : Params
    dxs : Array (T, N, I) or None
    """
    steps, rows, inputs = tape.xs.shape
    dz = xp.reshape(dzs, (steps * rows, dzs.shape[2]))
    entering = _entering(tape, xp=xp)
    grads = cell.collect(
        xp.reshape(tape.xs, (steps * rows, inputs)),
        xp.reshape(entering, (steps * rows, entering.shape[2])),
        dz,
        xp=xp,
    )
    if not wrt_input:
        return grads, None
    return grads, xp.reshape(cell.project_back(params, dz, xp=xp), tape.xs.shape)


def collect_per_step(cell: Cell, tape: Tape, dzs: Array, *, xp: Namespace) -> Params:
    """Each step's own term of the sum over time, for example dz_t.T @ h_{t-1} for w_hh.

    Returns
    -------
    Params
        Each gradient with a leading axis T; summing over it gives what `collect` returns.
    """
    entering = _entering(tape, xp=xp)
    terms = [
        cell.collect(tape.xs[t, ...], entering[t, ...], dzs[t, ...], xp=xp)
        for t in range(tape.xs.shape[0])
    ]
    return {name: xp.stack([term[name] for term in terms]) for name in terms[0]}


def _entering(tape: Tape, *, xp: Namespace) -> Array:
    """h_{t-1} of every step (T, N, H): the initial state's h first, the last step's h left out."""
    return xp.stack([state.h for state in tape.states[:-1]])
