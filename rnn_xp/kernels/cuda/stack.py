"""A whole stack of layers by the fused kernels: two launches for each layer and direction.

::

    forward     for each layer and direction, its inputs' products and all of its steps
    backward    for each layer and direction, all steps back and the gradient of its inputs
    after all   the gradients of all weights of the stack in two launches, see ``collect.cu``

With layer normalisation one launch centres all weights before, and one their gradients after.

All arrays are in the order of time. Both directions of a layer write their states side by side, so
that the next layer reads them as one array. The forward pass overwrites Z with the gates, and the
backward pass overwrites the gates with their gradients.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import cupy

from rnn_xp._typing import Array, Params
from rnn_xp.kernels.course import Course, Ends
from rnn_xp.kernels.cuda import layer, matmul
from rnn_xp.kernels.cuda.arguments import address, contiguous
from rnn_xp.kernels.cuda.plan import Plan

__all__ = ["Stack", "Tape", "stack"]

_ITEM = 4  # bytes of a number


class Tape(NamedTuple):
    """Arrays that a forward pass leaves in the workspace for one backward pass.

    Arrays of all layers have them in a first axis, or layers and directions, L*D.

    Attributes
    ----------
    told : _Told
    xs : list of L arrays (T, N, .)
        The inputs of each layer, before dropout.
    z : Array (L*D, T, N, G*H)
        The gates; undefined for the simple cell.
    a : Array (L*D, T, N, G*H) or None
        For a GRU, with q in the last third, or with layer normalisation the normalised recurrent
        products; the backward pass writes dA.
    products : Array (L*D, T, N, G*H) or None
        With layer normalisation the normalised products of the inputs.
    inverses : Array (L*D, 2, T, N) or None
        With layer normalisation, of the deviations of both products, the recurrent ones first.
    h, c : Array (L, T + 2, N, D*H)
        The states; ``c`` of an LSTM alone. That of step t is at t + 1, and the one before the first
        step at either end.
    entered : Array (L*D, T, N, H) or None
        The states as the recurrent products took them, where these are not those of ``h``.
    weights : list of (w_xh, w_hh)
        As the products took them: with layer normalisation they are centred.
    """

    plan: Plan
    courses: Sequence[Course]
    told: _Told
    xs: list[Array]
    z: Array
    a: Array | None
    products: Array | None
    inverses: Array | None
    h: Array
    c: Array | None
    entered: Array | None
    weights: list[tuple[Array, Array]]
    residual: bool
    workspace: Any


class _Told(NamedTuple):
    """What all layers are told of the rows; the last two are those of `Ends`."""

    idle: Array | None
    reset: Array | None
    lengths: Array | None
    offsets: Array | None


class _Losses(NamedTuple):
    """Gradients that reach the states of one direction: an array, strides, first and last step."""

    array: Array | None
    of_step: Any
    of_row: Any
    first: Any
    last: Any


def stack(name: str | None, params: Sequence[Params], dtype: str) -> Stack | None:
    """Return the kernels for a stack of layers; None if they do not compute it on this device."""
    size, norm = params[0]["w_hh"].shape[1], "g_hh" in params[0]
    if name is None or layer.plan_of(name, dtype, size, 1, norm=norm) is None:
        return None
    return Stack(name, dtype)


class Stack:
    """A stack of layers whose cells declare the kernel ``name``, see `rnn_xp._typing.Stack`."""

    def __init__(self, name: str, dtype: str) -> None:
        self.name, self.dtype = name, dtype

    def forward(
        self,
        params: Sequence[Params],
        xs: Array,
        courses: Sequence[Course],
        workspace: Any,
        *,
        residual: bool,
    ) -> tuple[list[Array], list[tuple[Array, ...]], Tape]:
        """Run over xs (T, N, I)."""
        (steps, rows, _), (gates, size) = xs.shape, params[0]["w_hh"].shape
        norm, take, count = "g_hh" in params[0], workspace.take, len(params)
        plan: Any = layer.plan_of(self.name, self.dtype, size, rows, norm=norm)
        directions = 1 + any(course.reverse for course in courses)
        width, layers = directions * size, count // directions
        apart = courses[0].reset is not None or courses[0].keep is not None
        keeps_a, is_lstm = norm or "b_hn" in params[0], gates == 4 * size
        tape = Tape(
            plan, [_prepared(course) for course in courses], _told(courses[0], rows), [],
            take("z", count, steps, rows, gates),
            take("a", count, steps, rows, gates) if keeps_a else None,
            take("products", count, steps, rows, gates) if norm else None,
            take("inverses", count, 2, steps, rows) if norm else None,
            take("h", layers, steps + 2, rows, width),
            take("c", layers, steps + 2, rows, width) if is_lstm else None,
            take("entered", count, steps, rows, size) if apart else None,
            _weights(plan, params, workspace), residual, workspace,
        )  # fmt: skip
        outs = take("outs", layers, steps, rows, width) if residual else None
        for k in range(count):
            number, direction = divmod(k, directions)
            if not direction:
                x = xs if not number else tape.h[number - 1, 1:-1]
                if outs is not None and number > 1:
                    x = outs[number - 1]
                tape.xs.append(x if x.strides[2] == _ITEM else cupy.ascontiguousarray(x))
            out = outs[number] if outs is not None and number else None
            _forward(tape, params[k], k, number, direction * size, out)
        hs = tape.h[-1, 1:-1] if outs is None or layers == 1 else outs[-1]
        finals = []
        for k in range(count):
            number, direction = divmod(k, directions)
            span, last = slice(direction * size, (direction + 1) * size), 1 if direction else -2
            states = (tape.h,) if tape.c is None else (tape.h, tape.c)
            finals.append(tuple(state[number, last, :, span] for state in states))
        return [hs[:, :, d * size : (d + 1) * size] for d in range(directions)], finals, tape

    def backward(
        self,
        params: Sequence[Params],
        tape: Tape,
        douts: Sequence[Sequence[Array | None]],
        dfinals: Sequence[tuple[Array, ...] | None],
        *,
        wrt_input: bool,
    ) -> tuple[list[Params], Array | None, list[tuple[Array, ...] | None]]:
        """Return all gradients."""
        count, steps, rows, _ = tape.z.shape
        size, directions = params[0]["w_hh"].shape[1], len(douts)
        norm, take = tape.products is not None, tape.workspace.take
        sums = None
        if norm:
            of_row = math.prod(params[0]["g_hh"].shape) * 2 + sum(
                math.prod(params[0][name].shape) for name in ("b_h", "b_hn") if name in params[0]
            )
            sums = take("sums", count, tape.plan.blocks(rows) // tape.plan.cluster, of_row)
        dinitials: list[tuple[Array, ...] | None] = [
            None
            if course.initial is None
            else tuple(cupy.empty((rows, size), dtype=tape.z.dtype) for _ in course.initial)
            for course in tape.courses
        ]
        losses = [_spaced(dhs) for dhs in douts]
        for number in range(count // directions - 1, -1, -1):
            inputs = tape.xs[number].shape[2]
            wanted = number or wrt_input
            dx: Any = take(f"dx{number % 2}", steps, rows, inputs) if wanted else None
            for direction in range(directions):
                k = number * directions + direction
                _backward(
                    tape, params[k], k, number, losses[direction], dfinals[k], dinitials[k], dx,
                    None if sums is None else sums[k],
                )  # fmt: skip
            if number:
                losses = [_dense(dx[:, :, d * size : (d + 1) * size]) for d in range(directions)]
        return _collect(tape, params, sums), dx, dinitials


def _forward(
    tape: Tape, params: Params, k: int, number: int, column: int, out: Array | None
) -> None:
    """Launch a layer and direction forward; its states are in the columns from ``column`` on."""
    course, told, x = tape.courses[k], tape.told, tape.xs[number]
    steps, rows, inputs = x.shape
    w_xh, w_hh = tape.weights[k]
    states = (None if state is None else state[number, :, :, column:] for state in (tape.h, tape.c))
    layer.launch(
        tape.plan, "forward", rows, w_xh, w_hh, params["b_h"], params.get("b_hn"),
        params.get("g_xh"), params.get("g_hh"), x, course.factors, *_strides(x),
        course.keep, told.idle, told.reset, told.lengths, *_fields(course.initial or ()),
        tape.z[k], *_parts(k, tape.products, tape.a, tape.inverses), *states,
        *_parts(k, tape.entered), out,
        *_numbers(steps, rows, inputs, tape.h.shape[3], course.reverse),
    )  # fmt: skip


def _backward(
    tape: Tape,
    params: Params,
    k: int,
    number: int,
    losses: _Losses,
    dfinal: tuple[Array, ...] | None,
    dinitial: tuple[Array, ...] | None,
    dx: Array | None,
    sums: Array | None,
) -> None:
    """Launch a layer and direction backwards; the second direction adds to dx."""
    course, told = tape.courses[k], tape.told
    steps, rows, inputs = tape.xs[number].shape
    w_xh, w_hh = tape.weights[k]
    size = w_hh.shape[1]
    column = size if course.reverse else 0
    states = (None if state is None else state[number, :, :, column:] for state in (tape.h, tape.c))
    given = () if dfinal is None else tuple(map(contiguous, dfinal))
    products, a, inverses = _parts(k, tape.products, tape.a, tape.inverses)
    layer.launch(
        tape.plan, "backward", rows, w_xh, w_hh, params.get("b_hn"), params.get("g_xh"),
        params.get("g_hh"), course.factors, course.keep, told.idle, told.reset, told.lengths,
        *losses, *_fields(given), tape.z[k], products, a, inverses, sums, *states,
        *_fields(dinitial or ()), dx,
        *_numbers(course.reverse, tape.residual and number > 0, steps, rows, inputs,
                  tape.h.shape[3], course.reverse),
    )  # fmt: skip


def _collect(tape: Tape, params: Sequence[Params], sums: Array | None) -> list[Params]:
    """Compute the gradients of all weights, as views of one new vector."""
    _, steps, rows, gates = tape.z.shape
    size, width = params[0]["w_hh"].shape[1], tape.h.shape[3]
    names = ["w_xh", "w_hh", "g_hh", "b_hn", "g_xh", "b_h"]  # from g_hh on as ``add_sums`` has them
    shapes = [{name: p[name].shape for name in names if name in p} for p in params]
    sizes = [math.prod(shape) for of_layer in shapes for shape in of_layer.values()]
    flat = cupy.empty(sum(sizes), dtype=tape.z.dtype)
    pieces = iter(
        flat[first:last] for first, last in itertools.pairwise([0, *itertools.accumulate(sizes)])
    )
    grads = [
        {name: next(pieces).reshape(shape) for name, shape in of_layer.items()}
        for of_layer in shapes
    ]
    nothing, jobs = (0, 0, 0, 0, 0, 0), []
    for k, grad in enumerate(grads):
        number, course = k // (width // size), tape.courses[k]
        to = {name: address(g) for name, g in grad.items()}
        x, before = tape.xs[number], 2 * course.reverse
        of_step, of_row = (stride // _ITEM for stride in x.strides[:2])
        right_x = (address(x), address(course.factors), to["w_xh"], of_step, of_row, x.shape[2])
        right_h = (
            address(tape.h[number, before:, :, size * course.reverse :]), 0, to["w_hh"],
            rows * width, width, size,
        )  # fmt: skip
        if tape.entered is not None:
            right_h = (address(tape.entered[k]), 0, to["w_hh"], rows * size, size, size)
        z, db = address(tape.z[k]), 0 if sums is not None else to["b_h"]
        if tape.a is None:
            jobs.append(((z, db, *right_h, *right_x, gates, 0, 0), size + x.shape[2] + 1))
            continue
        a, db_n = address(tape.a[k]), 0 if sums is not None else to["b_hn"]
        jobs.append(((a, db_n, *right_h, *nothing, gates, 2 * size, 0), size + bool(db_n)))
        jobs.append(((z, db, *right_x, *nothing, gates, 0, 0), x.shape[2] + bool(db)))
        if sums is not None:
            _, clusters, width_of_sums = sums.shape
            fields = (address(sums[k]), to["g_hh"], *nothing, *nothing, width_of_sums, 0, clusters)
            jobs.append((fields, 1))
    matmul.collect(jobs, tape.told.offsets, (steps, rows), tape.workspace)
    if sums is not None:
        layer.centre(tape.plan, [
            (address(grad[name]), address(grad[name]), *grad[name].shape)
            for grad in grads for name in ("w_xh", "w_hh")
        ])  # fmt: skip
    return grads


def _weights(plan: Plan, params: Sequence[Params], workspace: Any) -> list[tuple[Array, Array]]:
    """Return contiguous weights, with layer normalisation centred ones in the workspace."""
    given = [(contiguous(p["w_xh"]), contiguous(p["w_hh"])) for p in params]
    if "g_hh" not in params[0]:
        return given
    centred = [
        (workspace.take(f"w_xh{k}", *w_xh.shape), workspace.take(f"w_hh{k}", *w_hh.shape))
        for k, (w_xh, w_hh) in enumerate(given)
    ]
    pairs = zip(itertools.chain(*given), itertools.chain(*centred), strict=True)
    layer.centre(plan, [(address(w), address(to), *w.shape) for w, to in pairs])
    return centred


def _prepared(course: Course) -> Course:
    return course._replace(
        keep=contiguous(course.keep),
        factors=contiguous(course.factors),
        initial=None if course.initial is None else tuple(map(contiguous, course.initial)),
    )


def _told(course: Course, rows: int) -> _Told:
    idle, reset = contiguous(course.idle), contiguous(course.reset)
    if course.counts is None:
        return _Told(idle, reset, None, None)
    if isinstance(course.counts, Ends):
        return _Told(idle, reset, *course.counts)
    lengths, until = [0] * rows, rows  # row i computes the steps whose count is above i
    for t, n in enumerate((*course.counts, 0)):
        lengths[n:until] = [t] * (until - n)
        until = n
    offsets = list(itertools.accumulate(course.counts, initial=0))
    both = cupy.asarray(lengths + offsets, dtype=cupy.int32)  # one transfer
    return _Told(idle, reset, both[:rows], both[rows:])


def _parts(k: int, *arrays: Array | None) -> tuple[Array | None, ...]:
    return tuple(None if array is None else array[k] for array in arrays)


def _fields(state: Sequence[Array]) -> tuple[Array | None, Array | None]:
    """Return h and c of a state; None for what it does not have."""
    h, c = (*state, None, None)[:2]
    return h, c


def _numbers(*numbers: int) -> tuple[Any, ...]:
    return tuple(cupy.int32(n) for n in numbers)


def _strides(array: Array) -> tuple[Any, Any]:
    """Return the strides of steps and rows, in numbers."""
    return cupy.int64(array.strides[0] // _ITEM), cupy.int64(array.strides[1] // _ITEM)


def _dense(dhs: Array) -> _Losses:
    return _Losses(dhs, *_strides(dhs), *_numbers(0, dhs.shape[0] - 1))


def _spaced(dhs: Sequence[Array | None]) -> _Losses:
    """Return the gradients of the read steps as one array.

    They are views of one array nearly always; others are copied to one.
    """
    read = [t for t, dh in enumerate(dhs) if dh is not None]
    if not read:
        return _Losses(None, cupy.int64(0), cupy.int64(0), *_numbers(0, -1))
    first, last = read[0], read[-1]
    arrays = list(dhs[first : last + 1])
    start: Any = arrays[0]
    apart = 0
    if len(arrays) > 1 and arrays[1] is not None:
        apart = address(arrays[1]) - address(start)
    if start.strides[1] != _ITEM or any(
        a is None or a.strides != start.strides or address(a) != address(start) + k * apart
        for k, a in enumerate(arrays)
    ):
        nothing = cupy.zeros(start.shape, dtype=start.dtype)
        start = cupy.stack([nothing if a is None else a for a in arrays])
        apart, of_row = start.strides[:2]
    else:
        of_row = start.strides[0]
    strides = cupy.int64(apart // _ITEM), cupy.int64(of_row // _ITEM)
    return _Losses(start, *strides, *_numbers(first, last))
