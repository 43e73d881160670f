"""dpnp: Intel GPUs and CPUs through SYCL, and other devices that the runtime supports."""

from __future__ import annotations

import os
import sys
from typing import Any

import numpy as np

from rnn_xp._checks import install
from rnn_xp._typing import Array
from rnn_xp.backend.adapters.base import Adapter

__all__ = ["DpnpAdapter"]

_RUNTIMES = ("level_zero", "opencl", "cuda", "hip")  # the same GPU may be there by several


class DpnpAdapter(Adapter):
    """dpnp, whose devices are named by runtime, type and number: ``"level_zero:gpu:0"``.

    Its arrays can be neither pickled nor copied by `copy.deepcopy` (dpnp 0.20), nor can an
    estimator that was fitted on them; bring the parameters to NumPy first.
    """

    name = "dpnp"
    install = install("dpnp")
    auto_devices = ("gpu",)
    device_word = "SYCL device"
    gpu_hint = "check `python -m dpctl -f` and that the GPU's driver is installed"

    def repair(self) -> str:
        """Name the variable with which the PyPI package finds its runtime for CPUs."""
        check = "Check `python -m dpctl -f`, which lists the devices, and that a driver is there"
        runtime = os.path.join(sys.prefix, "lib", "libintelocl.so")
        if os.environ.get("OCL_ICD_FILENAMES") or not os.path.exists(runtime):
            return check
        return f"{check}; for the CPU set OCL_ICD_FILENAMES={runtime} before the program starts"

    def devices(self) -> tuple[list[Any], Any]:
        """List the devices as arrays report them; their class differs from dpctl's own."""
        xp = self.namespace()
        info = xp.__array_namespace_info__()
        return (
            [xp.empty(0, device=device).device for device in info.devices()],
            xp.empty(0).device,
        )

    def device_name(self, device: Any) -> str:
        """Return SYCL's filter string, such as ``"opencl:cpu:0"``."""
        return str(device.sycl_device.filter_string)

    def device_kind(self, device: Any) -> str:
        """Return ``"cpu"``, or the type and the model of an accelerator."""
        if not self.is_accelerator(device):
            return "cpu"
        sycl = device.sycl_device
        return f"{sycl.device_type.name} {sycl.name}"

    def is_accelerator(self, device: Any) -> bool:
        """Return True for every device but a CPU."""
        return not device.sycl_device.is_cpu

    def spellings(self, device: str) -> list[str]:
        """Let ``"gpu"`` and ``"gpu:1"`` mean a device of the first runtime that has it."""
        full = [device, *(f"{runtime}:{device}" for runtime in _RUNTIMES)]
        return [*full, *(f"{name}:0" for name in full)]

    def to_numpy(self, array: Array) -> np.ndarray:
        """Copy to the host, which dpnp does only on explicit request."""
        import dpnp

        copied: np.ndarray = dpnp.asnumpy(array)
        return copied

    def synchronize(self, device: Any) -> None:
        """Wait for the queue of the device."""
        device.wait()
