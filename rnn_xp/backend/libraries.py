"""Import the array libraries, list their devices, and say what is missing where one fails.

A library may be absent, broken, or installed on a machine without the device that it needs.
`load` raises `UnusableError` with the reason, `probe` reports it, and `backends` reports it for
all libraries without importing any of them here.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import subprocess
import sys
from typing import Any, NamedTuple

from rnn_xp._typing import Namespace

__all__ = [
    "INSTALL_COMMANDS",
    "NAMES",
    "BackendStatus",
    "Library",
    "UnusableError",
    "backends",
    "device_kind",
    "device_name",
    "load",
    "probe",
    "write_statuses",
]

INSTALL_COMMANDS = {
    "numpy": "pip install numpy",
    "cupy": "pip install 'rnn-xp[cuda12x]' (or 'rnn-xp[cuda13x]', whichever fits the driver)",
    "torch": "pip install 'rnn-xp[torch]'",
    "jax": "pip install 'rnn-xp[jax]'",
    "array_api_strict": "pip install 'rnn-xp[strict]'",
}
"""How each library is installed, by the name under which it is imported."""

NAMES = tuple(INSTALL_COMMANDS)
"""The libraries that can compute, in the order in which they are reported."""

_STATUS_MARK = "rnn_xp status: "  # libraries may write to the output of the process, too


class Library(NamedTuple):
    """A library that can compute here.

    Attributes
    ----------
    namespace : Namespace
        Its Array API namespace, as array_api_compat gives it.
    version : str
        Of the library itself.
    devices : dict
        The library's own device objects, by name.
    default_device : str
        Name of the device on which the library creates arrays unless told otherwise.

    Examples
    --------
    >>> library = load("numpy")
    >>> library.devices, library.default_device
    ({'cpu': 'cpu'}, 'cpu')
    """

    namespace: Namespace
    version: str
    devices: dict[str, Any]
    default_device: str


class UnusableError(Exception):
    """A library cannot compute here.

    Attributes
    ----------
    reason : str
        One line, without a full stop.
    version : str or None
        The version that was found, ``"unknown"`` if it could not be read; None if the library is
        not installed.

    Examples
    --------
    >>> error = UnusableError("the package cupy is not installed")
    >>> error.reason, error.version
    ('the package cupy is not installed', None)
    """

    def __init__(self, reason: str, version: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.version = version


@dataclasses.dataclass(frozen=True)
class BackendStatus:
    """What was found out about one library.

    Attributes
    ----------
    name : str
        The name that `rnn_xp.get_backend` takes.
    installed : bool
        Whether the package is there, be it broken.
    usable : bool
        Whether it can compute on at least one device.
    version : str or None
        ``"unknown"`` for a broken package, None for a missing one.
    devices : tuple of str
        The devices it can compute on.
    reason : str
        Why it is not usable; empty where it is.

    Examples
    --------
    >>> status = probe("numpy")
    >>> status.usable, status.devices, status.reason
    (True, ('cpu',), '')
    """

    name: str
    installed: bool
    usable: bool
    version: str | None
    devices: tuple[str, ...]
    reason: str


def backends() -> tuple[BackendStatus, ...]:
    """Report for every backend whether it is installed and usable, and if not, why.

    They are tried in a short-lived process: this one imports nothing and reserves no GPU memory.

    Returns
    -------
    tuple of BackendStatus
        One for each of numpy, cupy, torch, jax and array_api_strict, in this order.

    Notes
    -----
    The libraries themselves read the environment: ``CUDA_VISIBLE_DEVICES`` hides GPUs, and
    ``JAX_PLATFORMS`` those of JAX.

    Examples
    --------
    >>> numpy, *others = backends()
    >>> numpy.name, numpy.usable
    ('numpy', True)
    >>> [status.name for status in others]
    ['cupy', 'torch', 'jax', 'array_api_strict']
    """
    code = "from rnn_xp.backend.libraries import write_statuses; write_statuses()"
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    }
    try:
        child = subprocess.run(
            [sys.executable, "-P", "-c", code], env=environment, capture_output=True, text=True
        )
    except OSError as error:
        output = ""
        failure = _first_line(error)
    else:
        output = child.stdout
        failure = "".join(child.stderr.splitlines()[-1:])

    found = {}
    for line in output.splitlines():
        if line.startswith(_STATUS_MARK):
            fields = json.loads(line.removeprefix(_STATUS_MARK))
            fields["devices"] = tuple(fields["devices"])
            found[fields["name"]] = BackendStatus(**fields)
    for name in NAMES:  # the process may have died before it came to all of them
        lost = BackendStatus(name, False, False, None, (), f"trying it failed: {failure}")
        found.setdefault(name, lost)
    return tuple(found[name] for name in NAMES)


def write_statuses() -> None:
    """Write the status of every library to stdout; `backends` runs this in a process of its own.

    Each status is one line of JSON after a mark, written at once in case the next library takes
    the process down.
    """
    for name in NAMES:
        status = json.dumps(dataclasses.asdict(probe(name)))
        sys.stdout.write(f"\n{_STATUS_MARK}{status}\n")
        sys.stdout.flush()


def probe(name: str) -> BackendStatus:
    """Import one library in this process and report what became of it.

    Parameters
    ----------
    name : str
        One of `NAMES`.

    Returns
    -------
    BackendStatus

    Examples
    --------
    >>> probe("numpy").installed
    True
    """
    try:
        library = load(name)
    except UnusableError as error:
        installed = error.version is not None
        return BackendStatus(name, installed, False, error.version, (), error.reason)
    return BackendStatus(name, True, True, library.version, tuple(library.devices), "")


def load(name: str) -> Library:
    """Import a library and list its devices.

    Parameters
    ----------
    name : str
        One of `NAMES`.

    Returns
    -------
    Library

    Raises
    ------
    UnusableError
        If the package is missing or broken, or if no device of it is usable.

    Examples
    --------
    >>> load("numpy").namespace.__name__
    'array_api_compat.numpy'
    """
    version = ""
    try:
        module = importlib.import_module(name)
        version = str(module.__version__)
        devices, default = _find_devices(name, module)
        named = {device_name(name, device): device for device in devices}
        return Library(_find_namespace(name, module), version, named, device_name(name, default))
    except Exception as error:  # a broken installation raises anything
        raise _explain(name, version, error) from error


def device_name(library: str, device: Any) -> str:
    """Write a device as one writes it in RNN_XP_DEVICE, in the same way for all libraries.

    Parameters
    ----------
    library : str
        One of `NAMES`.
    device : object
        A device of that library.

    Returns
    -------
    str
        Such as ``"cpu"``, ``"cuda:0"`` or ``"device1"``.

    Examples
    --------
    >>> device_name("numpy", "cpu")
    'cpu'
    """
    if library == "cupy":
        return f"cuda:{device.id}"
    if library == "jax" and hasattr(device, "platform"):  # a sharding has none
        if device.platform == "cpu" and device.id == 0:
            return "cpu"
        kind = "cuda" if device.platform == "gpu" else device.platform
        return f"{kind}:{device.id}"
    if library == "array_api_strict":
        return repr(device).split("'")[1]  # array_api_strict.Device('device1')
    return str(device)


def device_kind(library: str, device: Any) -> str:
    """Say what a device is, whatever its number: those of one kind compute the same bits.

    Parameters
    ----------
    library, device : as for `device_name`

    Returns
    -------
    str
        Such as ``"cpu"`` or ``"cuda NVIDIA H100 80GB HBM3"``.

    Examples
    --------
    >>> device_kind("numpy", "cpu")
    'cpu'
    """
    name = device_name(library, device).partition(":")[0]
    if name != "cuda":
        return name
    module = importlib.import_module(library)
    if library == "cupy":
        model = module.cuda.runtime.getDeviceProperties(device.id)["name"].decode()
    else:
        model = device.device_kind if library == "jax" else module.cuda.get_device_name(device)
    return f"{name} {model}"


def _find_namespace(name: str, module: Any) -> Namespace:
    if name in ("numpy", "cupy", "torch"):
        return importlib.import_module(f"array_api_compat.{name}")
    if name == "jax":
        return module.numpy
    return module


def _find_devices(name: str, module: Any) -> tuple[list[Any], Any]:
    """List the devices of an imported library, and give its default one."""
    if name == "cupy":
        return _find_cupy_devices(module)
    if name == "torch":
        return _find_torch_devices(module)
    if name == "jax":
        return _find_jax_devices(module)
    if name == "array_api_strict":
        devices = list(module.__array_namespace_info__().devices())
        return devices, devices[0]
    return ["cpu"], "cpu"


def _find_cupy_devices(cupy: Any) -> tuple[list[Any], Any]:
    # CuPy imports without a GPU and fails later: allocate, compile and launch something.
    float((cupy.ones(2, dtype="float32") + 1).sum())
    count = cupy.cuda.runtime.getDeviceCount()
    current = cupy.cuda.Device()
    return [cupy.cuda.Device(index) for index in range(count)], current


def _find_torch_devices(torch: Any) -> tuple[list[Any], Any]:
    names = ["cpu"]
    if torch.cuda.is_available():
        names += [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        names.append("mps")
    return [torch.device(name) for name in names], torch.get_default_device()


def _find_jax_devices(jax: Any) -> tuple[list[Any], Any]:
    devices = list(jax.local_devices())
    default = devices[0]
    platforms = jax.config.jax_platforms or "cpu"  # JAX_PLATFORMS; where not set, all
    if default.platform != "cpu" and "cpu" in platforms:
        devices += jax.local_devices(backend="cpu")
    return devices, default


def _explain(name: str, version: str, error: Exception) -> UnusableError:
    """Tell a missing package from a broken one, and both from one without a device."""
    if isinstance(error, ModuleNotFoundError) and error.name == name:
        return UnusableError(f"the package {name} is not installed")
    cause = _first_line(error)
    if not version:
        return UnusableError(
            f"{name} (version unknown) is installed but broken: {cause}", version="unknown"
        )
    device = "CUDA device" if name == "cupy" else "device"
    return UnusableError(
        f"{name} {version} is installed but no {device} is usable: {cause}", version=version
    )


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
