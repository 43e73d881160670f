"""Whole layers in one launch each way: the numbers of the portable code, on the CPU."""

from __future__ import annotations

import itertools
import types
from pathlib import Path

import cupy_stand_in
import numpy as np
import pytest
from kernel_options import STACKS, adjoint
from kernel_problems import CUDA_CELLS as CELLS
from layer_cases import KERNELS, OPTIONS, assert_rounding, build, device, through_kernels
from problems import TOPOLOGIES

import rnn_xp as rx
from rnn_xp.engines.blocks import Batch
from rnn_xp.engines.portable import PortableEngine
from rnn_xp.kernels.course import Ends
from rnn_xp.kernels.cuda import plan
from rnn_xp.network import turns

READS = ("many-to-one", "many-to-one-mean", "many-to-one-max", "many-to-many")


@pytest.mark.cover("pairs")
@pytest.mark.parametrize("with_final", [True, False])
@pytest.mark.parametrize("topology", READS)
@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("cell", CELLS)
def test_every_option(cell, option, stack, topology, with_final):
    problem = build(cell, option, **STACKS[stack], **TOPOLOGIES[topology])
    assert_rounding(problem, with_final)


@pytest.mark.full("-128-", "-2200")
@pytest.mark.cover("values")
@pytest.mark.parametrize("rows", [1, 133, 265, 529, 2200])
@pytest.mark.parametrize("hidden", [1, 7, 50, 64, 128])
@pytest.mark.parametrize("option", ["all", "all, layer norm"])
@pytest.mark.parametrize("cell", CELLS)
def test_of_any_size(cell, option, hidden, rows):
    """Blocks of 1 to 8 rows, of which the last is not full; of 2200 rows blocks take several."""
    scale = 0.5 / np.sqrt(hidden)
    problem = build(cell, option, hidden=hidden, rows=rows, steps=4, scale=scale, inputs=5)
    assert_rounding(problem)


@pytest.mark.full("-256-", "-200-")
@pytest.mark.cover("values")
@pytest.mark.parametrize("rows", [1, 4, 70])
@pytest.mark.parametrize("hidden", [129, 134, 200, 256])
@pytest.mark.parametrize("option", ["all", "all, layer norm"])
@pytest.mark.parametrize("cell", CELLS)
def test_wide_layers_in_clusters(cell, option, hidden, rows):
    """Of 129 units the last of four blocks has 30 and the others 33, of eight it has 10 and 17."""
    scale = 0.5 / np.sqrt(hidden)
    problem = build(cell, option, hidden=hidden, rows=rows, steps=4, scale=scale, inputs=5)
    assert_rounding(problem)


@pytest.mark.cover("values")
@pytest.mark.parametrize("hidden", [7, 134])
@pytest.mark.parametrize("option", ["all", "all, layer norm"])
@pytest.mark.parametrize("cell", CELLS)
def test_blocks_and_clusters_that_take_rows_in_turns(monkeypatch, cell, option, hidden):
    monkeypatch.setitem(KERNELS.layer.make_plan.__globals__, "_MAX_BLOCKS", 16)
    scale = 0.5 / np.sqrt(hidden)
    stack = {"num_layers": 2, "bidirectional": True, "residual": True}
    problem = build(cell, option, hidden=hidden, rows=35, steps=4, scale=scale, **stack)
    assert_rounding(problem)


@pytest.mark.parametrize("lengths", [[0] * 5, [0, 0, 3, 1, 0], [1] * 5, [9, 9, 9, 0, 9]])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_rows_of_any_length(lengths, bidirectional):
    problem = build("gru", "lengths", rows=5, steps=9, bidirectional=bidirectional)
    problem.arrays["lengths"] = np.asarray(lengths)
    assert_rounding(problem)


