"""The forward pass of a whole network and its adjoint, time-major and on rows.

::

    x --feed--> xs (T, N, I) --layers--> outs --read--> h (M, D*H) --readout--> y --g--> out (M, O)
                     |--last linear_lags steps--> window (M, L*I) ------------->|

M is N if a sequence is read once, and T*N if every step is read. With feedback, layers and readout
are one cell, or one layer's kernel that reads out, and the rows of ``out`` are its predictions.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from rnn_xp._typing import Array, Namespace, Params, State, Workspace
from rnn_xp.backend import array_namespace, device_of
from rnn_xp.kernels.course import Course
from rnn_xp.kernels.portable import weight_grads
from rnn_xp.network import dropout, sequence, turns
from rnn_xp.network.call import Options
from rnn_xp.network.configuration import Configuration
from rnn_xp.network.feedback import FeedbackState
from rnn_xp.network.layers import Noise, as_one
from rnn_xp.network.passes import Carry, FeedbackPass, LayersPass, Pass, PassGrads
from rnn_xp.network.sequence import Schedule, Tape, Terms
from rnn_xp.network.topology import last_steps, last_steps_back, last_steps_terms

__all__ = [
    "carry_at",
    "final_state",
    "join_states",
    "loss_weight",
    "prediction",
    "run",
    "run_back",
]


def run(net: Configuration, params: Params, x: Array, options: Options, *, xp: Namespace) -> Pass:
    """Run a network forward. The arguments have been checked by `rnn_xp.network.call.check`."""
    one_to_many = net.topology == "one_to_many"
    steps = options.steps if one_to_many and options.steps is not None else x.shape[1]
    noise = dropout.noise(net, params, x, steps, options.rng, xp=xp)
    workspace, order, given = turns.lent(net, options, noise), None, x
    if workspace is not None and options.lengths is not None and options.ends is None:
        order = turns.by_length(options.lengths, xp=xp)
        x, options, noise = turns.ranked(x, options, noise, order, xp=xp)
    schedule = Schedule(
        _by_time(options.joint_mask(steps, xp=xp), xp=xp), _by_time(options.reset, xp=xp)
    )
    states = _initial_states(net, x, options.state, xp=xp)
    if net.feedback and workspace is None:
        return _run_feedback(
            net, params, x, steps, states, schedule, noise, tape=options.tape, xp=xp
        )
    course = Course() if workspace is None else turns.course(net, params, options, steps, xp=xp)
    xs = xp.permute_dims(x, (1, 0, 2))
    if one_to_many:
        xs = net.feed_function.forward(xs, steps, xp=xp)
    # So that not even a NaN in the padding can be seen. Kernels do not read it behind the end.
    if schedule.mask is not None and not (
        net.feedback or (options.mask is None and net.layers.have_kernels(workspace))
    ):
        xs = xp.where(schedule.mask, xs, xp.zeros_like(xs))
    stack = net.layers.run(
        params, xs, states, schedule, noise, workspace, course, tape=options.tape, xp=xp
    )
    if net.feedback:
        out = _rows(xp.asarray(stack.outs[0], copy=True), xp=xp)
        return LayersPass(xp, given, steps, schedule, noise, stack, None, [], out, workspace, None)
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
    w_hy = xp.matrix_transpose(params["readout.w_hy"])
    y = _product("y", h, w_hy, workspace, xp=xp) + params["readout.b_y"]
    window = None
    if net.linear_lags:
        window = last_steps(xs, net.linear_lags, xp=xp)
        w_xy = xp.matrix_transpose(params["readout.w_xy"])
        y = y + _product("window", window, w_xy, workspace, xp=xp)
    out = net.output_function.forward(y, xp=xp)
    return LayersPass(
        xp, given, steps, schedule, noise, stack, h, caches, out, workspace, window, order
    )


def run_back(
    net: Configuration,
    params: Params,
    forward: Pass,
    dpred: Array,
    dstate: State | None,
    *,
    wrt_input: bool = False,
    terms: Terms = None,
    flow: bool = False,
) -> PassGrads:
    """Adjoint of `run`.

    Parameters
    ----------
    net, params : as given to `run`
    forward : Pass
        From the matching `run`.
    dpred : Array
        Gradient of the loss with respect to `prediction`.
    dstate : NamedTuple or None
        Gradient of the loss with respect to `final_state`.
    wrt_input : bool
        If True, dL/dx is computed.
    terms : {None, "step", "sample"}
        Terms that weight gradients keep apart, in a leading axis T or N.
    flow : bool
        If True, dL/dh_t of every step is returned.
    """
    xp, steps = forward.xp, forward.steps
    order = None if isinstance(forward, FeedbackPass) else forward.order
    if order is not None:
        dpred = xp.take(dpred, order.ranked, axis=0)
        dstate = turns.take_rows(dstate, order.ranked, xp=xp)
    dout = dpred if len(dpred.shape) == 2 else _rows(xp.permute_dims(dpred, (1, 0, 2)), xp=xp)
    dfinals = _split_state(net, forward, dstate)
    if isinstance(forward, FeedbackPass):
        return _feedback_back(net, params, forward, dout, dfinals, terms=terms, flow=flow)
    if net.feedback:
        return _read_out_back(net, params, forward, dout, dfinals)
    dy = net.output_function.backward(dout, forward.out, xp=xp)
    workspace = forward.workspace
    dh = _product("readout", dy, params["readout.w_hy"], workspace, xp=xp)
    douts: list[list[Array | None]] = []
    for direction in range(net.directions):
        part = dh[:, direction * net.hidden_size : (direction + 1) * net.hidden_size]
        if net.topology == "many_to_one":
            douts.append(net.read_function.backward(part, steps, forward.read[direction], xp=xp))
        else:
            by_step = xp.reshape(part, (steps, -1, net.hidden_size))
            douts.append([by_step[t, ...] for t in range(steps)])

    back = net.layers.backprop(
        params, forward.stack, douts, dfinals, forward.noise,
        terms=terms, wrt_input=wrt_input, flow=flow, xp=xp,
    )  # fmt: skip
    grads = back.grads | _readout_grads(net, forward, dy, terms)
    dx = None
    if back.dxs is not None:
        one_to_many = net.topology == "one_to_many"
        dxs = net.feed_function.backward(back.dxs, xp=xp) if one_to_many else back.dxs
        if forward.window is not None:
            dwindow = _product("dwindow", dy, params["readout.w_xy"], workspace, xp=xp)
            dxs = dxs + last_steps_back(
                dwindow, steps, net.input_size, forward.schedule.mask, xp=xp
            )
        dx = xp.permute_dims(dxs, (1, 0, 2))
    dinitials = back.dinitials
    if order is not None:
        places = order.places
        dx = None if dx is None else xp.take(dx, places, axis=0)
        dinitials = [sequence.map_state(lambda a: xp.take(a, places, axis=0), d) for d in dinitials]
    return PassGrads(_in_order(net, forward, grads, terms), dx, dinitials, back.flows)


def prediction(net: Configuration, forward: Pass) -> Array:
    """Return the prediction of a pass: (N, O), or (N, T, O) if every step is read."""
    pred, xp = forward.out, forward.xp
    if net.topology != "many_to_one":
        by_step = xp.reshape(forward.out, (forward.steps, -1, net.output_size))
        pred = xp.permute_dims(by_step, (1, 0, 2))
    if isinstance(forward, LayersPass) and forward.order is not None:
        pred = xp.take(pred, forward.order.places, axis=0)
    return pred


def final_state(net: Configuration, forward: Pass) -> State:
    """Return the state after the last step, each field (L*D, N, H)."""
    if isinstance(forward, FeedbackPass):
        return join_states(net, forward.tape.states[-1].layers, xp=forward.xp)
    final = join_states(net, forward.stack.finals, xp=forward.xp)
    return (
        final
        if forward.order is None
        else turns.take_rows(final, forward.order.places, xp=forward.xp)
    )


def carry_at(net: Configuration, forward: Pass, step: int) -> Carry:
    """Return the start of a segment that begins after ``step`` >= 0 steps of this pass."""

    def after(tape: Tape) -> State:
        return tape.states[step - 1] if step else tape.initial

    if isinstance(forward, FeedbackPass):
        state = after(forward.tape)
        return Carry(join_states(net, state.layers, xp=forward.xp), state.pred[:, None, :])
    x = None
    if net.topology == "one_to_many":
        x = forward.xp.zeros_like(forward.x) if step and net.feed == "zeros" else forward.x
    states = [after(layer.tapes[0]) for layer in forward.stack.layers]
    return Carry(join_states(net, states, xp=forward.xp), x)


def join_states(net: Configuration, states: Any, *, xp: Namespace) -> State:
    """Join the states of all layers and directions into one, with fields (L*D, N, H)."""
    return net.state_type(*(xp.stack(list(fields)) for fields in zip(*states, strict=True)))


def loss_weight(
    net: Configuration, x: Array, y: Array, sample_weight: Array | None, options: Options
) -> Array | None:
    """Return the weight of each entry of the loss: `sample_weight`, or 0 at masked steps.

    If a sequence is read once, its steps are not entries of the loss, so no mask applies.
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
    return FeedbackPass(xp, x, steps, schedule, noise, passed, out)


