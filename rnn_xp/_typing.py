"""Aliases and dimension letters that every module shares.

Dimension letters, the same everywhere in code, docstrings and error messages::

    N  samples (windows) in the batch        I  inputs per time step
    T  time steps of a window                H  hidden units
    O  outputs per prediction                G  gates of a cell (RNN 1)

Gradients are named after what they belong to: the gradient of the loss with respect to ``h`` is
``dh``, that of ``w_hh`` is ``dw_hh``.
"""

from __future__ import annotations

from typing import Any, TypeAlias

__all__ = ["Array", "Namespace", "Params"]

Array: TypeAlias = Any
"""An array of any Array API library. The standard has no static type for it yet."""

Namespace: TypeAlias = Any
"""An Array API namespace, such as ``array_api_compat.numpy``; always called ``xp``."""

Params: TypeAlias = dict[str, Array]
"""Parameters or their gradients: a flat dict from a name such as ``"layer0.w_hh"`` to an array."""
