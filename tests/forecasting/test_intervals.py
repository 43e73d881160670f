"""Conformal intervals: exact small cases, coverage where it is promised, and no look ahead."""

from __future__ import annotations

import numpy as np
import pytest

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
