"""JAX: CPUs, GPUs and TPUs; float64 only if JAX_ENABLE_X64=1 was set before it was imported."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rnn_xp._checks import install
from rnn_xp._typing import Array, Namespace
from rnn_xp.backend.adapters.base import Adapter

__all__ = ["JaxAdapter"]


def _devices(place: Any) -> list[Any]:
    """List the devices of a sharding in order, or the device that is given."""
    return sorted(getattr(place, "device_set", [place]), key=lambda device: int(device.id))


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
        """List the devices of this process, including the CPU unless JAX_PLATFORMS omits it.

        The default is that of ``jax.default_device`` or of the option ``jax_default_device``.
        """
        import jax

        devices = list(jax.local_devices())
        platforms = jax.config.jax_platforms or "cpu"  # JAX_PLATFORMS; where not set, all
        if devices[0].platform != "cpu" and "cpu" in platforms:
            devices += jax.local_devices(backend="cpu")
        default = jax.config.jax_default_device  # a device, the name of a platform, or None
        if isinstance(default, str):
            default = jax.local_devices(backend=default)[0]
        return devices, default or devices[0]

    def beside(self, sharding: Any, rows: bool) -> Any:
        """Return a sharding that is whole on each device, or split as the first axis is."""
        import jax

        place = jax.sharding
        mesh, spec = getattr(sharding, "mesh", None), getattr(sharding, "spec", ())
        if mesh is None:
            mesh = place.Mesh(_devices(sharding), ("devices",))
        return place.NamedSharding(mesh, place.PartitionSpec(*spec[: int(rows)]))

    def device_name(self, device: Any) -> str:
        """Return a name in torch's style: ``"cpu"``, ``"cuda:1"``; several with commas between."""
        if hasattr(device, "device_set"):
            return ", ".join(map(self.device_name, _devices(device)))
        if device.platform == "cpu" and device.id == 0:
            return "cpu"
        kind = "cuda" if device.platform == "gpu" else device.platform
        return f"{kind}:{device.id}"

    def device_kind(self, device: Any) -> str:
        """Return ``"cpu"`` or ``"tpu"``, or ``"cuda"`` and the model of the GPU."""
        device = _devices(device)[0]
        kind = super().device_kind(device)
        return f"{kind} {device.device_kind}" if kind == "cuda" else kind

    def is_accelerator(self, device: Any) -> bool:
        """Return True for every device but a CPU."""
        return bool(_devices(device)[0].platform != "cpu")

    def round_products(self, device: Any, tf32: bool) -> bool:
        """Set the precision of products, unless the user has; on an accelerator JAX 0.10 rounds."""
        import jax

        platform = _devices(device)[0].platform
        if platform != "cpu" and (tf32 or jax.config.jax_default_matmul_precision is None):
            precision = "tensorfloat32" if tf32 else "highest"
            jax.config.update("jax_default_matmul_precision", precision)
        return not tf32 or bool(platform == "gpu")

    def is_traced(self, arrays: Sequence[Array]) -> bool:
        """Return True under every transformation of JAX, such as ``jit``, ``vmap`` and ``grad``."""
        import jax

        return any(isinstance(array, jax.core.Tracer) for array in arrays)

    def synchronize(self, device: Any) -> None:
        """Wait until every live array is computed."""
        import jax

        jax.block_until_ready(jax.live_arrays())