@pytest.mark.parametrize("option", ["lengths", "all, layer norm"])
@pytest.mark.parametrize("cell", CELLS)
def test_padding_enters_no_product(cell, option):
    """Neither that of the inputs nor that of any buffer, or a NaN there would show."""
    stack = {"bidirectional": True, "num_layers": 2, "residual": True}
    problem, workspace = (
        build(cell, option, rows=50, steps=9, **stack),
        KERNELS.Workspace("float32"),
    )
    expected = through_kernels(problem, workspace=workspace)
    beyond = np.arange(9)[None, :] >= problem.arrays["lengths"][:, None]
    assert beyond.any()
    problem.x[beyond] = np.nan
    for buffer in workspace._buffers.values():
        buffer[...] = np.nan
    made = through_kernels(problem, workspace=workspace)
    for name, array in expected.items():
        assert np.array_equal(made[name], array), name
    collected, module = [], KERNELS.stack.matmul
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "collect", lambda *args: collected.append(args[1]))
        through_kernels(problem, launches=0)
    offsets, of_readout = collected
    assert of_readout is None
    assert offsets[-1] == np.sum(problem.arrays["lengths"])


@pytest.mark.parametrize("option", ["lengths", "all", "all, layer norm"])
@pytest.mark.parametrize("cell", CELLS)
def test_where_rows_end_may_be_known_to_the_device_alone(monkeypatch, cell, option):
    """Then nothing is transferred, and all bits are those with the counts of the host."""
    settings = {"bidirectional": True, "num_layers": 2, "rows": 70, "steps": 9}
    expected = through_kernels(build(cell, option, **settings))
    assert "transfer" in cupy_stand_in._noted
    host = turns.course

    def course(net, params, options, steps, *, xp):
        known = host(net, params, options, steps, xp=xp)
        offsets = np.cumsum([0, *known.counts], dtype="i4")
        return known._replace(counts=Ends(options.lengths.astype("i4"), offsets))

    monkeypatch.setattr(turns, "course", course)
    made = through_kernels(build(cell, option, **settings))
    assert "transfer" not in cupy_stand_in._noted
    for name, array in expected.items():
        assert np.array_equal(made[name], array), name


def test_the_parts_of_a_sum_depend_on_the_shape_alone():
    """How many rows have ended is known to the device only, in a step that is repeated."""
    parts, module = [], KERNELS.stack.matmul
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "parts_of", lambda tiles, rows: parts.append(rows) or 3)
        for lengths in ([9] * 5, [1, 0, 3, 1, 0]):
            problem = build("gru", "lengths", rows=5, steps=9)
            problem.arrays["lengths"] = np.asarray(lengths)
            assert_rounding(problem)
    assert parts == [45, 5, 45, 5]  # of the layers, and of the readout


class TestSameBits:
    @pytest.mark.parametrize("option", ["all", "all, layer norm"])
    @pytest.mark.parametrize("cell", CELLS)
    def test_in_every_order_of_threads(self, cell, option):
        made = []
        for shuffled in (False, True, True):
            with device(shuffled=shuffled):
                made.append(through_kernels(build(cell, option, rows=140, hidden=50)))
        for name, other in itertools.product(made[0], made[1:]):
            assert np.array_equal(made[0][name], other[name]), name

    @pytest.mark.parametrize("cell", CELLS)
    def test_of_a_row_whatever_the_number_of_rows_in_a_block(self, cell):
        """States and predictions are a row's own; so are the gradients of the input."""
        whole = build(cell, "state", rows=300, topology="many_to_many")
        made = through_kernels(whole)
        part = build(cell, "state", rows=300, topology="many_to_many")
        part.x, part.dpred = part.x[:20], part.dpred[:20]
        part.arrays["state"] = type(part.state)(*(a[:, :20] for a in part.arrays["state"]))
        part.dstate = type(part.dstate)(*(a[:, :20] for a in part.dstate))
        few = through_kernels(part)
        for name in few:
            if name.startswith(("final", "dstate")):
                assert np.array_equal(few[name], made[name][:, :20]), name
        assert np.array_equal(few["dx"], made["dx"][:20])

    @pytest.mark.parametrize("option", ["all", "all, layer norm"])
    def test_whatever_the_buffers_held(self, option):
        problem, workspace = build(option=option, rows=20), KERNELS.Workspace("float32")
        expected = through_kernels(problem, workspace=workspace)
        through_kernels(build("gru", rows=40, hidden=10, steps=8), workspace=workspace)
        for buffer in workspace._buffers.values():
            buffer[...] = np.nan
        made = through_kernels(problem, workspace=workspace)
        for name, array in expected.items():
            assert np.array_equal(made[name], array), name


