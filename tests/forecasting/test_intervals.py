"""Conformal intervals: exact small cases, coverage where it is promised, and no look ahead."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from forecasters import quick, waves

from rnn_xp.forecasting.intervals import (
    IntervalError,
    adaptive_radii,
    check_enough,
    conformal_radii,
)


@pytest.mark.parametrize(
    ("count", "level", "rank"), [(19, 0.9, 18), (9, 0.9, 9), (99, 0.95, 95), (4, 0.5, 3)]
)
def test_the_radius_is_the_error_of_this_rank(count, level, rank):
    errors = np.random.default_rng(0).permutation(np.arange(1.0, count + 1))[:, None]
    assert conformal_radii(errors, level).tolist() == [rank]


def test_steps_have_radii_of_their_own():
    errors = np.arange(1.0, 20.0)[:, None] * np.asarray([[1.0, 10.0]])
    assert conformal_radii(errors, 0.9).tolist() == [18.0, 180.0]


def test_too_few_errors_say_how_many_are_needed():
    with pytest.raises(ValueError, match=r"0.9 needs the errors of 9 windows or more.* are 8"):
        conformal_radii(np.ones((8, 1)), 0.9)


@pytest.mark.parametrize("level", [0.0, 1.0, -1.0, True])
def test_a_level_is_a_share(level):
    with pytest.raises(ValueError, match=r"level must be a share in \(0, 1\)"):
        conformal_radii(np.ones((100, 1)), level)


def test_split_intervals_cover_as_promised_where_errors_stay_alike():
    """Over many draws the mean coverage lies between the level and the level + 1 / (n + 1)."""
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(4000):
        errors = np.abs(rng.standard_normal((30, 1)))
        covered.append(np.abs(rng.standard_normal()) <= conformal_radii(errors[:-1], 0.9)[0])
    assert 0.9 - 0.015 < np.mean(covered) < 0.9 + 1 / 30 + 0.015


def test_more_than_was_ever_seen_is_an_error_larger_than_all():
    """Of three errors the level 0.9 asks for the fourth: a third of the largest is added to it."""
    past, errors = np.asarray([[1.0], [3.0], [2.0]]), np.asarray([[0.5]])
    assert adaptive_radii(past, errors, 0.9).tolist() == [[4.0]]


def test_adaptive_intervals_follow_errors_that_grow():
    rng = np.random.default_rng(0)
    past = np.abs(rng.standard_normal((300, 2)))
    errors = np.abs(rng.standard_normal((2000, 2))) * np.linspace(1.0, 4.0, 2000)[:, None]
    adaptive = errors <= adaptive_radii(past, errors, 0.9)
    split = errors <= conformal_radii(past, 0.9)
    assert (split.mean(axis=0) < 0.7).all()
    assert (np.abs(adaptive.mean(axis=0) - 0.9) < 0.02).all()


@pytest.mark.parametrize("stride", [1, 2, 5])
def test_an_error_is_not_used_before_it_is_known(stride):
    """Step j of the forecast made at row e is known at row e + j + 1."""
    rng = np.random.default_rng(0)
    past, errors = np.abs(rng.standard_normal((50, 4))), np.abs(rng.standard_normal((40, 4)))
    errors[10] = 0.0
    rows = stride * np.arange(40)
    before = adaptive_radii(past, errors, 0.8, rows=rows)
    changed = errors.copy()
    changed[10] = 1e6
    after = adaptive_radii(past, changed, 0.8, rows=rows)
    for step in range(4):
        first = next(k for k in range(40) if k * stride >= 10 * stride + step + 1)
        assert np.array_equal(after[:first, step], before[:first, step])
        assert after[first, step] > before[first, step]


def test_the_quantile_of_the_latest_errors_is_taken():
    """Of 600 past errors the last 500 count, and each new one takes the place of the oldest."""
    past = np.concatenate([np.full(100, 9.0), np.linspace(1.0, 2.0, 500)])[:, None]
    radii = adaptive_radii(past, np.full((600, 1), 5.0), 0.9, rate=1e-12)
    expected = np.sort(past[100:, 0])[450]
    np.testing.assert_allclose(radii[0], expected)
    assert radii[-1] == 5.0
    assert radii.max() == 5.0


def test_a_miss_widens_and_a_hit_narrows():
    """The share of misses moves by rate * 0.1 after a hit, and by -rate * 0.9 after a miss."""
    past = np.arange(1.0, 100.0)[:, None]
    inside, outside = (
        adaptive_radii(past, np.asarray([[error], [np.nan]]), 0.9, rate=0.1)[:, 0]
        for error in (0.5, 200.0)
    )
    assert inside.tolist() == [90.0, 89.0]  # rank ceil(101 * 0.89) = 90 with 0.5 below all others
    assert outside.tolist() == [90.0, 200.0]  # rank ceil(101 * 0.99) = 100


def test_an_unknown_error_changes_nothing():
    rng = np.random.default_rng(0)
    past, errors = np.abs(rng.standard_normal((50, 2))), np.abs(rng.standard_normal((30, 2)))
    gone = errors.copy()
    gone[10] = np.nan
    rows = np.delete(np.arange(30), 10)
    without = adaptive_radii(past, np.delete(errors, 10, axis=0), 0.8, rows=rows)
    assert np.array_equal(np.delete(adaptive_radii(past, gone, 0.8), 10, axis=0), without)


def test_no_error_is_used_before_the_wait_is_over():
    rng = np.random.default_rng(0)
    past, errors = np.abs(rng.standard_normal((50, 4))), np.abs(rng.standard_normal((40, 4)))
    errors[10] = 0.0
    changed = errors.copy()
    changed[10] = 1e6
    before, after = (adaptive_radii(past, e, 0.8, wait=3) for e in (errors, changed))
    assert np.array_equal(after[:14], before[:14])
    assert (after[14] > before[14]).all()


def test_the_number_of_errors_that_a_level_needs_is_checked():
    check_enough(9, 0.9)
    with pytest.raises(IntervalError, match="0.99 needs the errors of 99 windows or more.* are 98"):
        check_enough(98, 0.99)


class TestLevels:
    @pytest.mark.parametrize("kind", ["adaptive", "split"])
    def test_each_lies_within_the_next(self, kind):
        values = waves(400)
        f = quick(horizon=3, intervals=kind).fit(values[:300]).apply(values)
        low, high = f.predict_interval(level=[95, 80, 0.5])
        assert list(low) == list(high) == [95, 80, 0.5]
        for inner, outer in ((0.5, 80), (80, 95)):
            assert (low[outer] <= low[inner]).all()
            assert (high[inner] <= high[outer]).all()
        alone = f.predict_interval(level=0.5)
        assert np.array_equal(alone[0], low[0.5])
        assert np.array_equal(alone[1], high[0.5])

    def test_levels_that_adapted_apart_do_not_cross(self):
        """Two errors are enough for 40 %, and many misses of it move it beyond 60 %."""
        f = quick(horizon=1).fit(waves(300))
        wrong = np.concatenate([np.full((200, 1), 0.7), np.full((1, 1), np.nan)])
        fitted = dataclasses.replace(f.fitted, later=(wrong,))
        low, high = fitted.predict_interval(None, [40, 60, 80, 95], None)
        widths = [float(high[level][0] - low[level][0]) for level in (40, 60, 80, 95)]
        assert widths == sorted(widths)

    def test_a_panel_has_those_of_each_series(self):
        f = quick(horizon=2).fit({"a": waves(), "b": waves(seed=1)})
        low, high = f.predict_interval(level=[80, 95])
        assert low[80].keys() == high[95].keys() == {"a", "b"}
        assert (low[95]["b"] <= low[80]["b"]).all()

    @pytest.mark.parametrize(
        ("level", "words"),
        [
            (
                [80, 100],
                r"shares in \(0, 1\) or percentages in \[2, 100\), got 100",
            ),
            ([True], "percentages in \\[2, 100\\), got True"),
            (["80"], "percentages in \\[2, 100\\), got '80'"),
            ([0.8, 80], "level is there twice: 80"),
            ([], "or a list of shares or percentages such as \\[80, 95\\], got \\[\\]"),
        ],
    )
    def test_what_is_no_level_is_named(self, level, words):
        with pytest.raises(ValueError, match=words):
            quick().fit(waves()).predict_interval(level=level)
