"""One product line: what ``train`` saves is what ``forecast`` uses and ``backtest`` judges."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

import rnn_xp as rx
from rnn_xp import checkpoint, cli, plotting
from rnn_xp.cli.summary import git_revision
from rnn_xp.forecasting import training

SMALL = ("--epochs", 6, "--hidden-size", 4, "--seq-length", 8)
VALUES = (
    10.0 + np.sin(np.arange(260) / 4.0) + 0.1 * np.random.default_rng(0).standard_normal(260)
).round(5)
CUT = 208


@pytest.fixture(autouse=True)
def wave(request, tmp_path, monkeypatch):
    """A folder to work in, with a series and its training part, and mostly without pictures."""
    if "picture" not in request.node.name:
        monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    for name in ("BACKEND", "DEVICE", "DTYPE"):
        monkeypatch.delenv(f"RNN_XP_{name}", raising=False)
    days = np.datetime64("2024-01-01") + np.arange(len(VALUES))
    for name, rows in (("wave", len(VALUES)), ("known", CUT)):
        text = "".join(f"{d},{v}\n" for d, v in zip(days[:rows], VALUES[:rows], strict=True))
        Path(f"{name}.csv").write_text("day,level\n" + text)


def run(*words):
    return cli.main(list(map(str, words)))


def said(capsys, *words):
    capsys.readouterr()
    assert run(*words, "--json") == 0
    return json.loads(capsys.readouterr().out)


def refused(capsys, *words):
    capsys.readouterr()
    assert run(*words) == 2
    return capsys.readouterr().err


def train(*options, out="run"):
    assert run("train", "--data", "wave.csv", *SMALL, *options, "--out", out) == 0


def column(path, name):
    with open(path, newline="") as file:
        return np.asarray([float(row[name]) for row in csv.DictReader(file)])


class TestOneModel:
    @pytest.mark.parametrize(
        "options",
        [
            (),
            ("--horizon", 2, "--target", "diff", "--intervals", "split"),
            ("--horizon", 3, "--strategy", "recursive", "--cell", "gru"),
            ("--horizon", 2, "--intervals", "quantile"),
            ("--batch-size", 50, "--level", 0.8, "--seeds", 2),
            ("--layers", 2, "--dropout", 0.1, "--no-linear", "--validation", 0.3),
        ],
        ids=lambda options: "-".join(map(str, options)).replace("--", ""),
    )
    def test_train_forecast_and_backtest_agree(self, options, capsys):
        train(*options)
        trained = json.loads(Path("run/metrics.json").read_text())
        words = ("backtest", "--data", "wave.csv", *SMALL, *options)
        tested = said(capsys, *words, "--csv", "tested.csv")
        evaluated = said(capsys, "evaluate", "run")
        for name in ("metrics", "per_step", "scores", "verdict", "level"):
            assert trained[name] == tested[name] == evaluated[name], name
        for name in ("truth", "persistence", "low", "high"):
            a, b = column("run/predictions.csv", name), column("tested.csv", name)
            assert np.array_equal(a, b), name
        ours = column("run/predictions.csv", trained["scores"][-1]["name"])
        assert np.array_equal(ours, column("tested.csv", "forecast"))
        # Where the training part ends, the first forecast of the backtest is the forecast.
        ahead = said(capsys, "forecast", "run", "--data", "known.csv")["forecast"]
        np.testing.assert_allclose(ahead, ours[: len(ahead)], rtol=1e-6)

    def test_it_is_the_forecaster_of_python(self, capsys):
        train("--horizon", 2)
        ours = rx.Forecaster.load("run")
        theirs = rx.Forecaster(seq_length=8, horizon=2, hidden_size=4, epochs=6, verbose=False).fit(
            VALUES[:CUT]
        )
        (a,), (b,) = ours.predictor_.networks, theirs.predictor_.networks
        assert a.keys() == b.keys()
        assert all(np.array_equal(a[name], b[name]) for name in a)
        assert np.array_equal(ours.predict(5), theirs.predict(5))
        for mine, other in zip(ours.predict_interval(), theirs.predict_interval(), strict=True):
            assert np.array_equal(mine, other)
        judged = theirs.evaluate(VALUES)
        assert judged.metrics == json.loads(Path("run/metrics.json").read_text())["metrics"]
        found = said(capsys, "forecast", "run", "--steps", 4)
        again = theirs.apply(VALUES)
        np.testing.assert_array_equal(found["forecast"], again.predict(4))
        np.testing.assert_array_equal([found["low"], found["high"]], again.predict_interval())

    def test_what_it_says_and_leaves(self, capsys):
        train()
        out = capsys.readouterr().out
        for words in (
            "train 208 rows -> 200 windows | test 52 rows -> 52 forecasts (by time)",
            "validation: the last 15 % of the windows, after a gap; 162 are trained on",
            "RNN 1x4 (tanh), linear path from 8 steps + readout 1: 37 parameters",
            "full batch of 162, Levenberg-Marquardt (37 parameters are few",
            "keeping the parameters of epoch",
            "interval 90 %: covers",
            "verdict  rnn",
        ):
            assert words in out
        assert {path.name for path in Path("run").iterdir()} == {
            "config.toml", "last.safetensors", "best.safetensors", "model.safetensors",
            "history.csv", "metrics.json", "predictions.csv", "report.html",
        }  # fmt: skip
        assert run("info", "run") == 0
        out = capsys.readouterr().out
        assert "linear path from 8 steps" in out
        assert "interval 90 %, adaptive" in out

    def test_plain_is_the_network_alone(self, capsys):
        train("--plain", "--epochs", 5)
        x, y = rx.make_windows(
            ((VALUES[:CUT] - VALUES[:CUT].mean()) / VALUES[:CUT].std()).astype("float32"), 8
        )
        result = rx.fit(
            rx.Network(hidden_size=4), x, y, optimizer=rx.optim.suited(29, len(x)), epochs=5
        )
        (params,) = rx.Forecaster.load("run").predictor_.networks
        assert all(np.array_equal(params[name], p) for name, p in result.params.items())
        assert column("run/history.csv", "loss").tolist() == result.history["loss"]
        assert len(column("run/predictions.csv", "rnn")) == 260 - CUT - 8
        assert not Path("run/best.safetensors").exists()
        assert "low" not in said(capsys, "forecast", "run")
        assert "run has no intervals: it was trained without. Leave out --level" in refused(
            capsys, "forecast", "run", "--level", 0.5
        )

    @pytest.mark.full
    def test_the_script_of_the_reference_workload_is_plain(self, capsys):
        script = str(Path(cli.__file__).parents[2] / "scripts" / "train.py")
        words = ["--data", "wave.csv", *map(str, SMALL), "--json", "--out"]
        for options, windows in ((["a"], 200), (["b", "--no-plain"], 162)):
            process = subprocess.run(
                [sys.executable, script, *words, *options], capture_output=True, text=True,
                env={"PYTHONPATH": str(Path(cli.__file__).parents[2])}, check=True,
            )  # fmt: skip
            assert json.loads(process.stdout)["split"]["train_windows"] == windows


class TestForecast:
    def test_intervals_of_any_level_up_to_the_horizon(self, capsys):
        train("--horizon", 2)
        narrow = said(capsys, "forecast", "run", "--level", 0.5, "--steps", 3)
        wide = said(capsys, "forecast", "run", "--level", 0.9, "--csv", "out.csv", "--steps", 3)
        assert len(wide["forecast"]) == 3
        for low, inner, value, other, high in zip(
            wide["low"], narrow["low"], wide["forecast"][:2], narrow["high"], wide["high"],
            strict=True,
        ):  # fmt: skip
            assert low < inner < value < other < high
        with open("out.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        np.testing.assert_allclose([float(row["low"]) for row in rows[:2]], wide["low"])
        np.testing.assert_allclose([float(row["high"]) for row in rows[:2]], wide["high"])
        assert (rows[2]["low"], rows[2]["high"], rows[2]["date"]) == ("", "", "2024-09-19")
        capsys.readouterr()
        assert run("forecast", "run", "--level", 0.5) == 0
        out = capsys.readouterr().out
        assert "interval 50 %" in out
        assert f"{narrow['forecast'][0]:.6g}  [{narrow['low'][0]:.6g}, " in out
        assert run("forecast", "run", "--level", 50) == 0  # in percent
        assert out == capsys.readouterr().out
        assert "--level must be" in refused(capsys, "forecast", "run", "--level", 100)

    def test_too_few_errors_for_the_level(self, capsys):
        train()
        assert "an interval of 0.999 needs the errors of 999 windows or more" in refused(
            capsys, "forecast", "run", "--level", 0.999
        )
        # The file of a training's state has none: the forecast is there, and the reason.
        Path("other").mkdir()
        Path("other/model.safetensors").write_bytes(Path("run/best.safetensors").read_bytes())
        capsys.readouterr()
        assert run("forecast", "other", "--data", "wave.csv") == 0
        assert "note     no interval: an interval of 0.9 needs the errors of 9 windows" in (
            capsys.readouterr().out
        )
        found = said(capsys, "evaluate", "other", "--data", "wave.csv")
        assert found["level"] is None
        assert found["metrics"]["rmse"] > 0.0

    @pytest.mark.pictures
    def test_a_picture_with_its_interval(self, monkeypatch, capsys):
        pytest.importorskip("matplotlib")
        train("--horizon", 3)
        drawn = []
        outlook = plotting.outlook
        monkeypatch.setattr(
            plotting, "outlook", lambda *a, **o: drawn.append(outlook(*a, **o)) or drawn[-1]
        )
        assert run("forecast", "run", "--steps", 5, "--png", "out.png") == 0
        assert Path("out.png").read_bytes().startswith(b"\x89PNG")
        labels = [text.get_text() for text in drawn[0].get_legend().get_texts()]
        assert labels == ["90 % interval", "so far", "forecast"]


class TestOthers:
    def test_a_graph_of_a_forecaster_forecasts_the_same(self, capsys):
        pytest.importorskip("onnx", reason="onnx is not installed")
        runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
        train("--horizon", 2)
        assert run("export", "run", "--to", "onnx", "--scaler") == 0
        x = VALUES[-8:].astype(np.float32)[None, :, None]
        (found,) = runtime.InferenceSession("run/model.onnx").run(None, {"x": x})
        np.testing.assert_allclose(found[0], said(capsys, "forecast", "run")["forecast"], rtol=1e-5)

    def test_a_network_without_linear_path_goes_to_torch_and_back(self, capsys):
        train("--no-linear", "--target", "diff")
        assert run("export", "run", "--to", "torch") == 0
        assert run("import", "run/torch.safetensors", "--out", "back") == 0
        words = ("--data", "wave.csv", "--steps", 4)
        a, b = (said(capsys, "forecast", name, *words)["forecast"] for name in ("run", "back"))
        assert a == b

    def test_what_cannot_be_exported(self, capsys):
        train("--target", "diff")
        assert "--to torch has no form for the linear path of run. Give --to onnx, or" in refused(
            capsys, "export", "run", "--to", "torch"
        )
        assert "is given changes, not the values of the series (--target diff)" in refused(
            capsys, "export", "run", "--to", "onnx", "--scaler"
        )
        train("--seeds", 2, "--no-fallback", out="two")
        assert "two averages 2 networks, but other systems are given one" in refused(
            capsys, "export", "two", "--to", "onnx"
        )

    @pytest.mark.parametrize("options", [(), ("--horizon", 2, "--intervals", "quantile")])
    def test_explain_takes_its_network_and_windows(self, options, capsys):
        train("--target", "diff" if not options else "level", *options)
        found = said(capsys, "explain", "--run", "run", "--rows", 20, "--check")
        assert found["network"]["linear_lags"] == 8
        assert found["check"]["errors"]
        assert found["loss"] > 0.0


class TestSeveralNetworks:
    def test_their_histories_follow_each_other(self):
        train("--seeds", 2, "--patience", 99)
        assert column("run/history.csv", "network").tolist() == [0.0] * 6 + [1.0] * 6
        assert not Path("run/last.safetensors").exists()
        assert "--seeds 2 trains several networks" not in Path("run/config.toml").read_text()

    def test_interrupted_they_leave_nothing(self, monkeypatch, capsys):
        def kill(*args, callbacks, **more):
            def raise_it(epoch):
                if epoch.number == 2:
                    signal.raise_signal(signal.SIGTERM)

            return rx.fit(*args, callbacks=[raise_it, *callbacks], **more)

        monkeypatch.setattr(training, "fit", kill)
        words = ("--seeds", 2, "--out", "run", "--json")
        assert run("train", "--data", "wave.csv", *SMALL, *words) == 128 + signal.SIGTERM
        assert "several networks cannot be resumed: nothing was written" in capsys.readouterr().err
        assert not Path("run").exists()


class TestFilesOfBefore:
    def test_a_training_of_another_version_is_not_resumed(self, capsys):
        train()
        arrays, about = checkpoint.load("run/last.safetensors")
        del about["arguments"]["plain"]
        checkpoint.save("run/last.safetensors", arrays, about)
        assert "--resume run is a run of another version" in refused(
            capsys, "train", "--resume", "run"
        )

    def test_its_model_is_read(self, capsys):
        train("--plain")
        expected = said(capsys, "evaluate", "run"), said(capsys, "forecast", "run", "--steps", 5)
        fitted = rx.Forecaster.load("run").fitted
        network, scaler = map(asdict, (fitted.predictor.net, fitted.designs[0].scaler))
        about = {
            "schema": 1, "network": network, "seq_length": 8, "horizon": 1,
            "scaler": scaler,
        }  # fmt: skip
        checkpoint.save("run/model.safetensors", fitted.predictor.networks[0], about)
        found = said(capsys, "evaluate", "run"), said(capsys, "forecast", "run", "--steps", 5)
        assert found == expected


class TestRevision:
    def test_it_is_that_of_the_checkout_itself(self, tmp_path):
        def git(*words):
            subprocess.run(["git", "-C", str(tmp_path), *words], check=True, capture_output=True)

        package = tmp_path / "rnn_xp"
        package.mkdir()
        (package / "__init__.py").write_text("")
        inside = tmp_path / ".venv" / "lib" / "rnn_xp"
        inside.mkdir(parents=True)
        git("init", "-q")
        assert git_revision(package) is None
        git("add", "rnn_xp")
        git("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "it")
        found = subprocess.run(
            ["git", "-C", str(tmp_path), "rev-parse", "HEAD"], capture_output=True, text=True
        ).stdout
        revision = git_revision(package)
        assert revision
        assert found.startswith(revision)
        assert git_revision(inside) is None, "the repository of another project encloses it"
