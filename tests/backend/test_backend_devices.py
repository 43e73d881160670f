"""Devices: which becomes current, what it is called, and of which kind it is; with stand-ins."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest
from stubs import stub

from rnn_xp.backend import Backend, BackendError, get_backend


class FakeGpu:
    """As much of ``cupy.cuda.Device`` as is asked; NumPy does its computing."""

    current = 0

    def __init__(self, index=None):
        self.id = FakeGpu.current if index is None else index

    def use(self):
        FakeGpu.current = self.id


def test_cupy_device_becomes_current(monkeypatch):
    cuda = types.SimpleNamespace(
        Device=FakeGpu, runtime=types.SimpleNamespace(getDeviceCount=lambda: 2)
    )
    namespace = stub(
        "array_api_compat.cupy",
        float32=np.float32,
        zeros=lambda shape, dtype, device: np.zeros(shape, dtype),
        __array_namespace_info__=lambda: types.SimpleNamespace(dtypes=lambda device: {"float32"}),
    )
    monkeypatch.setitem(sys.modules, "cupy", stub("cupy", ones=np.ones, cuda=cuda))
    monkeypatch.setitem(sys.modules, "array_api_compat.cupy", namespace)
    monkeypatch.setattr(FakeGpu, "current", 0)
    assert str(get_backend("cupy")) == "cupy 9.9 (cuda:0, float32)"
    with pytest.raises(BackendError, match=r"cupy has no device 'cuda:5'.* one of: cuda:0, cuda:1"):
        get_backend("cupy", device="cuda:5")
    assert FakeGpu.current == 0
    assert str(get_backend("cupy", device="cuda:1")) == "cupy 9.9 (cuda:1, float32)"
    assert FakeGpu.current == 1
    assert get_backend("cupy").device_name == "cuda:1"  # the library's own default follows
    assert get_backend("cupy", device="cuda").device_name == "cuda:0"


@pytest.mark.parametrize(
    ("platform", "index", "shown"),
    [("cpu", 0, "cpu"), ("cpu", 3, "cpu:3"), ("gpu", 1, "cuda:1"), ("tpu", 0, "tpu:0")],
)
def test_jax_devices_are_named_as_elsewhere(platform, index, shown):
    device = types.SimpleNamespace(platform=platform, id=index)
    assert Backend("jax", None, device, np.dtype("float32")).device_name == shown


def test_gpus_of_one_kind_are_told_from_others(monkeypatch):
    properties = {"name": b"NVIDIA H200"}
    runtime = types.SimpleNamespace(getDeviceProperties=lambda number: properties)
    cuda = types.SimpleNamespace(runtime=runtime, get_device_name=lambda device: "NVIDIA L4")
    for name in ("cupy", "torch"):
        monkeypatch.setitem(sys.modules, name, stub(name, cuda=cuda))

    def kind(library, device):
        return Backend(library, None, device, np.dtype("float32")).device_kind

    gpu = types.SimpleNamespace(platform="gpu", id=1, device_kind="NVIDIA A100")
    assert kind("cupy", types.SimpleNamespace(id=3)) == "cuda NVIDIA H200"
    assert kind("torch", "cuda:1") == "cuda NVIDIA L4"
    assert kind("jax", gpu) == "cuda NVIDIA A100"
    assert kind("torch", "cpu") == kind("numpy", "cpu") == "cpu"
