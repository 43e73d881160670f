"""Each library's own kernels: what the portable code computes, in memory that is used again.

Those of CuPy run here on NumPy's arrays, their C text compiled for the host (`cupy_stand_in`), and
on a GPU where there is one.
"""

from __future__ import annotations

import gc
import itertools
import sys
import threading
import tracemalloc
from types import SimpleNamespace

import cupy_stand_in
import numpy as np
import pytest
from device import require_device
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_problems import CELLS, CUDA_CELLS, USES, Problem, Tier, is_left

import rnn_xp as rx
from rnn_xp.engines.blocks import Batch
from rnn_xp.engines.portable import PortableEngine
from rnn_xp.kernels import make_workspace
from rnn_xp.kernels.numpy import Workspace

FLOAT64 = rx.get_backend("numpy", dtype="float64")


@pytest.fixture(
    params=["numpy", "stand-in", pytest.param("cupy", marks=pytest.mark.device)],
    scope="module",
)
def tier(request):
    if request.param == "cupy":
        require_device()
    return Tier(request.param)


def assert_equal(found, expected, rtol=1e-13):
    """Within so many rounding errors of the largest entry, array by array."""
    assert float(found[0]) == pytest.approx(float(expected[0]), rel=rtol)
    assert found[1].keys() == expected[1].keys()
    for name, grad in expected[1].items():
        assert found[1][name].dtype == grad.dtype
        assert found[1][name].shape == grad.shape
        error = np.abs(found[1][name] - grad).max()
        assert error <= rtol * max(np.abs(grad).max(), 1e-3), name


@pytest.mark.cover("pairs")
@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("cell", CELLS)
def test_gradients_are_those_of_the_portable_code(tier, cell, use):
    problem, workspace = Problem(tier, **CELLS[cell], **USES[use]), tier.workspace()
    expected = problem.value_and_grad()
    assert_equal(problem.value_and_grad(workspace), expected)
    net, lent = problem.net, [*workspace.lent]
    left = is_left(use, workspace, cell)
    # For feedback once more, since then all depends on there being a kernel.
    times = net.num_layers * net.directions + (use == "feedback")
    assert lent == [cell] * (0 if left else times)
    # What was left in the buffers changes nothing.
    other = Problem(tier, seed=1, rows=9, steps=7, hidden=5, **CELLS[cell], **USES[use])
    other.value_and_grad(workspace)
    assert_equal(problem.value_and_grad(workspace), expected)
    assert bool(workspace._buffers.keys() - {"readout", "y"}) == (not left)


@pytest.mark.parametrize("cell", CELLS)
def test_masks_resets_and_states_are_left_to_the_portable_code_where_unknown(tier, cell):
    problem, rng = Problem(tier, **CELLS[cell], topology="many_to_many"), np.random.default_rng(2)
    state = problem.net.state_type(
        *(rng.standard_normal((1, 3, 4)) for _ in problem.net.state_type._fields)
    )
    for options in (
        {"mask": rng.random((3, 5)) > 0.4},
        {"reset": rng.random((3, 5)) > 0.6},
        {"lengths": np.asarray([5, 2, 0])},
        {"state": state},
    ):
        workspace = tier.workspace()
        found = problem.value_and_grad(workspace, **options)
        # A GPU's products, and kernels that know the option, round in their own way.
        exact = 0.0 if tier.name == "stand-in" else 1e-13
        assert_equal(found, problem.value_and_grad(**options), rtol=exact)
        assert bool(workspace._buffers) == (tier.name == "numpy")


@pytest.mark.parametrize("cell", CELLS)
def test_a_sequence_of_several_pieces(tier, cell):
    """What comes back from a later piece reaches the first one, whose state nobody gave."""
    problem = Problem(tier, steps=103, topology="many_to_many", **CELLS[cell])
    problem.params = {name: 0.4 * param for name, param in problem.params.items()}
    assert_equal(problem.value_and_grad(tier.workspace()), problem.value_and_grad(), rtol=1e-12)


