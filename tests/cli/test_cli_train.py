"""``rnn-xp train``: the run folder, what it prints, and what it refuses."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import numpy as np
import pytest
from commands import FILES, ROOT, train

import rnn_xp as rx
from rnn_xp import cli
from rnn_xp.cli import run_folder as runs
from rnn_xp.forecasting import metrics


class TestTrain:
    def test_reference_workload(self, capsys):
        assert train() == 0
        folder = Path("runs/length_of_day-rnn-1")
        assert {f.name for f in folder.iterdir()} == FILES
        out = capsys.readouterr().out
        for words in (
            "length_of_day (lod_ms): 10409 rows 1997-07-03..2025-12-31, sha256 eb1993d5",
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
        model = rx.Forecaster.load("run", rx.get_backend("numpy", dtype="float32"))
        series = rx.datasets.load("length_of_day").values
        x, y = rx.make_windows(series[8327:], model.seq_length)
        scaler = model.fitted.designs[0].scaler
        scaled = scaler.transform(x).astype("float32")
        pred, _ = model.predictor_.net.forward(model.predictor_.networks[0], scaled)
        rmse = json.loads(Path("run/metrics.json").read_text())["scores"][-1]["rmse"]
        assert metrics.rmse(y, scaler.inverse_target(pred)) == pytest.approx(rmse, rel=1e-5)

    @pytest.mark.pictures
    def test_pictures_are_pictures(self):
        assert train("--out", "run") == 0
        for name in ("loss.png", "forecast.png"):
            data = Path("run", name).read_bytes()
            assert data.startswith(b"\x89PNG")
            assert len(data) > 10_000

    def test_your_own_csv(self, small_csv, capsys):
        assert train("--data", small_csv, "--seq-length", "8", "--horizon", "3") == 0
        out = capsys.readouterr().out
        assert "tide (level): 120 rows 2024-01-01..2024-04-29, sha256" in out
        assert "train 96 rows -> 86 windows" in out
        assert "linear AR(8)" in out
        rows = Path("runs/tide-rnn-1/predictions.csv").read_text().splitlines()
        assert rows[0].startswith("date_of_step_1,step,truth,persistence,")
        assert len(rows) == 1 + 14 * 3
        scores = json.loads(Path("runs/tide-rnn-1/metrics.json").read_text())["scores"]
        assert {len(score["rmse_per_step"]) for score in scores} == {3}
        names = [score["name"] for score in scores]
        assert names[:3] == ["persistence", "drift", "mean"]
        assert names[-2:] == ["linear AR(8)", "rnn"]

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
        net = rx.Forecaster.load("run").predictor_.net
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
        assert "run already exists. Give another folder with --out" in capsys.readouterr().err
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
        (params,) = rx.Forecaster.load("run").predictor_.networks
        assert all(np.isfinite(p).all() for p in params.values())
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
            (["--seq-length", "0"], "error: --seq-length must be an integer >= 1, got 0."),
            (
                ["--seq-length", "9000"],
                "a series of 8327 values is too short for --seq-length 9000 and --horizon 1: at "
                "least 9001 values are required, 674 more. Give a longer series or a smaller "
                "--seq-length or --horizon.",
            ),
            (["--horizon", "0"], "error: --horizon must be an integer >= 1, got 0."),
            (
                ["--batch-size", "9000"],
                "--batch-size must be an integer in 1..8317, the number of windows, got 9000.",
            ),
            (["--batch-size", "0"], "--batch-size must be an integer in 1..8317"),
            (["--batch-size", "8318"], "--batch-size must be an integer in 1..8317"),
            (["--hidden-size", "0"], "--hidden-size must be an integer >= 1, got 0"),
            (["--layers", "0"], "--layers must be an integer >= 1, got 0"),
            (["--level", "90"], "error: --level must be a share in (0, 1), such as 0.9, got 90"),
            (
                ["--intervals", "split"],
                "--intervals split needs --validation, whose errors make the intervals. Give a "
                "share to validate on, or --intervals none.",
            ),
            (["--seeds", "0"], "--seeds must be an integer >= 1, got 0"),
            (["--seeds", "2", "--checkpoint-every", "1"], "which cannot be resumed. Leave out"),
            (
                [
                    "--no-plain",
                    "--data",
                    "wti",
                    "--target",
                    "logret",
                    "--intervals",
                    "quantile",
                    "--horizon",
                    "2",
                ],
                "--intervals quantile needs --target level or --horizon 1: quantiles of changes",
            ),
            (["--epochs", "0"], "--epochs must be an integer >= 1, got 0"),
            (["--train-fraction", "1.5"], "error: --train-fraction must lie between 0 and 1"),
            (
                ["--train-fraction", "0.00001"],
                "--train-fraction 1e-05 of 10409 values leaves 0 for training",
            ),
            (["--optimizer", "sgd", "--learning-rate", "0"], "error: --learning-rate must be"),
            (["--optimizer", "adam", "--learning-rate", "0"], "error: --learning-rate must be"),
            (["--learning-rate", "0.1"], "--learning-rate has no meaning for lbfgs"),
            (
                ["--optimizer", "lbfgs", "--batch-size", "10"],
                "--optimizer lbfgs needs the full batch of 8317 without dropout: it "
                "compares losses, which must belong to one function. Leave out --batch-size 10, "
                "or take --optimizer adam.",
            ),
            (["--optimizer", "lbfgs", "--recurrent-dropout", "0.1"], "Leave out dropout, or take"),
            (["--column", "x"], "--column x is for a CSV file, but length_of_day is a bundled"),
            (
                ["--data", "wti", "--missing", "drop"],
                "--missing drop is for a CSV file, but wti is a bundled series, which has one "
                "column and no gaps. Leave it out, or give --data ./wti if you mean a file",
            ),
            (["--data", "."], "--data . is a folder; name a CSV file in it."),
            (["--backend", "tensorflow"], "Choose one of: numpy, cupy, torch, jax"),
            (["--dtype", "float16"], "Choose one of: float32, float64"),
            (["--seed", "-1"], "--seed must be an integer >= 0, got -1"),
            (
                ["--cell", "lstm", "--activation", "relu"],
                "error: --activation relu needs --cell rnn.",
            ),
            (["--dropout", "0.5"], "error: --dropout 0.5 needs --layers >= 2"),
            (["--layers", "2", "--dropout", "1"], "dropout must be in [0, 1), got 1.0"),
            (["--reset-before"], "error: --reset-before needs --cell gru."),
            (["--workers", "0"], "--workers must be an integer >= 1, got 0"),
        ],
    )
    def test_bad_input_is_one_clear_line_and_leaves_nothing(self, options, message, capsys):
        assert train(*options) == 2
        out, err = capsys.readouterr()
        assert message in err
        assert err.startswith("rnn-xp: error: ")
        assert err.count("\n") == 1
        assert out == ""
        assert not any(Path().iterdir())

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

    def test_force_leaves_nothing_of_the_run_before(self, small_csv, capsys):
        assert train("--data", small_csv, "--out", "run") == 0
        Path("run/notes.txt").write_text("mine")
        diverging = ["--optimizer", "sgd", "--learning-rate", "1e6", "--activation", "relu"]
        assert train("--data", small_csv, *diverging, "--out", "run", "--force") == 1
        left = {"model.safetensors", "config.toml", "history.csv", "notes.txt"}
        assert {f.name for f in Path("run").iterdir()} == left

    def test_force_leaves_no_old_pictures(self, small_csv, monkeypatch):
        assert train("--data", small_csv, "--out", "run") == 0
        monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
        assert train("--data", small_csv, "--out", "run", "--force") == 0
        assert {f.name for f in Path("run").iterdir()} == FILES - {"loss.png", "forecast.png"}
        monkeypatch.undo()

    @pytest.mark.parametrize("command", ["train", "explain"])
    def test_a_folder_that_cannot_be_written_costs_no_time(self, command, capsys, monkeypatch):
        def refuse(**options):
            raise PermissionError(13, "Permission denied", "run/tmpabc")

        monkeypatch.setattr(runs.tempfile, "TemporaryFile", refuse)
        message = (
            "rnn-xp: error: cannot write into the folder run: Permission denied. "
            "Give another with --out.\n"
        )
        assert cli.main([command, "--out", "run"]) == 2
        assert capsys.readouterr() == ("", message)
        assert not Path("run").exists()
        Path("run").mkdir()
        assert cli.main([command, "--out", "run", "--force"]) == 2
        assert capsys.readouterr() == ("", message)
        assert Path("run").exists()

    def test_a_folder_that_cannot_be_made(self, capsys):
        Path("file").write_text("")
        assert train("--out", "file/run") == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("rnn-xp: error: cannot write into the folder file/run: Not a direc")

    def test_an_interrupted_training_leaves_what_to_go_on_from(self, small_csv):
        process = subprocess.Popen(
            [sys.executable, "-m", "rnn_xp.cli", "train", "--plain", "--data", small_csv,
             "--epochs", "999999", "--optimizer", "adam"],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        deadline = time.monotonic() + 60
        while not Path("runs/tide-rnn-1").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(1.0)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        last = err.splitlines()[-1]
        assert re.fullmatch(
            r"rnn-xp: interrupted by SIGINT after epoch \d+ of 999999; resume with: rnn-xp train "
            "--resume runs/tide-rnn-1",
            last,
        )
        assert "Traceback" not in err
        assert process.returncode == 130
        left = {path.name for path in Path("runs/tide-rnn-1").iterdir()}
        assert left == {"config.toml", "last.safetensors"}
        done = int(last.split()[6])
        assert cli.main(["train", *last.split()[-2:], "--epochs", str(done + 2)]) == 0
        losses = Path("runs/tide-rnn-1/history.csv").read_text().splitlines()[1:]
        assert len(losses) == done + 2

    def test_one_epoch_is_not_epochs(self, small_csv, capsys):
        assert train("--data", small_csv, "--epochs", "1") == 0
        assert "used), 1 epoch, seed 0\n" in capsys.readouterr().out

    def test_the_warning_is_in_the_numbers_too(self, small_csv, capsys):
        assert train("--out", "run", "--json") == 0
        warning = json.loads(capsys.readouterr().out)["warning"]
        assert warning.startswith("The test part leaves the training range by 16 % of that range")
        assert json.loads(Path("run/metrics.json").read_text())["warning"] == warning
        assert train("--data", small_csv, "--json") == 0
        assert json.loads(capsys.readouterr().out)["warning"] is None
