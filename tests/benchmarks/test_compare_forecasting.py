"""The page that compares forecasters: its measures, and its words where ours is worse."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks.compare import __main__, forecasting
from benchmarks.compare.forecasters import OURS, chance, coverage, panel
from benchmarks.compare.series import PROCESSES


def kept(folder, series, name, scores, remarks=()):
    cost = {"seconds": 2.0, "mib": 300.0}
    content = {"scores": scores, "costs": [cost], "remarks": list(remarks)}
    (folder / f"{series}-{name.replace(' ', '_')}.json").write_text(json.dumps(content))


def test_a_page_of_kept_measurements(tmp_path, capsys):
    worse = "lynx, 12 ahead: the best baseline is drift; ours is **worse**, 1.20 times as much"
    ours = {"1": {OURS: 0.5, "best baseline": 0.6}, "12": {OURS: 1.2, "best baseline": 1.0}}
    kept(tmp_path, "lynx", OURS, ours, [worse])
    kept(tmp_path, "lynx", "Theta", {"1": {"Theta": 0.7}, "12": {"Theta": 1.1}})
    words = f"forecasting --quick --keep {tmp_path} --series lynx --only {OURS} Theta".split()
    assert __main__.main([*words, "--out", str(tmp_path / "page.md")]) == 0
    text = (tmp_path / "page.md").read_text()
    for line in (
        "| lynx | 1 | 0.500 | 0.700 | 0.600 |",
        "| lynx | 12 | 1.200 | 1.100 | 1.000 |",
        "| **mean rank** |  | 1.50 | 1.50 |",
        "| lynx | 2.0 s, 300 MiB | 2.0 s, 300 MiB |",
        f"- {worse}",
    ):
        assert line in text
    assert "## Intervals" not in text


def test_mase_is_that_of_its_definition():
    values = np.asarray([0.0, 2.0, 1.0, 3.0, 5.0, 4.0, 6.0, 8.0, 7.0, 9.0])
    forecast = np.asarray([[7.0, 8.0], [9.0, 9.0]])
    train = np.mean([2.0, 1.0, 2.0, 2.0, 1.0, 2.0, 2.0])
    assert forecasting.mase(values, forecast, 1) == pytest.approx(np.mean([0.0, 0.0]) / train)
    assert forecasting.mase(values, forecast, 2) == pytest.approx(np.mean([0.0, 1.0]) / train)


def test_what_is_missing_is_last():
    rows = [{"a": 1.0, "b": 2.0}, {"b": 1.0, "c": 0.5}]
    assert forecasting.ranks(rows, ["a", "b", "c"]) == {"a": 2.0, "b": 2.0, "c": 2.0}


def test_chance_is_that_of_a_binomial_share_and_more_where_steps_overlap():
    assert chance(0.8, 100, 1) == pytest.approx(2.0 * 0.04)
    assert chance(0.8, 100, 2) == pytest.approx(0.08 * (1.0 + np.sqrt(2.0)) / 2.0)
    rng, shares = np.random.default_rng(0), []
    for _ in range(400):  # two steps of a random walk, from successive rows, each to 80 %
        steps = rng.standard_normal(101)
        shares.append(np.mean(np.abs(steps[1:] + steps[:-1]) <= 1.2816 * np.sqrt(2.0)))
    assert np.std(shares) <= np.sqrt(0.16 * 2.0 / 100)


def test_coverage_is_counted_at_every_origin():
    values = PROCESSES["AR(1)"](np.random.default_rng(0), 80)
    shares, crossed, origins = coverage(values, 64, 2, (80, 95))
    assert origins == 15
    assert not crossed
    assert 0.5 <= shares[80] <= shares[95] <= 1.0


def test_the_processes_and_the_panel_are_the_same_every_time():
    for make in PROCESSES.values():
        first, again = (make(np.random.default_rng(3), 50) for _ in range(2))
        assert first.shape == (50,)
        assert np.array_equal(first, again)
    assert np.array_equal(panel(2, 30)["s1"], panel(3, 30)["s1"])
