"""``rnn-xp export``: spellings, states, precisions, runtimes, whole forecasters, other models."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from test_cli_interchange import FLOAT32, NET, SCALER, export, write_run

import rnn_xp as rx
from rnn_xp import cli
from rnn_xp.forecasting import Forecaster
from rnn_xp.forecasting.files import load_fitted

pytestmark = pytest.mark.interchange


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Run in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "500")  # no line is broken
    pytest.importorskip("onnx", reason="onnx is not installed")


@pytest.fixture
def runtime():
    return pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")


def facts():
    import onnx

    props = onnx.load("run/model.onnx").metadata_props
    return json.loads({entry.key: entry.value for entry in props}["rnn_xp"])


def test_a_portable_graph_with_a_state_is_checked_in_every_runtime(runtime, capsys):
    write_run()
    asked = ["--spelling", "portable", "--stateful", "--lengths", "--steps", 4, "--check"]
    assert export("--to", "onnx", *asked) == 0
    out = capsys.readouterr().out
    assert "x (batch, 4, 1), lengths (batch), initial_h (2, batch, 4) -> pred (batch, 2)" in out
    for name in ("onnxruntime", "onnx"):
        assert f"check    {name} {__import__(name).__version__}: equal, within " in out
    assert facts().items() >= {"spelling": "portable", "stateful": True, "steps": 4}.items()


def test_a_wrong_result_has_status_1(runtime, capsys):
    write_run()
    assert export("--to", "onnx", "--lengths", "--check", "onnx") == 1
    assert "WRONG, by " in capsys.readouterr().out
    assert cli.main(["export", "run/model.onnx", "--check", "onnxruntime"]) == 0
    assert capsys.readouterr().out.startswith("check    onnxruntime ")


@pytest.mark.parametrize("runtime", [[], ["onnx"]], ids=["all", "named"])
@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "net.onnx: is no graph of ONNX: it is empty, or of another kind."),
        (b"a text\n", "net.onnx: is a damaged graph of ONNX ("),
        (None, "net.onnx: is a damaged graph of ONNX ("),
    ],
    ids=["empty", "text", "cut"],
)
def test_a_file_to_check_that_holds_no_graph_is_one_line(content, match, runtime, capsys):
    if content is None:
        write_run()
        assert export("--to", "onnx") == 0
        content = Path("run/model.onnx").read_bytes()[:-100]
        capsys.readouterr()
    Path("net.onnx").write_bytes(content)
    assert cli.main(["export", "net.onnx", "--check", *runtime]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"rnn-xp: error: {match}")
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_reduced_precision_says_what_it_costs_and_is_checked_by_that(runtime, dtype, capsys):
    write_run()
    asked = ["--spelling", "portable", "--scaler", "--dtype", dtype, "--check"]
    assert export("--to", "onnx", *asked) == 0
    out = capsys.readouterr().out
    assert f"{dtype}: predictions differ by up to " in out
    assert "check    onnxruntime" in out


def test_a_whole_forecaster_takes_values_and_gives_forecasts(runtime, capsys):
    series = 1e3 + np.cumsum(np.sin(np.arange(80) / 4.0))
    f = Forecaster(
        seq_length=5, horizon=2, hidden_size=3, epochs=2, target="diff", n_seeds=2, verbose=False,
        backend=FLOAT32,
    ).fit(series)  # fmt: skip
    Path("run").mkdir()
    f.save("run/model.safetensors")
    assert export("--to", "onnx", "--forecast", "--check", "onnxruntime") == 0
    out = capsys.readouterr().out
    assert "values (batch, 6) -> forecast (batch, 2)" in out
    assert "equal, within" in out
    session = runtime.InferenceSession("run/model.onnx")
    (forecast,) = session.run(None, {"values": series[None, -6:]})
    np.testing.assert_allclose(forecast[0], f.predict(), rtol=1e-6)


def test_a_module_of_torch_is_written_with_its_weights(capsys):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    params = write_run()
    assert export("--to", "torch", "--out", "net.py") == 0
    out = capsys.readouterr().out
    assert "wrote    net.py (" in out
    assert "weights in net.safetensors" in out
    names: dict[str, object] = {"__file__": str(Path("net.py").resolve()), "__name__": "net"}
    exec(Path("net.py").read_text(encoding="utf-8"), names)
    x = np.random.default_rng(1).standard_normal((5, 3, 1)).astype(np.float32)
    with torch.no_grad():
        pred = names["load"]()(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(pred, NET.forward(params, x)[0], rtol=0, atol=1e-6)
    assert export("--to", "torch", "--out", "net.py") == 2  # exists


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")
def test_a_file_of_keras_is_written_and_opens(capsys):
    keras = pytest.importorskip("keras", reason="keras is not installed")
    params = write_run()
    assert export("--to", "keras", "--out", "net.keras", "--scaler") == 0
    assert "units the data's own" in capsys.readouterr().out
    x = np.random.default_rng(1).normal(20.0, 3.0, (5, 3, 1)).astype(np.float32)
    pred, _ = NET.forward(params, SCALER.transform(x).astype(np.float32))
    opened = keras.saving.load_model("net.keras")
    np.testing.assert_allclose(opened.predict(x, verbose=0), SCALER.inverse_target(pred), rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            "--to onnx --for tract --lengths",
            "--for tract: tract 0.23.9 refuses lengths of recurrent",
        ),
        ("--to onnx --for mnn --spelling portable", "--for mnn: mnn 3.6.1 has no Scan. Export wi"),
        ("--to torch --for mnn", "--for is for --to onnx, not torch"),
        ("--to torch --spelling loop", "--spelling is for --to onnx, not torch"),
        ("--to onnx --batch 0", "--batch must be an integer >= 1, got 0"),
        ("--to onnx --dtype int8", "has no operator GRU of 8 bits. Use the portable spelling"),
        ("--to onnx --forecast --lengths", "--lengths cannot be given with --forecast"),
        ("", "give --to, one of torch, keras, onnx, onnx-train; or --check, with an ONNX file"),
        ("--check", "--check without --to needs an ONNX file, and run is none"),
        ("--to onnx --check tvm", "--check needs onnx and the runtime, and one is not installed"),
    ],
)
def test_bad_input_is_one_line_and_status_2(options, words, runtime, capsys):
    write_run()
    assert export(*options.split()) == 2
    error = capsys.readouterr().err
    assert error.startswith("rnn-xp: error: ")
    assert error.count("\n") == 1
    assert words in error


def test_what_a_runtime_computes_is_not_refused(capsys):
    write_run()
    assert export("--to", "onnx", "--for", "mnn", "--spelling", "loop", "--lengths") == 0
    assert load_fitted("run", FLOAT32).predictor.net == NET
    assert rx.Network(**facts()["network"]) == NET


@pytest.fixture
def forecaster():
    def train(*options):
        values = 5.0 + np.sin(np.arange(90) / 3.0)
        Path("wave.csv").write_text("\n".join(["level", *map(str, values)]) + "\n")
        words = ["train", "--data", "wave.csv", "--hidden-size", "3", "--seq-length", "5"]
        assert cli.main([*words, "--epochs", "1", "--out", "run", "--json", *options]) == 0

    return train


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "the linear path of run needs the steps before a piece"),
        (["--no-linear", "--bidirectional"], "two directions of run needs the steps after a piece"),
    ],
)
def test_what_cannot_be_predicted_piece_by_piece_has_no_stateful_graph(
    forecaster, options, message, capsys
):
    forecaster(*options)
    assert export("--to", "onnx", "--stateful") == 2
    assert message in capsys.readouterr().err
    assert not Path("run/model.onnx").exists()


def test_the_remedy_for_a_whole_forecaster_is_one_that_works(forecaster, capsys):
    forecaster()
    asked = ("--to", "onnx", "--forecast", "--for", "opencv")
    assert export(*asked) == 2
    assert "Export with --spelling portable --batch N." in capsys.readouterr().err
    assert export(*asked, "--spelling", "portable", "--batch", 1) == 0


def test_a_runtime_without_float64_gets_no_whole_forecaster(forecaster, capsys):
    forecaster()
    assert export("--to", "onnx", "--forecast", "--for", "mnn", "--spelling", "loop") == 2
    assert "Leave out --forecast to write the network alone" in capsys.readouterr().err
