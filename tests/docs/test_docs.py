"""What the documentation says, done: README's example, and every docstring's."""

from __future__ import annotations

import doctest
import importlib
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import rnn_xp

ROOT = Path(__file__).parents[2]
MODULES = sorted(m.name for m in pkgutil.walk_packages(rnn_xp.__path__, "rnn_xp."))


def test_the_example_in_the_readme_runs():
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(blocks) == 1
    code = [line for line in blocks[0].splitlines() if line and not line.startswith("#")]
    assert len(code) <= 20
    process = subprocess.run(
        [sys.executable, "-W", "error", "-c", blocks[0]],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    first, last = map(float, re.fullmatch(r"loss (\S+) -> (\S+)\n", process.stdout).groups())
    assert last < 0.01 * first


def test_every_make_target_in_the_documentation_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in ("README.md", "CONTRIBUTING.md"):
        named = set(re.findall(r"\bmake ([a-z-]+)", (ROOT / page).read_text()))
        assert named
        assert named <= targets, page


@pytest.mark.parametrize("name", ["rnn_xp", *MODULES])
def test_examples_in_docstrings(name):
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != "cupy":
            raise
        pytest.skip("cupy is not installed")
    failed, _ = doctest.testmod(module)
    assert failed == 0
