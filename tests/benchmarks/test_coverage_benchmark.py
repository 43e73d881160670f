"""benchmarks/coverage.py counts for itself, and says so where a report is wrong."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import coverage


@pytest.fixture(autouse=True)
def waves(monkeypatch):
    rng = np.random.default_rng(0)
    values = np.sin(np.arange(240) / 3.0) + rng.standard_normal(240) * np.linspace(0.1, 0.4, 240)
    monkeypatch.setattr(coverage, "SERIES", {"waves": lambda: values})


def test_reported_and_achieved_are_the_same_share(tmp_path, capsys):
    out = tmp_path / "page.md"
    assert coverage.main(["--quick", "--out", str(out)]) == 0
    rows = [line.split("|")[1:-1] for line in capsys.readouterr().out.splitlines()[2:]]
    assert len(rows) == 6
    for *_, kind, _, said, true, apart in ([cell.strip() for cell in row] for row in rows):
        assert said == true, kind
        assert apart == "0.00"
    assert "| waves | 240 | 12 | adaptive | 37 |" in out.read_text()


def test_a_report_that_is_more_than_three_points_off_is_an_error(monkeypatch):
    counted = coverage.achieved
    monkeypatch.setattr(coverage, "achieved", lambda *args: counted(*args) - 0.04)
    assert coverage.main(["--quick"]) == 1


@pytest.mark.parametrize("words", [["walk"], ["--out", "nowhere/at/all.md"]])
def test_bad_arguments(words, capsys):
    with pytest.raises(SystemExit) as ended:
        coverage.main(words)
    assert ended.value.code == 2
    assert "error" in capsys.readouterr().err
