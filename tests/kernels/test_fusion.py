"""Elementwise functions as one kernel: every optimiser's rule, and what is launched for it."""

from __future__ import annotations

import cupy_stand_in
import numpy as np
import pytest
from optimizers import OPTIMIZERS

import rnn_xp as rx
from rnn_xp.kernels import pointwise
from rnn_xp.optim import first_order

fusion = cupy_stand_in.load("fusion")


@pytest.fixture
def fused(monkeypatch):
    """Optimisers compute as they do on CuPy."""

    def run(function, operands, *, xp):
        return fusion.run(function, operands)

    monkeypatch.setattr(first_order, "pointwise", run)


def updates(optimizer, dtype, count=5):
    """Parameters and state after some updates by random gradients."""
    rng = np.random.default_rng(0)
    net = rx.Network(input_size=2, hidden_size=3, cell="gru")
    params = {name: rng.standard_normal(s).astype(dtype) for name, s in net.shapes.items()}
    state = optimizer.init(params)
    for _ in range(count):
        grads = {name: rng.standard_normal(p.shape).astype(dtype) for name, p in params.items()}
        params, state = optimizer.update(grads, state, params)
    return {**params, **optimizer.pack(state)[0]}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimiser(name, dtype, request):
    expected = updates(OPTIMIZERS[name], dtype)
    request.getfixturevalue("fused")
    found = updates(OPTIMIZERS[name], dtype)
    assert found.keys() == expected.keys()
    for key, values in expected.items():
        assert found[key].dtype == values.dtype == np.dtype(dtype)
        bound = (1e-14 if dtype == "float64" else 1e-6) * np.abs(values).max()
        np.testing.assert_allclose(found[key], values, rtol=0, atol=bound)


def test_one_launch_for_each_array_and_one_kernel_for_all_steps(fused):
    optimizer = rx.optim.adam(rx.optim.Cosine(0.01, 10))  # the rate is another at every step
    updates(optimizer, "float64", count=1)
    kernels = len(cupy_stand_in.ElementwiseKernel.made)
    with cupy_stand_in.launches() as noted:
        updates(optimizer, "float64", count=7)
    assert noted == ["rnn_xp_elementwise"] * 7 * 6
    assert len(cupy_stand_in.ElementwiseKernel.made) == kernels


def test_operators():
    """Each with an array and with a number, on either side; and an argument as a result."""

    def function(a, b, *, xp):
        return (a + b, 2.0 - a, a - 3, (2.0 / a) * (b / 4.0), xp.sqrt(1.0 + a * a) / b, b)

    a, b = np.asarray([[0.5, -2.0]]), np.asarray([[3.0, 5.0]])
    (found,) = fusion.run(function, [(a, b)])
    for mine, theirs in zip(found, function(a, b, xp=np), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_nothing_to_compute():
    assert fusion.run(lambda a, xp: (a,), []) == []
    assert pointwise(lambda a, xp: (a,), [], xp=np) == []


def test_other_libraries_run_the_function_itself():
    (result,) = pointwise(lambda a, xp: (xp.exp(a), a), [(np.zeros(2),)], xp=np)
    assert [values.tolist() for values in result] == [[1.0, 1.0], [0.0, 0.0]]


def test_cupy_is_chosen_by_the_namespace(monkeypatch):
    class Namespace:
        __name__ = "array_api_compat.cupy"

    monkeypatch.setattr("rnn_xp.kernels.fusion", fusion, raising=False)
    monkeypatch.setitem(__import__("sys").modules, "rnn_xp.kernels.fusion", fusion)
    with cupy_stand_in.launches() as noted:
        pointwise(lambda a, xp: (a + a,), [(np.zeros(2),)], xp=Namespace())
    assert noted == ["rnn_xp_elementwise"]
