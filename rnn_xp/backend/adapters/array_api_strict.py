"""array-api-strict: NumPy with nothing but the standard, and devices that stand in for GPUs."""

from __future__ import annotations

from typing import Any

import numpy as np

from rnn_xp._checks import install
from rnn_xp._typing import Array
from rnn_xp.backend.adapters.base import Adapter

__all__ = ["StrictAdapter"]


class StrictAdapter(Adapter):
    """array-api-strict, which is for tests: it refuses what the standard does not promise."""

    name = "array_api_strict"
    install = install("strict")

    def device_name(self, device: Any) -> str:
        """Return a name such as ``"device1"``, for ``array_api_strict.Device('device1')``."""
        return repr(device).split("'")[1]

    def spellings(self, device: str) -> list[str]:
        """Let ``"cpu"`` mean the device ``CPU_DEVICE``."""
        return ["CPU_DEVICE"] if device == "cpu" else [device]

    def to_numpy(self, array: Array) -> np.ndarray:
        """Move the array to the CPU first, because the host may read it only there."""
        cpu = self.namespace().Device("CPU_DEVICE")
        return np.asarray(array.to_device(cpu))
