"""The one door between host and device: which library computes, where, and how precisely.

Computation follows the arrays it is given; this module decides only where *new* arrays are born.
Three choices, each taken from the argument, else the environment variable, else the default::

    name    RNN_XP_BACKEND   numpy | cupy | torch | jax | array_api_strict | auto      numpy
    device  RNN_XP_DEVICE    cpu, cuda, cuda:1, ... (array_api_strict: device1, ...)   the library's
    dtype   RNN_XP_DTYPE     float32 | float64                                         float32

What cannot be had is a `BackendError`; nothing falls back to another library, device or precision.
Every array library but NumPy is imported on first use.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import logging
import os
import subprocess
import sys
from typing import Any, NamedTuple

import numpy as np

from rnn_xp._typing import Array, Namespace

__all__ = [
    "Backend",
    "BackendError",
    "BackendStatus",
    "array_namespace",
    "backend_of",
    "backends",
    "device_of",
    "float_dtype",
    "get_backend",
    "to_numpy",
]

_INSTALL = {
    "numpy": "pip install numpy",
    "cupy": "pip install 'rnn-xp[cuda12x]' (or 'rnn-xp[cuda13x]', whichever fits the driver)",
    "torch": "pip install 'rnn-xp[torch]'",
    "jax": "pip install 'rnn-xp[jax]'",
    "array_api_strict": "pip install 'rnn-xp[strict]'",
}
_NAMES = tuple(_INSTALL)


class BackendError(RuntimeError):
    """The backend, device or dtype asked for cannot be had here; the message says what can."""


@dataclasses.dataclass(frozen=True)
class Backend:
    """A library, a device of it and a floating dtype: where new arrays are born.

    ``xp`` is the namespace as array_api_compat gives it, ``device`` and ``dtype`` are the library's
    own objects, ready for ``xp.zeros(shape, dtype=backend.dtype, device=backend.device)``.
    """

    name: str
    xp: Namespace
    device: Any
    dtype: Any

    def __str__(self) -> str:
        return f"{self.name} {self.version} ({self.device_name}, {self.dtype_name})"

    def __reduce__(self) -> tuple[Any, ...]:  # a module cannot be copied, but looked up again
        names = (self.name, self.device_name, self.dtype_name)
        return _open, tuple(_Setting(name, f"copy of {self}") for name in names)

    @property
    def device_name(self) -> str:
        """The device as one writes it: ``cpu``, ``cuda:0``, ``device1``."""
        return _device_name(self.name, self.device)

    @property
    def dtype_name(self) -> str:
        """Either ``float32`` or ``float64``."""
        return _dtype_name(self.dtype)

    @property
    def version(self) -> str:
        """Version of the library that computes."""
        return str(importlib.import_module(self.name).__version__)

    def asarray(self, host: Any, *, copy: bool = True) -> Array:
        """Bring a host array (or nested list of numbers) to this backend's device.

        Floating values are cast to ``dtype``; integers and booleans keep their kind. The result
        shares no memory with `host`, unless ``copy=False`` and the backend is NumPy: then nothing
        is copied that need not be, and what is read-only stays so.
        """
        values = np.asarray(host)
        dtype = self._host_dtype(values)
        if self.name == "numpy" and not copy:
            return np.asarray(values, dtype=dtype)
        # torch and array_api_strict adopt host memory, even read-only memory: give them their own.
        private = np.array(values, dtype=dtype, order="C", copy=True)
        return private if self.name == "numpy" else self.xp.asarray(private, device=self.device)

    def to_numpy(self, array: Array) -> np.ndarray:
        """Bring an array back to the host; see the function `to_numpy`."""
        return to_numpy(array)

    def synchronize(self) -> None:
        """Wait until the device has finished (with JAX: until every living array is computed)."""
        if self.name == "cupy":
            self.device.synchronize()
        elif self.name == "torch" and self.device.type != "cpu":
            getattr(importlib.import_module("torch"), self.device.type).synchronize()
        elif self.name == "jax":
            jax = importlib.import_module("jax")
            jax.block_until_ready(jax.live_arrays())

    def _host_dtype(self, values: np.ndarray) -> np.dtype[Any]:
        """Choose the dtype in which `values` leave the host."""
        if values.dtype.kind == "f":
            return np.dtype(self.dtype_name)
        if values.dtype.kind not in "biu":
            repair = "Convert them first, for instance with numpy.asarray(x, dtype='float64')."
            raise TypeError(f"real numbers are required; given dtype {values.dtype}. {repair}")
        known = self.xp.__array_namespace_info__().dtypes(device=self.device)
        for name in (values.dtype.name, "int64", "int32"):
            if name in known and np.array_equal(values.astype(name), values):
                return np.dtype(name)
        raise TypeError(f"no integer dtype of {self} holds these {values.dtype} values")


@dataclasses.dataclass(frozen=True)
class BackendStatus:
    """What `backends` found out about one library; ``reason`` is empty where it is usable."""

    name: str
    installed: bool
    usable: bool
    version: str | None
    devices: tuple[str, ...]
    reason: str


class _Setting(NamedTuple):
    value: Any
    origin: str  # for messages: the argument or the environment variable, with its value


class _UnusableError(Exception):
    """Its two arguments: why a library cannot compute here, and the version that was found."""


def get_backend(
    name: str | None = None, *, device: str | None = None, dtype: str | None = None
) -> Backend:
    """Select the library, the device and the precision in which to compute.

    An argument wins over its environment variable, which wins over the default. RNN_XP_DEVICE
    speaks of the backend in RNN_XP_BACKEND: it is left aside when `name` is another one.

    Parameters
    ----------
    name : str, optional
        ``"numpy"`` (default), ``"cupy"``, ``"torch"``, ``"jax"``, ``"array_api_strict"``, or
        ``"auto"``: CuPy if usable, else torch if it has CUDA, else NumPy; it says so on stderr.
    device : str, optional
        ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``, ``"tpu"``, ``"device1"``, ...; default: the
        library's own. CuPy's becomes current in the calling thread: one GPU per process.
    dtype : str, optional
        ``"float32"`` (default) or ``"float64"``.
    """
    chosen = _setting("name", name, "RNN_XP_BACKEND", "numpy", (*_NAMES, "auto"))
    named = os.environ.get("RNN_XP_BACKEND", "").strip()
    foreign = name is not None and named not in ("", "auto", name)
    where = _setting("device", device, "" if foreign else "RNN_XP_DEVICE", None)
    precision = _setting("dtype", dtype, "RNN_XP_DTYPE", "float32", ("float32", "float64"))
    return _open(chosen, where, precision) if chosen.value != "auto" else _auto(where, precision)


def backends() -> tuple[BackendStatus, ...]:
    """Report for every backend whether it is installed and usable, and if not, why.

    They are tried in a short-lived process: this one imports nothing and reserves no GPU memory.
    """
    code = "import json; from rnn_xp import backend as b\nfor name in b._NAMES: "
    code += "print('\\n', json.dumps(vars(b._probe(name))), flush=True)"
    env = {"PYTHONPATH": os.pathsep.join(sys.path), "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    command = [sys.executable, "-P", "-c", code]
    try:
        child = subprocess.run(command, env=os.environ | env, capture_output=True, text=True)
        told, last = child.stdout.splitlines(), "".join(child.stderr.splitlines()[-1:])
    except OSError as error:
        told, last = [], _line(error)
    lost: dict[str, Any] = {"installed": False, "usable": False, "version": None, "devices": ()}
    found = {name: {**lost, "name": name, "reason": f"trying it failed: {last}"} for name in _NAMES}
    found |= {each["name"]: each for each in (json.loads(t) for t in told if t.startswith(" {"))}
    return tuple(BackendStatus(**{**f, "devices": tuple(f["devices"])}) for f in found.values())


def array_namespace(*arrays: Array) -> Namespace:
    """Give the namespace that all of `arrays` share; ``None`` among them is ignored."""
    import array_api_compat

    given = [array for array in arrays if array is not None]
    try:
        return array_api_compat.array_namespace(*given)
    except TypeError:
        kinds = dict.fromkeys(type(array) for array in given)
    names = [f"{kind.__module__.partition('.')[0]}.{kind.__qualname__}" for kind in kinds]
    raise TypeError(
        f"arrays of one library are required; given {' and '.join(names) or 'none'}. Bring them "
        "together first, for instance with get_backend(name).asarray(to_numpy(x))."
    )


def device_of(array: Array) -> Any:
    """Give the device of `array` for ``device=`` (None while JAX traces: there is none yet)."""
    import array_api_compat

    return array_api_compat.device(array)


def float_dtype(**arrays: Array) -> Any:
    """Give the one floating dtype that all of `arrays` share, or say which two differ.

    That is float32 or float64, or complex64 or complex128: the complex-step test runs the same
    code on those. ``None`` among the arrays is ignored.
    """
    given = {name: array for name, array in arrays.items() if array is not None}
    xp = array_namespace(*given.values())
    first, dtype = next((name, array.dtype) for name, array in given.items())
    for name, array in given.items():
        shown = f"{name} is {_dtype_name(array.dtype)}"
        if not xp.isdtype(array.dtype, (xp.float32, xp.float64, xp.complex64, xp.complex128)):
            raise TypeError(f"float32 or float64 is required; {shown}. xp.astype converts it.")
        if array.dtype != dtype:
            raise TypeError(
                f"one floating dtype is required; {first} is {_dtype_name(dtype)}, but {shown}. "
                f"Nothing is cast silently: use xp.astype({name}, {first}.dtype), or the reverse."
            )
    return dtype


def to_numpy(array: Array) -> np.ndarray:
    """Bring an array of any library to the host: a copy, or a view where it already lies there."""
    name = _library_name(array_namespace(array))
    if name == "cupy":
        array = importlib.import_module("cupy").asnumpy(array)
    elif name == "torch":
        array = array.numpy(force=True)  # also detaches, and resolves conjugates
    elif name == "array_api_strict":
        array = array.to_device(importlib.import_module(name).Device("CPU_DEVICE"))
    return np.asarray(array)


def backend_of(array: Array) -> Backend:
    """Give the backend that an existing float32 or float64 array belongs to."""
    xp, device = array_namespace(array), device_of(array)
    name = _library_name(xp)
    if name not in _NAMES or device is None:
        given = f"an array of {name}" if device is not None else "one that is being traced"
        raise TypeError(f"a concrete array of {', '.join(_NAMES)} is required; given {given}")
    if _dtype_name(float_dtype(array=array)) not in ("float32", "float64"):
        raise TypeError(f"float32 or float64 is required; array is {_dtype_name(array.dtype)}")
    return Backend(name, xp, device, array.dtype)


def _setting(label: str, given: Any, variable: str, default: Any, choices: Any = ()) -> _Setting:
    value = os.environ.get(variable, "").strip()
    setting = _Setting(value, f"{variable}={value}") if value else _Setting(default, "the default")
    if given is not None:
        setting = _Setting(given, f"{label}={given!r}")
    if choices and setting.value not in choices:
        raise BackendError(f"{setting.origin} is not known. Choose one of: {', '.join(choices)}.")
    return setting


def _open(chosen: _Setting, where: _Setting, precision: _Setting) -> Backend:
    """Turn three settings into a backend, or into an error that says how to repair them."""
    name, dtype = chosen.value, precision.value
    try:
        xp, _, devices, default = _load(name)
    except _UnusableError as error:
        reason, version = error.args
        repair = "Check nvidia-smi, CUDA_VISIBLE_DEVICES and that the package fits the driver"
        repair = repair if version else f"Install it with: {_INSTALL[name]}"
        raise BackendError(
            f"backend {name} was asked for ({chosen.origin}), but {reason}. {repair}, or choose "
            f"another: {', '.join(other for other in _NAMES if other != name)}."
        ) from error.__cause__
    wanted = str(default if where.value is None else where.value).replace("gpu", "cuda")
    aliases = (wanted, f"{wanted}:0", "CPU_DEVICE" if wanted == "cpu" else wanted)
    wanted, listed = next((a for a in aliases if a in devices), ""), ", ".join(devices)
    if not wanted:
        hint = "check nvidia-smi, CUDA_VISIBLE_DEVICES and that this build supports it"
        raise BackendError(
            f"{name} has no device {where.value!r} here ({where.origin}). Choose one of: {listed}. "
            f"For a GPU, {'choose cupy, torch or jax' if name == 'numpy' else hint}."
        )
    device = devices[wanted]
    if name == "cupy":
        device.use()  # its creation functions know the current device only
    if dtype not in xp.__array_namespace_info__().dtypes(device=device):
        repair = f"Choose another device of: {', '.join(d for d in devices if d != wanted)}"
        if name == "jax":
            repair = "Set JAX_ENABLE_X64=1 before the program starts (JAX would narrow silently)"
        what = f"{name} on {wanted} has no {dtype} ({precision.origin})"
        raise BackendError(f"{what}. {repair}, or choose the dtype float32.")
    return Backend(name, xp, device, xp.zeros(1, dtype=getattr(xp, dtype), device=device).dtype)


def _auto(where: _Setting, precision: _Setting) -> Backend:
    """Choose CuPy, torch with CUDA, or NumPy, in this order, and say so."""
    name, reasons = "numpy", ""
    for candidate in ("cupy", "torch") if where.value != "cpu" else ():
        status = _probe(candidate)
        if any(device.startswith("cuda") for device in status.devices):
            name, where = candidate, where if where.value else _Setting("cuda", "auto")
            break
        reasons += f"; {candidate}: {status.reason or 'no CUDA device'}"
    backend = _open(_Setting(name, "chosen by auto"), where, precision)
    logging.getLogger("rnn_xp").info("auto chose %s%s", backend, reasons)
    sys.stderr.write(f"rnn_xp: auto chose {backend}{reasons}\n")
    return backend


def _load(name: str) -> tuple[Namespace, str, dict[str, Any], str]:
    """Import a library: its namespace, version, devices by name, and the default one's name."""
    version = None
    try:
        module = importlib.import_module(name)
        version = str(module.__version__)
        devices, default = _devices(name, module)
        if name in ("numpy", "cupy", "torch"):
            module = importlib.import_module(f"array_api_compat.{name}")
        return (module.numpy if name == "jax" else module), version, devices, default
    except Exception as error:  # a broken installation raises anything
        if isinstance(error, ModuleNotFoundError) and error.name == name:
            raise _UnusableError(f"the package {name} is not installed", None) from error
        what = f"no {'CUDA ' if name == 'cupy' else ''}device is usable" if version else "broken"
        reason = f"{name} {version or '(version unknown)'} is installed but {what}: {_line(error)}"
        raise _UnusableError(reason, version or "unknown") from error


