"""The compiled kernels: the portable code's numbers in float32, by vectors and register tiles."""

from __future__ import annotations

import functools
import importlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_problems import CELLS, USES, Tier, is_left
from kernel_problems import Problem as AnyProblem

import rnn_xp as rx
from rnn_xp import kernels
from rnn_xp.backend import BackendError
from rnn_xp.engines.blocks import Batch
from rnn_xp.engines.portable import PortableEngine
from rnn_xp.kernels import Kernels, kernels_of, make_workspace

numba = pytest.importorskip("numba", reason="numba is not installed")
from rnn_xp.kernels.numba import KERNELS, Workspace, lanes, product  # noqa: E402

FLOAT32, FLOAT64 = (rx.get_backend("numpy", dtype=name) for name in ("float32", "float64"))
ROUNDING = 5e-6
"""Of the largest entry of a gradient: some tens of float32's rounding units, as sums need them."""


# The compiled kernels work on NumPy's arrays as they are.
Problem = functools.partial(AnyProblem, Tier("numpy"))


def assert_close(found, exact):
    """Within float32's rounding of what float64 gives, array by array.

    A normalised row divides what is wrong by its deviation, so there it may be four times as much.
    """
    rounding = ROUNDING * (4.0 if "layer0.g_hh" in exact[1] else 1.0)
    assert float(found[0]) == pytest.approx(float(exact[0]), rel=rounding)
    assert found[1].keys() == exact[1].keys()
    for name, grad in exact[1].items():
        assert found[1][name].dtype == np.float32
        assert found[1][name].shape == grad.shape
        error = np.abs(found[1][name] - grad).max()
        assert error <= rounding * max(np.abs(grad).max(), 1e-3), name


def pair(**options):
    """The same problem in both precisions, from numbers that float32 has."""
    single = Problem(dtype="float32", **options)
    double = Problem(dtype="float64", **options)
    double.params = {name: p.astype(np.float64) for name, p in single.params.items()}
    double.x, double.y = single.x.astype(np.float64), single.y.astype(np.float64)
    return single, double


