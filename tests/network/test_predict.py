"""Predictions in blocks of rows: what `forward` predicts, without its memory."""

from __future__ import annotations

import functools
import itertools
import tracemalloc

import numpy as np
import pytest
from frozen import freeze
from problems import CELLS, OPTIONS, TOPOLOGIES, H, I, O, Problem, T, excluded

import rnn_xp as rx
from rnn_xp.kernels import make_workspace
from rnn_xp.kernels import rows as kernel_rows
from rnn_xp.network import prediction

ROWS, BLOCK = 7, 3  # blocks of 3, 3 and 1 rows
CALLS = [option for option in OPTIONS if option != "dropout"]


def problem(cell, topology, option):
    settings, given = OPTIONS[option]
    given = [name for name in given if name != "rng"]
    settings = {name: value for name, value in settings.items() if "dropout" not in name}
    return Problem(rows=ROWS, with_=given, **CELLS[cell], **TOPOLOGIES[topology], **settings)


def wanted(problem):
    return problem.net.forward(problem.params, problem.x, **problem.options())[0]


@pytest.fixture
def used(monkeypatch):
    """The names of the kernels that predictions asked their workspaces for and got."""
    names = []
    original = prediction.make_workspace

    def make(backend):
        workspace = original(backend)
        if workspace is not None:
            kernel = workspace.kernel

            def recording(name):
                found = kernel(name)
                names.append(name if found is not None else None)
                return found

            workspace.kernel = recording
        return workspace

    monkeypatch.setattr(prediction, "make_workspace", make)
    return names


class TestEqualsForward:
    @pytest.mark.full("jax")
    @pytest.mark.cover("values")
    @pytest.mark.parametrize("topology", TOPOLOGIES)
    def test_every_cell_and_option(self, topology, case):
        options = [option for option in CALLS if not excluded(topology, option)]
        product = list(itertools.product(CELLS, options))
        if case.backend.name == "jax":  # compiles every operation for every shape
            product = product[list(TOPOLOGIES).index(topology) :: len(TOPOLOGIES) + 6]
        for cell, option in product:
            there = problem(cell, topology, option).on(case)
            predict = functools.partial(there.net.predict, block_rows=BLOCK, **there.steps)
            pred = case.jit(lambda params, x, arrays, f=predict: f(params, x, **arrays))(
                there.params, there.x, there.arrays
            )
            case.assert_close(pred, wanted(problem(cell, topology, option)))

    @pytest.mark.parametrize("block_rows", [1, 2, 6, 7, 8, np.int64(5), None])
    def test_blocks_of_any_size(self, block_rows):
        here = problem("lstm", "many-to-many", "everything")
        pred = here.net.predict(here.params, here.x, **here.options(), block_rows=block_rows)
        np.testing.assert_allclose(pred, wanted(here), rtol=1e-13, atol=1e-15)

    def test_every_row_comes_once_and_in_order(self):
        """The default block has 1040 rows; here are two of them and a rest."""
        net = rx.Network(hidden_size=4)
        params = net.init(backend=rx.get_backend(dtype="float64"))
        x = np.random.default_rng(0).standard_normal((2 * 1040 + 5, 3, 1))
        pred = net.predict(params, x)
        np.testing.assert_allclose(pred, net.forward(params, x)[0], rtol=1e-12, atol=1e-14)

    def test_under_jit(self):
        jax = pytest.importorskip("jax")
        here = problem("gru", "many-to-one", "lengths")
        params = {name: jax.numpy.asarray(p) for name, p in here.params.items()}
        x, lengths = jax.numpy.asarray(here.x), jax.numpy.asarray(here.arrays["lengths"])
        pred = jax.jit(lambda *args: here.net.predict(args[0], args[1], lengths=args[2]))(
            params, x, lengths
        )
        np.testing.assert_allclose(np.asarray(pred), wanted(here), rtol=1e-12)

    def test_complex_numbers(self):
        """As `forward`: the complex step may go through a prediction."""
        here = problem("lstm", "many-to-one", "plain")
        params = {name: p + 0j for name, p in here.params.items()}
        pred = here.net.predict(params, here.x * (1 + 1e-3j), block_rows=BLOCK)
        whole, _ = here.net.forward(params, here.x * (1 + 1e-3j))
        np.testing.assert_allclose(pred, whole, rtol=1e-13)


