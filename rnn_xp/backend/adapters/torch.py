"""PyTorch: CPUs and GPUs of NVIDIA, AMD, Intel and Apple; its own autograd is never used."""

from __future__ import annotations

import importlib
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from rnn_xp._checks import install, readable
from rnn_xp._typing import Array, Namespace
from rnn_xp.backend.adapters.base import Adapter

__all__ = ["TorchAdapter"]


class TorchAdapter(Adapter):
    """PyTorch, whose names of devices are used as they are."""

    name = "torch"
    install = install("torch")
    auto_devices = ("cuda", "xpu", "mps")
    device_buffers = True

    def namespace(self) -> Namespace:
        """Return torch's namespace in array_api_compat."""
        return importlib.import_module("array_api_compat.torch")

    def devices(self) -> tuple[list[Any], Any]:
        """List the CPU and every GPU, named as tensors report it: ``"mps:0"``, not ``"mps"``."""
        import torch

        names = ["cpu"]
        for kind in self.auto_devices:
            where = torch.backends if kind == "mps" else torch  # torch.mps says so since 2.7 only
            if getattr(where, kind).is_available():
                count = getattr(torch, kind).device_count()
                names += [f"{kind}:{index}" for index in range(count)]
        return [torch.device(name) for name in names], torch.get_default_device()

    def device_kind(self, device: Any) -> str:
        """Return ``"cpu"`` or ``"mps"``, or ``"cuda"`` or ``"xpu"`` and the model of the GPU."""
        kind = super().device_kind(device)
        if kind not in ("cuda", "xpu"):
            return kind
        import torch

        return f"{kind} {getattr(torch, kind).get_device_name(device)}"

    def dtypes(self, xp: Namespace, device: Any) -> Collection[str]:
        """Return the names of the dtypes; some GPUs have no float64, which torch does not list."""
        names = set(super().dtypes(xp, device))
        return names if self._has_float64(device) else names - {"float64", "complex128"}

    def _has_float64(self, device: Any) -> bool:
        kind = self.device_name(device).partition(":")[0]
        if kind != "xpu":
            return kind != "mps"
        import torch

        return bool(torch.xpu.get_device_properties(device).has_fp64)

    def is_accelerator(self, device: Any) -> bool:
        """Return True for everything but the CPU."""
        return self.device_name(device).partition(":")[0] != "cpu"

    def round_products(self, device: Any, tf32: bool) -> bool:
        """Let cuBLAS compute in TF32, which torch 2 leaves off unless it is asked."""
        import torch

        if tf32 and device.type == "cuda":
            torch.set_float32_matmul_precision("high")
        return not tf32 or bool(device.type == "cuda")

    def to_numpy(self, array: Array) -> np.ndarray:
        """Copy to the host if needed, detached from the graph, with conjugates resolved."""
        return np.asarray(readable("to_numpy", array).numpy(force=True))

    def detached(self, array: Array) -> Array:
        """Detach an array from its graph; the memory stays shared."""
        return array.detach()

    def is_traced(self, arrays: Sequence[Array]) -> bool:
        """Return True under ``torch.func.vmap`` and ``torch.jit.trace``.

        ``torch.compile`` leaves the host's draws out of what it compiles: each call has its own.
        """
        import torch
        from torch._functorch import pyfunctorch  # there is no public question for a vmap

        levels = pyfunctorch.retrieve_all_functorch_interpreters()
        mapped = any(level.key().name == "Vmap" for level in levels)
        return mapped or torch.jit.is_tracing()

    def synchronize(self, device: Any) -> None:
        """Wait for a GPU; a CPU has finished when a call returns."""
        if device.type == "cpu":
            return
        import torch

        accelerator = getattr(torch, device.type)  # such as torch.cuda
        accelerator.synchronize()
