"""Try the array libraries, list their devices, and report why a library is not usable.

A library may be absent, broken, or installed on a machine without the device that it needs.
`load` raises `UnusableError` with the reason, `probe` reports it, and `backends` reports it for
all libraries without importing any of them here.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from typing import Any, NamedTuple

from rnn_xp._typing import Namespace
from rnn_xp.backend.adapters import ADAPTERS, adapter_named

__all__ = [
    "BackendStatus",
    "Library",
    "UnusableError",
    "backends",
    "first_line",
    "load",
    "probe",
    "write_statuses",
]

_STATUS_MARK = "rnn_xp status: "  # libraries may write to the output of the process, too


class Library(NamedTuple):
    """A library that can compute here.

    Attributes
    ----------
    namespace : Namespace
        Its Array API namespace.
    version : str
        Version of the library.
    devices : dict
        The library's own device objects by name.
    default_device : str
        Name of the device on which the library creates arrays by default.

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
        Installed version; ``"unknown"`` if it could not be read, None if the library is not
        installed.

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
    """Availability of one library on this machine.

    Attributes
    ----------
    name : str
        Name that `rnn_xp.get_backend` takes.
    installed : bool
        True if the package is installed, even if it is broken.
    usable : bool
        True if it can compute on at least one device.
    version : str or None
        ``"unknown"`` for a broken package, None for a missing one.
    devices : tuple of str
        Names of the devices on which it can compute.
    reason : str
        The reason why it is not usable; empty if it is.

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
        One for each of numpy, cupy, torch, jax, dpnp, mlx and array_api_strict, in this order.

    Notes
    -----
    The libraries themselves read the environment: ``CUDA_VISIBLE_DEVICES`` hides GPUs, and
    ``JAX_PLATFORMS`` chooses what JAX looks for.

    Examples
    --------
    >>> numpy, *others = backends()
    >>> numpy.name, numpy.usable
    ('numpy', True)
    >>> [status.name for status in others]
    ['cupy', 'torch', 'jax', 'dpnp', 'mlx', 'array_api_strict']
    """
    import json
    import subprocess

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
        failure = first_line(error)
    else:
        output = child.stdout
        failure = "".join(child.stderr.splitlines()[-1:])

    statuses = {}
    for line in output.splitlines():
        if line.startswith(_STATUS_MARK):
            fields = json.loads(line.removeprefix(_STATUS_MARK))
            fields["devices"] = tuple(fields["devices"])
            statuses[fields["name"]] = BackendStatus(**fields)
    for name in ADAPTERS:  # the process may have died before it came to all of them
        lost = BackendStatus(name, False, False, None, (), f"trying it failed: {failure}")
        statuses.setdefault(name, lost)
    return tuple(statuses[name] for name in ADAPTERS)


def write_statuses() -> None:
    """Write the status of every library to stdout; `backends` runs this in a process of its own.

    Each status is one line of JSON after a mark, written at once in case the next library takes
    the process down.
    """
    import json

    for name in ADAPTERS:
        status = json.dumps(dataclasses.asdict(probe(name)))
        sys.stdout.write(f"\n{_STATUS_MARK}{status}\n")
        sys.stdout.flush()


def probe(name: str) -> BackendStatus:
    """Try one library in this process and report whether it is usable.

    Parameters
    ----------
    name : str
        One of `rnn_xp.backend.adapters.ADAPTERS`.

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
        One of `rnn_xp.backend.adapters.ADAPTERS`.

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
    adapter, version = adapter_named(name), ""
    try:
        version = adapter.version()
        devices, default = adapter.devices()
        named = {adapter.device_name(device): device for device in devices}
        return Library(adapter.namespace(), version, named, adapter.device_name(default))
    except Exception as error:  # a broken installation raises anything
        raise _explain(name, version, error) from error


def _explain(name: str, version: str, error: Exception) -> UnusableError:
    """Return an error that says if the package is missing, broken, or without a usable device."""
    if isinstance(error, ModuleNotFoundError) and error.name == name:
        return UnusableError(f"the package {name} is not installed")
    cause = first_line(error)
    if not version:
        return UnusableError(
            f"{name} (version unknown) is installed but broken: {cause}", version="unknown"
        )
    device = adapter_named(name).device_word
    return UnusableError(
        f"{name} {version} is installed but no {device} is usable: {cause}", version=version
    )


def first_line(error: Exception) -> str:
    r"""Return the kind and the first line of an error, without a full stop.

    Examples
    --------
    >>> first_line(ValueError("It is so.\nAnd more."))
    'ValueError: It is so'
    """
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}".removesuffix(".").removesuffix(": ")
