"""JAX: CPUs, GPUs and TPUs; float64 only if JAX_ENABLE_X64=1 was set before it was imported."""

from __future__ import annotations

from typing import Any

from rnn_xp._checks import install
from rnn_xp._typing import Namespace
from rnn_xp.backend.adapters.base import Adapter

__all__ = ["JaxAdapter"]


class JaxAdapter(Adapter):
    """JAX, which computes asynchronously and by default silently narrows float64."""

    name = "jax"
    install = install("jax")
    dtype_hint = "Set JAX_ENABLE_X64=1 before the program starts (JAX would narrow silently)"

    def namespace(self) -> Namespace:
        """Return ``jax.numpy``."""
        import jax

        return jax.numpy

    def devices(self) -> tuple[list[Any], Any]:
        """List the devices of this process, including the CPU unless JAX_PLATFORMS omits it."""
        import jax

        devices = list(jax.local_devices())
        default = devices[0]
        platforms = jax.config.jax_platforms or "cpu"  # JAX_PLATFORMS; where not set, all
        if default.platform != "cpu" and "cpu" in platforms:
            devices += jax.local_devices(backend="cpu")
        return devices, default

    def device_name(self, device: Any) -> str:
        """Return a name in torch's style: ``"cpu"``, ``"cuda:1"``, ``"tpu:0"``."""
        if not hasattr(device, "platform"):  # the sharding of an array on several devices
            return str(device)
        if device.platform == "cpu" and device.id == 0:
            return "cpu"
        kind = "cuda" if device.platform == "gpu" else device.platform
        return f"{kind}:{device.id}"

    def device_kind(self, device: Any) -> str:
        """Return ``"cpu"`` or ``"tpu"``, or ``"cuda"`` and the model of the GPU."""
        kind = super().device_kind(device)
        return f"{kind} {device.device_kind}" if kind == "cuda" else kind

    def is_accelerator(self, device: Any) -> bool:
        """Return True for every device but a CPU."""
        return getattr(device, "platform", "cpu") != "cpu"

    def synchronize(self, device: Any) -> None:
        """Wait until every live array is computed."""
        import jax

        jax.block_until_ready(jax.live_arrays())
