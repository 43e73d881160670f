"""Launches of the fused kernels for one layer and direction, beside its products.

::

    before the loop   Z = X @ w_xh.T                  all M rows
    all steps         one launch forward, one launch back
    after the loop    dw_hh = dA.T @ entered   dw_xh = dZ.T @ X   db_h = 1 @ dZ   dX = dZ @ w_xh

With layer normalisation the weights enter centred, one launch normalises Z, and one takes its
gradient; the recurrent product is normalised within the steps, see ``norm.cu``.

M is the sum of the lengths: with lengths, the rows that compute a step are packed side by side, and
padding enters no product. All arrays are in the order of time. The forward pass overwrites Z with
the gates, and the backward pass overwrites the gates with their gradients.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from importlib import resources
from typing import Any, NamedTuple

import cupy

from rnn_xp._typing import Array, Kernel, Params
from rnn_xp.kernels.course import Course
from rnn_xp.kernels.cuda.plan import OPTIONS, Plan, Size, make_plan, unsupported

__all__ = [
    "SOURCE_FILES",
    "Layer",
    "Tape",
    "backward",
    "forward",
    "known",
    "plan_of",
    "source",
]

SOURCE_FILES = ("block.cu", "layer.cu", "cells.cu", "norm.cu", "forward.cu", "backward.cu")
"""The parts of the source, in order."""

_PLAIN_SHARED_BYTES = 48 * 1024  # a kernel that needs more of it must say so


class Tape(NamedTuple):
    """Arrays that a forward pass leaves in the workspace for one backward pass.

    Attributes
    ----------
    x : Array (M, I)
    z : Array (M, G*H)
        The gates; undefined for the simple cell.
    a : Array (M, G*H) or None
        For a GRU, with q in the last third, or with layer normalisation the normalised products;
        the backward pass writes dA.
    h, c : Array (T + 1, N, H)
        The state before the first step and after each; ``c`` of an LSTM alone.
    entered : Array (M, H)
        The states as the recurrent products took them.
    w_xh, w_hh : Array
        The weights as the products took them: with layer normalisation they are centred.
    inverses : Array (M,) or None
        With layer normalisation, of the recurrent products' deviations.
    """

    plan: Plan
    course: Course
    rows: _Rows
    x: Array
    z: Array
    a: Array | None
    h: Array
    c: Array | None
    entered: Array
    w_xh: Array
    w_hh: Array
    inverses: Array | None
    workspace: Any
    name: str


class _Rows(NamedTuple):
    """The packed rows: their number, and where they lie; without arrays all rows of all steps."""

    total: int
    lengths: Array | None
    offsets: Array | None


@functools.cache
def source() -> str:
    """Return the CUDA source."""
    package = resources.files(__package__)
    return "\n".join(package.joinpath(n).read_text(encoding="utf-8") for n in SOURCE_FILES)


def plan_of(kernel: str, dtype: str, hidden_size: int, rows: int, *, norm: bool) -> Plan | None:
    """Return the plan for a layer on the current device; None if the kernels do not compute it."""
    return _plan(_size(kernel, dtype, hidden_size, norm), rows)


def known(kernel: str, dtype: str, hidden_size: int) -> frozenset[str]:
    """Return what the kernels compute of such a layer on the current device; empty if nothing."""
    if unsupported(_size(kernel, dtype, hidden_size, False)):
        return frozenset()
    return OPTIONS if unsupported(_size(kernel, dtype, hidden_size, True)) else OPTIONS | {"norm"}


_plan = functools.cache(make_plan)


def _size(kernel: str, dtype: str, hidden_size: int, norm: bool) -> Size:
    return Size(kernel, dtype, hidden_size, norm=norm, **_limits(cupy.cuda.Device().id))


@functools.cache
def _limits(number: int) -> dict[str, Any]:
    """Return what a `Size` says of the device."""
    if getattr(cupy.cuda.runtime, "is_hip", False):
        return {"shared_limit": 0, "hip": True}
    device = cupy.cuda.Device(number)
    return {
        "shared_limit": int(device.attributes["MaxSharedMemoryPerBlockOptin"]),
        "clusters": int(device.compute_capability) >= 90,
    }


def forward(
    plan: Plan, params: Params, xs: Array, course: Course, workspace: Any, name: str
) -> tuple[Array, tuple[Array, ...], Tape]:
    """Run over xs (T, N, I), see `rnn_xp._typing.Kernel`."""
    (steps, rows, inputs), take = xs.shape, workspace.take
    width, size = params["w_hh"].shape
    packed = _packed_rows(course, steps, rows)
    if course.counts is None:
        x = workspace.rows(f"{name}x", xs)
    else:
        x = take(f"{name}x", packed.total, inputs)
        of_step, of_row, of_input = (stride // xs.itemsize for stride in xs.strides)
        if of_input != 1:
            xs = cupy.ascontiguousarray(xs)
            of_step, of_row = rows * inputs, inputs
        _launch_each(
            plan, "pack", steps * rows * inputs, xs, cupy.int64(of_step), cupy.int64(of_row),
            packed.lengths, packed.offsets, x, *_numbers(steps, rows, inputs),
        )  # fmt: skip
    w_xh, w_hh, g_hh = params["w_xh"], params["w_hh"], params.get("g_hh")
    if g_hh is not None:
        w_xh, w_hh = (
            _centred(plan, w, take(f"{name}{key}", *w.shape))
            for key, w in (("w_xh", w_xh), ("w_hh", w_hh))
        )
    z = workspace.matmul(f"{name}z", x, w_xh.T)
    h = take(f"{name}h", steps + 1, rows, size)
    is_lstm, is_gru = width == 4 * size, "b_hn" in params
    c = take(f"{name}c", steps + 1, rows, size) if is_lstm else None
    a = take(f"{name}a", packed.total, width) if is_gru or g_hh is not None else None
    inverses = None if g_hh is None else take(f"{name}inverses", packed.total)
    apart = course.needs & {"counts", "reset", "keep"}
    entered = take(f"{name}entered", packed.total, size) if apart else None
    course = course._replace(
        idle=_contiguous(course.idle),
        reset=_contiguous(course.reset),
        keep=_contiguous(course.keep),
        initial=None if course.initial is None else tuple(map(_contiguous, course.initial)),
    )
    if course.counts is not None and not any(course.counts):
        for array in (x, z, a, entered):  # the one row that stands for none
            if array is not None:
                array[...] = 0.0
    if g_hh is not None:
        _launch_rows(plan, "normalise", z, params["g_xh"], cupy.int32(width))
    initial = course.initial or ()
    _launch(
        plan, "forward", rows, _contiguous(w_hh), params["b_h"], params.get("b_hn"), g_hh,
        *_told(course, packed), *_fields(initial), z, a, inverses, h, c, entered,
        *_numbers(steps, rows, course.reverse),
    )  # fmt: skip
    if entered is None:
        entered = (h[1:] if course.reverse else h[:-1]).reshape(packed.total, size)
    hs, last = (h[:-1], 0) if course.reverse else (h[1:], -1)
    final = (h[last],) if c is None else (h[last], c[last])
    tape = Tape(plan, course, packed, x, z, a, h, c, entered, w_xh, w_hh, inverses, workspace, name)
    return hs, final, tape


def backward(
    params: Params,
    tape: Tape,
    dhs: Sequence[Array | None],
    dfinal: tuple[Array, ...] | None,
    *,
    wrt_input: bool,
) -> tuple[Params, Array | None, tuple[Array, ...] | None]:
    """Return the gradients, see `rnn_xp._typing.Kernel`."""
    z, workspace, course, packed = tape.z, tape.workspace, tape.course, tape.rows
    steps, (_, rows, size) = len(dhs), tape.h.shape
    dinitial = None
    if course.initial is not None:
        dinitial = tuple(cupy.empty((rows, size), dtype=z.dtype) for _ in course.initial)
    given = () if dfinal is None else tuple(map(_contiguous, dfinal))
    g_hh, b_hn, dgain = params.get("g_hh"), params.get("b_hn"), None
    if g_hh is not None:
        dgain = workspace.take("dgain", rows, g_hh.size + (0 if b_hn is None else size))
    _launch(
        tape.plan, "backward", rows, _contiguous(tape.w_hh), b_hn, g_hh, *_told(course, packed),
        *_spaced(dhs), *_fields(given), z, tape.a, tape.inverses, dgain, tape.h, tape.c,
        *_fields(dinitial or ()), *_numbers(steps, rows, course.reverse),
    )  # fmt: skip
    grads, z = _collect(params, tape, dgain)
    if not wrt_input:
        return grads, None, dinitial
    inputs = tape.x.shape[1]
    if packed.lengths is None:
        dx = workspace.matmul(f"{tape.name}dx", z, tape.w_xh)
        return grads, dx.reshape(steps, rows, inputs), dinitial
    narrow = workspace.matmul("dx", z, tape.w_xh)
    dxs = workspace.take(f"{tape.name}dx", steps, rows, inputs)
    _launch_each(
        tape.plan, "unpack", dxs.size, narrow, packed.lengths, packed.offsets, dxs,
        *_numbers(steps, rows, inputs),
    )  # fmt: skip
    return grads, dxs, dinitial


def _collect(params: Params, tape: Tape, dgain: Array | None) -> tuple[Params, Array]:
    """Return the weight gradients, and the gradient of the product of the inputs (M, G*H)."""
    x, z, workspace, plan = tape.x, tape.z, tape.workspace, tape.plan
    da = z if tape.a is None else tape.a
    grads = {"w_hh": cupy.matmul(da.T, tape.entered), "b_h": workspace.sum_rows(z)}
    if dgain is None:
        if tape.a is not None:
            grads["b_hn"] = workspace.sum_rows(da)[2 * params["b_hn"].size :]
        return grads | {"w_xh": cupy.matmul(z.T, x)}, z
    dx_product = workspace.matmul("dz", x, tape.w_xh.T)  # the product again, then its gradient
    width = z.shape[1]
    _launch_rows(plan, "normalise_back", dx_product, z, params["g_xh"], cupy.int32(width))
    grads["g_xh"] = workspace.sum_rows(z)
    of_gain = workspace.sum_rows(dgain)
    grads["g_hh"] = of_gain[:width]
    if "b_hn" in params:
        grads["b_hn"] = of_gain[width:]
    grads["w_xh"] = cupy.matmul(dx_product.T, x)
    for name in ("w_xh", "w_hh"):
        _centred(plan, grads[name], grads[name])
    return grads, dx_product


class Layer:
    """A layer by the fused kernels if they compute it, otherwise step by step.

    This is the only place where it is decided which of the two compute.
    """

    def __init__(self, name: str, steps: Kernel) -> None:
        self.name, self.steps = name, steps

    def forward(
        self, params: Params, xs: Array, course: Course, workspace: Any, name: str
    ) -> tuple[Array, tuple[Array, ...], Any]:
        """Run over xs (T, N, I), see `rnn_xp._typing.Kernel`."""
        size, norm = params["w_hh"].shape[1], "g_hh" in params
        plan = plan_of(self.name, workspace.dtype, size, xs.shape[1], norm=norm)
        if plan is None:
            return self.steps.forward(params, xs, course, workspace, name)
        return forward(plan, params, xs, course, workspace, name)

    def backward(
        self,
        params: Params,
        tape: Any,
        dhs: Sequence[Array | None],
        dfinal: tuple[Array, ...] | None = None,
        *,
        wrt_input: bool,
    ) -> tuple[Params, Array | None, tuple[Array, ...] | None]:
        """Return the gradients, see `rnn_xp._typing.Kernel`."""
        if isinstance(tape, Tape):
            return backward(params, tape, dhs, dfinal, wrt_input=wrt_input)
        return self.steps.backward(params, tape, dhs, dfinal, wrt_input=wrt_input)


def _packed_rows(course: Course, steps: int, rows: int) -> _Rows:
    if course.counts is None:
        return _Rows(steps * rows, None, None)
    counts = course.counts
    lengths, until = [0] * rows, rows  # row i computes the steps whose count is above i
    for t, n in enumerate((*counts, 0)):
        lengths[n:until] = [t] * (until - n)
        until = n
    offsets = list(itertools.accumulate(counts, initial=0))
    both = cupy.asarray(lengths + offsets, dtype=cupy.int32)  # one transfer
    return _Rows(max(offsets[-1], 1), both[:rows], both[rows:])


def _contiguous(array: Array | None) -> Array | None:
    return array if array is None or array.flags.c_contiguous else cupy.ascontiguousarray(array)


def _told(course: Course, packed: _Rows) -> tuple[Array | None, ...]:
    """Return what the kernels are told of the rows."""
    return course.keep, course.idle, course.reset, packed.lengths, packed.offsets


def _fields(state: Sequence[Array]) -> tuple[Array | None, Array | None]:
    """Return h and c of a state; None for what it does not have."""
    h, c = (*state, None, None)[:2]
    return h, c


def _numbers(*numbers: int) -> tuple[Any, ...]:
    return tuple(cupy.int32(n) for n in numbers)


def _spaced(dhs: Sequence[Array | None]) -> tuple[Any, ...]:
    """Return the gradients of the read steps as one array: strides, first and last step.

    They are views of one array nearly always; others are copied to one.
    """
    read = [t for t, dh in enumerate(dhs) if dh is not None]
    if not read:
        return None, cupy.int64(0), cupy.int64(0), *_numbers(0, -1)
    first, last = read[0], read[-1]
    arrays = list(dhs[first : last + 1])
    start: Any = arrays[0]
    item = start.itemsize
    apart = 0
    if len(arrays) > 1 and arrays[1] is not None:
        apart = arrays[1].data.ptr - start.data.ptr
    if start.strides[1] != item or any(
        a is None or a.strides != start.strides or a.data.ptr != start.data.ptr + k * apart
        for k, a in enumerate(arrays)
    ):
        nothing = cupy.zeros(start.shape, dtype=start.dtype)
        start = cupy.stack([nothing if a is None else a for a in arrays])
        apart = start.strides[0]
        strides = cupy.int64(apart // item), cupy.int64(start.strides[1] // item)
    else:
        strides = cupy.int64(apart // item), cupy.int64(start.strides[0] // item)
    return start, *strides, *_numbers(first, last)


@functools.cache
def _kernel(options: tuple[str, ...], name: str, shared_bytes: int) -> Any:
    kernel = _module(options).get_function(name)
    if shared_bytes > _PLAIN_SHARED_BYTES:
        kernel.max_dynamic_shared_size_bytes = shared_bytes
    return kernel


@functools.cache
def _module(options: tuple[str, ...]) -> Any:
    return cupy.RawModule(code=source(), options=options)


def _launch(plan: Plan, name: str, rows: int, *args: Any) -> None:
    """Launch the kernel of a direction; None among the arguments is a null pointer."""
    shared = plan.forward_bytes if name == "forward" else plan.backward_bytes
    kernel = _kernel(plan.options, name, shared)
    kernel((plan.blocks(rows),), (plan.threads,), _pointers(args), shared_mem=shared)


def _launch_rows(plan: Plan, name: str, a: Array, *args: Any) -> None:
    """Launch a kernel of layer normalisation with one block for each row of a."""
    threads = 128  # ROW_THREADS
    _kernel(plan.options, name, 0)((a.shape[0],), (threads,), (a, *args), shared_mem=8 * threads)


def _centred(plan: Plan, w: Array, out: Array) -> Array:
    """Write the weights without the mean of each column to a contiguous array, such as w itself."""
    rows, columns = w.shape
    args = (_contiguous(w), out, *_numbers(rows, columns))
    # CENTRE_COLUMNS and CENTRE_SLICES of ``norm.cu``
    _kernel(plan.options, "centre", 0)((-(-columns // 32),), (32 * 8,), args, shared_mem=4 * 256)
    return out


def _launch_each(plan: Plan, name: str, entries: int, *args: Any) -> None:
    """Launch a kernel with one thread for each entry."""
    _kernel(plan.options, name, 0)((-(-entries // 256),), (256,), _pointers(args))


def _pointers(args: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(cupy.uintp(0) if a is None else a for a in args)
