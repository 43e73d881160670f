"""What is supported, which engine is chosen, and that the kernels compile without spills."""

from __future__ import annotations

import dataclasses
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cases import CHOICES, Case
from extending import MinGRUCell
from standin import SHARED_LIMIT, FakeCupy

import rnn_xp as rx
from rnn_xp.cells import CELLS
from rnn_xp.engines import cuda_fused
from rnn_xp.engines.blocks import Batch
from rnn_xp.engines.cuda_fused import SUPPORTED, fastest, layout, make_plan
from rnn_xp.engines.portable import PortableEngine
from rnn_xp.losses import mae, mse

KERNELS = Path(cuda_fused.__file__).with_name("kernels.cu")
X, Y = np.zeros((70, 3, 1), "f4"), np.zeros((70, 1), "f4")
DOUBLE = dataclasses.replace(FakeCupy().backend, dtype=np.dtype("f8"))


def portable(cupy, net=None, data=(X, Y), **options):
    options = {"loss": mse, "optimizer": rx.optim.adam(), "block_rows": 65536, **options}
    options = {"backend": cupy.backend, **options}
    return PortableEngine(
        net=rx.Network(**{"hidden_size": 4, **(net or {})}), data=Batch(*data), **options
    )


def some(*given):
    """Options of a training that break one rule of the table."""
    return pytest.param(*given, id=given[-1].replace("'", "")[:30])


@pytest.fixture
def cupy(monkeypatch):
    found = FakeCupy()
    monkeypatch.setitem(sys.modules, "cupy", found)
    return found


class TestChoice:
    def test_the_fused_engine_where_it_can(self, cupy):
        engine = fastest(portable(cupy))
        assert (engine.name, engine.reason) == ("cuda_fused", "")
        assert (engine.block_rows, engine.workers) == (65536, 1)

    @pytest.mark.parametrize(
        ("net", "options", "needed"),
        [
            some({}, {"backend": DOUBLE}, "the dtype float32"),
            some({"num_layers": 2}, {}, "one layer in one direction"),
            some({"bidirectional": True}, {}, "one layer in one direction"),
            some({"layer_norm": True}, {}, "without layer normalisation"),
            some({"cell": "mingru"}, {}, "the cell rnn, gru or lstm"),
            some({"cell": "gru", "reset_after": False}, {}, "reset_after=True"),
            some({"hidden_size": 129}, {}, "hidden_size <= 128"),
            some({"input_size": 33}, {}, "input_size <= 32"),
            some({"output_size": 9}, {}, "output_size <= 8"),
            some({"topology": "one_to_many"}, {}, "many_to_many"),
            some({"read": "mean"}, {}, "read='last'"),
            some({"output_activation": "tanh"}, {}, "output_activation='identity'"),
            some({}, {"loss": mae}, "the loss mse or cross_entropy"),
            some({}, {"batches": lambda epoch: []}, "the full batch"),
            some({}, {"truncate": (2, 2)}, "without truncation"),
            some({}, {"noise": lambda step, block: None}, "without truncation and dropout"),
            some({}, {"data": (X, Y, Y[:, 0])}, "no sample_weight"),
            some({}, {"data": (X, Y, None, Y[:, 0])}, "lengths"),
            some({}, {"data": (X, Y, None, None, X[:, :, 0])}, "mask"),
            some({}, {"data": (X, Y, None, None, None, X[:, :, 0])}, "or reset"),
            some({}, {"block_rows": 1040}, "block_rows left alone"),
        ],
    )
    @pytest.mark.usefixtures("mingru")
    def test_else_the_portable_one_and_why(self, cupy, net, options, needed):
        engine = portable(cupy, net, **options)
        engine = fastest(engine)
        assert engine.name == "portable"
        assert needed in engine.reason
        assert engine.reason.removeprefix("the fused kernels need ") in dict(SUPPORTED)

    def test_another_cell_under_a_known_name_is_not_computed_as_that_one(self, cupy, monkeypatch):
        monkeypatch.setitem(CELLS, "gru", MinGRUCell)
        engine = portable(cupy, {"cell": "gru"})
        fitting = fastest(engine)
        assert (fitting.name, fitting.net) == ("portable", engine.net)
        assert fitting.reason.startswith("the fused kernels need ")

    @pytest.mark.parametrize(
        ("optimizer", "update"),
        [
            (rx.optim.adam(), "adam"),
            (rx.optim.sgd(), "sgd"),
            (rx.optim.adamw(), "gradient"),
            (rx.optim.lbfgs(), "gradient"),
            (rx.optim.sgd(momentum=0.9), "gradient"),
            (rx.optim.sgd(weight_decay=0.1), "gradient"),
            (rx.optim.adam(weight_decay=0.1), "gradient"),
            (rx.optim.adam(clip_norm=1.0), "gradient"),
            (rx.optim.adam(clip_value=1.0), "gradient"),
        ],
    )
    def test_any_optimiser_and_the_kernel_that_serves_it(self, cupy, optimizer, update):
        engine = fastest(portable(cupy, optimizer=optimizer))
        assert (engine.name, engine._update.name) == ("cuda_fused", update)

    def test_on_other_backends_there_is_nothing_to_say(self, cupy):
        engine = portable(cupy, backend=rx.get_backend("numpy", dtype="float32"), block_rows=1040)
        assert fastest(engine) is engine
        assert engine.reason == ""

    def test_without_cupy(self):
        engine = portable(FakeCupy())
        engine = fastest(engine)
        assert engine.name == "portable"
        assert engine.reason == "cupy is not installed"

    def test_without_a_device(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "cupy", cupy := FakeCupy(available=False))
        engine = portable(cupy)
        engine = fastest(engine)
        assert engine.name == "portable"
        assert engine.reason == "there is no usable CUDA device"

    def test_too_little_shared_memory(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "cupy", cupy := FakeCupy(1024))
        engine = portable(cupy)
        engine = fastest(engine)
        assert engine.name == "portable"
        assert engine.reason.startswith("1024 bytes of shared memory to a block are too few")

    def test_kernels_that_do_not_compile(self, monkeypatch):
        cupy = FakeCupy(edit=lambda source: source.replace("float* out = ", "float* output = "))
        monkeypatch.setitem(sys.modules, "cupy", cupy)
        engine = portable(cupy)
        engine = fastest(engine)
        assert engine.name == "portable"
        assert engine.reason.startswith("the fused kernels are not available: CompileError: ")

    def test_no_memory_for_it(self, cupy, monkeypatch):
        def empty(shape, dtype):
            raise MemoryError("Out of memory allocating 1 TB")

        monkeypatch.setattr(cupy, "empty", empty)
        engine = portable(cupy)
        engine = fastest(engine)
        assert engine.name == "portable"
        assert engine.reason.endswith("MemoryError: Out of memory allocating 1 TB")


