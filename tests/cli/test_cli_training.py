"""Options of `rnn-xp train` that choose how it is trained, stopped and resumed."""

from __future__ import annotations

import json
import signal
import sys
import threading
import tomllib
from pathlib import Path

import numpy as np
import pytest

import rnn_xp as rx
from rnn_xp import checkpoint, cli
from rnn_xp.cli.interrupts import Interrupts

SMALL = ["--hidden-size", "4", "--seq-length", "5"]
KIND = ["--plain"]  # the network alone; without, a forecaster


@pytest.fixture(autouse=True)
def tide(tmp_path, monkeypatch):
    """A folder to work in, with a small series."""
    for variable in ("RNN_XP_BACKEND", "RNN_XP_DEVICE", "RNN_XP_DTYPE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    values = np.sin(np.arange(120) / 5.0) + 0.1 * rng.standard_normal(120)
    Path("tide.csv").write_text("level\n" + "".join(f"{v:.5f}\n" for v in values))


def train(*options, epochs=4):
    words = ["train", *KIND, "--data", "tide.csv", *SMALL, "--epochs", str(epochs), *options]
    return cli.main(words)


def resume(*options):
    return cli.main(["train", "--resume", "run", *options])


def arrays(name="last"):
    return checkpoint.load(f"run/{name}.safetensors")[0]


def test_optimizers_are_those_of_the_options(capsys):
    for options, shown in (
        (["adam"], "Adam,"),
        (["adamw", "--weight-decay", "0.1"], "AdamW (weight decay 0.1),"),
        (["rmsprop", "--momentum", "0.5"], "RMSprop (momentum 0.5),"),
        (["adagrad", "--clip-norm", "2"], "Adagrad (clip norm 2),"),
        (["sgd", "--momentum", "0.9"], "SGD (momentum 0.9),"),
        (["sgd", "--schedule", "cosine", "--warmup", "2"], "SGD (cosine schedule, warm-up of 2),"),
        (["adam", "--schedule", "plateau"], "Adam (plateau schedule),"),
    ):
        assert train("--optimizer", *options, "--out", "run", "--force") == 0
        assert f"full batch of 91, {shown} 4 epochs" in capsys.readouterr().out
        config = tomllib.loads(Path("run/config.toml").read_text())
        assert config["optimizer"] == options[0]
        for option, value in zip(options[1::2], options[2::2], strict=True):
            key = option.removeprefix("--").replace("-", "_")
            assert str(config[key]).removesuffix(".0") == value


def test_cosine_ends_where_training_does():
    assert (
        train(
            *("--optimizer", "sgd", "--batch-size", "40", "--schedule", "cosine", "--warmup", "2"),
            *("--learning-rate", "0.5", "--out", "run"),
        )
        == 0
    )
    config = tomllib.loads(Path("run/config.toml").read_text())
    # 4 epochs of 3 updates, two of them warm-up
    assert config["optimizer_learning_rate"] == repr(rx.optim.WarmUp(2, rx.optim.Cosine(0.5, 10)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--optimizer", "lbfgs", "--schedule", "cosine"], "--schedule has no meaning for lbfgs"),
        (
            ["--optimizer", "lbfgs", "--weight-decay", "0.1"],
            "--weight-decay has no meaning for lbfgs",
        ),
        (["--optimizer", "lbfgs", "--clip-norm", "1"], "--clip-norm has no meaning for lbfgs"),
        (
            ["--optimizer", "lbfgs", "--momentum", "0.9"],
            "--momentum is for --optimizer sgd and rmsprop, not lbfgs",
        ),
        (["--optimizer", "adam", "--momentum", "0.9"], "sgd and rmsprop, not adam"),
        (
            ["--optimizer", "levenberg_marquardt", "--intervals", "quantile"],
            "--optimizer levenberg_marquardt needs a loss with second derivatives, and that of "
            "--intervals quantile has kinks. Leave --optimizer out, or take --optimizer lbfgs",
        ),
        (["--optimizer", "adam", "--warmup", "0"], "--warmup must be an integer >= 1, got 0"),
        (
            ["--optimizer", "adam", "--schedule", "cosine", "--warmup", "4"],
            "--warmup 4 leaves none of 4 updates for the cosine",
        ),
        (
            ["--optimizer", "adam", "--schedule", "plateau", "--warmup", "2"],
            "--warmup does not go with --schedule plateau",
        ),
        (["--patience", "0"], "--patience must be an integer >= 1, got 0"),
        (["--checkpoint-every", "0"], "--checkpoint-every must be an integer >= 1, got 0"),
        (
            ["--resume", "nowhere"],
            "nowhere has no last.safetensors: there is no training to resume",
        ),
    ],
)
def test_bad_options(options, message, capsys):
    assert train(*options) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert (out, err.count("\n")) == ("", 1)
    assert not Path("runs").exists()


@pytest.mark.parametrize("share", ["0", "1", "1.5", "-0.1", "nan", "0.97"])
def test_bad_validation_leaves_the_run_that_is_there(share, capsys):
    assert train("--out", "run") == 0
    before = {path: path.read_bytes() for path in Path("run").iterdir()}
    capsys.readouterr()
    assert train("--out", "run", "--force", "--validation", share) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "--validation" in err
    assert {path: path.read_bytes() for path in Path("run").iterdir()} == before


class TestValidation:
    def test_the_best_parameters_are_kept(self, capsys):
        options = ["--optimizer", "adam", "--learning-rate", "0.3", "--validation", "0.2"]
        assert train(*options, "--patience", "5", "--out", "run", epochs=200) == 0
        out = capsys.readouterr().out
        assert "validation: the last 20 % of the windows, after a gap; 68 are" in out
        assert "full batch of 68, Adam" in out
        metrics = json.loads(Path("run/metrics.json").read_text())
        assert f"keeping the parameters of epoch {metrics['best_epoch']}, whose" in out
        assert f"stopped after {metrics['epochs']} epochs: no lower validation loss" in out
        assert metrics["epochs"] == metrics["best_epoch"] + 5
        rows = Path("run/history.csv").read_text().splitlines()
        assert rows[0] == "epoch,loss,validation_loss"
        assert len(rows) == metrics["epochs"] + 1
        model, best = arrays("model"), arrays("best")
        last = arrays()
        names = rx.Network(hidden_size=4).shapes
        assert all(np.array_equal(model[k], best[k]) for k in names)
        assert any(not np.array_equal(model[k], last[k]) for k in names)
        backend = rx.get_backend()
        for name in ("model", "best"):
            loaded = rx.Forecaster.load(f"run/{name}.safetensors", backend)
            (params,) = loaded.predictor_.networks
            assert np.array_equal(params["layer0.b_h"], model["layer0.b_h"])
        loaded = rx.Forecaster.load("run/last.safetensors", backend)
        (params,) = loaded.predictor_.networks
        assert np.array_equal(params["layer0.b_h"], last["layer0.b_h"])
        assert (loaded.seq_length, loaded.horizon) == (5, 1)


@pytest.fixture(params=[["--plain"], []], ids=["plain", "forecaster"])
def kind(request, monkeypatch):
    """What is trained."""
    monkeypatch.setattr(sys.modules[__name__], "KIND", request.param)


@pytest.mark.usefixtures("kind")
class TestResume:
    def test_more_epochs_are_the_same_as_all_at_once(self, capsys):
        options = ["--optimizer", "adam", "--batch-size", "30", "--recurrent-dropout", "0.1"]
        assert train(*options, "--out", "run", epochs=9) == 0
        whole = arrays()
        assert train(*options, "--out", "run", "--force") == 0
        assert resume("--epochs", "9") == 0
        assert all(np.array_equal(whole[k], a) for k, a in arrays().items())
        assert len(Path("run/history.csv").read_text().splitlines()) == 10

    def test_settings_are_those_of_the_run(self, capsys):
        assert train("--cell", "gru", "--scaler", "minmax", "--seed", "7", "--out", "run") == 0
        before = Path("run/config.toml").read_text()
        capsys.readouterr()
        assert resume("--cell", "gru") == 0
        assert "GRU 1x4" in capsys.readouterr().out
        assert Path("run/config.toml").read_text() == before
        for option, given, was in (
            ("--cell", "lstm", "gru"),
            ("--seed", "8", "7"),
            ("--hidden-size", "5", "4"),
            ("--dtype", "float64", "float32"),
        ):
            assert resume(option, given) == 2
            err = capsys.readouterr().err
            assert f"{option} {given} contradicts --resume run, which was started with {was}" in err

    def test_the_environment_names_the_backend_but_not_the_precision(self, monkeypatch, capsys):
        assert train("--optimizer", "adam", "--out", "run") == 0
        monkeypatch.setenv("RNN_XP_DTYPE", "float64")
        monkeypatch.setenv("RNN_XP_BACKEND", "array_api_strict")
        with pytest.warns(UserWarning, match="its bits may differ"):
            assert resume("--epochs", "6") == 0
        assert "array_api_strict" in capsys.readouterr().out
        assert arrays()["layer0.b_h"].dtype == np.float32
        monkeypatch.delenv("RNN_XP_BACKEND")
        with pytest.warns(UserWarning, match="its bits may differ"):
            assert resume("--epochs", "7", "--backend", "numpy") == 0

    def test_not_into_another_folder(self, capsys):
        assert train("--out", "run") == 0
        for options in (["--out", "other"], ["--force"]):
            assert resume(*options) == 2
            assert "leave out --out and --force" in capsys.readouterr().err

    def test_other_data(self, capsys):
        assert train("--out", "run") == 0
        lines = Path("tide.csv").read_text().splitlines()
        lines[30] = "0.5"
        Path("tide.csv").write_text("\n".join(lines))
        before = {p: p.read_bytes() for p in Path("run").iterdir()}
        assert resume("--epochs", "9") == 2
        assert "tide.csv has changed since the run in run was started" in capsys.readouterr().err
        assert {p: p.read_bytes() for p in Path("run").iterdir()} == before

    def test_in_a_part_that_is_not_trained_on(self, capsys):
        assert train("--out", "run") == 0
        lines = Path("tide.csv").read_text().splitlines()
        Path("tide.csv").write_text("\n".join([*lines[:-1], "0.5"]))
        assert resume("--epochs", "9") == 2
        assert "tide.csv has changed since" in capsys.readouterr().err

    def test_moved_data_and_the_file_instead_of_the_folder(self, capsys):
        assert train("--out", "run") == 0
        Path("tide.csv").rename("moved.csv")
        assert resume() == 2
        assert (
            "run was trained on 'tide.csv', which is neither in this folder"
            in capsys.readouterr().err
        )
        options = ["--data", "moved.csv", "--epochs", "6"]
        assert cli.main(["train", "--resume", "run/last.safetensors", *options]) == 0
        assert len(Path("run/history.csv").read_text().splitlines()) == 7

    def test_a_damaged_file(self, capsys):
        assert train("--out", "run") == 0
        path = Path("run/last.safetensors")
        path.write_bytes(path.read_bytes()[:-1])
        assert resume() == 2
        assert "last.safetensors" in capsys.readouterr().err

    def test_a_checkpoint_of_the_library_is_no_run(self, capsys):
        x, y = rx.make_windows(np.sin(np.arange(50.0)), 5)
        Path("run").mkdir()
        keep = rx.callbacks.Checkpoint("run")
        rx.fit(
            rx.Network(hidden_size=4), x, y, optimizer=rx.optim.adam(), epochs=1, callbacks=[keep]
        )
        assert resume() == 2
        assert "is not of a run of `rnn-xp train`" in capsys.readouterr().err

    def test_json_prints_nothing_else(self, capsys):
        assert train("--out", "run") == 0
        capsys.readouterr()
        assert resume("--epochs", "6", "--json") == 0
        out, err = capsys.readouterr()
        assert json.loads(out)["epochs"] == 6
        assert err == ""

    def test_files_of_a_killed_writer_are_swept_up(self, capsys):
        assert train("--out", "run") == 0
        left = Path("run/last.safetensors.tmp.999999.0123456789abcdef")
        left.write_bytes(b"half")
        Path("run/notes.tmp.txt").write_text("mine")
        assert resume("--epochs", "6") == 0
        assert not left.exists()
        assert Path("run/notes.tmp.txt").exists()


def test_what_is_ignored_on_purpose_stays_ignored():
    """As under nohup."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Interrupts():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX")
def test_interrupts_outside_the_main_thread_are_left_alone():
    found = []

    def work():
        with Interrupts() as interrupts:
            found.append(interrupts(None))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [None]
