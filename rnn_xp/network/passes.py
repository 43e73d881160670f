"""Results of a forward pass, kept for its backward, and results of the backward."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

from rnn_xp._typing import Array, Namespace, Params, State, Workspace
from rnn_xp.network.layers import Noise, StackPass
from rnn_xp.network.sequence import Schedule, Tape

__all__ = ["Carry", "FeedbackPass", "LayersPass", "Order", "Pass", "PassGrads"]


class Carry(NamedTuple):
    """Start of the next segment of a sequence.

    Attributes
    ----------
    state : NamedTuple
        Initial state.
    x : Array (N, 1, I) or None
        Input of one_to_many; None for other topologies, whose input is given.
    """

    state: State
    x: Array | None


class Order(NamedTuple):
    """An order of the rows in which those that compute a step are the leading ones.

    Attributes
    ----------
    ranked : Array (N,) of int
        The rows as they were given, the longest first.
    places : Array (N,) of int
        The inverse: where each given row went.
    """

    ranked: Array
    places: Array


class LayersPass(NamedTuple):
    """A forward pass, layer by layer, kept for its backward."""

    xp: Namespace
    x: Array  # as given
    steps: int
    schedule: Schedule
    noise: Noise
    stack: StackPass
    h: Array | None  # rows that enter the readout, the other factor of dw_hy; None with feedback
    read: list[Any]  # caches of the read, by direction
    out: Array  # (M, O)
    workspace: Workspace | None  # in which the layers were computed
    window: Array | None  # rows (N, L*I) of the linear path; the other factor of dw_xy
    order: Order | None = None  # of the rows in all arrays but x; None as they were given


class FeedbackPass(NamedTuple):
    """A forward pass with feedback, step by step, kept for its backward."""

    xp: Namespace
    x: Array  # as given
    steps: int
    schedule: Schedule
    noise: Noise
    tape: Tape  # of layers and readout together
    out: Array  # (T*N, O)


Pass: TypeAlias = LayersPass | FeedbackPass


class PassGrads(NamedTuple):
    """Gradients of a whole pass.

    Attributes
    ----------
    grads : Params
    dx : Array or None
        Gradient of x, with the shape of x.
    dstate : list of L*D states
    flows : list of lists of T arrays
        If requested, dL/dh_t (N, H) for each layer and direction; with feedback there is one list,
        dL/dpred_t.
    """

    grads: Params
    dx: Array | None
    dstate: list[State]
    flows: list[list[Array]]
