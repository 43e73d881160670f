"""Schedules of the learning rate."""

from __future__ import annotations

import functools
import itertools
import math

import numpy as np
import pytest

from rnn_xp import optim
from rnn_xp.optim.schedules import Plateau

PARAMS = {"w": np.ones((1, 1))}


def rates(schedule, updates):
    """What SGD's steps really are, and what it says that they will be."""
    opt = optim.sgd(schedule)
    params, state, said, done = PARAMS, opt.init(PARAMS), [], []
    for _ in range(updates):
        said.append(opt.rate(state))
        new, state = opt.update({"w": np.ones((1, 1))}, state, params)
        done.append((params["w"] - new["w"]).item())
        params = new
    assert all(type(rate) is float for rate in said)
    np.testing.assert_allclose(done, said, atol=1e-14)
    return said


class TestSchedules:
    @pytest.mark.parametrize(
        ("schedule", "expected"),
        [
            (0.5, [0.5] * 5),
            (np.float32(0.5), [0.5] * 5),
            (1, [1.0] * 5),
            (optim.Step(1.0, 2, 0.5), [1.0, 1.0, 0.5, 0.5, 0.25, 0.25, 0.125]),
            (optim.Step(1.0, 1), [1.0, 0.1, 0.01]),
            (optim.Cosine(1.0, 3), [1.0, 0.75, 0.25, 0.0, 0.0]),
            (optim.Cosine(1.0, 2, 0.5), [1.0, 0.75, 0.5, 0.5]),
            (optim.Cosine(1.0, 1, 1.0), [1.0, 1.0]),
            (optim.WarmUp(4, 0.8), [0.2, 0.4, 0.6, 0.8, 0.8, 0.8]),
            (optim.WarmUp(1, 0.8), [0.8, 0.8, 0.8]),
            (optim.WarmUp(2, optim.Cosine(1.0, 3)), [0.5, 1.0, 1.0, 0.75, 0.25, 0.0]),
            (optim.WarmUp(2, optim.WarmUp(2, 4.0)), [1.0, 2.0, 2.0, 4.0, 4.0]),
            (lambda step: 1.0 / (1 + step), [1.0, 0.5, 1 / 3, 0.25]),
            (lambda step: np.float64(step), [0.0, 1.0, 2.0]),
        ],
    )
    def test_rates(self, schedule, expected):
        assert rates(schedule, len(expected)) == pytest.approx(expected, abs=1e-15)

    def test_are_given_plain_integers(self):
        seen = []

        def schedule(step):
            seen.append(step)
            return 0.1

        rates(optim.WarmUp(2, schedule), 4)
        assert {type(step) for step in seen} == {int}
        assert max(seen) == 1

    @pytest.mark.parametrize("value", [-0.1, math.nan, math.inf, None, "0.1", True, 1j])
    @pytest.mark.parametrize("wrap", [lambda f: f, lambda f: optim.WarmUp(1, f)])
    def test_a_rate_that_is_none_is_an_error(self, value, wrap):
        opt = optim.adam(wrap(lambda step: value if step == 3 else 0.1))
        state = opt.init(PARAMS)
        at = state._replace(step=3 + isinstance(opt.learning_rate, optim.WarmUp))
        opt.update(PARAMS, state, PARAMS)
        with pytest.raises(ValueError, match=r"gave the learning rate .* for step 3; a schedule"):
            opt.update(PARAMS, at, PARAMS)

    def test_stay_true_to_float32(self):
        params = {"w": np.ones((2, 2), dtype="float32")}
        for schedule in (np.float64(0.1), lambda step: np.float64(0.1), optim.Cosine(0.1, 9)):
            opt = optim.adamw(schedule)
            new, state = opt.update(params, opt.init(params), params)
            assert new["w"].dtype == state.slots["v"]["w"].dtype == np.float32

    def test_a_run_is_resumed_with_the_step_alone(self):
        schedule = optim.WarmUp(3, optim.Cosine(1.0, 5))
        whole, opt = rates(schedule, 10), optim.sgd(schedule)
        for step, rate in enumerate(whole):
            assert opt.rate(opt.init(PARAMS)._replace(step=step)) == rate

    @pytest.mark.parametrize("step", [10**5, 10**18])
    def test_after_very_many_updates(self, step):
        assert optim.Cosine(1.0, 10, 0.25)(step) == 0.25
        assert optim.WarmUp(10, 0.5)(step) == 0.5
        assert optim.Step(1.0, 10)(step) == 0.0


