"""``rnn-xp train`` on data of every kind, and on every backend."""

from __future__ import annotations

import csv
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from commands import ROOT, train

from rnn_xp import cli
from rnn_xp._checks import Argument, ParameterError
from rnn_xp.cli import messages


class TestData:
    """What is said about a CSV file, and what is refused, in terms of the options."""

    @pytest.mark.parametrize(
        ("gap", "options", "words"),
        [
            (5, ["--missing", "drop"], "119 rows 2024-01-01..2024-04-29, 1 missing dropped, sha"),
            (5, ["--missing", "interpolate"], "120 rows 2024-01-01..2024-04-29, 1 missing filled"),
            (None, ["--missing", "drop"], "120 rows 2024-01-01..2024-04-29, 0 missing dropped"),
            (120, ["--missing", "drop"], "119 rows 2024-01-01..2024-04-28, some missing dropped"),
        ],
    )
    def test_rows_dropped_or_filled(self, small_csv, gap, options, words, capsys):
        lines = Path(small_csv).read_text().splitlines()
        if gap is not None:
            lines[gap] = lines[gap].partition(",")[0] + ",NA"
        Path(small_csv).write_text("\n".join(lines))
        assert train("--data", small_csv, *options) == 0
        assert f"data     tide (level): {words}" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("form", "words"),
        [
            ("01/01/19{:02d}", "dates not ISO 8601: order not checked"),
            ("2024-01-01 00:{:02d}:00", ""),
        ],
    )
    def test_dates_that_are_not_checked(self, form, words, capsys):
        rows = [f"{form.format(i)},{np.sin(i):.5f}\n" for i in range(1, 60)]
        Path("tide.csv").write_text("day,level\n" + "".join(rows))
        assert train("--data", "tide.csv") == 0
        span = f"{form.format(1)}..{form.format(59)}"
        words = f", {words}" if words else ""
        assert f"tide (level): 59 rows {span}{words}, sha256" in capsys.readouterr().out

    def test_some_dates_with_a_time_zone(self, capsys):
        days = [f"2024-01-{i:02d}" + ("T00:00+00:00" if i == 9 else "") for i in range(1, 31)]
        Path("tide.csv").write_text("".join(f"{day},{i % 7}.5\n" for i, day in enumerate(days)))
        assert train("--data", "tide.csv", "--seq-length", "3") == 0
        words = ", dates with and without a time zone: order not checked, sha256"
        out = capsys.readouterr().out
        assert "tide (column 1): 30 rows" in out
        assert words in out

    def test_a_file_with_the_name_of_a_bundled_series(self, capsys, monkeypatch):
        Path("wti").write_text("".join(f"{np.sin(i):.5f}\n" for i in range(60)))
        assert train("--data", "wti", "--epochs", "1") == 0
        assert "wti (price_usd): 8321 rows" in capsys.readouterr().out
        assert train("--data", "./wti", "--epochs", "1") == 0
        assert "wti (column 0): 60 rows, sha256" in capsys.readouterr().out
        monkeypatch.setenv("COLUMNS", "100")
        with pytest.raises(SystemExit):
            cli.main(["train", "--help"])
        assert "./wti means a file" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("text", "options", "message"),
        [
            ("1,2\n3,4\n", [], "several columns of numbers: 0, 1. Say which with --column."),
            (
                "1\nNA\n3\n",
                [],
                "row 2, column 0 is missing ('NA'). Pass --missing drop to leave such rows out or "
                "--missing interpolate to fill them.",
            ),
            (
                "1\n2\nNA\n",
                ["--missing", "interpolate"],
                "cannot be interpolated. Remove the row or pass --missing drop.",
            ),
            (
                "1\n" * 99,
                [],
                "error: the series is constant: there is nothing to forecast.",
            ),
            (
                "1\n2\n" * 15,
                [],
                "the test part of 6 values is too short, and a smaller --train-fraction makes "
                "it longer: a series of 6 values is too short for "
                "--seq-length 10 and --horizon 1: at least 11",
            ),
        ],
    )
    def test_messages_speak_of_options(self, text, options, message, capsys):
        Path("my.csv").write_text(text)
        for command in (["train", "--plain"], ["explain"]):
            if command == ["explain"] and "test part" in message:
                continue  # which needs none
            assert cli.main([*command, "--data", "my.csv", *options]) == 2
            out, err = capsys.readouterr()
            assert out == ""
            assert message in err
            for python in ("column=", "missing=", "kind=", "seq_length", "horizon=", " fraction"):
                assert python not in err

    def test_explain_a_run_on_a_bundled_series_instead_of_its_file(self, small_csv, capsys):
        assert train("--data", small_csv, "--column", "level", "--out", "run") == 0
        assert cli.main(["explain", "--run", "run", "--rows", "5"]) == 0
        assert "tide (level): 120 rows" in capsys.readouterr().out
        assert cli.main(["explain", "--run", "run", "--rows", "5", "--data", "wti"]) == 0
        assert "wti (price_usd): 8321 rows" in capsys.readouterr().out


