"""All commands: their help, the small ones, and the verdict in words."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from commands import ROOT

import rnn_xp as rx
from rnn_xp import cli
from rnn_xp.backend.libraries import BackendStatus
from rnn_xp.forecasting import Score, verdict


class TestOtherCommands:
    def test_backends(self, capsys):
        assert cli.main(["backends"]) == 0
        out = capsys.readouterr().out
        assert out.startswith("backend")
        for name in ("numpy", "cupy", "torch", "jax", "dpnp", "mlx", "array_api_strict"):
            assert name in out
        assert "selected by RNN_XP_BACKEND: numpy (default)" in out

    @pytest.mark.parametrize(
        ("value", "words"),
        [
            ("cupy", "cupy (not usable here)"),
            ("jax", "jax"),
            ("auto", "auto"),
            ("numpy", "numpy"),
        ],
    )
    def test_the_selected_backend_is_checked(self, value, words, capsys, monkeypatch):
        statuses = [
            BackendStatus(name, True, name != "cupy", None, (), None)
            for name in ("numpy", "cupy", "jax")
        ]
        monkeypatch.setattr(cli.show, "backends", lambda: statuses)
        monkeypatch.setenv("RNN_XP_BACKEND", value)
        assert cli.main(["backends"]) == 0
        assert capsys.readouterr().out.splitlines()[-1] == f"selected by RNN_XP_BACKEND: {words}"

    @pytest.mark.parametrize("value", ["NumPy", "tf"])
    def test_an_unknown_backend_is_an_error_below_the_table(self, value, capsys, monkeypatch):
        monkeypatch.setenv("RNN_XP_BACKEND", value)
        assert cli.main(["backends"]) == 2
        said = capsys.readouterr()
        assert said.out.startswith("backend")
        assert said.err.strip() == (
            f"rnn-xp: error: RNN_XP_BACKEND={value} is not known. Choose one of: numpy, cupy, "
            "torch, jax, dpnp, mlx, array_api_strict, auto."
        )

    @pytest.mark.full("train")
    @pytest.mark.cover("values")
    @pytest.mark.parametrize("unbuffered", ["", "1"])
    @pytest.mark.parametrize("command", ["datasets", "train --help", "train --data tide.csv"])
    def test_a_reader_that_is_gone(self, small_csv, command, unbuffered):
        read, write = os.pipe()
        os.close(read)
        process = subprocess.run(
            [sys.executable, "-m", "rnn_xp.cli", *command.split()],
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": unbuffered},
            stdout=write,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        os.close(write)
        # argparse itself keeps silent about help that cannot be written.
        assert process.returncode in ((0, 141) if "--help" in command else (141,))
        lines = process.stderr.splitlines()
        assert all(line.startswith("epoch ") for line in lines), lines

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

    COMMANDS = (
        *([], ["train"], ["evaluate"], ["forecast"], ["backtest"], ["explain"]),
        *(["export"], ["import"], ["info"], ["bench"], ["backends"], ["datasets"]),
    )

    @pytest.mark.parametrize("command", COMMANDS, ids=lambda command: "-".join(command) or "itself")
    def test_help_fits_a_screen_and_ends_with_an_example(self, command, capsys, monkeypatch):
        monkeypatch.setenv("COLUMNS", "100")
        with pytest.raises(SystemExit) as stop:
            cli.main([*command, "--help"])
        assert stop.value.code == 0
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) <= 55
        assert max(map(len, lines)) <= 100
        assert lines[-1].startswith("example: ")
        assert "rnn-xp " in lines[-1]

    def test_the_help_of_all_imports_no_command(self):
        """The names and a line on each are known without."""
        code = (
            "import sys; from rnn_xp import cli\ntry: cli.main(['--help'])\nexcept SystemExit: pass"
        )
        code += "\nassert not {'rnn_xp.training.trainer', 'rnn_xp.cli.train'} & set(sys.modules)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert all(name in done.stdout for (name,) in self.COMMANDS[1:])

    def test_the_table_of_commands_is_that_of_their_modules(self):
        for name, (module, _) in cli._COMMANDS.items():
            commands = cli._Commands(argparse.ArgumentParser().add_subparsers())
            importlib.import_module(f"rnn_xp.cli.{module}").add_command(commands)
            mine = {other for other, (where, _) in cli._COMMANDS.items() if where == module}
            assert commands.added == mine
            assert name in mine

    def test_the_examples_of_the_help_can_be_parsed(self, capsys):
        for (line,) in self.COMMANDS[1:-2]:
            parser = cli._parser(line)
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


@pytest.mark.parametrize("module", ["", "."])
def test_a_probe_needs_the_name_of_a_module(module, capsys):
    assert cli.main(["backends", "--probe", module]) == 2
    assert "--probe needs the name of a module, such as dask.array" in capsys.readouterr().err
