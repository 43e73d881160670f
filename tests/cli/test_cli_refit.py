"""``rnn-xp train`` trains again on all windows; interrupted there, it goes on to the same model."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import numpy as np
import pytest

import rnn_xp as rx
from rnn_xp import cli
from rnn_xp.cli.interrupts import Interrupts

WORDS = [
    "--epochs", "6", "--hidden-size", "3", "--seq-length", "6", "--optimizer", "adam",
    "--no-fallback",
]  # fmt: skip


@pytest.fixture(autouse=True)
def wave(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    values = np.sin(np.arange(160) / 4.0) + 0.1 * np.random.default_rng(0).standard_normal(160)
    Path("wave.csv").write_text("level\n" + "".join(f"{v:.5f}\n" for v in values))


def train(*words, out):
    return cli.main(["train", "--data", "wave.csv", *WORDS, *words, "--out", out])


def forecasts(folder):
    return rx.Forecaster.load(folder).predict(5)


def test_what_is_saved_is_trained_on_all_rows_for_the_best_number_of_epochs(capsys):
    assert train(out="run") == 0
    metrics = json.loads(Path("run/metrics.json").read_text())
    assert metrics["refit_epochs"] == [metrics["best_epoch"]]
    assert "trained again on all 128 rows for as many epochs" in capsys.readouterr().out
    assert train("--plain", out="plain") == 0
    assert json.loads(Path("plain/metrics.json").read_text())["refit_epochs"] == []
    assert "trained again" not in capsys.readouterr().out


def test_interrupted_while_training_again_it_goes_on_to_the_same_model(monkeypatch, capsys):
    assert train(out="whole") == 0
    calls, ordinary = [], Interrupts.__call__

    def late(self, epoch):
        calls.append(epoch.number)
        if len(calls) == 7:  # the first epoch after the six of the first training
            self.signal = signal.SIGINT
        return ordinary(self, epoch)

    with monkeypatch.context() as patch:
        patch.setattr(Interrupts, "__call__", late)
        assert train(out="run") == 128 + signal.SIGINT
    assert len(calls) == 7
    said = "interrupted by SIGINT while training again on all rows; resume with: rnn-xp train --res"
    assert said in capsys.readouterr().err
    assert not Path("run/model.safetensors").exists()
    assert cli.main(["train", "--resume", "run"]) == 0
    assert np.array_equal(forecasts("run"), forecasts("whole"))