def _feedback_back(
    net: Configuration,
    params: Params,
    forward: FeedbackPass,
    dout: Array,
    dfinals: Callable[[int], State],
    *,
    terms: Terms,
    flow: bool,
) -> PassGrads:
    xp, cell, steps = forward.xp, net.make_feedback(), forward.steps
    by_step = xp.reshape(dout, (steps, -1, net.output_size))
    dlayers = tuple(dfinals(i) for i in range(net.num_layers))
    dlast = FeedbackState(xp.zeros_like(by_step[0, ...]), dlayers)
    dpreds = [by_step[t, ...] for t in range(steps)]
    back = sequence.backprop(
        cell, params, forward.tape, dpreds, dlast, forward.schedule, flow=flow, xp=xp
    )
    share = sequence.stack(back.shares, xp=xp)
    grads = cell.collect(params, sequence.arrange(share, terms, xp=xp), xp=xp)
    dx = back.dinitial.pred[:, None, :]
    return PassGrads(
        _in_order(net, forward, grads, terms), dx, list(back.dinitial.layers), [back.dhs]
    )


def _read_out_back(
    net: Configuration,
    params: Params,
    forward: LayersPass,
    dout: Array,
    dfinals: Callable[[int], State],
) -> PassGrads:
    """Adjoint of feedback through a layer whose kernel reads out."""
    xp, own = forward.xp, net.layers.prefix(0, 0)
    dpreds = xp.reshape(dout, (forward.steps, -1, net.output_size))
    back = net.layers.backprop(
        params, forward.stack, [dpreds], dfinals, forward.noise,
        terms=None, wrt_input=True, flow=False, xp=xp,
    )  # fmt: skip
    grads = back.grads | {f"readout.{name}": back.grads[own + name] for name in ("w_hy", "b_y")}
    dx = xp.permute_dims(back.dxs, (1, 0, 2))
    return PassGrads(_in_order(net, forward, grads, None), dx, back.dinitials, back.flows)