class TestErrorsWithFields:
    """An error knows the arguments it speaks of, so that nobody reads its text."""

    ERROR = ParameterError(
        "{0:name} must be >= 1, got {0:value}; {1} and {2} are others.",
        Argument("seq_length", 0), Argument("missing", "drop"), Argument("column"),
    )  # fmt: skip

    def test_in_python_and_on_the_command_line(self):
        assert str(self.ERROR) == (
            "seq_length must be >= 1, got 0; missing='drop' and column= are others."
        )
        assert messages.told(self.ERROR) == (
            "--seq-length must be >= 1, got 0; --missing drop and --column are others."
        )
        assert messages.told(ValueError("plain {0}")) == "plain {0}"
        assert self.ERROR.name == "seq_length"
        assert self.ERROR.arguments[1].value == "drop"

    def test_options_of_other_names(self):
        error = ParameterError("{0} {1:name} {2}", *(
            Argument(*pair) for pair in (("fraction", 2), ("num_layers", 1), ("intervals", None))
        ))  # fmt: skip
        assert messages.told(error) == "--train-fraction 2 --layers --intervals none"

    def test_words_before_it_are_taken_as_they_are(self):
        found = self.ERROR.within("{0} of {file}: ")
        assert str(found) == f"{{0}} of {{file}}: {self.ERROR}"
        assert found.arguments == self.ERROR.arguments

    def test_it_comes_back_from_another_process(self):
        again = pickle.loads(pickle.dumps(self.ERROR))
        assert (str(again), again.arguments) == (str(self.ERROR), self.ERROR.arguments)


class TestTheSameScriptAnotherVariable:
    """One environment variable, the same losses: 1e-4 in float32, 1e-9 in float64."""

    CASES = (
        ("array_api_strict", "device1", "float32"),
        ("array_api_strict", "CPU_DEVICE", "float64"),
        ("jax", "cpu", "float32"),
        ("jax", "cpu", "float64"),
        pytest.param("torch", "cpu", "float32", marks=pytest.mark.torch),
        pytest.param("torch", "cpu", "float64", marks=pytest.mark.torch),
        pytest.param("dpnp", "cpu", "float32", marks=pytest.mark.libraries),
        pytest.param("dpnp", "cpu", "float64", marks=pytest.mark.libraries),
        pytest.param("mlx", "cpu", "float32", marks=pytest.mark.libraries),
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

    @pytest.mark.full("jax")
    @pytest.mark.cover("values", "backend")
    @pytest.mark.parametrize(("backend", "device", "dtype"), CASES)
    def test_losses(self, backend, device, dtype):
        if backend in ("torch", "dpnp", "mlx"):
            pytest.importorskip(backend, reason=f"{backend} is not installed")
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
