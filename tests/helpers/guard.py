"""Notice every read of a device array from the host, on a machine without a device.

array_api_strict has make-believe devices, but hands their values to the host when asked:
``float(x)`` and ``if x:`` work, where on a GPU each of them waits until the queue has run dry.
Inside `no_host_sync` they raise.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

READS = (
    *("__array__", "__bool__", "__buffer__", "__complex__", "__dlpack__", "__float__"),
    *("__index__", "__int__", "__repr__", "__str__", "to_device"),
)


class HostSyncError(RuntimeError):
    """The code under test read a device array from the host."""


@contextlib.contextmanager
def no_host_sync(allow: int = 0) -> Iterator[list[str]]:
    """Let the host read device arrays `allow` times; yields the list of reads seen so far."""
    import array_api_strict as strict

    array_type, cpu = type(strict.zeros(1)), strict.Device("CPU_DEVICE")
    seen: list[str] = []

    def note(what: str, device: Any) -> None:
        seen.append(what)
        if len(seen) > allow:
            raise HostSyncError(f"{what} reads an array on {device}: read {len(seen)} of {allow}")

    def watched(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def read(self: Any, *args: Any, **kwargs: Any) -> Any:
            if self.device != cpu:
                note(name, self.device)
            return method(self, *args, **kwargs)

        return read

    def asarray(obj: Any, /, *, device: Any = None, **kwargs: Any) -> Any:
        if isinstance(obj, array_type) and device not in (None, obj.device):
            note("asarray(device=)", obj.device)
        return original_asarray(obj, device=device, **kwargs)

    original_asarray = strict.asarray
    originals = {name: getattr(array_type, name) for name in READS if hasattr(array_type, name)}
    try:
        for name, method in originals.items():
            setattr(array_type, name, watched(name, method))
        strict.asarray = asarray
        yield seen
    finally:
        strict.asarray = original_asarray
        for name, method in originals.items():
            setattr(array_type, name, method)
