"""The scripts of docs/guide/distributed.md, run with stand-ins for Slurm."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import rnn_xp as rx
from rnn_xp.distributed.world import _SIZES

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "guide" / "distributed.md").read_text(encoding="utf-8")


def block(language, word):
    """The one block of code with this word in it."""
    found = [
        code for code in re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL) if word in code
    ]
    assert len(found) == 1, (word, found)
    return found[0]


@pytest.fixture
def run(tmp_path):
    """Run a script of bash, with rnn-xp and srun on the path."""
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, text in {
        "rnn-xp": f'exec "{sys.executable}" -m rnn_xp.cli "$@"',
        "srun": '[ "$1" = --mpi=pmi2 ] && shift && exec "$@"',
    }.items():
        (commands / name).write_text(f"#!/bin/bash\n{text}\n")
        (commands / name).chmod(0o755)
    settings = {name: value for name, value in os.environ.items() if name not in _SIZES}
    settings |= {"PATH": f"{commands}:{settings['PATH']}", "PYTHONPATH": str(ROOT)}

    def work(script, **more):
        return subprocess.run(
            ["bash", "-c", script],
            cwd=tmp_path, env={**settings, **more}, capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip

    return work


@pytest.mark.full
def test_an_array_of_jobs_and_what_came_out_of_it(run, tmp_path, monkeypatch):
    script = block("bash", "SLURM_ARRAY_TASK_ID")
    assert script.count("--epochs 100") == 1
    for task in (0, 5):
        run(script.replace("--epochs 100", "--epochs 2"), SLURM_ARRAY_TASK_ID=str(task))
    found = {}
    monkeypatch.chdir(tmp_path)
    names = {"print": lambda line: found.update([line.split(": ", 1)])}
    exec(block("python", "metrics.json"), names)
    assert found.keys() == {"gru-2", "rnn-0"}
    assert all(re.fullmatch(r"test RMSE 0\.\d{4} ms", words) for words in found.values())


@pytest.mark.full
def test_a_job_that_goes_on_where_it_was(run, tmp_path):
    script = block("bash", "--nodes=2").replace("--epochs 2000", "--epochs 2")
    data = "\n".join(["price", *(f"{10 + 0.1 * (day * day % 17)}" for day in range(120))])
    (tmp_path / "prices.csv").write_text(data)
    first = run(script, SCRATCH=str(tmp_path))
    assert "model    RNN" in first
    assert (tmp_path / "run" / "last.safetensors").exists()
    second = run(script, SCRATCH=str(tmp_path))
    assert f"wrote    {tmp_path}/run/" in first
    assert f"wrote    {tmp_path}/run/" in second


def test_files_of_windows(tmp_path, monkeypatch):
    code = block("python", "open_shards")
    x, y = rx.make_windows([0.1 * (k % 7) for k in range(60)], seq_length=5)
    (tmp_path / "windows").mkdir()
    for name, array in (("x", x), ("y", y)):
        for number in range(2):
            rows = array[30 * number : 30 * (number + 1)]
            np.save(tmp_path / "windows" / f"{name}-{number}.npy", rows)
    monkeypatch.chdir(tmp_path)
    names = {"rx": rx, "Path": Path, "net": rx.Network(hidden_size=3), "comm": None}
    exec(code, names)
    expected = rx.fit(names["net"], x, y, optimizer=rx.optim.adam(0.01), epochs=50)
    assert names["result"].history == expected.history
