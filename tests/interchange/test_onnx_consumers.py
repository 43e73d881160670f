"""Examples in the files of graphs, runs apart, reduced precision, and the faults of runtimes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from exchange import CELLS, random_params

import rnn_xp as rx
from benchmarks import consumers as benchmark
from rnn_xp.data.scalers import Scaler
from rnn_xp.interchange import compact, consumers, example, runtimes
from rnn_xp.interchange.onnx import to_onnx

RESULTS = json.loads(benchmark.RESULTS.read_text(encoding="utf-8"))
MEASURED = [name for name in consumers.NAMES if name in RESULTS]
INTERCHANGE = pytest.mark.interchange


def problem(name="lstm", hidden=3, **options):
    net = rx.Network(**CELLS[name], input_size=2, hidden_size=hidden, output_size=2, **options)
    return net, random_params(net, 0)


def file_of(folder, model, made=None):
    if made is not None:
        example.write(model, made)
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture
def onnx():
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    return pytest.importorskip("onnx", reason="onnx is not installed")


@INTERCHANGE
class TestExamples:
    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"lengths": True, "stateful": True},
            {"scaler": Scaler("standard", (50.0, -3.0), (20.0, 0.5)), "rows": 2, "steps": 4},
        ],
    )
    def test_a_file_carries_what_the_library_predicts(self, onnx, options, tmp_path):
        net, params = problem(num_layers=2, bidirectional=True)
        made = example.make_example(net, params, **options)
        path = file_of(tmp_path, to_onnx(net, params, **options), made)
        kept = example.example_of(onnx.load(str(path)))
        for before, after in ((made.inputs, kept.inputs), (made.outputs, kept.outputs)):
            assert list(before) == list(after)
            assert all(before[name].tobytes() == after[name].tobytes() for name in before)
            assert all(before[name].dtype == after[name].dtype for name in before)
        checked = example.check(path, "onnxruntime")
        assert checked.ok
        assert 0.0 <= checked.error < 1e-6
        assert checked.version == runtimes.version_of("onnxruntime")

    def test_a_runtime_that_ignores_lengths_is_found_out(self, onnx, tmp_path):
        """onnx's evaluator does, unless they are spelled out."""
        net, params = problem()
        made = example.make_example(net, params, lengths=True)
        native = file_of(tmp_path, to_onnx(net, params, lengths=True), made)
        checked = example.check(native, "onnx")
        assert not checked.ok
        assert checked.error > 0.01
        portable = to_onnx(net, params, lengths=True, spelling="portable")
        assert example.check(file_of(tmp_path, portable, made), "onnx").ok

    def test_a_refusal_is_told_in_the_words_of_the_runtime(self, onnx, tmp_path):
        net, params = problem("rnn-relu")
        path = file_of(tmp_path, to_onnx(net, params), example.make_example(net, params))
        checked = example.check(path, "onnx")
        assert (checked.ok, checked.error) == (False, None)
        assert "Unknown activation function 'Relu'" in checked.message

    def test_files_without_an_example_or_with_that_of_another_graph_are_errors(self, onnx):
        net, params = problem()
        model = to_onnx(net, params)
        with pytest.raises(ValueError, match="has no example in its metadata"):
            example.example_of(model)
        example.write(model, example.make_example(net, params, lengths=True))
        with pytest.raises(ValueError, match="is of another graph"):
            example.example_of(model)
        model.metadata_props[-1].value = '{"inputs": {}}'
        with pytest.raises(ValueError, match="cannot be read: 'outputs'"):
            example.example_of(model)

    def test_a_runtime_that_is_not_known_is_an_error(self, onnx, tmp_path):
        with pytest.raises(ValueError, match="runtime='nothing' is not known. Valid: onnxruntime,"):
            example.check(tmp_path / "model.onnx", "nothing")


def test_shapes_and_numbers_that_are_not_finite_are_no_small_errors():
    made = example.Example({}, {"pred": np.ones((2, 1), np.float32)})
    assert example.error_of({"pred": np.full((2, 1), np.nan)}, made) == np.inf
    assert example.error_of({"pred": np.full((2, 1), 1.5)}, made) == 0.5
    with pytest.raises(RuntimeError, match=r"pred has shape \(1, 2\) instead of \(2, 1\)"):
        example.error_of({"pred": np.ones((1, 2))}, made)


def test_a_runtime_that_hangs_is_ended(tmp_path):
    slow = tmp_path / "python"
    slow.write_text(f"#!{sys.executable}\nimport time\ntime.sleep(60)\n")
    slow.chmod(0o755)
    (tmp_path / "model.onnx").write_bytes(b"")
    feed = [{"x": np.zeros(1)}]
    with pytest.raises(RuntimeError, match=r"did not end within 0\.2 s"):
        runtimes.run_apart(
            tmp_path / "model.onnx", "onnx", feed, ["y"], python=str(slow), limit=0.2
        )


def test_a_runtime_that_ends_the_process_is_said_to(tmp_path):
    ending = tmp_path / "python"
    ending.write_text("#!/bin/sh\nexit 134\n")
    ending.chmod(0o755)
    (tmp_path / "model.onnx").write_bytes(b"")
    with pytest.raises(RuntimeError, match="^ended the process$"):
        runtimes.run_apart(
            tmp_path / "model.onnx", "onnx", [{"x": np.zeros(1)}], ["y"], python=str(ending)
        )