class TestKernels:
    @pytest.mark.parametrize(
        ("kernels", "dtype"), [("numpy", "float64"), ("numpy", "float32"), ("numba", "float32")]
    )
    @pytest.mark.parametrize("cell", ["rnn-tanh", "rnn-relu", "gru", "lstm"])
    def test_they_are_used(self, monkeypatch, used, cell, kernels, dtype):
        if kernels == "numba":
            pytest.importorskip("numba", reason="numba is not installed")
        monkeypatch.setenv("RNN_XP_KERNELS", kernels)
        here = problem(cell, "many-to-many", "two-layers-bidirectional")
        params = {name: freeze(p, dtype) for name, p in here.params.items()}
        x = freeze(here.x, dtype)
        pred = here.net.predict(params, x, block_rows=BLOCK)
        assert used == [cell] * (4 * 3)  # two layers, two directions, three blocks
        assert pred.dtype == dtype
        np.testing.assert_allclose(
            pred, wanted(here), rtol=0, atol=2e-5 if dtype == "float32" else 1e-12
        )

    def test_the_portable_code_is_used_on_demand(self, monkeypatch, used):
        monkeypatch.setenv("RNN_XP_KERNELS", "portable")
        here = problem("gru", "many-to-one", "plain")
        whole = here.net.forward(here.params, here.x)[0]
        assert np.array_equal(here.net.predict(here.params, here.x), whole)
        assert not used

    @pytest.mark.parametrize("topology", TOPOLOGIES)
    def test_a_result_is_nobody_elses_memory(self, topology):
        """Neither another call nor another block writes to it."""
        here = problem("rnn-tanh", topology, "plain")
        options = here.options()
        pred = here.net.predict(here.params, here.x, **options)
        before = pred.copy()
        here.net.predict(here.params, here.x + 1.0, **options)
        assert np.array_equal(pred, before)
        pred[...] = 0.0
        assert np.array_equal(here.net.predict(here.params, here.x, **options), before)


class TestMemory:
    def peak(self, function):
        function()  # compiles, and fills caches
        tracemalloc.start()
        try:
            function()
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    @pytest.mark.parametrize("kernels", ["portable", ""])
    @pytest.mark.parametrize("cell", ["rnn-tanh", "gru", "gru-reset-before", "lstm"])
    def test_it_does_not_grow_with_the_rows(self, monkeypatch, cell, kernels):
        monkeypatch.setenv("RNN_XP_KERNELS", kernels)
        net, steps = rx.Network(**CELLS[cell], hidden_size=16), 20
        params = net.init(backend=rx.get_backend(dtype="float32"))
        x = np.ones((4000, steps, 1), dtype="float32")
        few = self.peak(lambda: net.predict(params, x[:200], block_rows=200))
        many = self.peak(lambda: net.predict(params, x, block_rows=200))
        assert many < few + 100_000  # the predictions, twice, are 32,000 bytes

    @pytest.mark.parametrize(("cell", "arrays"), [("rnn", 2.5), ("gru", 6.5), ("lstm", 8.5)])
    def test_no_tape_is_kept(self, monkeypatch, cell, arrays):
        """States, projected gates and passing values of a block, and no cache of a step."""
        monkeypatch.setenv("RNN_XP_KERNELS", "portable")
        net, steps, rows = rx.Network(cell=cell, hidden_size=32), 60, 100
        params = net.init(backend=rx.get_backend(dtype="float32"))
        x = np.ones((rows, steps, 1), dtype="float32")
        states = steps * rows * 32 * 4
        assert self.peak(lambda: net.predict(params, x)) < arrays * states
        if cell != "rnn":  # its cache is the states
            assert self.peak(lambda: net.vjp(params, x)) > (arrays + 1) * states

    @pytest.mark.parametrize("kernels", ["numpy", "numba"])
    @pytest.mark.parametrize(
        ("cell", "arrays"),
        [("rnn-tanh", 1.5), ("gru", 2.0), ("gru-reset-before", 2.0), ("lstm", 3.0)],
    )
    def test_kernels_keep_no_gates(self, monkeypatch, cell, arrays, kernels):
        """Inputs and fields of the state, and of gates those of one step."""
        if kernels == "numba":
            pytest.importorskip("numba", reason="numba is not installed")
        monkeypatch.setenv("RNN_XP_KERNELS", kernels)
        net, steps, rows = rx.Network(**CELLS[cell], hidden_size=32), 60, 100
        backend = rx.get_backend(dtype="float32")
        params, workspace = net.init(backend=backend), make_workspace(backend)
        x, y = np.ones((rows, steps, 1), dtype="float32"), np.ones((rows, 1), dtype="float32")
        states = steps * rows * 32 * 4
        assert self.peak(lambda: net.predict(params, x, block_rows=rows)) < arrays * states
        net.value_and_grad(params, x, y, workspace=workspace)
        held = sum(buffer.nbytes for buffer in workspace._buffers.values())
        if cell != "rnn-tanh":
            assert held > (arrays + 1.5) * states

    def test_long_sequences_have_smaller_blocks(self):
        assert kernel_rows.rows_at_once(False, 10 * 50) == 1040
        assert kernel_rows.rows_at_once(False, 2000 * 2 * 100) == 32
        assert kernel_rows.rows_at_once(True, 10 * 50) == 65_536
        assert kernel_rows.rows_at_once(True, 1000 * 256) == 524


