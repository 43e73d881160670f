"""Read the choice of a library, a device and a precision from arguments and the environment.

An argument wins over its environment variable, which wins over the default.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from rnn_xp.backend.adapters import ADAPTERS, Adapter
from rnn_xp.backend.handle import DTYPES, PRODUCTS, Backend, BackendError, Setting, open_backend
from rnn_xp.backend.libraries import probe

__all__ = ["get_backend"]


def get_backend(
    name: str | None = None, *, device: str | None = None, dtype: str | None = None
) -> Backend:
    """Select the library, the device and the precision in which to compute.

    An argument wins over its environment variable, which wins over the default.

    Parameters
    ----------
    name : str, optional
        ``"numpy"`` (default), ``"cupy"``, ``"torch"``, ``"jax"``, ``"dpnp"``, ``"mlx"``,
        ``"array_api_strict"``, or ``"auto"``: the first that has a GPU of CuPy, torch, dpnp and
        MLX, else NumPy; stderr then names the choice and why not another. JAX is chosen by name
        only, because it reserves most of a GPU's memory.
    device : str, optional
        ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"gpu"`` (dpnp, mlx), ``"xpu"``, ``"mps"``, ``"tpu"``,
        ``"device1"``, ...; by default the library's own default. With CuPy and MLX, the device
        becomes the current one, with CuPy in the calling thread, and each process can use one GPU.
    dtype : str, optional
        ``"float32"`` (default) or ``"float64"``.

    Returns
    -------
    Backend

    Raises
    ------
    BackendError
        If a choice is unknown, the library is not installed or not usable, the library has no such
        device, or the device has no such dtype. Nothing else is tried instead.

    Notes
    -----
    The environment variables are ``RNN_XP_BACKEND``, ``RNN_XP_DEVICE`` and ``RNN_XP_DTYPE``; an
    empty one counts as not set. ``RNN_XP_MATMUL=tf32`` lets a GPU round the factors of matrix
    products in float32 to 10 bits, wherever its library multiplies; by default, "fp32", it may not.
    ``RNN_XP_DEVICE`` belongs to the backend in ``RNN_XP_BACKEND`` and is ignored if `name` is
    another one. JAX has float64 only if ``JAX_ENABLE_X64=1`` was set before the program started,
    and ``CUDA_VISIBLE_DEVICES`` hides GPUs from every library.

    Examples
    --------
    >>> backend = get_backend("numpy", device="cpu", dtype="float64")
    >>> backend.name, backend.device_name, backend.dtype_name
    ('numpy', 'cpu', 'float64')
    """
    chosen = _read_setting("name", name, "RNN_XP_BACKEND", default="numpy")
    _require_one_of((*ADAPTERS, "auto"), chosen)
    variable = None if _is_another_backend(name) else "RNN_XP_DEVICE"
    where = _read_setting("device", device, variable, default=None)
    precision = _read_setting("dtype", dtype, "RNN_XP_DTYPE", default="float32")
    _require_one_of(DTYPES, precision)
    products = _read_setting("matmul", None, "RNN_XP_MATMUL", default="fp32")
    _require_one_of(PRODUCTS, products)
    if chosen.value == "auto":
        return _open_auto(where, precision, products)
    return open_backend(chosen, where, precision, products)


def _read_setting(label: str, given: Any, variable: str | None, *, default: Any) -> Setting:
    """Read a choice from the argument or the environment, or take the default."""
    if given is not None:
        return Setting(given, f"{label}={given!r}")
    value = os.environ.get(variable, "").strip() if variable else ""
    if value:
        return Setting(value, f"{variable}={value}")
    return Setting(default, "the default")


def _require_one_of(choices: tuple[str, ...], setting: Setting) -> None:
    if setting.value not in choices:
        raise BackendError(f"{setting.origin} is not known. Choose one of: {', '.join(choices)}.")


def _is_another_backend(name: str | None) -> bool:
    """Return True if `name` is not the backend to which RNN_XP_DEVICE belongs."""
    named = os.environ.get("RNN_XP_BACKEND", "").strip()
    return name is not None and named not in ("", "auto", name)


def _open_auto(where: Setting, precision: Setting, products: Setting) -> Backend:
    """Open the first library that has one of its ``auto_devices``, else NumPy, and report it."""
    name = "numpy"
    reasons = ""
    candidates = [adapter for adapter in ADAPTERS.values() if adapter.auto_devices]
    for adapter in candidates if where.value != "cpu" else ():
        status = probe(adapter.name)
        if kind := _first_present(adapter, status.devices):
            name = adapter.name
            if not where.value:
                where = Setting(kind, "auto")
            break
        lacks = f"no {' or '.join(kind.upper() for kind in adapter.auto_devices)} device"
        reasons += f"; {adapter.name}: {status.reason or lacks}"
    import logging

    backend = open_backend(Setting(name, "chosen by auto"), where, precision, products)
    logging.getLogger("rnn_xp").info("auto chose %s%s", backend, reasons)
    sys.stderr.write(f"rnn_xp: auto chose {backend}{reasons}\n")
    return backend


def _first_present(adapter: Adapter, devices: tuple[str, ...]) -> str:
    """Return the first kind of ``auto_devices`` among the devices, or nothing."""
    for kind in adapter.auto_devices:
        if not {*adapter.spellings(kind)}.isdisjoint(devices):
            return kind
    return ""
