"""``rnn-xp export`` and ``rnn-xp import``: files of a run for others, and runs of their files."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from exchange import random_params, same_bits

import rnn_xp as rx
from rnn_xp import checkpoint, cli
from rnn_xp._checks import install
from rnn_xp.cli import run_folder as runs
from rnn_xp.data.scalers import Scaler
from rnn_xp.forecasting.files import load_fitted, of_network, save_fitted
from rnn_xp.interchange import torch

FLOAT32, FLOAT64 = (rx.get_backend("numpy", dtype=name) for name in ("float32", "float64"))
NET = rx.Network(cell="gru", hidden_size=4, num_layers=2, dropout=0.1, output_size=2)
SCALER = Scaler("standard", (20.0,), (3.0,))
INTERCHANGE = pytest.mark.interchange


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Run in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "500")  # no line is broken


def write_run(folder="run", net=NET, dtype="float32", seq_length=3):
    params = random_params(net, 0, dtype)
    with runs.RunFolder(folder) as run:
        about = {"scaler": dataclasses.asdict(SCALER), "seq_length": seq_length}
        about["horizon"] = net.output_size
        backend = rx.get_backend("numpy", dtype=dtype)
        save_fitted(run.path / "model.safetensors", of_network(net, params, backend, about))
    return params


def export(*options):
    return cli.main(["export", "run", *map(str, options)])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("layout", ["torch", "keras"])
def test_export_and_import_give_the_same_run(layout, dtype, capsys):
    write_run(dtype=dtype)
    assert export("--to", layout) == 0
    out = capsys.readouterr().out
    assert f"wrote    run/{layout}.safetensors (" in out
    assert f"gates {'r,z,n' if layout == 'torch' else 'z,r,h'}" in out
    assert cli.main(["import", f"run/{layout}.safetensors", "--out", "back"]) == 0
    assert "wrote    back/model.safetensors" in capsys.readouterr().out
    again, first = (Path(folder, "model.safetensors").read_bytes() for folder in ("back", "run"))
    assert again == first


def test_any_file_of_a_run_can_be_exported_and_to_any_place():
    params = write_run()
    assert cli.main(["export", "run/model.safetensors", "--to", "torch", "--out", "there"]) == 0
    arrays, _ = checkpoint.load("there")
    assert same_bits(arrays, torch.to_state_dict(NET, params))


def test_nothing_is_replaced_unless_asked_for(capsys):
    write_run()
    assert export("--to", "torch") == 0
    assert export("--to", "torch") == 2
    assert "--out run/torch.safetensors exists already" in capsys.readouterr().err
    assert export("--to", "torch", "--force") == 0
    given = ["import", "run/torch.safetensors", "--out", "run"]
    before = Path("run/model.safetensors").read_bytes()
    Path("run/metrics.json").write_text("of an earlier run")
    assert cli.main(given) == 2
    assert cli.main([*given, "--force"]) == 0
    assert Path("run/model.safetensors").read_bytes() == before
    assert not Path("run/metrics.json").exists()


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("export nothing --to torch", "there is no file or folder nothing."),
        ("export . --to torch", ". is not a run: it has no model.safetensors."),
        ("export run --to torch --scaler", "--scaler is for --to onnx, not torch"),
        ("export run --to onnx --rows 3", "--rows is for --to onnx-train, not onnx"),
        ("export run --to onnx-train", "--to onnx-train needs --rows N"),
        ("export run --to onnx-train --rows 0", "--rows must be an integer >= 1, got 0"),
        ("export before --to torch", "PyTorch cannot express reset_after=False"),
        ("export run --to keras --out no/f", "--out no/f: there is no folder no."),
        ("import nothing --out new", "there is no file or folder nothing."),
        ("import run/model.safetensors --out new", "is of rnn_xp's own kind"),
        ("import theirs --out new", "give --seq-length T"),
        ("import theirs --seq-length 0 --out new", "--seq-length must be an integer >="),
        (
            "import ours --read mean --out new",
            "--read 'mean' contradicts the file, which says 'last'",
        ),
        (
            "import ours --rnn a --out new",
            "ours: --rnn, --readout and names= are for files of",
        ),
        ("import ours --seq-length 4 --out new", "--seq-length 4 contradicts ours, which says 3"),
        ("import noise --seq-length 3 --out new", "noise: is of no kind that is read"),
        ("import ours --out run", "run already exists"),
    ],
)
def test_bad_input_is_one_line_and_status_2_and_writes_nothing(command, words, capsys):
    write_run()
    write_run("before", rx.Network(cell="gru", hidden_size=3, reset_after=False))
    assert export("--to", "torch", "--out", "ours") == 0
    state = torch.to_state_dict(NET, random_params(NET, 0))
    safetensors.numpy.save_file(state, "theirs")
    Path("noise").write_bytes(bytes(range(256)))
    before = {path: path.stat().st_mtime_ns for path in Path().rglob("*") if path.is_file()}
    capsys.readouterr()
    assert cli.main(command.split()) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("rnn-xp: error: ")
    assert captured.err.count("\n") == 1
    assert words in captured.err
    after = {path: path.stat().st_mtime_ns for path in Path().rglob("*") if path.is_file()}
    assert after == before


@pytest.mark.parametrize(
    ("target", "extra", "module"),
    [("onnx", "onnx", "onnx"), ("onnx-train", "onnx-train", "ndonnx")],
)
def test_a_missing_package_is_one_line(target, extra, module, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    write_run()
    rows = ["--rows", 4] if target == "onnx-train" else []
    assert export("--to", target, *rows) == 2
    assert f"Install it with: {install(extra)}" in capsys.readouterr().err
    assert not list(Path("run").glob("*.onnx"))


@INTERCHANGE
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_graph_forecasts_in_the_units_of_the_data(dtype, capsys):
    pytest.importorskip("onnx", reason="onnx is not installed")
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    write_run(dtype=dtype)
    assert export("--to", "onnx", "--scaler", "--lengths") == 0
    out = capsys.readouterr().out
    assert "x (batch, time, 1), lengths (batch) -> pred (batch, 2)" in out
    assert "units the data's own" in out
    assert ("cast from float64 to float32" in out) == (dtype == "float64")
    x = np.random.default_rng(1).normal(20, 3, (5, 3, 1)).astype(np.float32)
    feed = {"x": x, "lengths": np.full(5, 3, np.int32)}
    (found,) = runtime.InferenceSession("run/model.onnx").run(None, feed)
    (params,) = load_fitted("run", FLOAT32).predictor.networks
    pred, _ = NET.forward(params, SCALER.transform(x).astype(np.float32))
    expected = SCALER.inverse_target(pred)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@INTERCHANGE
def test_a_training_step_takes_the_weights_of_the_run(capsys):
    pytest.importorskip("ndonnx", reason="ndonnx is not installed")
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    net = rx.Network(hidden_size=4, num_layers=2, dropout=0.1)
    params = write_run(net=net, seq_length=2)
    assert export("--to", "onnx-train", "--rows", 4, "--optimizer", "sgd") == 0
    out = capsys.readouterr().out
    assert "one update by SGD, loss mse, x and y scaled" in out
    assert "without dropout" in out
    session = runtime.InferenceSession("run/train.onnx")
    rng = np.random.default_rng(0)
    x, y = (rng.standard_normal(s).astype(np.float32) for s in ((4, 2, 1), (4, 1)))
    tensors = safetensors.numpy.load_file("run/model.safetensors")
    tensors = {name: tensors[name] for name in net.shapes}
    rate, step = np.asarray(0.5, np.float32), np.asarray(0)
    loss, *_ = session.run(["loss"], {**tensors, "x": x, "y": y, "learning_rate": rate,
                                      "step": step})  # fmt: skip
    expected, _ = net.value_and_grad(params, x, y)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
