"""``rnn-xp import``: models of others as runs, what is assumed, and what is refused."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from exchange import random_params, same_bits
from foreign import torch_zip

import rnn_xp as rx
from rnn_xp import cli
from rnn_xp.data.scalers import Scaler
from rnn_xp.forecasting.files import load_fitted
from rnn_xp.interchange import torch

NET = rx.Network(cell="gru", hidden_size=4)


def write(name="theirs.pt", net=NET, **names):
    params = random_params(net, 0)
    Path(name).write_bytes(torch_zip64(torch.to_state_dict(net, params, **names)))
    return params


def torch_zip64(state):
    return torch_zip({name: array.astype(np.float64) for name, array in state.items()})


def model(folder="new", dtype="float64"):
    return load_fitted(folder, rx.get_backend("numpy", dtype=dtype))


def run(*words):
    return cli.main(["import", *map(str, words)])


def test_what_arrays_do_not_show_is_said_by_options():
    net = rx.Network(activation="relu", read="mean", input_size=2, hidden_size=5, output_size=3,
                     output_activation="tanh")  # fmt: skip
    params = random_params(net, 0)
    state = torch.to_state_dict(net, params, rnn="core", readout="fc.0")
    safetensors.numpy.save_file(state | {"other.weight": np.ones((2, 5), "f4")}, "theirs")
    words = ["--seq-length", 7, "--activation", "relu", "--read", "mean", "--rnn", "core"]
    words += ["--readout", "fc.0", "--output-activation", "tanh", "--topology", "many_to_one"]
    assert run("theirs", "--out", "new/run", *words, "--scaler", "standard:20,1.5:3,0.1") == 0
    fitted = model("new/run", "float32")
    assert (fitted.predictor.net, fitted.settings.seq_length, fitted.settings.horizon) == (
        net,
        7,
        3,
    )
    assert fitted.designs[0].scaler == Scaler("standard", (20.0, 1.5), (3.0, 0.1))
    assert same_bits(fitted.predictor.networks[0], params)


def test_a_file_of_pytorch_becomes_a_run_and_what_was_assumed_is_printed(capsys):
    write()
    assert run("theirs.pt", "--out", "new", "--seq-length", 10) == 0
    assert capsys.readouterr().out.splitlines()[:1] == ["wrote    new/model.safetensors"]
    assert model().predictor.net == NET
    assert run("theirs.pt", "--out", "new", "--seq-length", 10, "--force") == 0
    lines = capsys.readouterr().out.splitlines()[2:]
    assert lines == [
        "         from a file of the kind: PyTorch zip file",
        "assumed  topology: many_to_one",
        "assumed  read: last",
        "assumed  output activation: identity",
        "assumed  scaler: none",
    ]


@pytest.mark.parametrize("command", ["forecast", "evaluate"])
def test_a_model_without_its_scaler_says_so_before_it_is_given_raw_values(
    command, small_csv, capsys
):
    write()
    assert run("theirs.pt", "--out", "bare", "--seq-length", 10) == 0
    assert run("theirs.pt", "--out", "scaled", "--seq-length", 10, "--scaler", "standard:1:2") == 0
    capsys.readouterr()
    warning = (
        "rnn-xp: warning: bare was imported without a scaler: its network is given raw values. "
        "If it was trained on scaled ones, import it again with --scaler.\n"
    )
    for folder, expected in (("bare", warning), ("scaled", "")):
        assert cli.main([command, folder, "--data", small_csv, "--column", "level"]) == 0
        assert capsys.readouterr().err == expected


def test_a_scaler_is_applied_to_the_values_and_undone_on_the_forecast(small_csv):
    params = write()
    assert run("theirs.pt", "--out", "new", "--seq-length", 10, "--scaler", "standard:1:2") == 0
    series = rx.datasets.read_csv(small_csv, column="level")
    x = ((series.values[-10:] - 1.0) / 2.0).reshape(1, 10, 1)
    pred, _ = NET.forward({name: array.astype(float) for name, array in params.items()}, x)
    forecast = rx.Forecaster.load("new", rx.get_backend("numpy", dtype="float64")).apply(series)
    np.testing.assert_allclose(forecast.predict(1), pred[0] * 2.0 + 1.0, rtol=1e-12)


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ("theirs.pt --seq-length 3 --activation relu", "--activation 'relu' needs cell='rnn'"),
        (
            "theirs.pt --seq-length 3 --rnn lstm",
            "no recurrent module named 'lstm'; it has rnn.",
        ),
        ("theirs.pt --seq-length 3 --scaler none:0,0:1,1", "the scaler has 2 columns, but theirs"),
        (
            "theirs.pt --seq-length 3 --topology many_to_many --read max",
            "--read max needs --topolo",
        ),
        ("two.pt --seq-length 3", "2: fc, readout. A network here has one readout; --readout says"),
        ("word.docx --seq-length 3", "word.docx: is of no kind that is read"),
        ("folder --seq-length 3", "folder: is a folder; a file is required."),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(words, match, capsys):
    write()
    two = torch.to_state_dict(NET, random_params(NET, 0)) | {"fc.weight": np.ones((1, 4))}
    Path("two.pt").write_bytes(torch_zip64(two))
    Path("word.docx").write_bytes(b"D")
    Path("folder").mkdir()
    assert run(*words.split(), "--out", "new") == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("rnn-xp: error: ")
    assert captured.err.count("\n") == 1
    assert match in captured.err
    assert not Path("new").exists()


@pytest.mark.parametrize(
    "text", ["standard", "standard:1", "standard:a:1", "other:1:1", "none:1:0"]
)
def test_a_scaler_that_does_not_parse_is_an_error_of_the_option(text, capsys):
    with pytest.raises(SystemExit, match="^2$"):
        run("theirs.pt", "--out", "new", "--scaler", text)
    assert f"argument --scaler: {text!r} is no scaler such as standard:20:3" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("data", "module", "extra"),
    [
        (b"\x89HDF\r\n\x1a\n", "h5py", "keras-files"),
        (b"\x08\x08\x12\x06rnn_xp" + bytes(9), "onnx", "onnx"),
    ],
)
def test_a_missing_package_is_named_with_its_extra(data, module, extra, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    Path("file").write_bytes(data)
    assert run("file", "--out", "new", "--seq-length", 3) == 2
    assert f"{module} is required to read" in (message := capsys.readouterr().err)
    assert f"[{extra}]" in message


def test_a_file_of_ours_needs_no_words():
    scaler = Scaler("standard", (20.0,), (3.0,))
    about = {"scaler": dataclasses.asdict(scaler), "seq_length": 7, "horizon": 1}
    rx.interchange.files.save("ours", "torch", NET, random_params(NET, 0), about)
    assert run("ours", "--out", "new") == 0
    assert model().designs[0].scaler == scaler
    assert model().settings.seq_length == 7
