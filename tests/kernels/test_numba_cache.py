"""Compiled code is kept for the next process, and not after any of its sources has changed."""

from __future__ import annotations

import inspect
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import rnn_xp as rx

pytest.importorskip("numba", reason="numba is not installed")
from rnn_xp.kernels.numba import product


class TestCache:
    CODE = inspect.cleandoc(
        """
        import numpy as np
        from rnn_xp.kernels.numba import lanes
        length = lanes.columns(np.zeros((1, 8), "f4"), 0)[1]
        print(length, sum(lanes.columns.stats.cache_hits.values()))
        """
    )

    def run(self, root, **settings):
        """Length of a row as compiled code gives it, and how often the cache was hit."""
        done = subprocess.run(
            [sys.executable, "-P", "-c", self.CODE], env={"PYTHONPATH": str(root), **settings},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        return done.stdout.split()

    @pytest.mark.full
    def test_compiled_code_is_kept_for_the_next_process(self, tmp_path):
        root, settings = Path(rx.__file__).parents[1], {"NUMBA_CACHE_DIR": str(tmp_path)}
        said = [self.run(root, **settings) for _ in range(2)]
        assert said == [["8", "0"], ["8", "1"]]
        assert [*tmp_path.rglob("*.nbi")], "where the user wants it"

    def test_a_change_of_another_file_compiles_anew(self, tmp_path):
        package = tmp_path / "rnn_xp"
        shutil.copytree(
            Path(rx.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__")
        )
        said = [self.run(tmp_path)[1], self.run(tmp_path)[1]]
        source = package / "kernels" / "numba" / "layer.py"  # lanes.py does not import it
        source.write_text(f"{source.read_text()}# Another version.\n")
        assert [*said, self.run(tmp_path)[1]] == ["0", "1", "0"]
        assert [*(package / "kernels" / "numba" / "__pycache__").glob("*.nbi")]


def test_where_no_folder_can_be_written_to_it_is_compiled_all_the_same(monkeypatch):
    tried = []

    def cache(function):
        tried.append(function)
        raise RuntimeError("cannot cache function: no locator available for file")

    monkeypatch.setattr(product, "_Cache", cache)
    assert product.compiled(lambda a: a + 1)(2) == 3
    assert len(tried) == 1
