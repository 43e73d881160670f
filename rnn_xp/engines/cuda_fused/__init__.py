"""The fused engine: full-batch epochs of a small recurrent network in two CUDA launches each."""

from __future__ import annotations

import dataclasses

from rnn_xp._typing import Engine
from rnn_xp.engines.cuda_fused.engine import FusedEngine
from rnn_xp.engines.cuda_fused.plan import SUPPORTED, Plan, make_plan, unsupported
from rnn_xp.engines.portable import PortableEngine
from rnn_xp.losses import cross_entropy

__all__ = ["SUPPORTED", "FusedEngine", "Plan", "fastest", "make_plan", "unsupported"]


def fastest(portable: PortableEngine) -> Engine:
    """Return the fastest engine for a training.

    Parameters
    ----------
    portable : PortableEngine
        The training. It is not changed.

    Returns
    -------
    Engine
        The fused engine if it supports this training, otherwise a portable one. On the backend
        cupy, ``engine.reason`` then says why.
    """
    if portable.backend.name != "cupy":
        return portable
    reason, plan = _plan(portable)
    if plan is not None:
        import cupy

        try:
            return FusedEngine(portable, plan)
        except (RuntimeError, MemoryError, cupy.cuda.compiler.CompileException) as error:
            lines = str(error).splitlines() or [""]
            reason = f"the fused kernels are not available: {type(error).__name__}: {lines[0]}"
    return dataclasses.replace(portable, reason=reason)


def _plan(portable: PortableEngine) -> tuple[str, Plan | None]:
    """Return the reason why the kernels do not support this training, or "" and their plan."""
    if reason := unsupported(portable):
        return reason, None
    try:
        import cupy
    except ImportError:
        return "cupy is not installed", None
    if not cupy.cuda.is_available():
        return "there is no usable CUDA device", None
    if getattr(cupy.cuda.runtime, "is_hip", False):
        return "the fused kernels are for CUDA, and this CuPy is for ROCm", None
    limit = portable.backend.device.attributes["MaxSharedMemoryPerBlockOptin"]
    rows, steps = portable.data.x.shape[:2]
    plan = make_plan(portable.net, rows, steps, portable.loss is cross_entropy, limit)
    if plan is None:
        return f"{limit} bytes of shared memory to a block are too few for the kernels", None
    return "", plan