def _devices(name: str, module: Any) -> tuple[dict[str, Any], str]:
    """List the devices of an imported library by name, and name its default."""
    found, default = ["cpu"], "cpu"
    if name == "cupy":
        # CuPy imports without a GPU and fails later: allocate, compile and launch something.
        float((module.ones(2, dtype="float32") + 1).sum())
        found = [module.cuda.Device(i) for i in range(module.cuda.runtime.getDeviceCount())]
        default = module.cuda.Device()
    elif name == "torch":
        cuda = range(module.cuda.device_count() if module.cuda.is_available() else 0)
        mps = ("mps",) if module.backends.mps.is_available() else ()
        found = [module.device(text) for text in ("cpu", *(f"cuda:{i}" for i in cuda), *mps)]
        default = module.get_default_device()
    elif name == "jax":
        found = module.local_devices()
        default = found[0]
        if default.platform != "cpu" and "cpu" in (module.config.jax_platforms or "cpu"):
            found = found + module.local_devices(backend="cpu")
    elif name == "array_api_strict":
        found = module.__array_namespace_info__().devices()
        default = found[0]
    return {_device_name(name, device): device for device in found}, _device_name(name, default)


def _probe(name: str) -> BackendStatus:
    try:
        _, version, devices, _ = _load(name)
    except _UnusableError as error:
        reason, version = error.args
        return BackendStatus(name, version is not None, False, version, (), reason)
    return BackendStatus(name, True, True, version, tuple(devices), "")


def _device_name(name: str, device: Any) -> str:
    if name == "cupy":
        return f"cuda:{device.id}"
    if name == "jax" and hasattr(device, "platform"):  # several devices: a sharding, without one
        kind = "cuda" if device.platform == "gpu" else device.platform
        return "cpu" if (kind, device.id) == ("cpu", 0) else f"{kind}:{device.id}"
    return repr(device).split("'")[1] if name == "array_api_strict" else str(device)


def _dtype_name(dtype: Any) -> str:
    return str(dtype).rpartition(".")[2]


def _library_name(xp: Namespace) -> str:
    return str(xp.__name__).removeprefix("array_api_compat.").partition(".")[0]


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
