"""The library on the stand-in for CuPy, where it takes arrays for CuPy's."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

import array_api_compat.numpy
from cupy_stand_in import Counted, load, stand_in

__all__ = ["apart", "install"]

_asarray_of_numpy = array_api_compat.numpy.asarray


def _asarray(a: Any, *args: Any, **options: Any) -> Any:
    """Of what is on the device already, which NumPy does not ask, it is a copy there."""
    if not isinstance(a, Counted):
        return _asarray_of_numpy(a, *args, **options)
    return a.copy() if options.get("copy") else a


def install(monkeypatch: Any) -> None:
    """Let the library compute on the stand-in, where it takes arrays for CuPy's."""
    monkeypatch.setitem(sys.modules, "cupy", stand_in())
    monkeypatch.setattr(array_api_compat.numpy, "asarray", _asarray)
    monkeypatch.setattr("rnn_xp.kernels.library_name", lambda xp: "cupy" if _taken else "numpy")
    monkeypatch.setattr(
        "rnn_xp.network.topology._each_call_counts",
        lambda hs, xp: _taken and not isinstance(hs, list),
    )
    for name in ("cupy", "fusion", "cuda/update", "cuda/arguments"):
        module, dotted = load(name), f"rnn_xp.kernels.{name.replace('/', '.')}"
        monkeypatch.setitem(sys.modules, dotted, module)
        monkeypatch.setattr(dotted, module, raising=False)


_taken = True


@contextlib.contextmanager
def apart() -> Iterator[None]:
    """Let the library take arrays for NumPy's for a while."""
    global _taken
    _taken = False
    try:
        yield
    finally:
        _taken = True
