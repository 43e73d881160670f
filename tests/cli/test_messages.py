"""Lines that fit the terminal, install hints, the word while kernels compile, python -m rnn_xp."""

from __future__ import annotations

import io
import itertools
import subprocess
import sys
from pathlib import Path

import pytest

import rnn_xp as rx
from rnn_xp import _checks, cli
from rnn_xp.cli import messages
from rnn_xp.cli.run_folder import recorded_data
from rnn_xp.explain import shape_table, walk_shapes
from rnn_xp.training.callbacks import Checkpoint, Epoch, Progress

SPACE = 80


def test_lines_are_broken_between_words(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "40")
    messages.say("verdict  " + "word " * 12 + "\n\ntable  1   2")
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) <= 40 for line in lines)
    assert lines[0].startswith("verdict  word")
    assert all(line.startswith(" " * 9 + "word") for line in lines[1:-2])
    assert lines[-2:] == ["", "table  1   2"]


@pytest.mark.parametrize(
    "command",
    [
        "train --data tide.csv --plain --epochs 1 --hidden-size 3",
        "backtest --data tide.csv --epochs 1 --hidden-size 3",
        "explain --data tide.csv --rows 9 --check",
    ],
)
def test_all_lines_fit_80_columns(command, small_csv, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(SPACE))
    assert cli.main(command.split()) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= SPACE


def networks():
    cells = [{"cell": "rnn"}, {"cell": "gru"}, {"cell": "gru", "reset_after": False}]
    shapes = [
        {},
        {"read": "mean"},
        {"topology": "many_to_many"},
        {"topology": "one_to_many", "feed": "repeat"},
        {"topology": "one_to_many", "feed": "feedback"},
        {"linear_lags": 10},
    ]
    options = [{}, {"num_layers": 3, "residual": True, "layer_norm": True}]
    for parts in itertools.product([*cells, {"cell": "lstm"}], shapes, options, (False, True)):
        both = parts[-1]
        if not (both and parts[1].get("feed") == "feedback"):
            yield rx.Network(**parts[0], **parts[1], **parts[2], bidirectional=both, hidden_size=50)


