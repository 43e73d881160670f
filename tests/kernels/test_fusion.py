"""Elementwise functions as one kernel: every optimiser's rule, and what is launched for it."""

from __future__ import annotations

import contextlib
import shutil
import subprocess

import cupy_stand_in
import numpy as np
import pytest
import raw_kernels
from optimizers import OPTIMIZERS
from raw_kernels import device_as as device

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


def test_one_launch_for_all_arrays_and_one_kernel_for_all_steps(fused):
    optimizer = rx.optim.adam(rx.optim.Cosine(0.01, 10))  # the rate is another at every step
    updates(optimizer, "float64", count=1)
    kernels = fusion._kernel.cache_info().currsize
    with cupy_stand_in.launches() as noted:
        updates(optimizer, "float64", count=7)
    assert noted == ["rnn_xp_elementwise"] * 7
    assert fusion._kernel.cache_info().currsize == kernels


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("count", [1, 2, 3, 63, 64, 65, 200])
def test_sets_of_any_number_and_arrays_of_any_size(count, dtype):
    """Of four arrays a launch takes 64 sets; a block has 1024 entries of one of them."""
    rng = np.random.default_rng(count)
    shapes = [(1,), (3, 5), (1023,), (1024,), (1025,), (2, 1500), (7,)]
    sets = [
        tuple(rng.standard_normal(shapes[k % len(shapes)]).astype(dtype) for _ in range(4))
        for k in range(count)
    ]

    def function(a, b, c, d, *, xp):
        return a + 2.0 * b, c - d

    with cupy_stand_in.launches() as noted:
        found = fusion.run(function, sets)
    assert noted == ["rnn_xp_elementwise"] * -(-count // 64)
    for mine, arrays in zip(found, sets, strict=True):
        for made, right in zip(mine, function(*arrays, xp=np), strict=True):
            assert made.dtype == np.dtype(dtype)
            assert made.shape == right.shape
            np.testing.assert_array_equal(made, right)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("blockIdx.x >= table", "blockIdx.x > table"),
        ("table.first[set + 1] : entries", "table.first[set + 1] : at"),
        ("(blockIdx.x - table.first_block[set])", "blockIdx.x"),
        ("y0[at + i]", "y0[i]"),
        ("arrays[set][1]", "arrays[set][0]"),
        ("k < 4; ++k", "k < 3; ++k"),
    ],
)
def test_a_mistake(right, wrong):
    rng, found = np.random.default_rng(0), None
    sets = [(rng.standard_normal(n), rng.standard_normal(n)) for n in (1500, 3, 1024, 2000)]

    def edit(source):
        assert source.count(right) == 1
        return source.replace(right, wrong)

    def function(a, b, *, xp):
        return (a + 2.5 * b,)

    with device(edit=staticmethod(edit)), np.errstate(all="ignore"):
        found = fusion.run(function, sets)
    assert any(
        not np.array_equal(made, a + 2.5 * b) for (made,), (a, b) in zip(found, sets, strict=True)
    )


def test_operators():
    """Each with an array and with a number, on either side; and an argument as a result."""

    def function(a, b, *, xp):
        return (a + b, 2.0 - a, a - 3, (2.0 / a) * (b / 4.0), xp.sqrt(1.0 + a * a) / b, b)

    a, b = np.asarray([[0.5, -2.0]]), np.asarray([[3.0, 5.0]])
    (found,) = fusion.run(function, [(a, b)])
    for mine, theirs in zip(found, function(a, b, xp=np), strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_numbers_that_are_on_the_device(dtype):
    """Those of one function follow those of the one before, whatever the functions contain."""
    a, b = (np.linspace(1.0, 2.0, 1500).astype(dtype) * k for k in (1.0, -3.0))

    def first(p, *, xp):
        return (2.0 * p + 7.0,)

    def second(p, q, *, xp):
        return (p / 5.0, q - 0.5)

    numbers = cupy_stand_in.counted(np.asarray([0.25, 11.0, 4.0, 3.0, 99.0], dtype))
    with fusion.reading(numbers):
        ((one,),) = fusion.run(first, [(a,)])
        made = fusion.run(second, [(a, b), (b, a)])
    np.testing.assert_array_equal(one, np.asarray(0.25 * a + 11.0, dtype))
    for (p, q), (x, y) in zip(made, ((a, b), (b, a)), strict=True):
        np.testing.assert_array_equal(p, x / np.asarray(4.0, dtype))
        np.testing.assert_array_equal(q, y - np.asarray(3.0, dtype))
    ((after,),) = fusion.run(first, [(a,)])
    np.testing.assert_array_equal(after, np.asarray(2.0 * a + 7.0, dtype))


def test_the_numbers_of_a_function_and_what_it_computes_with_them():
    numbers, text = fusion.numbers_of(lambda p, xp: (2.0 * p + 7.0,), 1)
    assert numbers == [2.0, 7.0]
    assert fusion.numbers_of(lambda p, xp: (3.0 * p + 8.0,), 1) == ([3.0, 8.0], text)
    assert fusion.numbers_of(lambda p, xp: (3.0 * p - 8.0,), 1)[1] != text


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


@pytest.mark.full
@pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is not installed")
@pytest.mark.parametrize("architecture", ["sm_80", "sm_90", "sm_100"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("reads", [False, True], ids=["arguments", "numbers on the device"])
def test_compiles_for_a_gpu(fused, reads, dtype, architecture, tmp_path):
    """Without spilled registers, and of float32 nothing is computed in double precision."""
    fusion._kernel.cache_clear()
    raw_kernels.made.clear()
    with contextlib.ExitStack() as stack:
        if reads:
            stack.enter_context(fusion.reading(cupy_stand_in.counted(np.ones(64, dtype))))
        updates(rx.optim.adam(0.01), dtype, count=1)
    ((source, options),) = raw_kernels.made
    (tmp_path / "adam.cu").write_text(source)
    command = ["nvcc", *options, f"-arch={architecture}", "-Xptxas", "-v", "--keep", "-cubin"]
    done = subprocess.run(
        [*command, "adam.cu"], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr
    assert "0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads" in done.stderr
    (assembly,) = tmp_path.glob("*.ptx")
    assert (".f64" in assembly.read_text()) == (dtype == "float64")
