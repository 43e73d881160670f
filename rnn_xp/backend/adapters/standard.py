"""Any other library whose arrays name an Array API namespace."""

from __future__ import annotations

import importlib
from collections.abc import Collection
from typing import Any

import numpy as np

from rnn_xp._typing import Array, Namespace
from rnn_xp.backend.adapters.base import Adapter

__all__ = ["TO_HOST", "StandardAdapter"]

TO_HOST = ("to_numpy", "numpy", "asnumpy", "todense", "unwrap_numpy")
"""Methods by which libraries make NumPy arrays of theirs."""

_DTYPES = ("bool", "int32", "int64", "float32", "float64", "complex64", "complex128")


class StandardAdapter(Adapter):
    """A library without an adapter of its own, which is taken to follow the standard.

    Parameters
    ----------
    name : str
        Name of the module that is its namespace, such as ``"cubed.array_api"``.

    Examples
    --------
    >>> StandardAdapter("array_api_strict").namespace().__name__
    'array_api_strict'
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def version(self) -> str:
        """Return the version of the package, or "unknown"."""
        package = importlib.import_module(self.name.partition(".")[0])
        return str(getattr(package, "__version__", "unknown"))

    def namespace(self) -> Namespace:
        """Return the namespace that array_api_compat has for the module, or the module itself."""
        wrapped = f"array_api_compat.{self.name}"
        try:
            return importlib.import_module(wrapped)
        except ModuleNotFoundError:
            return importlib.import_module(self.name)

    def devices(self) -> tuple[list[Any], Any]:
        """List the devices that the library names; its default alone if it names none."""
        xp = self.namespace()
        if not hasattr(xp, "__array_namespace_info__"):
            return [None], None
        info = xp.__array_namespace_info__()
        default = info.default_device()
        return list(info.devices()) or [default], default

    def device_of(self, array: Array) -> Any:
        """Return None, the default device, for an array that names none."""
        return getattr(array, "device", None)

    def device_name(self, device: Any) -> str:
        """Return the text of the device; "default" if the library gives it none."""
        text = str(device)
        return "default" if device is None or text.startswith("<") else text

    def dtypes(self, xp: Namespace, device: Any) -> Collection[str]:
        """Return the names that the library lists, or else those that its namespace has."""
        if hasattr(xp, "__array_namespace_info__"):
            return super().dtypes(xp, device)
        return [name for name in _DTYPES if hasattr(xp, name)]

    def to_numpy(self, array: Array) -> np.ndarray:
        """Bring an array to the host as NumPy reads it, by its own method, or by DLPack."""
        own = (getattr(array, name) for name in TO_HOST if hasattr(array, name))
        for read in (lambda: np.asarray(array), *own, lambda: np.from_dlpack(array)):
            try:
                host = read()
            except Exception:  # a library refuses to be read by whatever error it likes
                continue
            if isinstance(host, np.ndarray) and host.dtype != object:
                return host
        raise TypeError(
            f"an array of {self.name} cannot be read by the host: it has no values yet, or no "
            "function of NumPy takes it. Convert it to a NumPy array by the library's own function."
        )