@pytest.mark.cover("pairs")
class TestLayers:
    @pytest.mark.parametrize("use", USES)
    @pytest.mark.parametrize("cell", CELLS)
    def test_gradients_are_those_of_the_portable_code(self, cell, use):
        single, double = pair(**CELLS[cell], **USES[use])
        exact, workspace = double.value_and_grad(), Workspace("float32")
        assert_close(single.value_and_grad(workspace), exact)
        # What was left in the buffers changes nothing.
        Problem(seed=1, rows=99, steps=7, hidden=13, dtype="float32", **CELLS[cell],
                **USES[use]).value_and_grad(workspace)  # fmt: skip
        assert_close(single.value_and_grad(workspace), exact)
        assert bool(workspace._buffers.keys() - {"readout"}) == (not is_left(use, workspace, cell))

    @settings(max_examples=60, deadline=None, derandomize=True)
    @given(
        st.sampled_from(sorted(CELLS)),
        st.tuples(st.integers(1, 160), st.integers(1, 7), st.integers(1, 20), st.integers(1, 40)),
        st.integers(1, 2),
        st.booleans(),
    )
    def test_of_any_size(self, cell, sizes, layers, both):
        """Rows over and under a tile of 72, widths over and under vectors of 8 and panels of 16."""
        rows, steps, inputs, hidden = sizes
        single, double = pair(
            rows=rows, steps=steps, inputs=inputs, hidden=hidden, num_layers=layers,
            bidirectional=both, topology="many_to_many", **CELLS[cell],
        )  # fmt: skip
        for problem in (single, double):  # so that many units do not saturate
            problem.params = {name: 0.3 * p for name, p in problem.params.items()}
        assert_close(single.value_and_grad(Workspace("float32")), double.value_and_grad())

    @pytest.mark.parametrize("inputs", [1, 3, 20])
    def test_inputs_may_lie_anyhow_in_memory(self, inputs):
        rng = np.random.default_rng(0)
        net = rx.Network(cell="rnn", input_size=inputs, hidden_size=4, bidirectional=True)
        params, x = net.init(0, FLOAT32), rng.standard_normal((5, 7, 2 * inputs)).astype("f4")
        for view in (x[:, :, ::2], np.asfortranarray(x[:, :, :inputs]), x[::-1, ::-1, inputs:]):
            found, expected = (
                net.forward(params, a, workspace=Workspace("float32"))[0]
                for a in (view, np.ascontiguousarray(view))
            )
            assert np.array_equal(found, expected)

    @pytest.mark.parametrize("hidden", [7, 8, 50, 256])
    @pytest.mark.parametrize("cell", CELLS)
    def test_at_larger_sizes(self, cell, hidden):
        single, double = pair(rows=130, steps=12, inputs=3, hidden=hidden, **CELLS[cell])
        for problem in (single, double):
            problem.params = {
                name: p * (0.5 / np.sqrt(hidden)).astype(p.dtype)
                for name, p in problem.params.items()
            }
        assert_close(single.value_and_grad(Workspace("float32")), double.value_and_grad())

    @pytest.mark.parametrize("use", USES)
    @pytest.mark.parametrize("cell", CELLS)
    def test_predictions_and_final_states_too(self, cell, use):
        (single, double), workspace = pair(**CELLS[cell], **USES[use]), Workspace("float32")
        steps = 5 if single.net.topology == "one_to_many" else None
        expected, state = double.net.forward(double.params, double.x, steps=steps)
        found, final = single.net.forward(
            single.params, single.x, steps=steps, workspace=workspace
        )  # fmt: skip
        scale = max(np.abs(expected).max(), 1.0)
        for mine, theirs in zip((found, *final), (expected, *state), strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=0, atol=ROUNDING * scale)
        copies = [a.copy() for a in (found, *final)]
        for buffer in workspace._buffers.values():
            buffer[...] = np.nan
        for array, copy in zip((found, *final), copies, strict=True):
            assert np.array_equal(array, copy), "results share no memory with the workspace"

    @pytest.mark.parametrize("cell", CELLS)
    def test_gradients_are_the_callers_own(self, cell):
        problem = Problem(num_layers=2, dtype="float32", **CELLS[cell])
        workspace = Workspace("float32")
        _, grads = problem.value_and_grad(workspace)
        copies = {name: grad.copy() for name, grad in grads.items()}
        for buffer in workspace._buffers.values():
            buffer[...] = np.nan
        assert all(np.array_equal(grads[name], copy) for name, copy in copies.items())
        again = problem.value_and_grad(workspace)[1]
        assert all(np.array_equal(again[name], copy) for name, copy in copies.items())

    @pytest.mark.parametrize("cell", CELLS)
    def test_a_nan_shows(self, cell):
        problem = Problem(dtype="float32", **CELLS[cell])
        problem.x[1, 2, 0] = np.nan
        value, grads = problem.value_and_grad(Workspace("float32"))
        assert np.isnan(value)
        assert np.isnan(grads["layer0.w_hh"]).any()

    @pytest.mark.parametrize("cell", CELLS)
    def test_a_row_does_not_depend_on_where_it_stands(self, cell):
        """Nor on its neighbours: the same row anywhere in a batch has the same bits."""
        problem = Problem(rows=75, hidden=11, dtype="float32", **CELLS[cell])
        problem.x[:] = problem.x[:1]
        pred, _ = problem.net.forward(
            problem.params, problem.x, workspace=Workspace("float32")
        )  # fmt: skip
        state = problem.net.forward(
            problem.params, problem.x[:1], workspace=Workspace("float32")
        )[1]  # fmt: skip
        whole = problem.net.forward(
            problem.params, problem.x, workspace=Workspace("float32")
        )[1]  # fmt: skip
        assert (whole.h == state.h[:, :1]).all()
        np.testing.assert_allclose(pred, pred[:1] * np.ones_like(pred), rtol=1e-5)

    def test_every_kernel_is_a_cells(self):
        assert set(KERNELS) == set(CELLS)

    @pytest.mark.parametrize("cell", CELLS)
    @pytest.mark.parametrize("workers", [2, 3])
    def test_the_same_bits_on_any_number_of_threads(self, cell, workers):
        x, y = rx.make_windows(np.sin(np.arange(700) / 5.0).astype("f4"), 8)
        net = rx.Network(hidden_size=9, **CELLS[cell])
        runs = [
            rx.fit(net, x, y, optimizer=rx.optim.adam(0.01), epochs=3, workers=count,
                   block_rows=50, backend=FLOAT32)
            for count in (1, workers)
        ]  # fmt: skip
        assert runs[0].history == runs[1].history
        for name, p in runs[0].params.items():
            assert np.array_equal(p, runs[1].params[name])
            assert p.dtype == np.float32

    @pytest.mark.parametrize("cell", CELLS)
    def test_training_takes_the_same_course(self, cell, monkeypatch):
        x, y = rx.make_windows(np.sin(np.arange(300) / 5.0).astype("f4"), 8)
        options = {"optimizer": rx.optim.adam(0.01), "epochs": 20, "backend": FLOAT32}
        losses = {}
        for name in ("numba", "numpy", "portable"):
            monkeypatch.setenv("RNN_XP_KERNELS", name)
            result = rx.fit(rx.Network(hidden_size=6, **CELLS[cell]), x, y, **options)
            losses[name] = result.history["loss"]
            assert result.state.run["where"]["kernels"].partition(" ")[0] == name
        np.testing.assert_allclose(losses["numba"], losses["portable"], rtol=2e-4)
        np.testing.assert_allclose(losses["numpy"], losses["portable"], rtol=2e-4)

    def test_an_epoch_needs_no_memory_for_activations(self):
        """After the second epoch the buffers are the same ones."""
        engine = PortableEngine(
            net=rx.Network(cell="lstm", hidden_size=16), loss=rx.losses.mse,
            optimizer=rx.optim.adam(0.01), backend=FLOAT32, block_rows=1000,
            data=Batch(np.ones((3000, 6, 1), "f4"), np.ones((3000, 1), "f4")),
        )  # fmt: skip
        params = engine.net.init(0, FLOAT32)
        params, state, _ = engine.run(params, engine.optimizer.init(params), 2)
        (workspace,) = engine._workspaces
        buffers = {name: id(buffer) for name, buffer in workspace._buffers.items()}
        engine.run(params, state, 3, 2)
        assert buffers == {name: id(buffer) for name, buffer in workspace._buffers.items()}


