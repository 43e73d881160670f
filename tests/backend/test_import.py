"""Importing the package is quick: no array library but NumPy, and little beside it."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

import rnn_xp

PATH = os.pathsep.join([str(Path(rnn_xp.__file__).parents[1]), *sys.path])
NEW = """
import dataclasses, json, sys, numpy
before = set(sys.modules)
import rnn_xp
print(json.dumps(sorted({name.partition(".")[0] for name in set(sys.modules) - before})))
"""


def run(code, **variables):
    return subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": PATH, **variables},
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip


def seconds(code, folder):
    """CPU time of a process, with the modules compiled in a folder as an installation has them."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run(code, PYTHONDONTWRITEBYTECODE="", PYTHONPYCACHEPREFIX=str(folder))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_beside_numpy_nothing_but_data_classes_is_imported():
    assert set(json.loads(run(NEW))) <= {"__future__", "copy", "numpy", "rnn_xp"}


@pytest.mark.full  # sixteen processes
def test_the_import_takes_at_most_60_ms_beyond_numpy(tmp_path):
    runs = [[seconds(f"import {name}", tmp_path) for name in ("numpy", "rnn_xp")] for _ in range(8)]
    numpy, ours = map(min, zip(*runs[1:], strict=True))  # the first run compiles
    assert ours - numpy <= 0.060
