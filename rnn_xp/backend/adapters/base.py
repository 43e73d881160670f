"""Everything that rnn_xp needs from an array library beyond its namespace, with defaults."""

from __future__ import annotations

import importlib
from collections.abc import Collection, Sequence
from typing import Any, ClassVar, TypeVar

import numpy as np

from rnn_xp._typing import Array, Namespace

__all__ = ["Adapter"]

_Arrays = TypeVar("_Arrays")


class Adapter:
    """An array library: its import, its devices, and transfers to and from them.

    The defaults are right for a library that follows the standard and computes on a CPU; a subclass
    overrides what is different. No method is called before the library is requested, so every
    method may import it.

    Attributes
    ----------
    name : str
        Name under which the library is imported, and by which a user chooses it.
    completes : str
        Module that the library's arrays name as their namespace, if `namespace` has to complete it;
        empty if the arrays' own namespace, or that of array_api_compat, is complete.
    install : str
        Command that installs it.
    device_word : str
        The hardware that the library needs in order to compute, as named in error messages.
    gpu_hint : str
        Advice to a user who asked for a GPU that is not available.
    dtype_hint : str
        Advice on how to enable a dtype that the device lacks; empty if another device is needed.
    lacks : str
        A dtype in which the library does not compute well enough, though its arrays can have it;
        empty if there is none.
    auto_devices : tuple of str
        The kinds of devices that make ``RNN_XP_BACKEND=auto`` choose this library, the best first.
    device_buffers : bool
        True if MPI can send the library's arrays directly from device memory.

    Examples
    --------
    >>> class Plain(Adapter):
    ...     name = "array_api_strict"
    >>> Plain().namespace().__name__
    'array_api_strict'
    """

    name: str
    completes: ClassVar[str] = ""
    install: ClassVar[str] = ""
    device_word: ClassVar[str] = "device"
    gpu_hint: ClassVar[str] = (
        "check nvidia-smi, CUDA_VISIBLE_DEVICES and that this build supports it"
    )
    dtype_hint: ClassVar[str] = ""
    lacks: ClassVar[str] = ""
    auto_devices: ClassVar[tuple[str, ...]] = ()
    device_buffers: ClassVar[bool] = False

    def version(self) -> str:
        """Import the library and return its version."""
        return str(importlib.import_module(self.name).__version__)

    def namespace(self) -> Namespace:
        """Return the Array API namespace, the same that `rnn_xp.backend.array_namespace` finds."""
        return importlib.import_module(self.name)

    def devices(self) -> tuple[list[Any], Any]:
        """List the library's devices as its arrays report them, and its default device.

        Any exception means that the library is not usable; its first line becomes the reason.
        """
        info = self.namespace().__array_namespace_info__()
        return list(info.devices()), info.default_device()

    def device_name(self, device: Any) -> str:
        """Return the name of a device, as a user writes it in RNN_XP_DEVICE."""
        return str(device)

    def device_of(self, array: Array) -> Any:
        """Return the device of an array of which array_api_compat cannot tell it."""
        return None

    def dtypes(self, xp: Namespace, device: Any) -> Collection[str]:
        """Return the names of the dtypes that a device has."""
        names: Collection[str] = xp.__array_namespace_info__().dtypes(device=device)
        return names

    def beside(self, sharding: Any, rows: bool) -> Any:
        """Return the place of another array on the devices over which an array is split."""
        return sharding

    def device_kind(self, device: Any) -> str:
        """Return the kind of a device without its number: devices of a kind compute equal bits."""
        return self.device_name(device).partition(":")[0]

    def is_accelerator(self, device: Any) -> bool:
        """Return True if launches and reads by the host are expensive on the device."""
        return False

    def spellings(self, device: str) -> list[str]:
        """List the names of devices that a user may mean by `device`, the likeliest first."""
        names = [device, device.replace("gpu", "cuda")]
        return [*names, *(f"{name}:0" for name in names)]

    def repair(self) -> str:
        """Return advice on what to check if the library is installed but not usable."""
        return "Check nvidia-smi, CUDA_VISIBLE_DEVICES and that the package fits the driver"

    def round_products(self, device: Any, tf32: bool) -> bool:
        """Set whether products of float32 matrices may be rounded to TF32 on a device.

        Return False if it cannot be set to this.
        """
        return not tf32

    def use(self, device: Any) -> None:
        """Make a device the current one, if the library requires it."""

    def asarray(
        self, values: np.ndarray, dtype: np.dtype[Any], device: Any, copy: bool, *, xp: Namespace
    ) -> Array:
        """Bring host values to a device; the result shares no memory with them.

        Parameters
        ----------
        values : numpy.ndarray
        dtype : numpy.dtype
            A dtype that the device supports.
        device : object
        copy : bool
            If False, a library whose arrays live on the host may return `values` themselves,
            provided that they stay read-only where they are.
        xp : Namespace
            The namespace of the library.
        """
        # Some libraries adopt host memory, even read-only memory: give them their own.
        private = np.array(values, dtype=dtype, order="C", copy=True)
        return xp.asarray(private, device=device)

    def to_numpy(self, array: Array) -> np.ndarray:
        """Bring an array to the host, as a copy, or as a view if it is there already."""
        return np.asarray(array)

    def detached(self, array: Array) -> Array:
        """Return an array without a history of gradients, if the library records one."""
        return array

    def computed(self, arrays: _Arrays) -> _Arrays:
        """Return arrays, in nested dicts and tuples, once their values are computed or on the way.

        Called with the loss and the gradients of a block of rows.
        """
        return arrays

    def is_traced(self, arrays: Sequence[Array]) -> bool:
        """Return True if a function of these arrays is being compiled or mapped over a batch."""
        return False

    def synchronize(self, device: Any) -> None:
        """Wait until the device has finished its work."""