class TestTheDoor:
    @pytest.mark.parametrize("topology", TOPOLOGIES)
    def test_no_rows(self, topology, case):
        there = problem("rnn-tanh", topology, "plain").on(case)
        pred = there.net.predict(there.params, there.x[:0, ...], **there.options())
        lead = (0,) if topology.startswith("many-to-one") else (0, T)
        case.assert_close(pred, np.zeros((*lead, O)))

    def test_no_rows_are_checked_like_any(self):
        here = problem("rnn-tanh", "many-to-one", "plain")
        with pytest.raises(ValueError, match=r"\(N, T, 2\) with T >= 1, got \(0, 0, 2\)"):
            here.net.predict(here.params, np.zeros((0, 0, I)))
        with pytest.raises(ValueError, match=r"mask must have shape \(0, 5\), got \(1, 5\)"):
            here.net.predict(here.params, here.x[:0], mask=np.ones((1, 5), bool))

    @pytest.mark.parametrize("size", [0, -1, 2.0, True, "all"])
    def test_wrong_block_rows(self, size):
        here = problem("rnn-tanh", "many-to-one", "plain")
        with pytest.raises(ValueError, match="block_rows must be an integer >= 1, got "):
            here.net.predict(here.params, here.x, block_rows=size)

    def test_what_forward_refuses(self):
        here = problem("rnn-tanh", "many-to-one", "plain")
        with pytest.raises(ValueError, match=r"state.h must have shape \(1, 7, 4\)"):
            here.net.predict(here.params, here.x, rx.RNNState(np.zeros((1, 3, H))))
        with pytest.raises(TypeError, match="one floating dtype is required; x is float32"):
            here.net.predict(here.params, here.x.astype("float32"))
        net = rx.Network(input_size=I, hidden_size=H, output_size=O, topology="one_to_many")
        with pytest.raises(ValueError, match="one_to_many needs steps= >= 1"):
            net.predict(here.params, here.x[:, :1])


@pytest.mark.torch
def test_a_prediction_leaves_no_graph_behind():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    net, backend = rx.Network(hidden_size=4), rx.get_backend("torch")
    x = torch.ones((3, 5, 1), dtype=backend.dtype, requires_grad=True)
    params = net.init(0, backend)
    recorded = {name: param.clone().requires_grad_() for name, param in params.items()}
    state = net.forward(recorded, x)[1]
    pred = net.predict(recorded, x, state)
    assert state.h.requires_grad
    assert not pred.requires_grad
    torch.testing.assert_close(pred, net.forward(params, x, state)[0].detach())
