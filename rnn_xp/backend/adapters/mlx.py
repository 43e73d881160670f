"""MLX: Apple GPUs and CPUs, and CPUs and NVIDIA GPUs on Linux."""

from __future__ import annotations

import functools
import importlib
import os
from collections.abc import Collection, Sequence
from typing import Any, TypeVar

import numpy as np

from rnn_xp._checks import install
from rnn_xp._typing import Array, Namespace
from rnn_xp.backend.adapters.base import Adapter

__all__ = ["MlxAdapter", "MlxNamespace"]

_Arrays = TypeVar("_Arrays")
_CREATE = ("arange", "asarray", "empty", "eye", "full", "linspace", "ones", "zeros")
_CREATE_LIKE = ("empty_like", "full_like", "ones_like", "zeros_like")


class MlxAdapter(Adapter):
    """MLX, whose arrays have no device: an operation runs on the default device.

    It computes in float32. Its GPUs have no float64, and on a CPU the exponential of a float64 is
    right to six digits only (MLX 0.32), so that gradients would fail the check in double precision.
    """

    name = "mlx"
    completes = "mlx.core"
    install = install("mlx")
    auto_devices = ("gpu",)
    gpu_hint = "Apple silicon has one, and on Linux the package mlx[cuda13] brings CUDA"
    dtype_hint = (
        "For float64 choose another library: MLX has none on GPUs, and on a CPU its exponential "
        "of a float64 is right to six digits only"
    )
    lacks = "float64"

    def version(self) -> str:
        """Import MLX and return its version, which ``mlx.core`` holds."""
        importlib.import_module("mlx")  # alone first, so that its absence is named by its name
        return str(importlib.import_module("mlx.core").__version__)

    def namespace(self) -> Namespace:
        """Return ``mlx.core`` with the parts of the standard that it lacks."""
        return _namespace()

    def device_of(self, array: Array) -> Any:
        """Return the default device, on which the next operation on the array runs."""
        import mlx.core

        return mlx.core.default_device()

    def round_products(self, device: Any, tf32: bool) -> bool:
        """Set, before the first product, the variable without which MLX 0.32 rounds on a GPU."""
        os.environ.setdefault("MLX_ENABLE_TF32", "1" if tf32 else "0")
        return not tf32 or self.device_name(device) != "cpu"

    def dtypes(self, xp: Namespace, device: Any) -> Collection[str]:
        """Return the names of the dtypes but float64."""
        return {*super().dtypes(xp, device)} - {self.lacks}

    def device_name(self, device: Any) -> str:
        """Return ``"cpu"`` or ``"gpu"``, with the number of a further device."""
        kind, _, index = str(device).removeprefix("Device(").rstrip(")").partition(", ")
        return kind if index == "0" else f"{kind}:{index}"

    def is_accelerator(self, device: Any) -> bool:
        """Return True for a GPU."""
        return not self.device_name(device).startswith("cpu")

    def spellings(self, device: str) -> list[str]:
        """Let ``"gpu:0"`` mean the GPU."""
        return [device, device.removesuffix(":0")]

    def repair(self) -> str:
        """Name the extra of the package with which MLX computes on a CPU under Linux."""
        return "On Linux, MLX needs its extra for the CPU, pip install 'mlx[cpu]', or for CUDA"

    def use(self, device: Any) -> None:
        """Make a device the default one, on which all operations run."""
        import mlx.core

        mlx.core.set_default_device(device)

    def asarray(
        self, values: np.ndarray, dtype: np.dtype[Any], device: Any, copy: bool, *, xp: Namespace
    ) -> Array:
        """Copy with the dtype, without which MLX makes float32 of float64."""
        return xp.asarray(np.array(values, dtype=dtype, order="C"), dtype=getattr(xp, dtype.name))

    def computed(self, arrays: _Arrays) -> _Arrays:
        """Compute the arrays: MLX is lazy, and would hold the memory of all that led to them."""
        import mlx.core

        mlx.core.eval(arrays)
        return arrays

    def is_traced(self, arrays: Sequence[Array]) -> bool:
        """Return True if the values of an array cannot be had, as inside ``mlx.core.compile``."""
        import mlx.core

        try:
            mlx.core.eval(*arrays)
        except (RuntimeError, ValueError):
            return True
        return False

    def synchronize(self, device: Any) -> None:
        """Wait for the default stream of the device."""
        import mlx.core

        mlx.core.synchronize(mlx.core.default_stream(device))


class MlxNamespace:
    """``mlx.core`` with the parts of the standard that it lacks.

    Functions that create arrays take ``device=``, which must be None or the default device, since
    MLX computes nowhere else. Everything that is not defined here is MLX's own.
    """

    def __init__(self, core: Any) -> None:
        self._core = core
        self.__name__ = core.__name__
        self.bool = core.bool_
        self.linalg = _Linalg(core)
        for name in (*_CREATE, *_CREATE_LIKE):
            setattr(self, name, _placed(core, getattr(core, name)))
        self.asarray = _placed(core, self._asarray)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._core, name)
        setattr(self, name, value)  # the next time it is found at once
        return value

    def _asarray(self, values: Any, *, dtype: Any = None, copy: bool | None = None) -> Array:
        if dtype is None and isinstance(values, np.ndarray):  # else float64 becomes float32
            dtype = getattr(self._core, values.dtype.name.replace("bool", "bool_"), None)
            if dtype is None:
                raise TypeError(f"mlx has no {values.dtype}; convert the values to another dtype.")
        return self._core.asarray(values, dtype=dtype, copy=copy)


class _Linalg:
    """MLX's linear algebra, which has no vector_norm and no diagonal, and a CPU for its solvers."""

    def __init__(self, core: Any) -> None:
        self._core, self._linalg = core, core.linalg
        self.diagonal = functools.partial(core.diagonal, axis1=-2, axis2=-1)

    def vector_norm(self, x: Array) -> Array:
        """Return the 2-norm of all entries."""
        return self._core.sqrt(self._core.sum(x * x))

    def cholesky(self, a: Array) -> Array:
        """Return the lower factor of a positive definite matrix."""
        return self._linalg.cholesky(a, stream=self._core.cpu)

    def solve(self, a: Array, b: Array) -> Array:
        """Solve linear equations."""
        return self._linalg.solve(a, b, stream=self._core.cpu)


def _placed(core: Any, create: Any) -> Any:
    """Give a function that creates arrays the argument ``device=`` of the standard."""

    @functools.wraps(create)
    def placed(*args: Any, device: Any = None, **options: Any) -> Array:
        if device is not None and device != (default := core.default_device()):
            raise ValueError(
                f"mlx creates arrays on its default device, {default}, not on {device}. Make that "
                "the default first, with mlx.core.set_default_device."
            )
        return create(*args, **options)

    return placed


@functools.cache
def _namespace() -> MlxNamespace:
    return MlxNamespace(importlib.import_module("mlx.core"))
