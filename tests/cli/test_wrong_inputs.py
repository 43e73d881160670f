"""Wrong inputs of every command: one sentence in the command line's own words, and nothing done."""

from __future__ import annotations

import os
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest

from rnn_xp import cli
from rnn_xp.forecasting import Forecaster

TRAIN = {  # options of train on tide.csv: what the sentence says
    "--hidden-size 0": "--hidden-size must be an integer >= 1, got 0.",
    "--layers 0": "--layers must be an integer >= 1, got 0.",
    "--epochs 0": "--epochs must be an integer >= 1, got 0.",
    "--seed -1": "--seed must be an integer >= 0, got -1.",
    "--seeds 0": "--seeds must be an integer >= 1, got 0.",
    "--workers 0": "--workers must be an integer >= 1, got 0.",
    "--patience 0": "--patience must be an integer >= 1, got 0.",
    "--plain --patience 3": "--patience needs --validation",
    "--checkpoint-every 0": "--checkpoint-every must be an integer >= 1, got 0.",
    "--batch-size 5000": "--batch-size must be an integer in 1..63, the number of windows",
    "--seq-length 0": "--seq-length must be an integer >= 1, got 0.",
    "--seq-length 200": "too short for --seq-length 200, --horizon 1 and --validation 0.15",
    "--horizon 0": "--horizon must be an integer >= 1, got 0.",
    "--horizon 30": "the test part of 24 values is too short, and a smaller --train-fraction "
    "makes it longer: --horizon 30 needs as many.",
    "--train-fraction 2": "--train-fraction must lie between 0 and 1 (both excluded), got 2.0.",
    "--level 90": "--level must be a share in (0, 1), such as 0.9, got 90.0.",
    "--validation 2": "--validation must be a share in (0, 1), got 2.0.",
    "--dropout 1.5": "error: --dropout must be in [0, 1), got 1.5.",
    "--dropout 0.3": "error: --dropout 0.3 needs --layers >= 2: it acts between layers.",
    "--recurrent-dropout -1": "error: --recurrent-dropout must be in [0, 1), got -1.0.",
    "--residual": "error: --residual needs --layers >= 2: it acts between layers.",
    "--reset-before": "error: --reset-before needs --cell gru.",
    "--cell lstm --activation relu": "error: --activation relu needs --cell rnn.",
    "--target logret": "--target logret needs positive values",
    "--strategy recursive --horizon 3 --intervals quantile": "needs --strategy direct or --horizon",
    "--optimizer adam --learning-rate -1": "error: --learning-rate must be in (0, inf), got -1.0.",
    "--optimizer adam --clip-norm 0": "error: --clip-norm must be in (0, inf), got 0.0.",
    "--optimizer adamw --weight-decay -1": "error: --weight-decay must be in [0, inf), got -1.0.",
    "--optimizer sgd --momentum 2": "error: --momentum must be in [0, 1), got 2.0.",
    "--optimizer adam --momentum 0.5": "--momentum is for --optimizer sgd and rmsprop, not adam.",
    "--learning-rate 0.1": "--learning-rate has no meaning for lbfgs",
    "--optimizer adam --schedule plateau --warmup 3": "--warmup does not go with --schedule",
    "--config nowhere.toml": "--config nowhere.toml: there is no such file.",
    "--config broken.toml": "broken.toml is not valid TOML",
    "--config folder": "folder cannot be read: Is a directory.",
    "--out file": "file is a file, and a run needs a folder.",
    "--out file --force": "file is a file, and a run needs a folder.",
    "--out file/run": "cannot write into the folder file/run: Not a directory.",
    "--out run": "run already exists. Give another folder with --out, or --force",
    "--backend NumPy": "error: --backend NumPy is not known. Choose one of: numpy,",
    "--dtype float16": "error: --dtype float16 is not known. Choose one of: float32, float64.",
    "--device cuda": "numpy has no device 'cuda' here (--device cuda).",
    "--data tide.csv": "--data is given more than once",
    "--column level --column level": "--column is given more than once",
    "--column nope": "tide.csv has no column 'nope'. Valid: 'day', 'level'",
}
OTHERS = {  # whole commands
    "train --data two.csv": "several columns of numbers: 'open', 'close'. Say which with --column.",
    "train --data gap.csv": "Pass --missing drop to leave such rows out or --missing interpolate",
    "train --data nowhere.csv": "is neither a bundled series (length_of_day, wti) nor a file.",
    "train --data folder": "--data folder is a folder; name a CSV file in it.",
    "train --data short.csv": "--train-fraction 0.8 of 3 rows: a series of 2 values is too short",
    "train --data wti --column x": "--column x is for a CSV file",
    "train --resume nowhere": "nowhere has no last.safetensors: there is no training to resume.",
    "train --resume run --epochs 1": "--epochs 1 is less than the 2 epochs after which run was",
    "train --resume run --cell gru": "--cell gru contradicts --resume run",
    "train --resume run --out x": "leave out --out and --force",
    "info nowhere": "there is no file or folder nowhere.",
    "info folder": "folder is not a run: it has no model.safetensors.",
    "info bad-metrics": "bad-metrics/metrics.json is damaged: Expecting",
    "info no-metrics": "no-metrics/metrics.json is damaged: it lacks what `rnn-xp train` writes.",
    "info bad-model": "bad-model/model.safetensors cannot be read: it is cut short",
    "evaluate nowhere": "there is no file or folder nowhere.",
    "evaluate bad-config": "bad-config/config.toml is not valid TOML",
    "evaluate run --train-fraction 3": "--train-fraction must lie between 0 and 1",
    "evaluate run --data short.csv": "the part of 2 values to judge by is too short",
    "evaluate run --column nope": "tide.csv has no column 'nope'",
    "evaluate moved": "moved was trained on 'gone.csv', which is neither in this folder nor in one",
    "forecast run --steps 0": "--steps must be an integer >= 1, got 0.",
    "forecast run --level 100": "--level must be shares in (0, 1) or percentages in [2, 100)",
    "forecast run --csv nowhere/x.csv": "--csv nowhere/x.csv: there is no folder nowhere.",
    "forecast run --csv folder": "--csv folder is a folder; name a file in it.",
    "forecast run --csv tide.csv": "--csv tide.csv exists already. Give another name, or --force.",
    "forecast run --csv file/x.csv": "--csv file/x.csv: file is not a folder.",
    "forecast run --png x.jpg": "--png x.jpg must end in .png",
    "forecast run --png nowhere/x.png": "--png nowhere/x.png: there is no folder nowhere.",
    "forecast run --data short.csv": "has 3 values, but a forecast needs the last 10: 7 more.",
    "forecast moved": "Say with --data where it is.",
    "backtest --data tide.csv --csv nowhere/x.csv": "--csv nowhere/x.csv: there is no folder",
    "backtest --data tide.csv --csv tide.csv": "--csv tide.csv exists already.",
    "backtest --data tide.csv --plots file": "--plots file: file is not a folder.",
    "backtest --data tide.csv --plots full": "--plots full/forecast.png exists already.",
    "backtest --data tide.csv --stride 0": "--stride must be an integer >= 1, got 0.",
    "backtest --data tide.csv --retrain 0": "--retrain must be an integer >= 1, got 0.",
    "explain --run nowhere": "--run nowhere is not a run: it has no model.safetensors.",
    "explain --run bad-config": "bad-config/config.toml is not valid TOML",
    "explain --run run --cell gru": "--cell gru contradicts --run run",
    "explain --data tide.csv --rows 0": "--rows must be in 1..86, the number of windows, got 0.",
    "explain --data tide.csv --feed feedback": "--feed feedback needs --topology one_to_many;",
    "explain --data tide.csv --topology one_to_many --feed feedback --horizon 5": (
        "--feed feedback needs --horizon 1, got 5"
    ),
    "explain --data tide.csv --topology one_to_many --feed feedback --bidirectional": (
        "--feed feedback needs no --bidirectional: the reverse direction"
    ),
    "explain --data tide.csv --topology many_to_many --read max": "--read max needs --topology",
    "export nowhere --to onnx": "there is no file or folder nowhere.",
    "export run --to torch": "--to torch has no form for the linear path of run.",
    "export run --to onnx --out nowhere/x": "--out nowhere/x: there is no folder nowhere.",
    "export run --to onnx --out file": "--out file exists already. Give another name, or --force.",
    "export run --to onnx-train": "--to onnx-train needs --rows N, the size of the batch.",
    "export run --to torch --rows 3": "--rows is for --to onnx-train, not torch.",
    "import nowhere --out x": "there is no file or folder nowhere.",
    "import file --out x": "file: is of no kind that is read: PyTorch",
    "import folder --out x": "folder: is a folder; a file is required.",
    "bench --rows 0": "--rows must be an integer >= 1, got 0.",
    "bench --backend foo": "--backend foo is not known.",
}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with data, a run, and what a run looks like when one of its files is damaged."""
    folder = tmp_path_factory.mktemp("world")
    rng = np.random.default_rng(0)
    days = np.datetime64("2024-01-01") + np.arange(120)
    values = np.sin(np.arange(120) / 5.0) + 0.1 * rng.standard_normal(120)
    rows = [f"{day},{value:.5f}" for day, value in zip(days, values, strict=True)]
    texts = {
        "tide.csv": "\n".join(["day,level", *rows]),
        "two.csv": "\n".join(["day,open,close", *(f"{row},{i}" for i, row in enumerate(rows))]),
        "gap.csv": "\n".join(["day,level", *rows[:50], "2024-02-20,", *rows[51:]]),
        "short.csv": "1\n2\n3\n",
        "file": "text",
        "broken.toml": "a = [",
    }
    for name, text in texts.items():
        (folder / name).write_text(text + "\n")
    for name in ("folder", "full"):
        (folder / name).mkdir()
    (folder / "full" / "forecast.png").write_bytes(b"old")
    before = Path.cwd()
    os.chdir(folder)
    try:
        words = ["--data", "tide.csv", "--epochs", "2", "--hidden-size", "3", "--out", "run"]
        assert cli.main(["train", *words, "--json"]) == 0
    finally:
        os.chdir(before)
    damage = {
        "bad-metrics": ("metrics.json", "{ x"),
        "no-metrics": ("metrics.json", "[]"),
        "bad-model": ("model.safetensors", "short"),
        "bad-config": ("config.toml", "a = ["),
        "moved": ("config.toml", 'data = "gone.csv"\n'),
    }
    for name, (file, text) in damage.items():
        shutil.copytree(folder / "run", folder / name)
        (folder / name / file).write_text(text)
    return folder


def listing():
    return {path: path.stat().st_mtime_ns for path in sorted(Path().rglob("*"))}


def no_training(*args, **options):
    raise AssertionError("something was trained")


COMMANDS = {f"train --data tide.csv {words}": says for words, says in TRAIN.items()} | OTHERS


@pytest.mark.parametrize("command", COMMANDS)
def test_one_sentence_and_nothing_done(command, world, monkeypatch, capsys):
    monkeypatch.chdir(world)
    monkeypatch.setattr(Forecaster, "fit_prepared", no_training)
    monkeypatch.setattr(Forecaster, "backtest", no_training)
    before = listing()
    assert cli.main(shlex.split(command)) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("rnn-xp: error: ")
    assert COMMANDS[command] in printed.err
    assert printed.err.count("\n") == 1
    for word in ("Traceback", "[Errno", ".tmp.", "Network:", "='", "=None"):
        assert word not in printed.err
    assert listing() == before


@pytest.mark.parametrize("variable", ["RNN_XP_BACKEND=NumPy", "RNN_XP_DTYPE=float16"])
def test_a_wrong_variable_is_named(variable, world, monkeypatch, capsys):
    monkeypatch.chdir(world)
    monkeypatch.setenv(*variable.split("="))
    assert cli.main(["train", "--data", "tide.csv"]) == 2
    assert f"error: {variable} is not known. Choose one of: " in capsys.readouterr().err


class TestFullDisk:
    """The sentence names the file, and no temporary one."""

    @pytest.fixture
    def full(self, world, monkeypatch):
        monkeypatch.chdir(world)

        def write(file, data):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("rnn_xp.checkpoint.os.write", write)

    @pytest.mark.parametrize(
        ("command", "file"),
        [
            ("forecast run --csv new.csv", "new.csv"),
            ("forecast run --png new.png", "new.png"),
            ("export run --to onnx --out new.onnx", "new.onnx"),
            ("train --data tide.csv --plain --epochs 1 --out new", "new/config.toml"),
            ("explain --data tide.csv --out new", "new/explain.txt"),
        ],
    )
    def test_the_file_is_named(self, command, file, full, capsys):
        if "onnx" in command:
            pytest.importorskip("onnx", reason="onnx is not installed")
        before = listing()
        assert cli.main(command.split()) == 2
        printed = capsys.readouterr().err
        assert f"rnn-xp: error: {file}: No space left on device.\n" in printed
        assert {path for path in listing() if "tmp" in path.name} == set()
        assert set(listing()) == set(before)

    def test_a_backtest_prints_what_it_has_computed(self, full, capsys):
        command = "backtest --data tide.csv --epochs 1 --csv new.csv"
        assert cli.main(command.split()) == 2
        printed = capsys.readouterr()
        assert "verdict" in printed.out
        assert "error: new.csv: No space left on device." in printed.err


class TestWithoutMatplotlib:
    @pytest.fixture
    def bare(self, world, monkeypatch):
        monkeypatch.chdir(world)
        monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
        monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)

    @pytest.mark.parametrize(
        "command", ["forecast run --png new.png", "backtest --data tide.csv --plots new"]
    )
    def test_a_picture_that_is_asked_for_is_refused_first(self, command, bare, monkeypatch, capsys):
        monkeypatch.setattr(Forecaster, "backtest", no_training)
        assert cli.main(command.split()) == 2
        option = command.split()[-2]
        assert f"error: {option} needs matplotlib. Install it with: pip " in capsys.readouterr().err

    @pytest.mark.parametrize(
        "command",
        ["train --data tide.csv --plain --epochs 1", "explain --data tide.csv --rows 5"],
    )
    def test_the_rest_goes_on_and_says_so(self, command, bare, tmp_path, capsys):
        assert cli.main([*command.split(), "--out", str(tmp_path / "new")]) == 0
        assert "no plots: Plots need matplotlib" in capsys.readouterr().out
        assert list((tmp_path / "new").iterdir())
