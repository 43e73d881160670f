"""Options of ``rnn-xp train``, signals, and how a run goes on."""

from __future__ import annotations

import json
import os
import signal
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import rnn_xp as rx
from rnn_xp import checkpoint, cli
from rnn_xp.cli import run_folder as runs
from rnn_xp.cli.interrupts import Interrupts
from rnn_xp.forecasting import training
from rnn_xp.optim.schedules import ReduceOnPlateau
from rnn_xp.training import files

FLOAT64 = rx.get_backend("numpy", dtype="float64")


class TestCommand:
    """``rnn-xp train`` in this process and without pictures."""

    @pytest.fixture(autouse=True)
    def elsewhere(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("COLUMNS", "500")  # no line is broken
        monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
        for name in ("BACKEND", "DEVICE", "DTYPE"):
            monkeypatch.delenv(f"RNN_XP_{name}", raising=False)
        values = np.sin(np.arange(120) / 5.0) + np.cos(np.arange(120.0))
        Path("wave.csv").write_text("".join(f"{v:.5f}\n" for v in values))

    @staticmethod
    def train(*options):
        new = [] if "--resume" in options else ["--plain", "--data", "wave.csv", "--out", "run"]
        new += [] if "--epochs" in options or not new else ["--epochs", "3"]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # goes on elsewhere
            return cli.main(["train", *new, *map(str, options)])

    def test_validation_and_patience(self, capsys):
        few = ["--optimizer", "adam", "--learning-rate", 0.3, "--workers", 3, "--epochs"]
        options = ["--validation", 0.2, "--patience", 2, "--checkpoint-every", 1, *few]
        assert self.train(*options, 90) == 0
        found = json.loads(Path("run/metrics.json").read_text())
        assert found["epochs"] == found["best_epoch"] + 2 < 90
        assert found["stopped"].startswith("no lower validation loss than")
        assert found["engine"]["workers"] == 3
        captured = capsys.readouterr()
        assert f"stopped after {found['epochs']} epochs: {found['stopped']}" in captured.out
        assert f"epoch {found['epochs']}/90  loss" in captured.err
        best, last, model = (
            rx.Forecaster.load(f"run/{name}.safetensors", FLOAT64).predictor_.networks[0]
            for name in ("best", "last", "model")
        )
        for name, p in best.items():
            assert np.array_equal(model[name], p), name
        assert not np.array_equal(last["readout.b_y"], best["readout.b_y"])
        more = ["--patience", 99, "--epochs", found["epochs"] + 1, "--workers", 2]
        assert self.train("--resume", "run", *more, "--checkpoint-every", 5) == 0
        again = json.loads(Path("run/metrics.json").read_text())
        assert (again["epochs"], again["stopped"]) == (found["epochs"] + 1, "")
        assert self.train("--force") == 0
        assert not Path("run/best.safetensors").exists()

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--seed", 1], "--seed 1 contradicts --resume run, which was started with 0."),
            (["--validation", 0.5], "--validation 0.5 contradicts"),
            (["--out", "other"], "leave out --out and --force"),
            (["--force"], "leave out --out and --force"),
            (["--patience", 0], "--patience must be an integer >= 1"),
            (["--checkpoint-every", 0], "--checkpoint-every must be an integer >= 1"),
        ],
    )
    def test_resume_refuses(self, options, message, capsys):
        assert self.train() == 0
        before = sorted(Path("run").iterdir())
        assert self.train("--resume", "run", *options) == 2
        assert message in capsys.readouterr().err
        assert sorted(Path("run").iterdir()) == before

    @pytest.mark.parametrize("change", [{"schema": 2}, {"arguments": 1}, {"arguments": {"x": 1}}])
    def test_resume_of_a_file_of_another_kind(self, change, capsys):
        assert self.train() == 0
        arrays, about = checkpoint.load("run/last.safetensors")
        checkpoint.save("run/last.safetensors", arrays, {**about, **change})
        capsys.readouterr()
        assert self.train("--resume", "run") == 2
        words = ("has schema 2", "is not of a run of `rnn-xp train`", "is a run of another version")
        out, err = capsys.readouterr()
        assert any(word in err for word in words[-3:])
        assert out == ""  # before anything else is done

    def test_what_a_killed_writer_left_is_removed(self):
        assert self.train() == 0
        Path("run/last.safetensors.tmp.1.0123456789abcdef").write_text("half")
        assert self.train("--resume", "run") == 0
        assert not list(Path("run").glob("*.tmp.*"))

    def test_ended_at_once_before_anything_was_written(self, monkeypatch, capsys):
        def fit(*args, **options):
            raise KeyboardInterrupt

        monkeypatch.setattr(training, "fit", fit)
        assert self.train() == 130
        assert capsys.readouterr().err == "rnn-xp: interrupted; nothing was written\n"
        assert not Path("run").exists()

    @pytest.mark.parametrize(("every", "writes"), [(1, [1, 2, 3]), (2, [2, 3])])
    def test_how_often_is_written(self, every, writes, monkeypatch):
        save, written = files.save, []

        def spy(path, state, about):
            written.append(state.epoch)
            save(path, state, about)

        monkeypatch.setattr(files, "save", spy)
        assert self.train("--checkpoint-every", every) == 0
        assert written == writes

    def test_both_losses_are_drawn(self, monkeypatch):
        drawn = []

        def draw(*columns, title):
            drawn.extend([*columns, title])
            raise ImportError

        monkeypatch.setattr(runs.plotting, "loss", draw)
        assert self.train("--validation", 0.2) == 0
        assert [len(column) for column in drawn[:2]] == [3, 3]

    def test_where_a_resumed_run_goes_on(self, capsys, monkeypatch):
        """Where it was, unless a backend is asked for; then its device means nothing any more."""
        monkeypatch.setenv("RNN_XP_BACKEND", "array_api_strict")
        monkeypatch.setenv("RNN_XP_DEVICE", "device1")
        assert self.train("--optimizer", "adam") == 0
        monkeypatch.delenv("RNN_XP_DEVICE")
        for epochs, option, variable, place in (
            (4, [], "", "(device1, float32)"),
            (5, ["--backend", "numpy"], "", "numpy"),
            (6, [], "array_api_strict", "(CPU_DEVICE, float32)"),
        ):
            monkeypatch.setenv("RNN_XP_BACKEND", variable)
            capsys.readouterr()
            assert self.train("--resume", "run", "--epochs", epochs, *option) == 0
            out, err = capsys.readouterr()
            assert place in out.splitlines()[0]
            assert [line.split()[1] for line in err.splitlines()] == [f"{epochs}/{epochs}"]
        assert len(Path("run/history.csv").read_text().splitlines()) == 7

    @pytest.mark.parametrize(
        ("options", "expected"),
        [
            ("--optimizer adam --schedule cosine", rx.optim.adam(rx.optim.Cosine(0.01, 3))),
            (
                "--batch-size 20 --schedule cosine --warmup 4",
                rx.optim.adam(rx.optim.WarmUp(4, rx.optim.Cosine(0.01, 11))),
            ),
            (
                "--optimizer sgd --schedule plateau --momentum 0.5 --clip-norm 2",
                rx.optim.sgd(ReduceOnPlateau(0.1), 0.5, clip_norm=2.0),
            ),
            ("--schedule cosine", "--schedule has no meaning for lbfgs"),
            ("--warmup 2", "--warmup has no meaning for lbfgs"),
            ("--optimizer adam --warmup 0", "--warmup must be an integer >= 1, got 0"),
            ("--optimizer adam --momentum 0.5", "--momentum is for --optimizer sgd and rmsprop"),
            ("--optimizer adam --schedule plateau --warmup 2", "--warmup does not go with"),
            ("--optimizer adam --schedule cosine --warmup 3", "leaves none of 3 updates"),
        ],
    )
    def test_optimizers(self, options, expected, capsys):
        """86 windows: five batches of 20 in each of three epochs."""
        status = self.train(*options.split())
        if isinstance(expected, str):
            assert status == 2
            assert expected in capsys.readouterr().err
        else:
            about = checkpoint.load("run/last.safetensors")[1]
            assert about["training"]["run"]["optimizer"] == repr(expected)

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    @pytest.mark.parametrize(("at", "files"), [(2, 2), (3, 7)])
    def test_a_signal(self, at, files, number, monkeypatch, capsys):
        """In the last epoch there is nothing left to interrupt."""

        def fit(*args, callbacks, **more):
            def kill(epoch):
                if epoch.number == at:
                    os.kill(os.getpid(), number)

            return rx.fit(*args, callbacks=[kill, *callbacks], **more)

        before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
        monkeypatch.setattr(training, "fit", fit)
        assert self.train("--json") == (0 if at == 3 else 128 + number)
        assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
        assert checkpoint.load("run/last.safetensors")[1]["training"]["epoch"] == at
        assert len(list(Path("run").iterdir())) == files
        out, err = capsys.readouterr()
        assert out.count("\n") == (at == 3)
        assert not any(line.startswith("epoch ") for line in err.splitlines())

    def test_handlers_are_given_back_and_left_alone_in_threads(self):
        before = signal.getsignal(signal.SIGINT)
        with Interrupts():
            assert signal.getsignal(signal.SIGINT) != before
        assert signal.getsignal(signal.SIGINT) == before
        with Interrupts() as interrupts:
            os.kill(os.getpid(), signal.SIGINT)
            assert interrupts.signal == signal.SIGINT
            assert signal.getsignal(signal.SIGINT) == before
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(self.train).result() == 0