@INTERCHANGE
@pytest.mark.parametrize("name", ["lstm", "gru", "rnn-relu"])
def test_weights_of_8_bits_cost_a_measured_little(onnx, name):
    net, params = problem(name, hidden=16)
    many = example.make_example(net, params, rows=64, steps=8)
    model = to_onnx(net, params, spelling="portable")
    small = compact.quantize(model)
    kinds = {tensor.data_type for node in small.graph.node for a in node.attribute
             if a.HasField("g") for tensor in a.g.initializer}  # fmt: skip
    assert onnx.TensorProto.INT8 in kinds  # inside the Scan, too
    assert 1e-4 < compact.measure_loss(small, many) < 0.2
    half = to_onnx(net, params, spelling="portable", dtype="float16")
    assert 1e-6 < compact.measure_loss(half, many) < 5e-3
    assert compact.measure_loss(model, many) < 1e-6


@INTERCHANGE
def test_an_operator_without_8_bits_is_an_error(onnx):
    net, params = problem("gru")
    with pytest.raises(ValueError, match="has no operator GRU of 8 bits. Use the portable"):
        compact.quantize(to_onnx(net, params))


def rows_of(consumer):
    """The measured rows of a runtime, each with the network and the arguments it was made of."""
    for row in RESULTS[consumer]["rows"]:
        net, _, _ = benchmark.examples(
            row["cell"], row["layers"], row["directions"], row["option"], ()
        )
        form, _ = benchmark.FORMS[row["form"]]
        yield row, net, {**form, **benchmark.OPTIONS[row["option"]]}


def test_what_must_be_shown_was_measured():
    assert {"onnxruntime", "onnx", "openvino", "tract", "mnn"} <= RESULTS.keys()
    wanted = {"onnxruntime": "portable", "onnx": "portable", "openvino": "portable",
              "tract": "portable", "mnn": "loop"}  # fmt: skip
    for consumer, form in wanted.items():
        rows = [
            row for row in RESULTS[consumer]["rows"]
            if row["form"] == form and row["option"] in ("full", "lengths")
        ]  # fmt: skip
        assert len(rows) == 2 * len(benchmark.CELLS) * len(benchmark.EVERY)
        assert all(row["error"] is not None and row["error"] < 1e-5 for row in rows), consumer


@pytest.mark.parametrize("consumer", MEASURED)
def test_what_is_wrong_is_refused_and_what_is_right_is_not(consumer):
    if consumer not in RESULTS:
        pytest.fail(
            f"{consumer} was not measured: python -m benchmarks.consumers --only {consumer}"
        )
    bad, good = {}, {}
    for row, net, options in rows_of(consumer):
        key = (row["form"], row["option"], row["cell"])
        right = row["error"] is not None and row["error"] <= benchmark.BOUND
        (good if right else bad)[key] = (net, options)
    for net, options in bad.values():
        assert consumers.refusal(consumer, net, **options) is not None, (net, options)
    for key in good.keys() - bad.keys():
        net, options = good[key]
        assert consumers.refusal(consumer, net, **options) is None, (key, options)


@pytest.mark.parametrize("consumer", MEASURED)
def test_remedies_are_not_refused_and_were_equal(consumer):
    for known in consumers.KNOWN:
        if known.consumer != consumer:
            continue
        assert known.version == RESULTS[consumer]["version"]
        options = {"spelling": "loop" if "'loop'" in known.remedy else "portable"}
        options |= {"steps": 5} if "steps=T" in known.remedy else {}
        options |= {"rows": 3} if "rows=N" in known.remedy else {}
        (form,) = (name for name, (o, _) in benchmark.FORMS.items() if o == options)
        rows = [row for row in RESULTS[consumer]["rows"] if row["form"] == form]
        assert rows
        assert all(row["error"] is not None and row["error"] < 1e-5 for row in rows)


def test_a_refusal_names_version_reason_and_remedy():
    net, _ = problem("rnn-relu")
    assert consumers.refusal("tract", net) == (
        "tract 0.23.9 computes an RNN with relu as one with tanh. Export with "
        "spelling='portable' (--spelling portable)."
    )
    assert consumers.refusal("tract", net, spelling="portable") is None
    with pytest.raises(ValueError, match="consumer='onnxruntime' is not known. Valid: 'openvino',"):
        consumers.refusal("onnxruntime", net)


def test_the_page_holds_the_table_of_the_results():
    text = benchmark.PAGE.read_text(encoding="utf-8")
    assert benchmark.BEGIN + benchmark.table(RESULTS) + benchmark.END in text


def test_the_table_says_which_cells_are_wrong_and_by_how_much():
    def row(cell, error, refusal=""):
        return {"cell": cell, "error": error, "refusal": refusal}

    rows = [row("tanh", 1e-7), row("tanh", 2e-7), row("relu", 0.5), row("relu", 3e-7)]
    text = "equal 3e-07: tanh, relu 1/2; wrong by 0.5: relu 1/2"
    assert benchmark.summary(rows) == text
    assert benchmark.summary(rows[:2]) == "equal 2e-07"
    ended = [row("gru", None, "ended the process"), row("lstm", None, "no LSTM")]
    assert benchmark.summary(ended) == "refused: lstm; ends the process: gru"


def test_runs_apart_need_numpy_and_the_runtime_alone():
    source = Path(runtimes.__file__).read_text(encoding="utf-8")
    assert "rnn_xp." not in source.split('"""', 2)[2]
