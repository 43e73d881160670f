"""The fused kernels of layers: what they compute on the current device, and their launches."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from importlib import resources
from typing import Any

import cupy

from rnn_xp._typing import Array
from rnn_xp.kernels.cuda.arguments import by_value, pointers
from rnn_xp.kernels.cuda.plan import (
    CENTRE,
    COLLECT_BYTES,
    JOB,
    JOBS,
    OPTIONS,
    SPAN,
    TILE,
    WEIGHT,
    WEIGHTS,
    Plan,
    Size,
    make_plan,
    parts_of,
    unsupported,
)

__all__ = ["SOURCE_FILES", "centre", "collect", "known", "launch", "plan_of", "source"]

SOURCE_FILES = (
    "block.cu", "layer.cu", "cells.cu", "product.cu", "norm.cu", "forward.cu", "backward.cu",
    "collect.cu",
)  # fmt: skip
"""The parts of the source, in order."""

_PLAIN_SHARED_BYTES = 48 * 1024  # a kernel that needs more of it must say so


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


@functools.cache
def _kernel(options: tuple[str, ...], name: str, shared_bytes: int) -> Any:
    kernel = _module(options).get_function(name)
    if shared_bytes > _PLAIN_SHARED_BYTES:
        kernel.max_dynamic_shared_size_bytes = shared_bytes
    return kernel


@functools.cache
def _module(options: tuple[str, ...]) -> Any:
    return cupy.RawModule(code=source(), options=options)


def launch(plan: Plan, name: str, rows: int, *args: Any) -> None:
    """Launch the kernel of a direction; None among the arguments is a null pointer."""
    shared = plan.forward_bytes if name == "forward" else plan.backward_bytes
    kernel = _kernel(plan.options, name, shared)
    kernel((plan.blocks(rows),), (plan.threads,), pointers(args), shared_mem=shared)


def centre(plan: Plan, weights: Sequence[tuple[int, int, int, int]]) -> None:
    """Write weights without the mean of each column.

    Parameters
    ----------
    plan : Plan
    weights : sequence of (from, to, rows, columns)
        Addresses of contiguous matrices, which may be the same.
    """
    across, slices = CENTRE
    for some in _cut(weights, WEIGHTS):
        table, blocks = [], 0
        for from_, to, rows, columns in some:
            table.append(WEIGHT.pack(from_, to, rows, columns, blocks))
            blocks += -(-columns // across)
        threads = across * slices
        args = _table(table, WEIGHTS * WEIGHT.size), cupy.int32(len(some))
        _kernel(plan.options, "centre", 0)((blocks,), (threads,), args, shared_mem=4 * threads)


def collect(
    plan: Plan,
    jobs: Sequence[tuple[tuple[int, ...], int]],
    offsets: Array | None,
    shape: tuple[int, int],
    workspace: Any,
) -> None:
    """Compute the products of ``collect.cu`` over all rows.

    Parameters
    ----------
    plan : Plan
    jobs : sequence of (fields, width)
        The fields of a job but for the last two, and the number of its columns.
    offsets : Array (T + 1,) or None
        Where the rows of each step begin; by default every step has N.
    shape : (T, N)
    workspace : Workspace
    """
    for some in _cut(jobs, JOBS):
        table, tiles, entries = [], 0, 0
        for fields, width in some:
            lefts = fields[-3]
            table.append(JOB.pack(*fields, tiles, entries))
            tiles += -(-lefts // TILE) * -(-width // TILE)
            entries += lefts * width
        parts = parts_of(tiles, math.prod(shape))
        partial = workspace.take("partial", parts * entries)
        given = _table(table, JOBS * JOB.size), *map(cupy.int32, (len(some), parts))
        last = cupy.int32(entries)
        _kernel(plan.options, "collect", 0)(
            (tiles * parts,), (SPAN,),
            pointers((*given, offsets, *map(cupy.int32, shape), partial, last)),
            shared_mem=COLLECT_BYTES,
        )  # fmt: skip
        _kernel(plan.options, "add_up", 0)((-(-entries // SPAN),), (SPAN,), (*given, partial, last))


def _cut(items: Sequence[Any], count: int) -> list[Sequence[Any]]:
    return [items[first : first + count] for first in range(0, len(items), count)]


def _table(entries: Sequence[bytes], size: int) -> Any:
    return by_value(b"".join(entries).ljust(size, b"\0"))
