"""PyTorch: CPUs, NVIDIA GPUs and Apple GPUs; its own autograd is never used."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from rnn_xp._checks import install
from rnn_xp._typing import Array, Namespace
from rnn_xp.backend.adapters.base import Adapter

__all__ = ["TorchAdapter"]


class TorchAdapter(Adapter):
    """PyTorch, whose names of devices are used as they are."""

    name = "torch"
    install = install("torch")
    auto_device = "cuda"
    device_buffers = True

    def namespace(self) -> Namespace:
        """Return torch's namespace in array_api_compat."""
        return importlib.import_module("array_api_compat.torch")

    def devices(self) -> tuple[list[Any], Any]:
        """List the CPU and every NVIDIA or Apple GPU."""
        import torch

        names = ["cpu"]
        if torch.cuda.is_available():
            names += [f"cuda:{index}" for index in range(torch.cuda.device_count())]
        if torch.backends.mps.is_available():
            names.append("mps")
        return [torch.device(name) for name in names], torch.get_default_device()

    def device_kind(self, device: Any) -> str:
        """Return ``"cpu"`` or ``"mps"``, or ``"cuda"`` and the model of the GPU."""
        kind = super().device_kind(device)
        if kind != "cuda":
            return kind
        import torch

        return f"{kind} {torch.cuda.get_device_name(device)}"

    def is_accelerator(self, device: Any) -> bool:
        """Return True for everything but the CPU."""
        return self.device_name(device).partition(":")[0] != "cpu"

    def to_numpy(self, array: Array) -> np.ndarray:
        """Copy to the host if needed, detached from the graph, with conjugates resolved."""
        return np.asarray(array.numpy(force=True))

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