@product.compiled
def _tanh_of(a, b):
    _tanh(a.shape[0], a.shape[1], lanes.columns(a, 0) + lanes.columns(b, 0))


@lanes.lanewise
def _tanh(z):
    return lanes.tanh(z)


@product.compiled
def _over_itself(a, b):
    places = lanes.columns(a, 0) + lanes.columns(b, 1)
    _both(a.shape[0], a.shape[1], places + lanes.columns(a, 0))


@lanes.lanewise
def _both(a, b):
    return 2.0 - (1.0 + a * 3.0 - b) / 2.0


class TestLanes:
    def test_tanh(self):
        z = np.concatenate([np.linspace(-12.0, 12.0, 400_001), np.logspace(-30.0, 1.0, 20_001)])
        z = np.concatenate([z, [0.0, -0.0, np.inf, -np.inf, 1e-42]]).astype("f4")[None]
        found = np.empty_like(z)
        _tanh_of(z, found)
        exact = np.tanh(z.astype(np.float64))
        units = np.abs(found - exact) / np.spacing(np.abs(exact).astype("f4"))
        assert units[np.abs(z) > 1e-37].max() < 6.5
        assert np.abs(found).max() == 1.0
        assert np.array_equal(np.signbit(found), np.signbit(z))

    def test_tanh_of_nan(self):
        z = np.full((1, 9), np.nan, "f4")
        _tanh_of(z, z)
        assert np.isnan(z).all()

    @pytest.mark.parametrize("size", [1, 7, 8, 9, 15, 16, 50])
    def test_results_may_be_written_over_what_they_are_made_of(self, size):
        rng = np.random.default_rng(size)
        a = rng.standard_normal((5, size)).astype("f4")
        b = rng.standard_normal((5, size + 3)).astype("f4")
        exact = 2.0 - (1.0 + a * 3.0 - b[:, 1 : size + 1]) / 2.0
        _over_itself(a, b)
        np.testing.assert_allclose(a, exact, rtol=0, atol=1e-6)

    def test_an_entrys_bits_do_not_depend_on_its_place(self):
        row = np.full((1, 50), 0.7310586, "f4")
        one, found = np.full((1, 1), 0.7310586, "f4"), np.empty_like(row)
        _tanh_of(row, found)
        _tanh_of(one, one)
        assert (found == one[0, 0]).all()