class TestLaunches:
    @staticmethod
    def count(option, steps, **settings):
        problem = build("gru", option, steps=steps, topology="many_to_many", **settings)
        if "lengths" in problem.arrays:
            problem.arrays["lengths"][:] = steps - 1
        through_kernels(problem)
        with cupy_stand_in.launches() as noted:
            through_kernels(problem)
        return list(noted), problem.net.num_layers * problem.net.directions

    @pytest.mark.parametrize("option", OPTIONS)
    def test_do_not_depend_on_the_number_of_steps(self, option):
        short, layers = self.count(option, 4, num_layers=2, bidirectional=True)
        long, _ = self.count(option, 12, num_layers=2, bidirectional=True)
        for name in ("forward", "backward"):
            assert short.count(name) == long.count(name) == layers
        assert short.count("matmul") == long.count("matmul")
        assert len(short) == len(long)

    @pytest.mark.parametrize(
        ("cell", "plain", "ragged", "norm"),
        [
            ("rnn-tanh", 17, 21, 19),
            ("rnn-relu", 17, 21, 19),
            ("gru", 17, 21, 19),
            ("lstm", 17, 21, 19),
        ],
    )
    @pytest.mark.parametrize("steps", [10, 40])
    def test_of_an_epoch(self, monkeypatch, cell, plain, ragged, norm, steps):
        """Many to one, mean squared error, Adam; ragged rows are sorted beside."""
        fusion = cupy_stand_in.load("fusion")
        monkeypatch.setattr(
            "rnn_xp.optim.first_order.pointwise", lambda f, sets, *, xp: fusion.run(f, sets)
        )
        backend, rng = rx.get_backend("numpy", dtype="float32"), np.random.default_rng(0)
        x, y = (rng.standard_normal(shape).astype("f4") for shape in ((6, steps, 1), (6, 1)))
        some = np.asarray([10, 3, 4, 1, 7, 2])
        for lengths, is_normed, launches in (
            (None, False, plain), (some, False, ragged), (None, True, norm)
        ):  # fmt: skip
            net = rx.Network(hidden_size=5, layer_norm=is_normed, **CELLS[cell])
            batch = Batch(*map(cupy_stand_in.counted, (x, y)), lengths=lengths)
            engine = PortableEngine(
                net=net, loss=rx.losses.mse, optimizer=rx.optim.adam(0.01), backend=backend,
                data=batch, block_rows=6, workers=1,
            )  # fmt: skip
            engine._workspaces = [KERNELS.Workspace("float32")]
            params = {name: cupy_stand_in.counted(p) for name, p in net.init(0, backend).items()}
            params, state, _ = engine.run(params, engine.optimizer.init(params), 1)
            with cupy_stand_in.launches() as noted:
                engine.run(params, state, 1)
            assert len(noted) == launches


