"""NumPy: the CPU, and the reference for every other library."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from rnn_xp._typing import Array, Namespace
from rnn_xp.backend.adapters.base import Adapter

__all__ = ["NumpyAdapter"]


class NumpyAdapter(Adapter):
    """NumPy, whose arrays already lie on the host."""

    name = "numpy"
    install = "pip install numpy"
    gpu_hint = "choose cupy, torch, jax or dpnp"

    def namespace(self) -> Namespace:
        """Return NumPy's namespace in array_api_compat."""
        return importlib.import_module("array_api_compat.numpy")

    def asarray(
        self, values: np.ndarray, dtype: np.dtype[Any], device: Any, copy: bool, *, xp: Namespace
    ) -> Array:
        """Cast `values`, and copy them unless `copy` is False and no cast is needed."""
        if not copy:
            return np.asarray(values, dtype=dtype)
        return np.array(values, dtype=dtype, order="C", copy=True)
