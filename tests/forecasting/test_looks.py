"""Colours and shapes of plots: one meaning each, told apart by the colour-blind as well."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import pytest

from rnn_xp.forecasting import looks, plotting
from rnn_xp.forecasting.backtest import Judged

pytest.importorskip("matplotlib")

NAMES = ("rnn", "persistence", "seasonal(12)", "linear AR(10)", "drift", "mean")

# G. M. Machado, M. M. Oliveira, L. A. F. Fernandes, "A physiologically-based model for simulation
# of color vision deficiency", IEEE TVCG 15 (2009), table of severity 1.0; linear RGB.
SIGHT = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
}
RGB_TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750],
     [0.0193339, 0.1191920, 0.9503041]]
)  # fmt: skip
LEAST = 20.0  # distance in CIELAB; 2.3 is what the eye can just tell apart


def lab(color, sight):
    rgb = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255.0
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    xyz = RGB_TO_XYZ @ np.clip(SIGHT[sight] @ linear, 0.0, 1.0) / np.array([0.95047, 1.0, 1.08883])
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16.0) / 116.0)
    return np.array([116.0 * f[1] - 16.0, 500.0 * (f[0] - f[1]), 200.0 * (f[1] - f[2])])


@pytest.mark.parametrize("sight", SIGHT)
def test_all_pairs_of_colours_can_be_told_apart(sight):
    colors = {name: looks.look_of(name)["color"] for name in NAMES} | {"truth": looks.TRUTH}
    for one, other in itertools.combinations(colors, 2):
        distance = np.linalg.norm(lab(colors[one], sight) - lab(colors[other], sight))
        assert distance > LEAST, (one, other, distance)


def test_the_measure_knows_what_the_colour_blind_confuse():
    red, green = "#D62728", "#2CA02C"  # matplotlib's own
    assert np.linalg.norm(lab(red, "normal") - lab(green, "normal")) > 100.0
    assert np.linalg.norm(lab("#FF8000", "deuteranopia") - lab("#B5B500", "deuteranopia")) < LEAST


def test_every_baseline_has_its_own_line_and_marker():
    of_all = [looks.look_of(name) for name in NAMES]
    assert len({look["marker"] for look in of_all}) == len(NAMES)
    assert looks.look_of("rnn")["linestyle"] == "-"
    assert all(look["linestyle"] != "-" for look in of_all[1:])
    assert looks.look_of("gru") == looks.look_of("rnn")


def result(horizon, origins, low=True):
    rng = np.random.default_rng(0)
    series = np.cumsum(rng.standard_normal(200))
    truth = np.stack([series[origin : origin + horizon] for origin in origins])
    part = SimpleNamespace(
        origins=np.asarray(origins), truth=truth, forecast=truth + 0.5,
        low=truth - 1.0 if low else None, high=truth + 1.0 if low else None,
        baselines={"persistence": truth - 0.5},
    )  # fmt: skip
    return SimpleNamespace(series=[part], scores=[SimpleNamespace(name="gru")], level=0.9)


class TestForecastsOfSeveralSteps:
    def test_a_single_one_is_named_in_the_singular(self):
        ax = plotting.backtest(result(5, [100]), label="level", title="wave")
        assert ax.get_title() == "wave: the last forecast of 5 steps"

    def test_each_is_a_path_from_its_own_origin(self):
        drawn = result(5, range(100, 196))
        ax = plotting.backtest(drawn, label="level", title="wave", last=20)
        assert ax.get_title() == "wave: 4 forecasts of 5 steps"
        paths = [line for line in ax.lines if line.get_color() == looks.NETWORK]
        assert [list(line.get_xdata()) for line in paths] == [
            list(range(origin, origin + 5)) for origin in (180, 185, 190, 195)
        ]
        part = drawn.series[0]
        for line, i in zip(paths, (80, 85, 90, 95), strict=True):
            np.testing.assert_array_equal(line.get_ydata(), part.forecast[i])
        truth = ax.lines[0]
        np.testing.assert_array_equal(truth.get_ydata()[:5], part.truth[80])
        assert len(ax.collections) == 4  # an interval for each

    def test_each_name_stands_in_the_legend_once_and_beside_the_curves(self):
        ax = plotting.backtest(result(5, range(100, 196)), label="level", last=20)
        legend = ax.get_legend()
        words = [text.get_text() for text in legend.get_texts()]
        assert sorted(words) == ["90 % interval", "gru", "persistence", "truth"]
        ax.figure.canvas.draw()
        assert legend.get_window_extent().x0 >= ax.get_window_extent().x1

    def test_a_stride_beyond_the_horizon_leaves_the_truth_open(self):
        ax = plotting.backtest(result(2, range(100, 180, 10), low=False), label="level")
        truth = np.asarray(ax.lines[0].get_ydata(), dtype=float)
        assert np.isnan(truth).any()
        assert not ax.collections

    def test_one_step_is_a_line(self):
        ax = plotting.backtest(result(1, range(100, 200)), label="level", title="wave")
        assert ax.get_title() == "wave: one step ahead, last 60 steps of the test part"
        assert len(ax.lines) == 3


class TestGradientFlow:
    def test_a_long_title_stays_within_the_picture(self):
        title = "RNN 2x50 (tanh), " + "read max, dropout 0.2, " * 8
        ax = plotting.gradient_flow({"layer0": np.ones(5)}, {}, title=title)
        ax.figure.canvas.draw()
        extent = ax.title.get_window_extent()
        assert extent.x0 >= 0.0
        assert extent.x1 <= ax.figure.bbox.x1

    def test_labels_say_whose_gradient_it_is(self):
        ax = plotting.gradient_flow(
            {"prediction": np.ones(3)}, {"layer0": np.array([0.0, 0.5, 1.0])}
        )
        words = [text.get_text() for text in ax.get_legend().get_texts()]
        assert words == ["prediction: |dL/dpred_t|", "layer0: term of dL/dw_hh\n(0 at t = 1)"]

    def test_many_steps_have_few_markers(self):
        ax = plotting.gradient_flow({"layer0": np.linspace(0.1, 1.0, 200)}, {})
        (line,) = (line for line in ax.lines if line.get_marker() == "o")
        assert 200 / line.get_markevery() <= 40


def test_judged_has_what_is_drawn():
    assert {"origins", "truth", "forecast", "low", "high", "baselines"} <= set(
        Judged.__dataclass_fields__
    )


class TestWhatComesNext:
    def test_months_are_dates(self):
        months = ["1960-11", "1960-12", "1961-01"]
        ax = plotting.outlook(np.ones(2), np.ones(1), dates=months, label="level")
        assert ax.get_xlabel() == "date, 1960-11-01 .. 1961-01-01"

    def test_without_dates_that_can_be_read_steps_are_counted_from_the_last_value(self):
        days = ["01/02/2020", "01/03/2020", "01/04/2020"]
        ax = plotting.outlook(np.ones(2), np.ones(1), dates=days, label="level")
        assert ax.get_xlabel() == "steps after the last value"
        assert list(ax.lines[0].get_xdata()) == [-1, 0]
