"""The pictures of a run: what is on their axes."""

from __future__ import annotations

import csv
import warnings
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from rnn_xp import cli, plotting
from rnn_xp.cli import run_folder as runs
from rnn_xp.data import datasets
from rnn_xp.forecasting.backtest import judge, make_judged

pytest.importorskip("matplotlib")

from matplotlib.dates import date2num

DAYS = [f"2024-{1 + i // 28:02d}-{1 + i % 28:02d}" for i in range(200)]


def draw(dates, **options):
    """Draw truth 0, 1, 2, ... with persistence and a network that equals it."""
    truth = np.arange(len(dates), dtype=float)
    forecasts = {"persistence": truth - 1.0, "linear": truth, "rnn": truth - 1.0}
    ax = plotting.forecast(dates, truth, forecasts, label="level (m)", **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plotting.to_png(ax)  # lays out the axis, so that the labels are known
    return ax, {line.get_label(): line for line in ax.lines}


def labels(ax):
    return [text.get_text() for text in ax.get_xticklabels() if text.get_text()]


class TestForecast:
    def test_shows_the_last_steps(self):
        ax, lines = draw(DAYS, last=60)
        assert list(lines) == ["truth", "persistence", "linear", "rnn"]
        for line in lines.values():
            assert len(line.get_xdata()) == 60
        assert lines["truth"].get_ydata()[-1] == 199.0
        assert lines["truth"].get_xdata()[0] == datetime.fromisoformat(DAYS[140])
        assert ax.get_xlabel() == f"date, {DAYS[140]} .. {DAYS[199]}"
        assert ax.get_ylabel() == "level (m)"

    def test_persistence_can_be_seen_where_a_network_equals_it(self):
        _, lines = draw(DAYS)
        others = [line for name, line in lines.items() if name != "persistence"]
        assert lines["persistence"].get_zorder() > max(line.get_zorder() for line in others)
        assert lines["persistence"].is_dashed()
        assert not lines["truth"].is_dashed()
        assert not lines["rnn"].is_dashed()

    def test_times_are_a_time_axis(self):
        start = datetime(2022, 1, 1)
        times = [str(start + timedelta(hours=i)) for i in range(20)]
        assert times[0] == "2022-01-01 00:00:00"
        ax, lines = draw(times)
        assert ax.get_xlabel() == "date, 2022-01-01 .. 2022-01-01 19:00:00"
        x = date2num(lines["truth"].get_xdata())
        np.testing.assert_allclose(np.diff(x), 1 / 24, atol=1e-9)

    @pytest.mark.parametrize("count", [2, 5, 10, 60, 200])
    def test_the_year_is_there(self, count):
        ax, _ = draw(DAYS[:count], last=count)
        assert ax.get_xlabel() == f"date, 2024-01-01 .. {DAYS[count - 1]}"
        assert ax.xaxis.get_major_formatter().get_offset() == ""
        assert len(labels(ax)) >= 2

    def test_few_days_are_labelled_each_and_marked(self):
        ax, lines = draw(DAYS[:5])
        assert labels(ax)[1:] == ["02", "03", "04", "05"]
        assert [line.get_marker() for line in lines.values()] == ["o", "s", "D", "o"]
        assert {line.get_markevery() for line in lines.values()} <= {None, 1}

    def test_a_single_day(self):
        ax, lines = draw(DAYS[3:4])
        assert labels(ax) == ["2024-01-04"]
        assert lines["truth"].get_marker() == "o"

    def test_rows(self):
        ax, lines = draw([str(i) for i in range(106, 120)])
        assert ax.get_xlabel() == "row"
        assert list(lines["truth"].get_xdata()) == list(range(106, 120))
        assert all(float(tick).is_integer() for tick in ax.get_xticks())

    @pytest.mark.parametrize(
        "dates",
        [
            [f"{i + 1:02d}/01/24" for i in range(30)],
            [*DAYS[:29], "2024-02-20T00:00+00:00"],
        ],
        ids=["not ISO", "one time zone"],
    )
    def test_other_dates_count_the_steps(self, dates):
        ax, lines = draw(dates, last=10)
        assert ax.get_xlabel() == "step of the test part"
        assert list(lines["truth"].get_xdata()) == list(range(21, 31))


class TestLoss:
    @pytest.mark.parametrize("epochs", [1, 2, 3, 7, 300])
    def test_epochs_are_whole_numbers(self, epochs):
        ax = plotting.loss([1.0 / (i + 1) for i in range(epochs)])
        plotting.to_png(ax)
        low, high = ax.get_xlim()
        ticks = [tick for tick in ax.get_xticks() if low <= tick <= high]
        assert all(float(tick).is_integer() for tick in ticks)
        assert len(ticks) >= 2
        assert low < 1 <= epochs < high

    def test_one_epoch_is_a_point_in_the_middle(self):
        ax = plotting.loss([0.5])
        assert ax.get_xlim() == (0.0, 2.0)
        assert ax.get_ylim() == pytest.approx((0.05, 5.0))
        assert ax.lines[0].get_marker() == "o"

    def test_one_epoch_without_any_loss(self):
        plotting.to_png(plotting.loss([0.0]))


class TestOfARun:
    """The pictures and predictions.csv have one axis."""

    @staticmethod
    def axes(series, monkeypatch, tmp_path, horizon=1, fraction=0.8):
        kept, train = [], int(fraction * len(series.values))
        monkeypatch.setattr(plotting, "to_png", lambda ax: kept.append(ax) or b"")
        origins = np.arange(train + 10, len(series.values) - horizon + 1)
        forecast = np.zeros((len(origins), horizon))
        part = make_judged(series.name, series.values, train, origins, forecast, None, 10)
        judged = judge((part,), "zero", None)
        with runs.RunFolder(tmp_path / "run") as folder:
            folder.write_plots({"loss": [1.0, 0.5]}, series, judged)
            folder.write_predictions({series.name: series}, judged)
        with open(tmp_path / "run" / "predictions.csv", newline="") as file:
            return kept[1], list(csv.DictReader(file))

    @pytest.fixture
    def undated(self, tmp_path):
        path = tmp_path / "wave.csv"
        path.write_text("".join(f"{np.sin(i / 5.0):.5f}\n" for i in range(120)))
        return datasets.read_csv(path)

    def test_undated(self, undated, monkeypatch, tmp_path):
        ax, rows = self.axes(undated, monkeypatch, tmp_path)
        assert ax.get_title() == "wave: one step ahead, last 14 steps of the test part"
        assert (ax.get_xlabel(), ax.get_ylabel()) == ("row", "column 0")
        assert [int(row["row"]) for row in rows] == list(range(106, 120))
        assert list(ax.lines[0].get_xdata()) == list(range(106, 120))
        np.testing.assert_allclose(
            [float(row["truth"]) for row in rows], undated.values[106:], rtol=1e-8
        )

    def test_undated_and_several_steps_ahead(self, undated, monkeypatch, tmp_path):
        _, rows = self.axes(undated, monkeypatch, tmp_path, horizon=2)
        assert next(iter(rows[0])) == "row_of_step_1"

    def test_one_step(self, undated, monkeypatch, tmp_path):
        ax, _ = self.axes(undated, monkeypatch, tmp_path, fraction=0.91)
        assert ax.get_title() == "wave: one step ahead, last step of the test part"

    def test_dated(self, monkeypatch, tmp_path):
        ax, rows = self.axes(datasets.load("length_of_day"), monkeypatch, tmp_path)
        assert ax.get_title() == "length_of_day: one step ahead, last 60 steps of the test part"
        assert ax.get_xlabel() == "date, 2025-11-02 .. 2025-12-31"
        assert ax.get_ylabel() == "lod_ms (ms)"
        days = [day.date().isoformat() for day in ax.lines[0].get_xdata()]
        assert days == [row["date"] for row in rows[-60:]]

    def test_of_the_command(self, undated, monkeypatch, tmp_path):
        monkeypatch.chdir(tmp_path)
        assert cli.main(["train", "--data", "wave.csv", "--epochs", "1", "--out", "it"]) == 0
        for name in ("loss.png", "forecast.png"):
            assert Path("it", name).read_bytes().startswith(b"\x89PNG")
        assert Path("it/predictions.csv").read_text().startswith("row,step,truth,persistence,")
