"""Arithmetic without subnormal numbers, which processors compute a hundred times as slowly.

Over hundreds of steps the gradient of a state becomes smaller than the normal numbers, of float32
those from 1.2e-38 on, and until it is zero every product has such numbers in it. They are of no
account in a sum over all steps, so kernels take them for zero. That is a setting of the thread in
the control register of the processor, which C's standard library saves and restores with the rest
of the floating-point environment. It is done where the place of that register is known; elsewhere
numbers stay as they are.
"""

from __future__ import annotations

import ctypes
import functools
import platform
import sys
from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["CAN_FLUSH", "without_subnormals"]

_Function = TypeVar("_Function", bound=Callable[..., Any])
_Environment = ctypes.c_uint32 * 8
_REGISTER = 7  # the last word of the environment is the register MXCSR
_ZERO = 0x8040  # its bits "flush to zero" for results and "denormals are zeros" for arguments


def _library() -> Any:
    """Return the C library that Python itself uses, or None."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return None
    library = ctypes.PyDLL(None)  # calls that are shorter than giving the lock away
    return library if hasattr(library, "fesetenv") else None


_LIBRARY = _library()

CAN_FLUSH = _LIBRARY is not None
"""True where subnormal numbers can be taken for zero."""


def without_subnormals(function: _Function) -> _Function:
    """Let a function take subnormal numbers for zero, in the thread that calls it.

    Examples
    --------
    >>> import numpy as np
    >>> def tenth() -> bool:
    ...     return bool(np.float32(1e-38) * np.float32(0.1) > 0.0)
    >>> without_subnormals(tenth)() == (not CAN_FLUSH), tenth()
    (True, True)
    """
    if _LIBRARY is None:
        return function

    @functools.wraps(function)
    def flushed(*args: Any, **kwargs: Any) -> Any:
        before = _Environment()
        _LIBRARY.fegetenv(before)
        inside = _Environment(*before)
        inside[_REGISTER] |= _ZERO
        _LIBRARY.fesetenv(inside)
        try:
            return function(*args, **kwargs)
        finally:
            _LIBRARY.fesetenv(before)

    return flushed  # type: ignore[return-value]