class TestPlan:
    def test_the_reference_workload_lies_on_chip(self):
        for device, weights_shared in (("sm_90", 1), ("sm_80", 0)):
            case = Case(device=device)
            plan = make_plan(case.net, case.rows, case.steps, False, SHARED_LIMIT[device])
            assert plan.macros["ROWS"] == 64
            assert plan.macros["HISTORY_SHARED"] == 1
            assert plan.macros["WEIGHTS_SHARED"] == weights_shared
            assert (plan.workspace, plan.threads, plan.blocks) == (0, 200, 130)

    @staticmethod
    def of_rows(rows, limit=SHARED_LIMIT["sm_90"]):
        return make_plan(Case().net, rows, 10, False, limit)

    @pytest.mark.parametrize("rows", CHOICES["rows"])
    def test_blocks_take_all_rows(self, rows):
        plan = self.of_rows(rows)
        assert plan.blocks == -(-rows // plan.macros["ROWS"])
        assert self.of_rows(10**9).blocks == 132

    def test_rows_of_a_block_follow_from_the_number_of_rows_alone(self):
        fewest_rows = {2: 1, 4: 265, 8: 529, 16: 1057, 32: 2113, 64: 4225}
        for block_rows, fewest in fewest_rows.items():
            for limit in SHARED_LIMIT.values():
                for rows in (fewest, min(2 * fewest, 132 * block_rows)):
                    plan = self.of_rows(rows, limit)
                    assert plan.macros["ROWS"] == block_rows
                    assert plan.blocks <= 132
                    assert plan.blocks > 66 or block_rows == 2
                assert fewest == 1 or self.of_rows(fewest - 1, limit).macros["ROWS"] < block_rows

    def test_all_of_these_are_tried(self):
        tried = {rows: self.of_rows(rows).macros["ROWS"] for rows in CHOICES["rows"]}
        assert set(tried.values()) == {2, 4, 8, 16, 32, 64}
        assert any(rows < block_rows for rows, block_rows in tried.items())
        for some in (2, 4, 8, 16, 32, 64):  # blocks that are not full
            assert any(rows % r for rows, r in tried.items() if r == some)

    def test_shared_memory_is_never_more_than_there_is(self):
        for limit in SHARED_LIMIT.values():
            for hidden in range(1, 129):
                for cell in ("tanh", "gru", "lstm"):
                    case = Case(cell, hidden=hidden, inputs=32, outputs=8)
                    plan = make_plan(case.net, 8317, 40, False, limit)
                    assert plan.shared_bytes <= limit
                    assert 64 <= plan.threads <= 256
                    for rows in CHOICES["rows"]:
                        plan = make_plan(case.net, rows, 40, False, limit)
                        assert plan.shared_bytes <= limit
                        assert plan.threads <= 512

    def test_weights_of_few_rows_lie_on_chip_as_far_as_they_fit(self):
        used = {"tanh": 2 * (2 * 140 + 132 + 6 * 132), "lstm": 2 * (2 * 140 + 516 + 6 * 516)}
        for device, limit in SHARED_LIMIT.items():
            for cell, gates in (("tanh", 1), ("lstm", 4)):
                net = Case(cell, hidden=128, inputs=8).net
                plan = make_plan(net, 256, 100, False, limit)
                held = min(140 * gates * 128, limit // 4 - used[cell])
                assert plan.macros["WEIGHTS_SHARED"] == held, device
                assert (plan.blocks, plan.threads) == (128, 384)


@pytest.mark.parametrize("cell", CHOICES["cell"])
def test_packing_and_unpacking_are_inverse(cell):
    params, _ = Case(cell, rows=1, hidden=5, inputs=3, outputs=2).problem()
    net = Case(cell, hidden=5, inputs=3, outputs=2).net
    matrix = layout.pack(net, params, xp=np)
    found = layout.unpack(net, matrix, xp=np)
    assert list(found) == list(params)
    assert all(np.array_equal(found[name], p) for name, p in params.items())
    assert np.count_nonzero(matrix) == net.num_parameters


@pytest.mark.full
@pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is not installed")
@pytest.mark.parametrize("device", ["sm_80", "sm_90"])
@pytest.mark.parametrize(
    "case",
    [
        Case(),
        Case("relu", "many-cross_entropy", hidden=128, inputs=32, outputs=8, steps=40),
        Case("gru", "one-mse"),
        Case("lstm", "many-cross_entropy", hidden=128, inputs=32, outputs=8, steps=40),
        *(Case(c, rows=256, steps=100, hidden=128, inputs=8) for c in ("tanh", "gru", "lstm")),
        *(Case(c, rows=500, steps=9, hidden=128, inputs=8) for c in ("tanh", "gru", "lstm")),
        *(Case(c, rows=32, steps=50, hidden=64, inputs=16) for c in ("tanh", "gru", "lstm")),
        Case("lstm", "many-cross_entropy", rows=99, hidden=128, inputs=32, outputs=8, steps=40),
        Case("lstm", "many-cross_entropy", rows=999, hidden=128, inputs=32, outputs=8, steps=40),
    ],
    ids=str,
)
def test_compiles_without_spills(case, device, tmp_path):
    classes = case.loss == "cross_entropy"
    plan = make_plan(case.net, case.rows, case.steps, classes, SHARED_LIMIT[device])
    command = ["nvcc", *plan.options, f"-arch={device}", "-Xptxas", "-v", "-cubin", str(KERNELS)]
    done = subprocess.run(
        [*command, "-o", str(tmp_path / "kernels.cubin")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr
    found = re.findall(
        r"entry function '(\w+)'.*?(\d+) bytes spill stores, (\d+) bytes spill loads"
        r".*?Used (\d+) registers",
        done.stderr,
        re.DOTALL,
    )
    assert {name for name, *_ in found} == {"train", "place", "gradient", "sgd", "adam"}
    for name, stores, loads, registers in found:
        assert (int(stores), int(loads)) == (0, 0), name
        print(case, device, name, registers)


def test_the_documentation_has_the_same_table():
    page = (Path(__file__).parents[3] / "docs" / "guide" / "gpu.md").read_text(encoding="utf-8")
    listed = [line.removeprefix("- ") for line in page.splitlines() if line.startswith("- ")]
    sentences = [sentence for sentence, _ in SUPPORTED]
    assert listed[: len(sentences)] == sentences
