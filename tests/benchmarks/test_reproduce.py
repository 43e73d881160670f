"""benchmarks/reproduce.py runs, and its Mackey-Glass series is one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.learn.series import free_running, mackey_glass

ROOT = Path(__file__).parents[2]


def test_the_series_solves_its_equation():
    """Over two units of time, by Simpson's rule, from the values of 17 units before."""
    x = np.arctanh(mackey_glass(3000)) + 1.0
    delayed = x[:-17]
    slope = 0.2 * delayed / (1.0 + delayed**10) - 0.1 * x[17:]
    change = x[19:] - x[17:-2]
    simpson = (slope[:-2] + 4.0 * slope[1:-1] + slope[2:]) / 3.0
    assert np.abs(change - simpson).max() < 0.02
    assert 0.2 < x.min() < 0.5
    assert 1.2 < x.max() < 1.4


@pytest.mark.full
def test_mackey_glass_runs_free_as_exactly_as_is_promised():
    assert free_running(quick=False, seed=0).numbers["nrmse84"] < 0.00028


@pytest.mark.full
def test_it_runs(tmp_path):
    out = tmp_path / "page.md"
    command = [sys.executable, "-m", "benchmarks.reproduce", "xor", "forecasts", "--quick"]
    ran = subprocess.run([*command, "--out", str(out)], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    page = out.read_text()
    for word in ("temporal XOR", "skill of the AR", "adaptive", "repeats the last value"):
        assert word in page


@pytest.mark.parametrize("words", [["walk"], ["--out", "nowhere/at/all.md"]])
def test_bad_arguments(words):
    ran = subprocess.run(
        [sys.executable, "-m", "benchmarks.reproduce", *words], capture_output=True, text=True
    )
    assert ran.returncode == 2
    assert "error" in ran.stderr
