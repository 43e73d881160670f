"""CuPy: NVIDIA and AMD GPUs, one for each process: its creation functions ignore ``device=``.

On ROCm an AMD GPU has CUDA's names here, such as ``"cuda:0"``, as it has in CuPy and in PyTorch.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

import numpy as np

from rnn_xp._checks import install
from rnn_xp._typing import Array, Namespace
from rnn_xp.backend.adapters.base import Adapter

__all__ = ["CupyAdapter"]


class CupyAdapter(Adapter):
    """CuPy, which imports without a GPU and fails only when it has to compute."""

    name = "cupy"
    install = f"{install('cuda12x')} (or cuda13x or rocm7, whichever fits the driver)"
    device_word = "CUDA device"
    auto_devices = ("cuda",)
    device_buffers = True

    def namespace(self) -> Namespace:
        """Return CuPy's namespace in array_api_compat."""
        return importlib.import_module("array_api_compat.cupy")

    def devices(self) -> tuple[list[Any], Any]:
        """List the GPUs, and name the current one, after compiling and launching a kernel."""
        import cupy

        float((cupy.ones(2, dtype="float32") + 1).sum())
        count = cupy.cuda.runtime.getDeviceCount()
        return [cupy.cuda.Device(index) for index in range(count)], cupy.cuda.Device()

    def device_name(self, device: Any) -> str:
        """Return a name such as ``"cuda:0"``."""
        return f"cuda:{device.id}"

    def device_kind(self, device: Any) -> str:
        """Return ``"cuda"`` and the model of the GPU."""
        import cupy

        return f"cuda {cupy.cuda.runtime.getDeviceProperties(device.id)['name'].decode()}"

    def is_accelerator(self, device: Any) -> bool:
        """Return True, because all devices are GPUs."""
        return True

    def use(self, device: Any) -> None:
        """Make the GPU current in the calling thread; new arrays are created on the current GPU."""
        device.use()

    def round_products(self, device: Any, tf32: bool) -> bool:
        """Let cuBLAS compute in TF32, before the first product, when CuPy 14 reads the variable."""
        import cupy

        if tf32:
            os.environ["CUPY_TF32"] = "1"
        return not (tf32 and cupy.cuda.runtime.is_hip)

    def to_numpy(self, array: Array) -> np.ndarray:
        """Copy to the host, which CuPy does only on explicit request."""
        import cupy

        copied: np.ndarray = cupy.asnumpy(array)
        return copied

    def synchronize(self, device: Any) -> None:
        """Wait for the GPU."""
        device.synchronize()
