"""Where the tests of the command line run, and on what."""

from __future__ import annotations

import numpy as np
import pytest
from pictures import dots as dots


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Run in an empty folder, and in a terminal so wide that no line is broken."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "500")


@pytest.fixture
def small_csv(tmp_path):
    """120 days of a noisy wave, with dates."""
    rng = np.random.default_rng(0)
    days = np.datetime64("2024-01-01") + np.arange(120)
    values = np.sin(np.arange(120) / 5.0) + 0.1 * rng.standard_normal(120)
    text = "day,level\n" + "".join(f"{d},{v:.5f}\n" for d, v in zip(days, values, strict=True))
    (tmp_path / "tide.csv").write_text(text)
    return "tide.csv"
