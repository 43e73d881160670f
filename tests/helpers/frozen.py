"""NumPy arrays that cannot be written to, and whose results cannot either.

A plain read-only array protects only itself: ``h = x + 1`` is writeable again, so ``h *= c`` after
``h`` was kept for the backward pass goes unnoticed. Here every result of a NumPy function, operator
or reduction is frozen in turn, and the numbers are NumPy's own, bit for bit.
"""

from __future__ import annotations

from typing import Any

import numpy as np


class Frozen(np.ndarray):
    """Computes as a plain array; what comes out is frozen, unless the caller named ``out=``."""

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        if "out" in kwargs:  # in place: NumPy itself refuses where the target is read-only
            return getattr(ufunc, method)(*_plain(inputs), **_plain(kwargs))
        return _frozen(getattr(ufunc, method)(*_plain(inputs), **_plain(kwargs)))

    def __array_function__(self, func, types, args, kwargs):
        result = func(*_plain(args), **_plain(kwargs))
        return result if "out" in kwargs else _frozen(result)


def freeze(host: Any, dtype: Any = None) -> Frozen:
    """Copy `host` into an array that nobody can write to."""
    return _frozen(np.array(host, dtype=dtype, order="C", copy=True, subok=False))


def _plain(tree: Any) -> Any:
    """Take the subclass off; a view of a read-only array is read-only."""
    if isinstance(tree, Frozen):
        return tree.view(np.ndarray)
    if isinstance(tree, dict):
        return {key: _plain(value) for key, value in tree.items()}
    return type(tree)(map(_plain, tree)) if type(tree) in (list, tuple) else tree


def _frozen(tree: Any) -> Any:
    if isinstance(tree, np.ndarray):
        result = tree.view(Frozen)
        result.flags.writeable = False
        return result
    return type(tree)(map(_frozen, tree)) if type(tree) in (list, tuple) else tree
