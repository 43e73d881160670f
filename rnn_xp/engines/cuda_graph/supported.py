"""The trainings whose updates can be captured in a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable

from rnn_xp.engines.portable import PortableEngine
from rnn_xp.kernels import make_workspace
from rnn_xp.network import turns
from rnn_xp.network.call import Options
from rnn_xp.network.layers import Noise
from rnn_xp.optim.first_order import FirstOrder

__all__ = ["SUPPORTED", "rows_of", "unsupported"]


def rows_of(engine: PortableEngine) -> int:
    """Return the number of rows of an update, of the largest one in an epoch."""
    rows: int = engine.data.x.shape[0]
    return rows if engine.batches is None else max(map(len, engine.batches(0)))


def _has_cuda(engine: PortableEngine) -> bool:
    import cupy

    return cupy.cuda.is_available() and not getattr(cupy.cuda.runtime, "is_hip", False)


def _has_kernels(engine: PortableEngine) -> bool:
    return make_workspace(engine.backend) is not None


def _kernels_know(engine: PortableEngine) -> bool:
    noisy, data = bool(engine.net.recurrent_dropout) and engine.noise is not None, engine.data
    workspace = make_workspace(engine.backend)
    options = Options(None, data.lengths, data.mask, data.reset, workspace=workspace)
    return turns.lent(engine.net, options, Noise([], [1.0 if noisy else None])) is not None


def _has_rules(engine: PortableEngine) -> bool:
    optimizer = engine.optimizer
    return isinstance(optimizer, FirstOrder) and type(optimizer).update is FirstOrder.update


SUPPORTED: tuple[tuple[str, Callable[[PortableEngine], bool]], ...] = (
    ("the backend cupy", lambda e: e.backend.name == "cupy"),
    ("a usable CUDA device, which is not ROCm's", _has_cuda),
    ("the dtype float32", lambda e: e.backend.dtype_name == "float32"),
    ("an optimiser that uses one gradient per update", _has_rules),
    ("no truncation", lambda e: e.truncate is None),
    ("no memory budget", lambda e: e.block_budget is None),
    ("a single rank", lambda e: e.ranks is None),
    ("at most block_rows rows in an update", lambda e: rows_of(e) <= e.block_rows),
    ("no feedback", lambda e: not e.net.feedback),
    ("kernels, which RNN_XP_KERNELS=portable leaves out", _has_kernels),
    (
        "cells with kernels: rnn, gru with reset_after=True, lstm",
        lambda e: e.net.layers.have_kernels(make_workspace(e.backend)),
    ),
    (
        "up to hidden_size = 128, with thread block clusters 256, if there are lengths, masks, "
        "resets, recurrent dropout or layer normalisation",
        _kernels_know,
    ),
)
"""Requirements of the engine: each as a sentence and as a test of the portable engine."""


def unsupported(engine: PortableEngine) -> str:
    """Return the first requirement that a training does not meet; empty if it meets all."""
    return next((needed for needed, holds in SUPPORTED if not holds(engine)), "")
