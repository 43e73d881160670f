"""The choice of the engine that computes a training."""

from __future__ import annotations

import dataclasses

from rnn_xp._typing import Engine
from rnn_xp.engines import cuda_fused, cuda_graph
from rnn_xp.engines.portable import PortableEngine

__all__ = ["fastest"]


def fastest(portable: PortableEngine) -> Engine:
    """Return the fastest engine for a training.

    Parameters
    ----------
    portable : PortableEngine
        The training. It is not changed.

    Returns
    -------
    Engine
        On the backend cupy the fused engine if it supports this training, otherwise that of CUDA
        graphs, otherwise a portable one; ``engine.reason`` says why it is none before. On other
        backends the portable engine.
    """
    engine = cuda_fused.fastest(portable)
    if portable.backend.name != "cupy" or engine.name != "portable":
        return engine
    if needed := cuda_graph.unsupported(portable):
        return dataclasses.replace(portable, reason=f"{engine.reason}; CUDA graphs need {needed}")
    return cuda_graph.GraphEngine(portable, engine.reason)