class TestChoice:
    @pytest.fixture(autouse=True)
    def fresh(self, monkeypatch):
        monkeypatch.delenv("RNN_XP_KERNELS", raising=False)
        kernels._numba.cache_clear()
        yield
        kernels._numba.cache_clear()

    def without_numba(self, monkeypatch):
        import_module = importlib.import_module

        def import_other(name):
            if name == "numba":
                raise ImportError("Numba needs NumPy 2.0 or less")
            return import_module(name)

        monkeypatch.setattr(importlib, "import_module", import_other)

    def test_numba_for_float32_where_it_is_installed(self):
        assert kernels_of(FLOAT32) == Kernels("numba", numba.__version__)
        assert str(kernels_of(FLOAT32)) == f"numba {numba.__version__}"
        assert kernels_of(FLOAT64) == Kernels("numpy")
        assert str(kernels_of(FLOAT64)) == "numpy"
        assert isinstance(make_workspace(FLOAT32), Workspace)
        assert type(make_workspace(FLOAT64)).__module__ == "rnn_xp.kernels.numpy"

    @pytest.mark.parametrize("name", ["numpy", "portable"])
    def test_the_environment_decides(self, name, monkeypatch):
        monkeypatch.setenv("RNN_XP_KERNELS", name)
        assert kernels_of(FLOAT32) == Kernels(name)
        workspace = make_workspace(FLOAT32)
        if name == "portable":
            assert workspace is None
        else:
            assert type(workspace).__module__ == "rnn_xp.kernels.numpy"

    def test_another_library_keeps_the_portable_code(self, monkeypatch):
        monkeypatch.setenv("RNN_XP_KERNELS", "numba")
        assert kernels_of(rx.get_backend("array_api_strict")) == Kernels("portable")

    def test_numpys_own_where_numba_cannot_be_used(self, monkeypatch):
        self.without_numba(monkeypatch)
        assert kernels_of(FLOAT32) == Kernels("numpy")
        assert type(make_workspace(FLOAT32)).__module__ == "rnn_xp.kernels.numpy"

    def test_an_error_where_it_was_asked_for(self, monkeypatch):
        self.without_numba(monkeypatch)
        monkeypatch.setenv("RNN_XP_KERNELS", "numba")
        with pytest.raises(BackendError, match=r"NumPy 2.0 or less\. .* pip install -e '\.\[num"):
            kernels_of(FLOAT32)

    def test_numba_in_float64_is_refused_and_not_replaced(self, monkeypatch):
        monkeypatch.setenv("RNN_XP_KERNELS", "numba")
        with pytest.raises(BackendError, match=r"needs .* float32; .* numpy .*float64\)\. Cho"):
            kernels_of(FLOAT64)
        with pytest.raises(BackendError, match="leave RNN_XP_KERNELS empty"):
            make_workspace(FLOAT64)

    def test_an_unknown_name(self, monkeypatch):
        monkeypatch.setenv("RNN_XP_KERNELS", "cython")
        with pytest.raises(BackendError, match="KERNELS=cython .* numba, numpy, portable"):
            kernels_of(FLOAT32)


def test_processes_that_compile_at_once_do_not_swap_their_code(tmp_path, monkeypatch):
    """Both have read the same index before either writes: what is then found is one's own."""
    monkeypatch.setattr("numba.core.config.CACHE_DIR", str(tmp_path))
    one, other, later = (product._Cache(lambda: 0)._cache_file for _ in range(3))
    read = one._load_index()
    other.save("signature of the other", "code of the other")
    monkeypatch.setattr(one, "_load_index", lambda: read)
    one.save("signature", "code")
    other._save_data(other._data_name(1), "code of the other")  # its second half comes last
    assert later.load("signature") == "code"
    assert later.load("signature of the other") in (None, "code of the other")


def test_functions_that_one_function_makes_have_names_of_their_own():
    """Machine code from the caches of two processes is linked by them."""
    made = (product._broad, product._panel, product._slim)
    assert len({strip.__qualname__ for strip in made}) == len(made)


@pytest.mark.parametrize("size", [1, 5, 8, 13, 16, 37, 64])
def test_sums_over_the_columns_of_rows(size):
    """Each column is counted once, also where the last vector overlaps the one before."""
    over_rows = lanes.lanewise(lambda a: (a + 1.0, a * a), summed=True)

    @product.compiled
    def compute(a, out, sums):
        places = lanes.columns(a, 0) + lanes.columns(out, 0) + lanes.singles(sums)
        over_rows(a.shape[0], a.shape[1], places)

    a = np.random.default_rng(size).standard_normal((3, size)).astype(np.float32)
    out, sums = np.zeros_like(a), np.zeros(3, np.float32)
    compute(a, out, sums)
    assert np.array_equal(out, a + np.float32(1.0))
    np.testing.assert_allclose(sums, np.sum(a.astype(np.float64) ** 2, axis=1), rtol=1e-6)