class TestReduceOnPlateau:
    """Every number here is in binary, so that equality is exact."""

    @staticmethod
    def after(losses, **options):
        opt = optim.sgd(optim.ReduceOnPlateau(1.0, **{"tolerance": 0.0, **options}))
        state = opt.init(PARAMS)
        assert opt.rate(state) == 1.0
        found = []
        for loss in losses:
            before, state = state, opt.observe(state, loss)
            assert (state.step, state.slots) == (before.step, before.slots)
            found.append(opt.rate(state))
        return found

    @pytest.mark.parametrize(
        ("losses", "options", "expected"),
        [
            # More than `patience` epochs in a row without a lower one.
            ([3, 2, 2, 2, 2, 2], {"patience": 1}, [1, 1, 1, 0.5, 0.5, 0.25]),
            ([3, 2, 2, 1, 1, 1], {"patience": 1}, [1, 1, 1, 1, 1, 0.5]),
            ([3, 4, 3, 5], {"patience": 0}, [1, 0.5, 0.25, 0.125]),
            ([3, 3, 3, 3], {"patience": 0, "factor": 0.25}, [1, 0.25, 1 / 16, 1 / 64]),
            # The cooldown does not count, but a lower loss in it does.
            ([3, 3, 3, 3, 3, 3], {"patience": 0, "cooldown": 1}, [1, 0.5, 0.5, 0.25, 0.25, 0.125]),
            ([3, 3, 3, 3, 3, 3], {"patience": 0, "cooldown": 3}, [1, 0.5, 0.5, 0.5, 0.5, 0.25]),
            ([3, 3, 1, 2], {"patience": 0, "cooldown": 1}, [1, 0.5, 0.5, 0.25]),
            # The share by which it must be lower.
            ([4, 3, 2, 1.5], {"patience": 0, "tolerance": 0.25}, [1, 0.5, 0.5, 0.25]),
            ([-4, -5, -6], {"patience": 0, "tolerance": 0.25}, [1, 0.5, 0.5]),
            ([-4, -3.875, -4.5], {"patience": 0, "tolerance": 0.0625}, [1, 0.5, 0.5]),
            ([0, 0, -1], {"patience": 0, "tolerance": 0.25}, [1, 0.5, 0.5]),
            # Never below the minimum.
            ([1] * 5, {"patience": 0, "minimum": 0.25}, [1, 0.5, 0.25, 0.25, 0.25]),
            ([1] * 4, {"patience": 0, "minimum": 0.375}, [1, 0.5, 0.375, 0.375]),
            # What is not finite is not lower.
            ([math.inf, math.nan, 1, math.nan], {"patience": 1}, [1, 0.5, 0.5, 0.5]),
        ],
    )
    def test_rates(self, losses, options, expected):
        assert self.after(losses, **options) == expected

    def test_defaults(self):
        found = self.after([1.0] * 24, tolerance=1e-4)
        assert found == [1.0] * 11 + [0.5] * 11 + [0.25] * 2
        assert self.after([1 - 0.00009 * k for k in range(12)], tolerance=1e-4)[-1] == 1.0
        assert self.after([1.0] + [0.99991] * 11, tolerance=1e-4)[-1] == 0.5

    def test_remembers_python_numbers_whatever_it_is_told(self):
        opt = optim.sgd(optim.ReduceOnPlateau(1.0))
        state = opt.observe(opt.init(PARAMS), np.float32(2.0))
        assert [type(value) for value in state.plateau] == [float, int, int, float]
        assert state.plateau == Plateau(2.0, 0, 0, 1.0)

    def test_the_memory_survives_updates(self):
        opt = optim.sgd(optim.ReduceOnPlateau(1.0, patience=0))
        state = opt.observe(opt.observe(opt.init(PARAMS), 1.0), 1.0)
        new, after = opt.update(PARAMS, state, PARAMS)
        assert after.plateau == state.plateau
        assert new["w"].item() == 0.5

    def test_who_watches_the_loss(self):
        assert optim.adam(optim.ReduceOnPlateau(0.1)).watches_loss is True
        for rate in (0.1, optim.Cosine(0.1, 3), optim.WarmUp(3, 0.1)):
            opt = optim.adam(rate)
            assert opt.watches_loss is False
            state = opt.init(PARAMS)
            assert state.plateau is None
            assert opt.observe(state, 1.0) is state
        assert not getattr(optim.lbfgs(), "watches_loss", False)

    def test_may_take_over_a_state_and_hand_it_on(self):
        """Training goes on under another schedule: the moments stay, the plateau begins."""
        constant, watching = optim.adam(0.5), optim.adam(optim.ReduceOnPlateau(0.5, patience=0))
        _, state = constant.update(PARAMS, constant.init(PARAMS), PARAMS)
        assert watching.rate(state) == 0.5
        assert watching.observe(state, 1.0).plateau == Plateau(1.0, 0, 0, 1.0)
        _, watched = watching.update(PARAMS, state, PARAMS)
        assert watched.plateau == Plateau()
        watched = watching.observe(watching.observe(watched, 1.0), 1.0)
        assert (watching.rate(watched), constant.rate(watched)) == (0.25, 0.5)
        _, state = constant.update(PARAMS, watched, PARAMS)
        assert (state.step, state.plateau) == (3, None)
        for opt, its in ((constant, state), (watching, watched)):
            arrays, values = opt.pack(its)
            assert opt.unpack(arrays, values, PARAMS).plateau == its.plateau


