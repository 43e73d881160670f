"""The command line: the run folder, what it prints, and what it refuses."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

import rnn_xp as rx
from rnn_xp import cli, metrics, runs
from rnn_xp.forecasting import Score, verdict

ROOT = Path(__file__).parents[1]
FILES = {
    "model.safetensors", "config.toml", "history.csv", "metrics.json", "predictions.csv",
    "loss.png", "forecast.png",
}  # fmt: skip


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Run in an empty folder."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def small_csv(tmp_path):
    """120 days of a noisy wave, with dates."""
    rng = np.random.default_rng(0)
    days = np.datetime64("2024-01-01") + np.arange(120)
    values = np.sin(np.arange(120) / 5.0) + 0.1 * rng.standard_normal(120)
    text = "day,level\n" + "".join(f"{d},{v:.5f}\n" for d, v in zip(days, values, strict=True))
    (tmp_path / "tide.csv").write_text(text)
    return "tide.csv"


def train(*options):
    return cli.main(["train", "--epochs", "3", *options])


class TestTrain:
    def test_reference_workload(self, capsys):
        assert train() == 0
        folder = Path("runs/length_of_day-rnn-1")
        assert {f.name for f in folder.iterdir()} == FILES
        out = capsys.readouterr().out
        for words in (
            "length_of_day: 10409 rows 1997-07-03..2025-12-31, sha256 eb1993d5",
            "train 8327 rows -> 8317 windows | test 2082 rows -> 2072 windows",
            "RNN 1x50 (tanh) + readout 1: 2651 parameters",
            "full batch of 8317, L-BFGS (a full-batch gradient is exact",
            "RMSE ms",
            "persistence       0.1660     0.1423      1.278      0.0 %",
            "linear AR(10)     0.0563     0.0443      0.398     66.1 %",
            "rnn does NOT beat linear AR(10)",
            "wrote    runs/length_of_day-rnn-1/",
        ):
            assert words in out

    def test_files_agree_with_each_other(self, capsys):
        assert train("--out", "run", "--json") == 0
        printed = json.loads(capsys.readouterr().out)
        written = json.loads(Path("run/metrics.json").read_text())
        assert {k: v for k, v in printed.items() if k != "out"} == {
            k: v for k, v in written.items() if k != "schema"
        }
        with open("run/predictions.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == 2072
        assert rows[0]["date"] == "2020-04-30"
        assert rows[-1]["date"] == "2025-12-31"
        truth = np.asarray([float(row["truth"]) for row in rows])
        for score in written["scores"]:
            forecast = np.asarray([float(row[score["name"]]) for row in rows])
            assert metrics.rmse(truth, forecast) == pytest.approx(score["rmse"], rel=1e-6)
            assert metrics.mae(truth, forecast) == pytest.approx(score["mae"], rel=1e-6)
        # Persistence is the truth of the day before.
        yesterday = np.asarray([float(row["persistence"]) for row in rows])
        assert np.array_equal(yesterday[1:], truth[:-1])

        with open("run/history.csv", newline="") as file:
            losses = [float(row["loss"]) for row in csv.DictReader(file)]
        assert losses == pytest.approx([*losses[:-1], written["final_loss"]])
        assert len(losses) == written["epochs"] == 3
        config = tomllib.loads(Path("run/config.toml").read_text())
        assert config == {k: v for k, v in written["config"].items() if v is not None}
        assert (config["optimizer"], config["seed"], config["dtype"]) == ("lbfgs", 0, "float32")

    def test_the_saved_model_is_the_one_that_was_scored(self, capsys):
        assert train("--out", "run") == 0
        backend = rx.get_backend("numpy", dtype="float32")
        model = runs.load_model("run", backend)
        series = rx.datasets.load("length_of_day").values
        x, y = rx.make_windows(series[8327:], model.seq_length)
        pred = model.predict(model.scaler.transform(x), backend)
        rmse = json.loads(Path("run/metrics.json").read_text())["scores"][-1]["rmse"]
        assert metrics.rmse(y, pred) == pytest.approx(rmse, rel=1e-5)

    def test_pictures_are_pictures(self):
        assert train("--out", "run") == 0
        for name in ("loss.png", "forecast.png"):
            data = Path("run", name).read_bytes()
            assert data.startswith(b"\x89PNG")
            assert len(data) > 10_000

    def test_your_own_csv(self, small_csv, capsys):
        assert train("--data", small_csv, "--seq-length", "8", "--horizon", "3") == 0
        out = capsys.readouterr().out
        assert "tide: 120 rows 2024-01-01..2024-04-29" in out
        assert "train 96 rows -> 86 windows" in out
        assert "linear AR(8)" in out
        rows = Path("runs/tide-rnn-1/predictions.csv").read_text().splitlines()
        assert rows[0].startswith("date_of_step_1,step,truth,persistence,")
        assert len(rows) == 1 + 14 * 3
        scores = json.loads(Path("runs/tide-rnn-1/metrics.json").read_text())["scores"]
        assert [len(score["rmse_per_step"]) for score in scores] == [3, 3, 3]

    def test_minibatches_choose_adam_and_say_why(self, small_csv, capsys):
        assert train("--data", small_csv, "--batch-size", "16") == 0
        assert "batches of 16 from 86, Adam (gradients of minibatches" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            (
                ["--cell", "gru", "--reset-before", "--read", "mean"],
                "GRU 1x6, reset before the product, read mean + readout 1: 151 parameters",
            ),
            (
                ["--cell", "lstm", "--layers", "2", "--bidirectional", "--layer-norm"],
                "LSTM 2x6, bidirectional, layer norm + readout 1: 1501 parameters",
            ),
            (
                ["--layers", "2", "--residual", "--activation", "relu", "--read", "max"],
                "RNN 2x6 (relu), read max, residual + readout 1: 133 parameters",
            ),
            (
                ["--layers", "2", "--dropout", "0.2", "--recurrent-dropout", "0.1"],
                "RNN 2x6 (tanh), dropout 0.2, recurrent dropout 0.1 + readout 1: 133 parameters",
            ),
        ],
    )
    def test_every_network_option(self, small_csv, options, words, capsys):
        assert train("--data", small_csv, "--hidden-size", "6", *options, "--out", "run") == 0
        out = capsys.readouterr().out
        assert f"model    {words}\n" in out
        noisy = "Adam (gradients with dropout are noisy; L-BFGS needs exact ones)"
        assert (noisy if "--dropout" in options else "L-BFGS (a full-batch") in out
        net = runs.load_model("run", rx.get_backend()).net
        for option in options:
            if option == "--reset-before":
                assert not net.reset_after
            elif option.startswith("--"):
                name = {"--layers": "num_layers"}.get(option, option[2:].replace("-", "_"))
                assert getattr(net, name) != getattr(rx.Network(hidden_size=6), name)

    def test_unnamed_runs_are_numbered(self, small_csv):
        for _ in range(2):
            assert train("--data", small_csv) == 0
        assert sorted(p.name for p in Path("runs").iterdir()) == ["tide-rnn-1", "tide-rnn-2"]

    def test_scores_that_are_not_defined_are_a_dash(self, capsys):
        values = [*np.sin(np.arange(96.0)), *np.ones(24)]  # to persistence the end has no errors
        Path("flat.csv").write_text("level\n" + "".join(f"{v:.5f}\n" for v in values))
        assert train("--data", "flat.csv", "--out", "run") == 0
        lines = capsys.readouterr().out.splitlines()
        persistence = next(line for line in lines if line.startswith("persistence "))
        assert persistence.split() == ["persistence", "0.0000", "0.0000", "0.000", "-"]
        assert json.loads(Path("run/metrics.json").read_text())["scores"][-1]["skill"] is None

    def test_an_existing_folder_is_refused_without_force(self, small_csv, capsys):
        assert train("--data", small_csv, "--out", "run") == 0
        before = Path("run/model.safetensors").read_bytes()
        assert train("--data", small_csv, "--out", "run", "--seed", "1") == 2
        assert "run exists already. Give another folder with --out" in capsys.readouterr().err
        assert Path("run/model.safetensors").read_bytes() == before
        assert train("--data", small_csv, "--out", "run", "--seed", "1", "--force") == 0
        assert Path("run/model.safetensors").read_bytes() != before

    def test_same_seed_same_bytes(self, small_csv):
        for out, workers in (("a", "1"), ("b", "2")):
            assert train("--data", small_csv, "--out", out, "--workers", workers) == 0
        same = Path("a/model.safetensors").read_bytes() == Path("b/model.safetensors").read_bytes()
        assert same

    def test_divergence(self, small_csv, capsys):
        status = train(
            "--data", small_csv, "--optimizer", "sgd", "--learning-rate", "1e6",
            "--activation", "relu", "--epochs", "50", "--out", "run",
        )  # fmt: skip
        assert status == 1
        err = capsys.readouterr().err
        assert "training diverged: the loss is not finite at epoch" in err
        assert "the last good model is in run/" in err
        assert "Traceback" not in err
        losses = Path("run/history.csv").read_text().splitlines()[1:]
        assert 1 <= len(losses) < 50
        model = runs.load_model("run", rx.get_backend())
        assert all(np.isfinite(p).all() for p in model.params.values())
        assert not Path("run/metrics.json").exists()

    def test_without_matplotlib_all_but_the_pictures(self, small_csv, capsys, monkeypatch):
        monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
        assert train("--data", small_csv, "--out", "run") == 0
        assert "no plots: Plots need matplotlib: pip install" in capsys.readouterr().out
        assert {f.name for f in Path("run").iterdir()} == FILES - {"loss.png", "forecast.png"}

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--data", "nosuch"], "neither a bundled series (length_of_day, wti) nor a file"),
            (["--seq-length", "0"], "seq_length"),
            (["--seq-length", "9000"], "more"),
            (["--horizon", "0"], "horizon"),
            (["--batch-size", "9000"], "batch_size must be an integer in 1..8317 (N)"),
            (["--hidden-size", "0"], "hidden_size must be an integer >= 1, got 0"),
            (["--epochs", "0"], "epochs must be an integer >= 1, got 0"),
            (["--train-fraction", "1.5"], "fraction"),
            (["--learning-rate", "0.1"], "--learning-rate has no meaning for lbfgs"),
            (["--optimizer", "lbfgs", "--batch-size", "10"], "needs the full batch"),
            (["--backend", "tensorflow"], "Choose one of: numpy, cupy, torch, jax"),
            (["--dtype", "float16"], "Choose one of: float32, float64"),
            (["--seed", "-1"], "seed must be an integer >= 0, got -1"),
            (["--cell", "lstm", "--activation", "relu"], "activation='relu' needs cell='rnn'"),
            (["--dropout", "0.5"], "dropout=0.5 needs num_layers >= 2"),
            (["--layers", "2", "--dropout", "1"], "dropout must be in [0, 1), got 1.0"),
            (["--reset-before"], "reset_after=False needs cell='gru'"),
            (["--workers", "0"], "workers must be an integer >= 1, got 0"),
        ],
    )
    def test_bad_input_is_one_clear_line_and_leaves_nothing(self, options, message, capsys):
        assert train(*options) == 2
        err = capsys.readouterr().err
        assert message in err
        assert err.startswith("rnn-xp: error: ")
        assert "Traceback" not in err
        assert not any(p for p in Path().rglob("*") if p.is_file())

    @pytest.mark.parametrize(
        ("cell", "message"),
        [
            ("abc", "row 5, column level: 'abc' is not a number"),
            ("", "row 5, column level"),
            ("inf", "row 5, column level"),
        ],
    )
    def test_bad_cells_name_row_and_column(self, small_csv, cell, message, capsys):
        lines = Path(small_csv).read_text().splitlines()
        lines[4] = f"2024-01-04,{cell}"
        Path(small_csv).write_text("\n".join(lines))
        assert train("--data", small_csv) == 2
        err = capsys.readouterr().err
        assert "row 5" in err
        assert "level" in err


class TestTheSameScriptAnotherVariable:
    """One environment variable, the same losses: 1e-4 in float32, 1e-9 in float64."""

    CASES = (
        ("array_api_strict", "device1", "float32"),
        ("array_api_strict", "CPU_DEVICE", "float64"),
        ("jax", "cpu", "float32"),
        ("jax", "cpu", "float64"),
        pytest.param("torch", "cpu", "float32", marks=pytest.mark.torch),
        pytest.param("torch", "cpu", "float64", marks=pytest.mark.torch),
    )

    @staticmethod
    def final_losses(out, **environment):
        process = subprocess.run(
            [sys.executable, str(ROOT / "scripts" / "train.py"), "--epochs", "3", "--out", out],
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        assert process.returncode == 0, process.stderr
        with open(Path(out) / "history.csv", newline="") as file:
            return [float(row["loss"]) for row in csv.DictReader(file)]

    @pytest.mark.parametrize(("backend", "device", "dtype"), CASES)
    def test_losses(self, backend, device, dtype):
        if backend == "torch":
            pytest.importorskip("torch", reason="torch is not installed")
        reference = self.final_losses("reference", RNN_XP_DTYPE=dtype)
        found = self.final_losses(
            "other", RNN_XP_BACKEND=backend, RNN_XP_DEVICE=device, RNN_XP_DTYPE=dtype
        )
        np.testing.assert_allclose(found, reference, rtol=1e-4 if dtype == "float32" else 1e-9)

    def test_cupy_without_a_gpu_is_a_clear_error(self):
        process = subprocess.run(
            [sys.executable, str(ROOT / "scripts" / "train.py"), "--epochs", "3"],
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "RNN_XP_BACKEND": "cupy",
                "CUDA_VISIBLE_DEVICES": "-1",
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert process.returncode == 2
        assert process.stderr.startswith(
            "rnn-xp: error: backend cupy was asked for (RNN_XP_BACKEND"
        )
        assert "Traceback" not in process.stderr
        assert not Path("runs").exists()


class TestOtherCommands:
    def test_backends(self, capsys):
        assert cli.main(["backends"]) == 0
        out = capsys.readouterr().out
        assert out.startswith("backend")
        for name in ("numpy", "cupy", "torch", "jax", "array_api_strict"):
            assert name in out
        assert "selected by RNN_XP_BACKEND: numpy (default)" in out

    def test_backends_as_json(self, capsys):
        assert cli.main(["backends", "--json"]) == 0
        statuses = {s["name"]: s for s in json.loads(capsys.readouterr().out)}
        assert statuses["numpy"]["usable"]
        assert statuses["numpy"]["version"] == np.__version__

    def test_datasets(self, capsys):
        assert cli.main(["datasets"]) == 0
        out = capsys.readouterr().out
        assert "length_of_day  10409 rows, ms" in out
        assert "wti            8321 rows, USD/barrel" in out
        assert "U.S. Energy Information Administration" in out

    COMMANDS = ([], ["train"], ["explain"], ["backends"], ["datasets"])

    @pytest.mark.parametrize("command", COMMANDS, ids=lambda command: "-".join(command) or "itself")
    def test_help_fits_a_screen_and_ends_with_an_example(self, command, capsys, monkeypatch):
        monkeypatch.setenv("COLUMNS", "100")
        with pytest.raises(SystemExit) as stop:
            cli.main([*command, "--help"])
        assert stop.value.code == 0
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) <= 45
        assert max(map(len, lines)) <= 100
        assert lines[-1].startswith("example: ")
        assert "rnn-xp " in lines[-1]

    def test_the_examples_of_the_help_can_be_parsed(self, capsys):
        parser = cli._parser()
        for line in ("train", "explain"):
            with pytest.raises(SystemExit):
                parser.parse_args([line, "--help"])
            example = capsys.readouterr().out.splitlines()[-1].partition("rnn-xp ")[2]
            parser.parse_args(example.split())

    def test_version(self, capsys):
        with pytest.raises(SystemExit) as stop:
            cli.main(["--version"])
        assert stop.value.code == 0
        assert capsys.readouterr().out == f"rnn-xp {rx.__version__}\n"

    def test_as_a_module(self):
        process = subprocess.run(
            [sys.executable, "-m", "rnn_xp.cli", "datasets"],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert "length_of_day" in process.stdout


class TestVerdict:
    @staticmethod
    def score(name, rmse):
        return Score(name, rmse, 0.0, 0.0, 0.0, 0.0, 0.0, (rmse,))

    @pytest.mark.parametrize(
        ("rmse", "words"),
        [
            (0.90, "rnn beats linear by 10.0 % of RMSE"),
            (1.01, "rnn is level with linear (RMSE ratio 1.010)"),
            (0.99, "rnn is level with linear (RMSE ratio 0.990)"),
            (1.50, "rnn does NOT beat linear: its RMSE is 1.500 times as large"),
        ],
    )
    def test_is_plain(self, rmse, words):
        scores = [
            self.score("persistence", 2.0),
            self.score("linear", 1.0),
            self.score("rnn", rmse),
        ]
        assert verdict(scores) == words
