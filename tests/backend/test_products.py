"""Products of float32 are not rounded to TF32 unless that is asked for, and then by name."""

from __future__ import annotations

import os
import sys
import types

import pytest

import rnn_xp as rx
from rnn_xp.backend import BackendError
from rnn_xp.backend.adapters import CupyAdapter, JaxAdapter, MlxAdapter, TorchAdapter
from rnn_xp.training.identity import whereabouts


@pytest.fixture(autouse=True)
def _variables(monkeypatch):
    for name in ("CUPY_TF32", "MLX_ENABLE_TF32", "RNN_XP_MATMUL"):
        monkeypatch.setenv(name, "")  # so that what a test sets is undone
        monkeypatch.delenv(name)


def device(kind):
    """A device of torch or JAX."""
    return types.SimpleNamespace(type=kind, platform="gpu" if kind == "cuda" else kind, id=0)


@pytest.mark.parametrize("name", ["numpy", "array_api_strict"])
def test_on_a_cpu_it_is_an_error_that_names_the_variable(monkeypatch, name):
    monkeypatch.setenv("RNN_XP_MATMUL", "tf32")
    with pytest.raises(BackendError, match=f"RNN_XP_MATMUL=tf32 needs a GPU of .* backend {name}"):
        rx.get_backend(name)


def test_an_unknown_value_is_an_error(monkeypatch):
    monkeypatch.setenv("RNN_XP_MATMUL", "bf16")
    with pytest.raises(BackendError, match="RNN_XP_MATMUL=bf16 is not known. Choose one of: fp32"):
        rx.get_backend("numpy")
    monkeypatch.setenv("RNN_XP_MATMUL", "fp32")
    assert rx.get_backend("numpy").name == "numpy"


@pytest.mark.parametrize(("hip", "tf32", "can"), [(0, 0, 1), (0, 1, 1), (1, 0, 1), (1, 1, 0)])
def test_cupy(monkeypatch, hip, tf32, can):
    runtime = types.SimpleNamespace(is_hip=bool(hip))
    cupy = types.SimpleNamespace(cuda=types.SimpleNamespace(runtime=runtime))
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    assert CupyAdapter().round_products(device("cuda"), bool(tf32)) is bool(can)
    if can:
        assert os.environ.get("CUPY_TF32") == ("1" if tf32 else None)


@pytest.mark.parametrize(
    ("kind", "tf32", "can", "wanted"),
    [("cuda", True, True, "high"), ("cuda", False, True, None), ("cpu", True, False, None),
     ("xpu", True, False, None), ("cpu", False, True, None)],
)  # fmt: skip
def test_torch(monkeypatch, kind, tf32, can, wanted):
    said = [None]
    torch = types.SimpleNamespace(set_float32_matmul_precision=said.append)
    monkeypatch.setitem(sys.modules, "torch", torch)
    assert TorchAdapter().round_products(device(kind), tf32) is can
    assert said[-1] == wanted


@pytest.mark.parametrize(
    ("kind", "before", "tf32", "can", "after"),
    [
        ("cuda", None, False, True, "highest"), ("cuda", None, True, True, "tensorfloat32"),
        ("cuda", "bfloat16", False, True, "bfloat16"), ("tpu", None, False, True, "highest"),
        ("tpu", None, True, False, None), ("cpu", None, False, True, None),
        ("cpu", None, True, False, None),
    ],
)  # fmt: skip
def test_jax(monkeypatch, kind, before, tf32, can, after):
    config = types.SimpleNamespace(jax_default_matmul_precision=before)
    config.update = lambda name, value: setattr(config, name, value)
    monkeypatch.setitem(sys.modules, "jax", types.SimpleNamespace(config=config))
    assert JaxAdapter().round_products(device(kind), tf32) is can
    if can:
        assert config.jax_default_matmul_precision == after


@pytest.mark.parametrize(
    ("kind", "tf32", "can", "wanted"),
    [("gpu", False, True, "0"), ("gpu", True, True, "1"), ("cpu", False, True, "0"),
     ("cpu", True, False, None)],
)  # fmt: skip
def test_mlx(monkeypatch, kind, tf32, can, wanted):
    monkeypatch.setattr(MlxAdapter, "device_name", lambda self, device: kind)
    assert MlxAdapter().round_products(None, tf32) is can
    if can:
        assert os.environ["MLX_ENABLE_TF32"] == wanted
    monkeypatch.setenv("MLX_ENABLE_TF32", "1")
    MlxAdapter().round_products(None, False)
    assert os.environ["MLX_ENABLE_TF32"] == "1"  # as the user has set it


def test_a_training_records_it(monkeypatch):
    backend = rx.get_backend("array_api_strict")
    assert "products" not in whereabouts(backend)
    monkeypatch.setenv("RNN_XP_MATMUL", "tf32")
    assert "products" not in whereabouts(backend)
    monkeypatch.setattr(type(backend), "is_accelerator", True)
    assert whereabouts(backend)["products"] == "tf32"
