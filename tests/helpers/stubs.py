"""Modules that stand in for libraries which are not installed."""

from __future__ import annotations

import types

import numpy as np


def stub(name, **attributes):
    module = types.ModuleType(name)
    module.__dict__.update({"__version__": "9.9", **attributes})
    return module


def sycl(filter_string, name="Intel(R) Arc(TM) B580"):
    """As much of a device of dpnp as is asked."""
    kind = filter_string.split(":")[1]
    device = types.SimpleNamespace(
        filter_string=filter_string,
        name=name,
        is_cpu=kind == "cpu",
        device_type=types.SimpleNamespace(name=kind),
    )
    return types.SimpleNamespace(sycl_device=device)


def dpnp_with(*names, dtypes=("float32",)):
    """As much of dpnp as is asked, with devices of these names; NumPy does its computing."""
    devices = [sycl(name) for name in names]
    info = types.SimpleNamespace(devices=lambda: devices, dtypes=lambda device: {*dtypes})
    return stub(
        "dpnp",
        float32=np.float32,
        empty=lambda size, device=devices[0]: types.SimpleNamespace(device=device),
        zeros=lambda shape, dtype, device: np.zeros(shape, dtype),
        __array_namespace_info__=lambda: info,
    )