def test_tables_of_shapes_fit_80_columns_for_every_network():
    for net in networks():
        for rows, columns in itertools.product((256, 8317), (False, True)):
            walk = walk_shapes(net, rows, 10)
            table = shape_table(walk, columns=columns, width=SPACE)
            assert max(map(len, table)) <= SPACE, net
            whole = shape_table(walk, columns=columns)
            assert " ".join(table).split() == " ".join(whole).split()


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("validation", [None, 0.0276912])
@pytest.mark.parametrize("columns", [60, 80, 120])
def test_the_status_line_fits_and_shows_the_losses(columns, validation, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    with Progress(file=Terminal()) as progress:
        progress(Epoch(1999, 2000, 0.0638512, validation))
        progress._bar.refresh()
        text = progress.file.getvalue()
    line = text.replace("\n", "").split("\r")[-1].rstrip()
    assert len(line) <= columns
    assert line.startswith("1999/2000")
    assert "loss 0.06385" in line
    assert ("validation 0.02769" in line) == (validation is not None)
    if "|" in line:
        assert len(line.split("|")[1]) >= 10
    assert ("|" in line) == (columns > 60 or validation is None)


@pytest.mark.parametrize(
    ("checkout", "command"),
    [(True, "pip install -e '.[plot]'"), (False, "pip install 'rnn-xp[plot]'")],
)
def test_the_install_hint_is_of_how_it_is_installed(checkout, command, tmp_path, monkeypatch):
    (tmp_path / "rnn_xp").mkdir()
    if checkout:
        (tmp_path / "pyproject.toml").touch()
    monkeypatch.setattr(_checks, "__file__", str(tmp_path / "rnn_xp" / "_checks.py"))
    assert _checks.install("plot") == command


def test_a_word_while_kernels_compile_and_only_then(monkeypatch, capsys):
    event = pytest.importorskip("numba.core.event", reason="numba is not installed")
    monkeypatch.delenv("RNN_XP_KERNELS", raising=False)
    backend = rx.get_backend("numpy", dtype="float32")
    with messages.while_compiling(backend):
        pass
    assert capsys.readouterr().err == ""
    with messages.while_compiling(backend):
        for _ in range(2):
            with event.trigger_event("numba:compile"):
                pass
    assert capsys.readouterr().err == "compiling kernels (once, about 20 s)\n"


def test_python_m_runs_the_command():
    process = subprocess.run(
        [sys.executable, "-m", "rnn_xp", "--version"], capture_output=True, text=True, check=True
    )
    assert process.stdout == f"rnn-xp {rx.__version__}\n"


class TestDataOfARun:
    """The path in a run is relative to where training was started."""

    @pytest.fixture
    def run(self, tmp_path):
        (tmp_path / "work" / "runs" / "one").mkdir(parents=True)
        (tmp_path / "work" / "level.csv").write_text("1\n")
        return tmp_path / "work" / "runs" / "one"

    def test_it_is_found_from_another_folder(self, run):
        assert recorded_data(run, "level.csv") == str(run.parents[1] / "level.csv")

    def test_it_wins_over_another_file_of_that_name(self, run):
        Path("level.csv").write_text("2\n")
        assert recorded_data(run, "level.csv") == str(run.parents[1] / "level.csv")

    def test_where_training_was_started_it_is_as_it_was_given(self, run, monkeypatch):
        monkeypatch.chdir(run.parents[1])
        assert recorded_data(run, "level.csv") == "level.csv"

    def test_a_forecast_from_another_folder(self, small_csv, tmp_path, monkeypatch, capsys):
        words = ["--data", small_csv, "--plain", "--epochs", "1", "--hidden-size", "3"]
        assert cli.main(["train", *words, "--out", "runs/one"]) == 0
        (tmp_path / "other").mkdir()
        monkeypatch.chdir(tmp_path / "other")
        capsys.readouterr()
        assert cli.main(["forecast", "../runs/one"]) == 0
        assert "data     tide: 120 rows" in capsys.readouterr().out


class TestRunsThatDidNotEnd:
    @pytest.fixture
    def run(self, small_csv):
        words = ["--data", small_csv, "--plain", "--epochs", "2", "--hidden-size", "3"]
        assert cli.main(["train", *words, "--out", "run"]) == 0

    def test_a_forecast_of_a_run_without_scores_warns(self, run, capsys):
        Path("run/metrics.json").unlink()  # as after a divergence
        capsys.readouterr()
        assert cli.main(["forecast", "run"]) == 0
        warning = "rnn-xp: warning: the training of run diverged or did not end"
        assert capsys.readouterr().err.startswith(warning)

    def test_a_forecast_of_a_run_that_ended_does_not(self, run, capsys):
        capsys.readouterr()
        assert cli.main(["forecast", "run"]) == 0
        assert capsys.readouterr().err == ""

    @pytest.mark.parametrize(
        ("epochs", "line"),
        [
            ("3", "resuming run at epoch 3"),
            ("2", "resuming run: all 2 epochs are done, none is trained"),
        ],
    )
    def test_a_resumed_run_says_where_it_goes_on(self, epochs, line, run, capsys):
        capsys.readouterr()
        assert cli.main(["train", "--resume", "run", "--epochs", epochs]) == 0
        assert line in capsys.readouterr().out.splitlines()

    def test_a_second_signal_names_the_epoch_and_the_command(self, run, monkeypatch, capsys):
        def interrupted(self, prepared, callbacks, **options):
            keep = next(each for each in callbacks if isinstance(each, Checkpoint))
            keep.saved_epoch = 2
            raise KeyboardInterrupt

        monkeypatch.setattr("rnn_xp.forecasting.Forecaster.fit_prepared", interrupted)
        assert cli.main(["train", "--resume", "run", "--epochs", "9"]) == 130
        assert capsys.readouterr().err.splitlines()[-1] == (
            "rnn-xp: interrupted; saved after epoch 2; resume with: rnn-xp train --resume run"
        )


def test_a_divergence_names_the_option_that_clips(small_csv, capsys):
    words = ["--data", small_csv, "--plain", "--optimizer", "sgd", "--learning-rate", "1e6"]
    assert cli.main(["train", *words, "--activation", "relu", "--epochs", "30", "--out", "it"]) == 1
    assert (
        "clip the gradient to a smaller norm with --clip-norm; the last" in capsys.readouterr().err
    )
