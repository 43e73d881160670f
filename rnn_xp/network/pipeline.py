"""The forward pass of a whole network and its adjoint, time-major and on rows.

::

    x --feed--> xs (T, N, I) --layers--> outs --read--> h (M, D*H) --readout--> y --g--> out (M, O)
                     |--last linear_lags steps--> window (M, L*I) ------------->|

M is N where a sequence is read once and T*N where every step is. With feedback, layers and readout
are one cell, and the rows of ``out`` are its predictions.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

from rnn_xp._typing import Array, Namespace, Params, State, Workspace
from rnn_xp.backend import array_namespace, device_of
from rnn_xp.kernels.portable import sum_rows
from rnn_xp.network import sequence
from rnn_xp.network.call import Options
from rnn_xp.network.configuration import Configuration
from rnn_xp.network.feedback import FeedbackState
from rnn_xp.network.layers import Noise, StackPass, as_one
from rnn_xp.network.sequence import Schedule, Tape
from rnn_xp.network.topology import last_steps, last_steps_back, last_steps_terms

__all__ = [
    "Carry",
    "Pass",
    "PassGrads",
    "carry_at",
    "final_state",
    "join_states",
    "loss_weight",
    "prediction",
    "run",
    "run_back",
]


class Carry(NamedTuple):
    """What one segment hands to the next: the state and, of one_to_many, the next x (N, 1, I)."""

    state: State
    x: Array | None


class Pass(NamedTuple):
    """What a forward pass leaves for its backward."""

    xp: Namespace
    x: Array  # as it was given
    steps: int
    schedule: Schedule
    noise: Noise
    stack: StackPass | None  # of the layers, or
    tape: Tape | None  # with feedback, of layers and readout together
    h: Array  # rows that the readout saw; the other factor of dw_hy
    read: list[Any]  # caches of the read, by direction
    out: Array  # (M, O)
    workspace: Workspace | None = None  # in which the layers were computed
    window: Array | None = None  # rows (N, L*I) of the linear path; the other factor of dw_xy


class PassGrads(NamedTuple):
    """What back-propagation through a whole pass yields.

    Attributes
    ----------
    grads : Params
    dx : Array or None
        With the shape of the network's x.
    dstate : list of L*D states
    flows : list of lists of T arrays
        If asked for, dL/dh_t (N, H) by layer and direction; with feedback one list, dL/dpred_t.
    """

    grads: Params
    dx: Array | None
    dstate: list[State]
    flows: list[list[Array]]


def run(net: Configuration, params: Params, x: Array, options: Options, *, xp: Namespace) -> Pass:
    """Run a network forward. Everything given has been checked."""
    one_to_many = net.topology == "one_to_many"
    steps = options.steps if one_to_many and options.steps is not None else x.shape[1]
    mask = options.joint_mask(steps, xp=xp)
    schedule = Schedule(_by_time(mask, xp=xp), _by_time(options.reset, xp=xp))
    states = _initial_states(net, x, options.state, xp=xp)
    plain = options.state is None and schedule.mask is None and schedule.reset is None
    workspace = options.workspace if plain else None
    noise = _draw(net, x, steps, options.rng, xp=xp)
    if net.feedback:
        return _run_feedback(
            net, params, x, steps, states, schedule, noise, tape=options.tape, xp=xp
        )
    xs = xp.permute_dims(x, (1, 0, 2))
    if one_to_many:
        xs = net.feed_function.forward(xs, steps, xp=xp)
    if schedule.mask is not None:  # so that not even a NaN in the padding can be seen
        xs = xp.where(schedule.mask, xs, xp.zeros_like(xs))
    stack = net.layers.run(params, xs, states, schedule, noise, workspace, tape=options.tape, xp=xp)
    if net.topology == "many_to_one":
        reads = [
            net.read_function.forward(hs, schedule.mask, bool(direction), xp=xp)
            for direction, hs in enumerate(stack.outs)
        ]
        parts, caches = [h for h, _ in reads], [cache for _, cache in reads]
    else:
        parts = [
            _rows(as_one(hs, xp=xp), xp=xp)
            if workspace is None or isinstance(hs, list)
            else workspace.rows(f"rows{direction}", hs)
            for direction, hs in enumerate(stack.outs)
        ]
        caches = []
    h = parts[0] if len(parts) == 1 else xp.concat(parts, axis=1)
    y = xp.matmul(h, xp.matrix_transpose(params["readout.w_hy"])) + params["readout.b_y"]
    window = None
    if net.linear_lags:
        window = last_steps(xs, net.linear_lags, xp=xp)
        y = y + xp.matmul(window, xp.matrix_transpose(params["readout.w_xy"]))
    out = net.output_function.forward(y, xp=xp)
    return Pass(xp, x, steps, schedule, noise, stack, None, h, caches, out, workspace, window)


def run_back(
    net: Configuration,
    params: Params,
    done: Pass,
    dpred: Array,
    dstate: State | None,
    *,
    wrt_input: bool = False,
    per_step: bool = False,
    flow: bool = False,
) -> PassGrads:
    """Adjoint of `run`.

    Parameters
    ----------
    dpred : Array
        Shape of `prediction`.
    dstate : NamedTuple or None
        Shapes of `final_state`.
    wrt_input : bool
        Whether dL/dx is wanted.
    per_step : bool
        Whether gradients get a leading axis T, with each step's own term.
    flow : bool
        Whether dL/dh_t of every step is wanted.
    """
    xp, steps = done.xp, done.steps
    dout = dpred if len(dpred.shape) == 2 else _rows(xp.permute_dims(dpred, (1, 0, 2)), xp=xp)
    dfinals = _split_state(net, done, dstate)
    if done.tape is not None:
        return _feedback_back(net, params, done, dout, dfinals, per_step=per_step, flow=flow)
    if done.stack is None:
        raise ValueError("a pass has either layers or, with feedback, a tape")
    dy = net.output_function.backward(dout, done.out, xp=xp)
    w_hy, workspace = params["readout.w_hy"], done.workspace
    dh = xp.matmul(dy, w_hy) if workspace is None else workspace.matmul("readout", dy, w_hy)
    douts: list[list[Array | None]] = []
    for direction in range(net.directions):
        part = dh[:, direction * net.hidden_size : (direction + 1) * net.hidden_size]
        if net.topology == "many_to_one":
            douts.append(net.read_function.backward(part, steps, done.read[direction], xp=xp))
        else:
            by_step = xp.reshape(part, (steps, -1, net.hidden_size))
            douts.append([by_step[t, ...] for t in range(steps)])

    back = net.layers.backprop(
        params,
        done.stack,
        douts,
        dfinals,
        done.noise,
        per_step=per_step,
        wrt_input=wrt_input,
        flow=flow,
        xp=xp,
    )
    grads = back.grads | _readout_grads(done, dy, per_step=per_step)
    if done.window is not None:
        dw_xy = xp.matmul(xp.matrix_transpose(dy), done.window)
        if per_step:
            dw_xy = last_steps_terms(dw_xy, steps, net.input_size, xp=xp)
        grads["readout.w_xy"] = dw_xy
    dx = None
    if back.dxs is not None:
        one_to_many = net.topology == "one_to_many"
        dxs = net.feed_function.backward(back.dxs, xp=xp) if one_to_many else back.dxs
        if done.window is not None:
            dwindow = xp.matmul(dy, params["readout.w_xy"])
            dxs = dxs + last_steps_back(dwindow, steps, net.input_size, done.schedule.mask, xp=xp)
        dx = xp.permute_dims(dxs, (1, 0, 2))
    return PassGrads({name: grads[name] for name in net.shapes}, dx, back.dinitials, back.flows)


def prediction(net: Configuration, done: Pass) -> Array:
    """Prediction of a pass: (N, O), or (N, T, O) where every step is read."""
    if net.topology == "many_to_one":
        return done.out
    by_step = done.xp.reshape(done.out, (done.steps, -1, net.output_size))
    return done.xp.permute_dims(by_step, (1, 0, 2))


def final_state(net: Configuration, done: Pass) -> State:
    """State after the last step done, each field (L*D, N, H)."""
    if done.tape is not None:
        return join_states(net, done.tape.states[-1].layers, xp=done.xp)
    return join_states(net, [] if done.stack is None else done.stack.finals, xp=done.xp)


def carry_at(net: Configuration, done: Pass, step: int) -> Carry:
    """What a segment that begins after ``step`` steps of this pass, 0 included, starts from."""

    def after(tape: Tape) -> State:
        return tape.states[step - 1] if step else tape.initial

    if done.tape is not None:
        state = after(done.tape)
        return Carry(join_states(net, state.layers, xp=done.xp), state.pred[:, None, :])
    layers = [] if done.stack is None else done.stack.layers
    x = None
    if net.topology == "one_to_many":
        x = done.xp.zeros_like(done.x) if step and net.feed == "zeros" else done.x
    return Carry(join_states(net, [after(layer.tapes[0]) for layer in layers], xp=done.xp), x)


def join_states(net: Configuration, states: Any, *, xp: Namespace) -> State:
    """Make one state, fields (L*D, N, H), of those of the layers and directions."""
    return net.state_type(*(xp.stack(list(fields)) for fields in zip(*states, strict=True)))


def loss_weight(
    net: Configuration, x: Array, y: Array, sample_weight: Array | None, options: Options
) -> Array | None:
    """Weight of each entry of the loss: `sample_weight`, and 0 at masked steps.

    Where a sequence is read once, masked steps are not entries of the loss.
    """
    if net.topology == "many_to_one":
        return sample_weight
    xp = array_namespace(x)
    mask = options.joint_mask(y.shape[1], xp=xp)
    if mask is None:
        return sample_weight
    counted = xp.astype(mask, x.dtype)
    if sample_weight is None:
        return counted
    by_step = len(sample_weight.shape) == 2
    return counted * (sample_weight if by_step else sample_weight[:, None])


def _run_feedback(
    net: Configuration,
    params: Params,
    x: Array,
    steps: int,
    states: Callable[[int], State],
    schedule: Schedule,
    noise: Noise,
    *,
    tape: bool,
    xp: Namespace,
) -> Pass:
    between = [
        tuple(None if keep is None else keep[t, ...] for keep in noise.between)
        for t in range(steps)
    ]
    first = FeedbackState(x[:, 0, :], tuple(states(i) for i in range(net.num_layers)))
    passed = sequence.run(
        net.make_feedback(), params, between, first, schedule, tuple(noise.recurrent),
        tape=tape, xp=xp,
    )  # fmt: skip
    out = _rows(xp.stack([state.pred for state in passed.states]), xp=xp)
    return Pass(xp, x, steps, schedule, noise, None, passed, out, [], out)


def _feedback_back(
    net: Configuration,
    params: Params,
    done: Pass,
    dout: Array,
    dfinals: Callable[[int], State],
    *,
    per_step: bool,
    flow: bool,
) -> PassGrads:
    xp, cell, steps = done.xp, net.make_feedback(), done.steps
    by_step = done.xp.reshape(dout, (steps, -1, net.output_size))
    dlayers = tuple(dfinals(i) for i in range(net.num_layers))
    dlast = FeedbackState(xp.zeros_like(by_step[0, ...]), dlayers)
    dpreds = [by_step[t, ...] for t in range(steps)]
    if done.tape is None:
        raise ValueError("a pass with feedback has a tape")
    back = sequence.backprop(
        cell, params, done.tape, dpreds, dlast, done.schedule, flow=flow, xp=xp
    )
    if per_step:
        terms = [cell.collect(params, share, xp=xp) for share in back.shares]
        grads = {name: xp.stack([term[name] for term in terms]) for name in net.shapes}
    else:
        rows = sequence.stack_rows(back.shares, xp=xp)
        grads = cell.collect(params, rows, xp=xp)
    dx = back.dinitial.pred[:, None, :]
    return PassGrads(
        {name: grads[name] for name in net.shapes}, dx, list(back.dinitial.layers), [back.dhs]
    )


def _readout_grads(done: Pass, dy: Array, *, per_step: bool) -> Params:
    """Gradients of the readout; what was read once counts as the last step's."""
    xp, steps = done.xp, done.steps

    def product(dy: Array, h: Array) -> Params:
        return {
            "readout.w_hy": xp.matmul(xp.matrix_transpose(dy), h),
            "readout.b_y": sum_rows(dy, xp=xp),
        }

    if not per_step:
        return product(dy, done.h)
    if done.read:
        grads = product(dy, done.h)
        return {
            name: xp.stack([xp.zeros_like(grad)] * (steps - 1) + [grad])
            for name, grad in grads.items()
        }
    dys, hs = (xp.reshape(a, (steps, -1, a.shape[1])) for a in (dy, done.h))
    terms = [product(dys[t, ...], hs[t, ...]) for t in range(steps)]
    return {name: xp.stack([term[name] for term in terms]) for name in terms[0]}