def bad(kind, field, values, interval, **others):
    for value in values:
        make = functools.partial(kind, **{**others, field: value})
        yield make, rf"{kind.__name__}: {field} must be in {interval}, got"


POSITIVE, SHARE = (0.0, -1.0, math.inf, math.nan, "1", None, True), (0.0, 1.0, math.nan, "1")
STEP, COSINE = {"initial": 1.0, "every": 3}, {"initial": 0.5, "total": 3}
PLATEAU = {"initial": 0.5}
NO_INTEGERS = (2.0, "2", None, True, math.nan)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        *bad(optim.Step, "initial", POSITIVE, r"\(0, inf\)", **STEP),
        *bad(optim.Step, "factor", SHARE, r"\(0, 1\)", **STEP),
        *bad(optim.Cosine, "initial", POSITIVE, r"\(0, inf\)", **COSINE),
        *bad(optim.Cosine, "final", (-0.1, 0.6, math.nan), r"\[0, 0.5\]", **COSINE),
        *bad(optim.ReduceOnPlateau, "initial", POSITIVE, r"\(0, inf\)"),
        *bad(optim.ReduceOnPlateau, "factor", SHARE, r"\(0, 1\)", **PLATEAU),
        *bad(optim.ReduceOnPlateau, "tolerance", (-0.1, 1.0, math.nan), r"\[0, 1\)", **PLATEAU),
        *bad(optim.ReduceOnPlateau, "minimum", (-0.1, 0.6, math.nan), r"\[0, 0.5\]", **PLATEAU),
        *bad(optim.WarmUp, "then", (0.0, -1.0, "1", None), r"\(0, inf\)", steps=2),
        (lambda: optim.WarmUp(2, optim.ReduceOnPlateau(1.0)), "but ReduceOnPlateau looks at the"),
        (lambda: optim.WarmUp(2, optim.Cosine), r"WarmUp: then must be .* got the class Cosine"),
        (lambda: optim.adam(optim.Cosine), r"Adam: learning_rate must be .* the class Cosine"),
        (lambda: optim.adam(optim.ReduceOnPlateau), r"Adam: .* got the class ReduceOnPlateau"),
    ],
)
def test_bad_hyperparameters(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("kind", "field", "low", "others"),
    [
        (optim.Step, "every", 1, STEP),
        (optim.Cosine, "total", 1, COSINE),
        (optim.WarmUp, "steps", 1, {"then": 1.0}),
        (optim.ReduceOnPlateau, "patience", 0, PLATEAU),
        (optim.ReduceOnPlateau, "cooldown", 0, PLATEAU),
    ],
)
def test_what_counts_is_an_integer(kind, field, low, others):
    for value in (low - 1, *NO_INTEGERS):
        message = f"{kind.__name__}: {field} must be an integer >= {low}, got"
        with pytest.raises(ValueError, match=message):
            kind(**{**others, field: value})
    for value in itertools.chain([low, low + 1], [np.int32(low)]):
        made = kind(**{**others, field: value})
        assert type(getattr(made, field)) is int