@pytest.mark.cover("pairs")
@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("cell", CELLS)
def test_predictions_and_final_states_too(tier, cell, use):
    problem, workspace = Problem(tier, **CELLS[cell], **USES[use]), tier.workspace()
    steps = 5 if problem.net.topology == "one_to_many" else None
    expected, state = problem.net.forward(problem.params, problem.x, steps=steps)
    params = {name: tier.array(p) for name, p in problem.params.items()}
    found, final = problem.net.forward(
        params, tier.array(problem.x), steps=steps, workspace=workspace
    )
    bound = 1e-13 * np.abs(expected).max()
    np.testing.assert_allclose(tier.host(found), expected, rtol=0, atol=bound)
    for mine, theirs in zip(final, state, strict=True):
        np.testing.assert_allclose(tier.host(mine), theirs, rtol=0, atol=1e-13)
    copies = [tier.host(a).copy() for a in (found, *final)]
    for buffer in workspace._buffers.values():
        buffer[...] = np.nan
    for array, copy in zip((found, *final), copies, strict=True):
        assert np.array_equal(tier.host(array), copy), "results share no memory with the workspace"


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    st.sampled_from(sorted(CELLS)),
    st.tuples(st.integers(1, 9), st.integers(1, 6), st.integers(1, 4), st.integers(1, 6)),
    st.integers(1, 2),
    st.booleans(),
)
def test_of_any_size(tier, cell, sizes, layers, both):
    rows, steps, inputs, hidden = sizes
    problem = Problem(
        tier, rows=rows, steps=steps, inputs=inputs, hidden=hidden, num_layers=layers,
        bidirectional=both, topology="many_to_many", **CELLS[cell],
    )  # fmt: skip
    assert_equal(problem.value_and_grad(tier.workspace()), problem.value_and_grad())


@pytest.mark.parametrize("cell", CELLS)
def test_float32_stays_float32_and_is_as_exact(tier, cell):
    exact = Problem(rows=200, hidden=16, **CELLS[cell]).value_and_grad()
    problem = Problem(tier, rows=200, hidden=16, dtype="float32", **CELLS[cell])
    found = problem.value_and_grad(tier.workspace("float32"))
    portable = problem.value_and_grad()
    assert {grad.dtype.name for grad in found[1].values()} == {"float32"}
    for name, grad in exact[1].items():
        scale = np.abs(grad).max()
        error = np.abs(found[1][name] - grad).max() / scale
        assert error <= max(3 * np.abs(portable[1][name] - grad).max() / scale, 2e-6)


@pytest.mark.parametrize("cell", CELLS)
def test_gradients_are_the_callers_own(tier, cell):
    """They survive whatever the workspace is used for next."""
    problem, workspace = Problem(num_layers=2, **CELLS[cell]), tier.workspace()
    params = {name: tier.array(p) for name, p in problem.params.items()}
    x, y = tier.array(problem.x), tier.array(problem.y)
    _, grads = problem.net.value_and_grad(params, x, y, workspace=workspace)
    copies = {name: tier.host(grad).copy() for name, grad in grads.items()}
    for buffer in workspace._buffers.values():
        buffer[...] = np.nan
    assert all(np.array_equal(tier.host(grads[name]), copy) for name, copy in copies.items())


@pytest.mark.parametrize("cell", CELLS)
def test_a_nan_shows(tier, cell):
    problem = Problem(tier, **CELLS[cell])
    problem.x[1, 2, 0] = np.nan
    with np.errstate(invalid="ignore"):
        value, grads = problem.value_and_grad(tier.workspace())
    assert np.isnan(value)
    assert np.isnan(grads["layer0.w_hh"]).any()


def test_every_kernel_is_a_cells(tier):
    names = {
        rx.Network(hidden_size=4, **options).layers.cells[0].kernel for options in CELLS.values()
    }
    assert names == set(CELLS)
    assert set(tier.module.KERNELS) == set(CELLS if tier.name == "numpy" else CUDA_CELLS)


