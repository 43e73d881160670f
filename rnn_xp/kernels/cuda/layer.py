"""The fused kernels of layers: what they compute on the current device, and their launches."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import cupy

from rnn_xp.kernels.cuda.arguments import cut, pointers, table, text
from rnn_xp.kernels.cuda.plan import (
    CENTRE,
    OPTIONS,
    WEIGHT,
    WEIGHTS,
    Plan,
    Size,
    make_plan,
    unsupported,
)

__all__ = ["SOURCE_FILES", "centre", "known", "launch", "plan_of", "source"]

SOURCE_FILES = (
    "block.cu", "layer.cu", "cells.cu", "product.cu", "norm.cu", "forward.cu", "backward.cu",
)  # fmt: skip
"""The parts of the source, in order."""

_PLAIN_SHARED_BYTES = 48 * 1024  # a kernel that needs more of it must say so


@functools.cache
def source() -> str:
    """Return the CUDA source."""
    return text(*SOURCE_FILES)


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
    for some in cut(weights, WEIGHTS):
        entries, blocks = [], 0
        for from_, to, rows, columns in some:
            entries.append(WEIGHT.pack(from_, to, rows, columns, blocks))
            blocks += -(-columns // across)
        threads = across * slices
        args = table(entries, WEIGHTS * WEIGHT.size), cupy.int32(len(some))
        _kernel(plan.options, "centre", 0)((blocks,), (threads,), args, shared_mem=4 * threads)
