"""Devices: which becomes current, what it is called, and of which kind it is; with stand-ins."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest
from stubs import dpnp_with, stub

from rnn_xp.backend import Backend, BackendError, get_backend
from rnn_xp.backend.adapters import ADAPTERS


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


@pytest.mark.parametrize(
    ("asked", "name", "kind", "accelerator"),
    [
        (None, "level_zero:gpu:0", "gpu Intel(R) Arc(TM) B580", True),
        ("gpu", "level_zero:gpu:0", "gpu Intel(R) Arc(TM) B580", True),
        ("gpu:1", "level_zero:gpu:1", "gpu Intel(R) Arc(TM) B580", True),
        ("opencl:gpu", "opencl:gpu:0", "gpu Intel(R) Arc(TM) B580", True),
        ("cpu", "opencl:cpu:0", "cpu", False),
    ],
)
def test_dpnp_devices_by_type_runtime_and_number(asked, name, kind, accelerator, monkeypatch):
    present = ("level_zero:gpu:0", "level_zero:gpu:1", "opencl:gpu:0", "opencl:cpu:0")
    monkeypatch.setitem(sys.modules, "dpnp", dpnp_with(*present))
    backend = get_backend("dpnp", device=asked)
    assert (backend.device_name, backend.device_kind) == (name, kind)
    assert backend.is_accelerator is accelerator
    with pytest.raises(BackendError, match=r"dpnp has no device 'cuda'.*:gpu:1, .* dpctl -f` and"):
        get_backend("dpnp", device="cuda")


def test_a_gpu_without_float64_says_so_and_names_no_other_device(monkeypatch):
    monkeypatch.setitem(sys.modules, "dpnp", dpnp_with("level_zero:gpu:0"))
    with pytest.raises(BackendError) as caught:
        get_backend("dpnp", dtype="float64")
    assert str(caught.value) == (
        "dpnp on level_zero:gpu:0 has no float64 (dtype='float64'). Choose the dtype float32."
    )
    monkeypatch.setitem(sys.modules, "dpnp", dpnp_with("level_zero:gpu:0", "opencl:cpu:0"))
    with pytest.raises(BackendError, match=r"another device of: opencl:cpu:0, or choose the dtype"):
        get_backend("dpnp", dtype="float64")


def test_dpnp_without_a_device_names_the_runtime_that_its_package_brought(monkeypatch, tmp_path):
    def empty(*arguments, **options):
        raise ValueError("Default device is unavailable.")

    broken = dpnp_with("opencl:cpu:0")
    broken.empty = empty
    monkeypatch.setitem(sys.modules, "dpnp", broken)
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.delenv("OCL_ICD_FILENAMES", raising=False)
    with pytest.raises(BackendError) as caught:
        get_backend("dpnp")
    assert "no SYCL device is usable: ValueError: Default device is unavailable. Check `python" in (
        message := str(caught.value)
    )
    assert "OCL_ICD_FILENAMES" not in message
    (tmp_path / "lib").mkdir()
    runtime = tmp_path / "lib" / "libintelocl.so"
    runtime.touch()
    with pytest.raises(BackendError, match=f"set OCL_ICD_FILENAMES={runtime} before the program"):
        get_backend("dpnp")


def test_mpi_sends_from_the_device_where_the_library_says_so():
    buffers = {name for name, adapter in ADAPTERS.items() if adapter.device_buffers}
    assert buffers == {"cupy", "torch"}