def _in_order(net: Configuration, forward: Pass, grads: Params, terms: Terms) -> Params:
    """Return the gradients in the order of the parameters, if they keep the axis of the terms."""
    if terms is not None:
        lead = forward.steps if terms == "step" else forward.x.shape[0]
        for name, shape in net.shapes.items():
            if tuple(grads[name].shape) != (lead, *shape):
                cells = ", ".join(dict.fromkeys(type(cell).__name__ for cell in net.layers.cells))
                raise ValueError(
                    f"{cells}.collect must keep the axes before its rows: the gradient of {name} "
                    f"for every {terms} must have shape {(lead, *shape)}, got "
                    f"{tuple(grads[name].shape)}. Sum over axis -2: xp.matmul of "
                    "xp.matrix_transpose, rnn_xp.kernels.portable.sum_rows."
                )
    return {name: grads[name] for name in net.shapes}


def _readout_grads(net: Configuration, forward: LayersPass, dy: Array, terms: Terms) -> Params:
    """Return the readout's gradients; per step, a single read belongs to the last step."""
    xp, steps = forward.xp, forward.steps
    reads = 1 if forward.read else steps

    def arrange(rows: Array, terms: Terms) -> Array:
        by_read = xp.reshape(rows, (reads, -1, rows.shape[1]))
        return sequence.arrange(by_read, terms, xp=xp)

    rights = [forward.h] if forward.window is None else [forward.h, forward.window]
    if forward.workspace is not None and terms is None:
        (dw_hy, *others), db = forward.workspace.weight_grads(dy, rights)
    else:
        arranged = [arrange(a, terms) for a in rights]
        (dw_hy, *others), db = weight_grads(arrange(dy, terms), arranged, xp=xp)
    grads = {"readout.w_hy": dw_hy, "readout.b_y": db}
    if terms == "step" and reads < steps:
        grads = {
            name: xp.concat([xp.zeros_like(grad)] * (steps - 1) + [grad])
            for name, grad in grads.items()
        }
    for dw_xy in others:
        of_steps = terms == "step"
        grads["readout.w_xy"] = (
            last_steps_terms(dw_xy[0, ...], steps, net.input_size, xp=xp) if of_steps else dw_xy
        )
    return grads


def _product(name: str, a: Array, b: Array, workspace: Workspace | None, *, xp: Namespace) -> Array:
    """Multiply two matrices; what a workspace gives is overwritten by the next call."""
    return xp.matmul(a, b) if workspace is None else workspace.matmul(name, a, b)


def _rows(a: Array, *, xp: Namespace) -> Array:
    """Reshape (T, N, K) to (T*N, K)."""
    return xp.reshape(a, (a.shape[0] * a.shape[1], a.shape[2]))


def _by_time(mask: Array | None, *, xp: Namespace) -> Array | None:
    """Transpose a mask (N, T) to (T, N, 1)."""
    return None if mask is None else xp.matrix_transpose(mask)[:, :, None]


def _initial_states(
    net: Configuration, x: Array, state: State | None, *, xp: Namespace
) -> Callable[[int], State]:
    """Return a function from layer and direction to the initial state, by default zeros."""
    if state is not None:
        return lambda i: net.state_type(*(field[i, ...] for field in state))

    @functools.cache
    def zeros() -> Array:
        place = device_of(x, rows=True)
        return xp.zeros((x.shape[0], net.hidden_size), dtype=x.dtype, device=place)

    cells, directions = net.layers.cells, net.directions
    return lambda i: cells[i // directions].initial_state(zeros())


def _split_state(net: Configuration, forward: Pass, dstate: State | None) -> Callable[[int], State]:
    """Return a function from layer and direction to the gradient of the final state.

    Without one it is None, or zeros with feedback in portable code.
    """
    if dstate is not None:
        return lambda i: net.state_type(*(field[i, ...] for field in dstate))
    if isinstance(forward, FeedbackPass):
        finals = forward.tape.initial.layers
        return lambda i: sequence.map_state(forward.xp.zeros_like, finals[i])
    return lambda i: None