def _rows(a: Array, *, xp: Namespace) -> Array:
    """(T, N, K) to (T*N, K)."""
    return xp.reshape(a, (a.shape[0] * a.shape[1], a.shape[2]))


def _by_time(mask: Array | None, *, xp: Namespace) -> Array | None:
    """(N, T) to (T, N, 1)."""
    return None if mask is None else xp.matrix_transpose(mask)[:, :, None]


def _initial_states(
    net: Configuration, x: Array, state: State | None, *, xp: Namespace
) -> Callable[[int], State]:
    """Initial state by layer and direction; zeros are made only where one is asked for."""
    if state is not None:
        return lambda i: net.state_type(*(field[i, ...] for field in state))

    @functools.cache
    def zeros() -> Array:
        return xp.zeros((x.shape[0], net.hidden_size), dtype=x.dtype, device=device_of(x))

    cells, directions = net.layers.cells, net.directions
    return lambda i: cells[i // directions].initial_state(zeros())


def _split_state(net: Configuration, done: Pass, dstate: State | None) -> Callable[[int], State]:
    """Gradient of the final state by layer and direction; zeros where the loss has none."""
    if dstate is not None:
        return lambda i: net.state_type(*(field[i, ...] for field in dstate))
    finals: Any = [] if done.stack is None else done.stack.finals
    if done.tape is not None:
        finals = done.tape.initial.layers
    return lambda i: sequence.map_state(done.xp.zeros_like, finals[i])


def _draw(net: Configuration, x: Array, steps: int, rng: Any, *, xp: Namespace) -> Noise:
    """Draw the masks of dropout, in a fixed order: between layers first, then recurrent."""
    rows, count = x.shape[0], net.num_layers * net.directions
    width = net.directions * net.hidden_size

    def draw(shape: tuple[int, ...], rate: float) -> Array | None:
        if rng is None or not rate:
            return None
        kept = xp.asarray(rng.random(shape) >= rate, device=device_of(x))
        return xp.astype(kept, x.dtype) * (1.0 / (1.0 - rate))

    between = [draw((steps, rows, width), net.dropout) for _ in range(net.num_layers - 1)]
    recurrent = [draw((rows, net.hidden_size), net.recurrent_dropout) for _ in range(count)]
    return Noise([None, *between], recurrent)
