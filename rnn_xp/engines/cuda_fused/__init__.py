"""The fused engine: full-batch epochs of a small recurrent network in two CUDA launches each."""

from __future__ import annotations

from typing import TypeAlias

from rnn_xp.engines.cuda_fused.engine import FusedEngine
from rnn_xp.engines.cuda_fused.plan import SUPPORTED, make_plan, unsupported
from rnn_xp.engines.portable import PortableEngine
from rnn_xp.losses import cross_entropy

__all__ = ["SUPPORTED", "Engine", "FusedEngine", "fastest", "make_plan", "unsupported"]

Engine: TypeAlias = PortableEngine | FusedEngine


def fastest(portable: PortableEngine) -> Engine:
    """Return the fused engine where it can do what the portable one is to do, else this itself.

    On the backend cupy `PortableEngine.reason` then says why it has to be this one.
    """
    if portable.backend.name != "cupy":
        return portable
    portable.reason = unsupported(portable)
    if portable.reason:
        return portable
    try:
        import cupy
    except ImportError:
        portable.reason = "cupy is not installed"
        return portable
    if not cupy.cuda.is_available():
        portable.reason = "there is no usable CUDA device"
        return portable
    limit = portable.backend.device.attributes["MaxSharedMemoryPerBlockOptin"]
    classes = portable.loss is cross_entropy
    rows, steps = portable.data.x.shape[:2]
    plan = make_plan(portable.net, rows, steps, classes, limit)
    if plan is None:
        portable.reason = f"{limit} bytes of shared memory to a block are too few for the kernels"
        return portable
    try:
        return FusedEngine(portable, plan)
    except (RuntimeError, MemoryError, cupy.cuda.compiler.CompileException) as error:
        lines = str(error).splitlines() or [""]
        portable.reason = f"the fused kernels cannot be had: {type(error).__name__}: {lines[0]}"
        return portable
