"""What kernels are told of a call: who computes, in which order rows come, and how they take turns.

Rows that are sorted by length compute each step as leading rows, so that those which have ended
cost nothing. Their order is restored where results leave the pass, see `rnn_xp.network.pipeline`.
"""

from __future__ import annotations

from rnn_xp._typing import Array, Namespace, Params, State, Workspace
from rnn_xp.backend import to_numpy
from rnn_xp.kernels.course import Course, Ends, Feedback
from rnn_xp.network.call import Options
from rnn_xp.network.configuration import Configuration
from rnn_xp.network.layers import Noise
from rnn_xp.network.passes import Order

__all__ = ["by_length", "course", "lent", "ranked", "take_rows"]


def lent(net: Configuration, options: Options, noise: Noise) -> Workspace | None:
    """Return the workspace if its kernels know all that the call asks for, otherwise None.

    This is the only place where it is decided whether kernels or the portable code compute.
    """
    asked = {
        "counts": options.lengths is not None,
        "idle": options.mask is not None,
        "reset": options.reset is not None,
        "initial": options.state is not None,
        "norm": net.layer_norm,
        "keep": any(keep is not None for keep in noise.recurrent),
        "feedback": net.feedback,
    }
    needs = {name for name, is_asked in asked.items() if is_asked}
    workspace = options.workspace
    if workspace is None:
        return None
    cells = net.layers.cells
    known = (workspace.knows_for(cell.kernel, net.hidden_size) for cell in cells)
    if not all(needs <= knows for knows in known):
        return None
    # With feedback one kernel has all that is between an input and the prediction after it.
    if net.feedback and (len(cells) > 1 or not net.layers.have_kernels(workspace)):
        return None
    return workspace


def course(
    net: Configuration, params: Params, options: Options, steps: int, *, xp: Namespace
) -> Course:
    """Return the course of sorted rows; layers add their directions, states and noise."""
    feedback = None
    if net.feedback:
        w_hy, b_y = params["readout.w_hy"], params["readout.b_y"]
        feedback = Feedback(w_hy, b_y, net.output_activation)
    counts: tuple[int, ...] | Ends | None = options.ends
    idle, reset = options.mask, options.reset
    if options.lengths is not None and counts is None:
        inside = options._replace(mask=None).joint_mask(steps, xp=xp)
        by_step = xp.sum(xp.astype(inside, xp.int64), axis=0)
        counts = tuple(to_numpy(by_step).tolist())  # one transfer
    return Course(
        counts=counts,
        idle=None if idle is None else xp.matrix_transpose(~idle),
        reset=None if reset is None else xp.matrix_transpose(reset),
        initial=None if options.state is None else (),
        feedback=feedback,
        keeps=options.tape,
        brief=net.topology == "many_to_one" and net.read == "last" and not net.residual,
    )


def by_length(lengths: Array, *, xp: Namespace) -> Order:
    """Return the order of the rows by length, the longest first, and equal ones as they came."""
    ranked = xp.argsort(-xp.astype(lengths, xp.int64))
    return Order(ranked, xp.argsort(ranked))


def ranked(
    x: Array, options: Options, noise: Noise, order: Order, *, xp: Namespace
) -> tuple[Array, Options, Noise]:
    """Return what a pass is given, with its rows in another order."""

    def take(a: Array | None, axis: int = 0) -> Array | None:
        return None if a is None else xp.take(a, order.ranked, axis=axis)

    options = options._replace(
        state=take_rows(options.state, order.ranked, xp=xp),
        lengths=take(options.lengths),
        mask=take(options.mask),
        reset=take(options.reset),
    )
    between = [take(keep, axis=1) for keep in noise.between]
    return take(x), options, Noise(between, [take(keep) for keep in noise.recurrent])


def take_rows(state: State | None, rows: Array, *, xp: Namespace) -> State | None:
    """Take rows of a state, whose fields are (L*D, N, H)."""
    if state is None:
        return None
    return type(state)(*(xp.take(field, rows, axis=1) for field in state))