def test_for_numpy_and_cupy_alone(monkeypatch):
    assert make_workspace(FLOAT64).dtype == np.float64
    kernels = cupy_stand_in.load("cupy")
    monkeypatch.setitem(sys.modules, "rnn_xp.kernels.cupy", kernels)
    monkeypatch.setattr("rnn_xp.kernels.cupy", kernels, raising=False)
    workspace = make_workspace(SimpleNamespace(name="cupy", dtype_name="float32"))
    assert isinstance(workspace, kernels.Workspace)
    assert workspace.take("a", 2).dtype == np.float32
    assert make_workspace(rx.get_backend("array_api_strict")) is None
    assert make_workspace(rx.get_backend("jax")) is None


class TestWorkspace:
    def test_buffers_grow_and_stay(self):
        workspace = Workspace("float32")
        small = workspace.take("a", 2, 3)
        assert (small.shape, small.dtype) == ((2, 3), np.float32)
        assert np.shares_memory(small, workspace.take("a", 6))
        large = workspace.take("a", 10, 10)
        assert not np.shares_memory(small, large)
        assert np.shares_memory(large, workspace.take("a", 2, 3))
        assert not np.shares_memory(large, workspace.take("b", 10, 10))

    @pytest.mark.cover("values")
    @pytest.mark.parametrize("topology", ["many_to_one", "many_to_many"])
    @pytest.mark.parametrize("cell", CELLS)
    @pytest.mark.parametrize("workers", [1, 2])
    def test_an_epoch_needs_no_memory_for_activations(self, cell, topology, workers):
        """After the second epoch nothing of the size of a block's activations is allocated."""
        rows, steps, hidden = 3000, 6, 16
        net = rx.Network(hidden_size=hidden, topology=topology, **CELLS[cell])
        x = np.random.default_rng(0).standard_normal((rows, steps, 1))
        y = x[:, -1] if topology == "many_to_one" else x
        engine = PortableEngine(
            net=net, loss=rx.losses.mse, optimizer=rx.optim.adam(0.01), backend=FLOAT64,
            data=Batch(x, y), block_rows=1000, workers=workers,
        )  # fmt: skip
        params = net.init(0, FLOAT64)
        state = engine.optimizer.init(params)
        with engine.running():
            for _ in range(100):
                params, state, _ = engine.run(params, state, 2)
                if len(engine._workspaces) == workers:
                    break
            gc.collect()
            buffers = {id(b) for w in engine._workspaces for b in w._buffers.values()}
            tracemalloc.start()
            engine.run(params, state, 3, 2)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert buffers == {id(b) for w in engine._workspaces for b in w._buffers.values()}
        # New are predictions and losses, (N, 1) or (N, T, 1) each, and weight gradients.
        outputs = 1000 * 8 * (1 if topology == "many_to_one" else steps)
        assert peak < workers * (8 * outputs + 150_000)
        assert len(engine._workspaces) <= workers

    def test_threads_never_share_one(self):
        engine = PortableEngine(
            net=rx.Network(hidden_size=4), loss=rx.losses.mse, optimizer=rx.optim.sgd(),
            backend=FLOAT64, data=Batch(np.zeros((1, 1, 1)), np.zeros((1, 1))), block_rows=1,
        )  # fmt: skip
        inside, lent = threading.Barrier(3), []

        def work():
            with engine._workspace() as workspace:
                lent.append(workspace)
                inside.wait(timeout=10)

        for _ in range(2):
            threads = [threading.Thread(target=work) for _ in range(3)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert len({id(w) for w in lent[:3]}) == len({id(w) for w in lent[3:]}) == 3
        assert {id(w) for w in lent[:3]} == {id(w) for w in lent[3:]}


def test_fit_trains_the_same_with_and_without(monkeypatch):
    """Twenty epochs of each cell: the same losses to rounding."""
    x, y = rx.make_windows(np.sin(np.arange(300) / 5.0), 8)
    for cell, layers in itertools.product(CELLS, (1, 2)):
        net = rx.Network(hidden_size=6, num_layers=layers, **CELLS[cell])
        options = {"optimizer": rx.optim.adam(0.01), "epochs": 20, "backend": FLOAT64}
        with monkeypatch.context() as patch:
            patch.setattr("rnn_xp.engines.portable.make_workspace", lambda backend: None)
            portable = rx.fit(net, x, y, **options)
        np.testing.assert_allclose(
            rx.fit(net, x, y, **options).history["loss"], portable.history["loss"], rtol=1e-11
        )