class TestChoice:
    def test_the_documentation_has_the_same_table(self):
        page = (Path(__file__).parents[3] / "docs" / "guide" / "gpu.md").read_text(encoding="utf-8")
        listed = [line[2:] for line in page.splitlines() if line.startswith("- ")]
        sentences = [sentence for sentence, _ in plan.SUPPORTED]
        first = listed.index(sentences[0], listed.index("a single rank"))
        assert listed[first : first + len(sentences)] == sentences

    def test_float64_and_wide_layers_go_step_by_step(self):
        for dtype, hidden, kernel in (
            ("float64", 128, "gru"), ("float32", 129, "gru"), ("float32", 128, "mingru")
        ):  # fmt: skip
            size = plan.Size(kernel, dtype, hidden, 232448)
            assert plan.unsupported(size) != ""
            assert plan.make_plan(size, 100) is None

    def test_a_device_with_too_little_shared_memory(self):
        size = plan.Size("lstm", "float32", 128, 101376)
        assert plan.unsupported(size) == (
            "weights that fit in the device's registers and shared memory"
        )
        assert plan.unsupported(size._replace(hidden_size=64)) == ""
        assert plan.unsupported(size._replace(shared_limit=166912)) == ""

    def test_on_rocm_layers_go_step_by_step(self, monkeypatch):
        runtime = types.SimpleNamespace(is_hip=True)
        monkeypatch.setattr(KERNELS.layer.cupy.cuda, "runtime", runtime)
        monkeypatch.setattr(KERNELS.layer, "_limits", KERNELS.layer._limits.__wrapped__)
        assert KERNELS.layer.known("gru", "float32", 50) == frozenset()
        assert KERNELS.layer.plan_of("gru", "float32", 50, 9, norm=False) is None
        a, b = (cupy_stand_in.counted(np.ones((2, 2), "f4")) for _ in range(2))
        with cupy_stand_in.launches() as noted:
            KERNELS.Workspace("float32").matmul("product", a, b)
        assert "matmul" in noted

    def test_a_device_with_room_for_the_plain_layer_alone(self, monkeypatch):
        monkeypatch.setattr(KERNELS.layer, "_limits", lambda number: {"shared_limit": 151000})
        assert KERNELS.layer.known("lstm", "float32", 128) == plan.OPTIONS
        assert KERNELS.layer.known("lstm", "float32", 64) == plan.OPTIONS | {"norm"}
        _, computed = adjoint(build(option="layer norm", hidden=128), KERNELS.Workspace("float32"))
        assert not computed

    def test_what_a_workspace_knows_depends_on_the_layer(self):
        workspace = KERNELS.Workspace("float32")
        assert workspace.knows_for("lstm", 128) == plan.OPTIONS | {"norm"}
        assert workspace.knows_for("lstm", 256) == plan.OPTIONS | {"norm"}
        assert workspace.knows_for("lstm", 257) == frozenset()
        assert workspace.knows_for(None, 4) == frozenset()
        assert KERNELS.Workspace("float64").knows_for("lstm", 128) == frozenset()

    def test_wide_layers_with_options_are_the_portable_codes(self):
        problem = build("rnn-tanh", "lengths", hidden=260, rows=3, scale=0.05)
        _, computed = adjoint(problem, KERNELS.Workspace("float32"))
        assert not computed

    def test_a_device_without_clusters(self, monkeypatch):
        monkeypatch.setattr(KERNELS.layer, "_limits", lambda number: {"shared_limit": 166912})
        assert KERNELS.layer.known("rnn-tanh", "float32", 129) == frozenset()
        assert KERNELS.layer.known("rnn-tanh", "float32", 128) == plan.OPTIONS | {"norm"}
        problem = build("rnn-tanh", "lengths", hidden=130, rows=3, scale=0.05)
        _, computed = adjoint(problem, KERNELS.Workspace("float32"))
        assert not computed


def test_the_rows_of_a_block_let_132_blocks_share_all_up_to_the_largest():
    rows = {n: plan.make_plan(plan.Size("gru", "float32", 64, 232448), n).rows for n in
            (1, 132, 133, 264, 265, 528, 8317)}  # fmt: skip
    assert rows == {1: 1, 132: 1, 133: 2, 264: 2, 265: 4, 528: 4, 8317: 4}
