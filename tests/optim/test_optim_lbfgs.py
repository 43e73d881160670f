"""L-BFGS and its line search."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from minimising import minimise, quadratic, rosenbrock

import rnn_xp as rx
from rnn_xp import optim
from rnn_xp.engines.blocks import Batch
from rnn_xp.engines.portable import PortableEngine
from rnn_xp.optim import quasi_newton
from rnn_xp.optim.line_search import Point, _inside, strong_wolfe
from rnn_xp.optim.quasi_newton import _Lower


class TestLBFGS:
    def test_rosenbrock(self):
        start = {"p": np.asarray([-1.2, 1.0])}
        params, _, values, evaluations = minimise(optim.lbfgs(), rosenbrock, start, 60)
        np.testing.assert_allclose(params["p"], [1.0, 1.0], atol=1e-8)
        assert len(values) <= 60
        assert evaluations <= 80

    def test_the_loss_never_rises(self):
        _, _, values, _ = minimise(optim.lbfgs(), rosenbrock, {"p": np.asarray([-1.2, 1.0])}, 60)
        assert all(b < a for a, b in itertools.pairwise(values))

    def test_history_bounds_the_memory(self):
        value_and_grad, params, _ = quadratic(condition=1e4)
        _, state, _, _ = minimise(optim.lbfgs(history=3), value_and_grad, params, 12)
        assert len(state.steps) == len(state.changes) == 3

    def test_stops_and_says_so_where_nothing_is_left(self):
        value_and_grad, params, _ = quadratic()
        params, state, values, _ = minimise(optim.lbfgs(), value_and_grad, params, 500)
        assert len(values) < 500
        assert "the line search found no lower loss" in state.message or "gradient" in state.message

    def test_tolerance(self):
        """It bounds the gradient, whatever the height of the loss."""
        value_and_grad, params, _ = quadratic()

        def raised(params):
            value, grads = value_and_grad(params)
            return value + 5.0, grads

        params, state, values, _ = minimise(optim.lbfgs(tolerance=1e-3), raised, params, 500)
        assert state.message == "the gradient is within the tolerance"
        assert len(values) < 40
        assert max(np.abs(grad).max() for grad in value_and_grad(params)[1].values()) <= 1e-3

    def test_failed_line_search_clears_the_history_and_tries_the_gradient(self):
        """A wrong history gives an uphill direction; steepest descent saves the iteration."""
        value_and_grad, params, _ = quadratic()
        opt = optim.lbfgs()
        value, grads = value_and_grad(params)
        flat = np.concatenate([grads["a"].ravel(), grads["b"]])
        uphill = opt.init(params)._replace(steps=(flat,), changes=(-flat,))
        trials = []

        def remember(params):
            trials.append(params)
            return value_and_grad(params)

        new, state = opt.update(grads, uphill, params, value=value, value_and_grad=remember)
        length = np.abs(flat).sum()
        assert length > 1.0
        np.testing.assert_allclose(trials[0]["b"], params["b"] - grads["b"] / length)
        assert value_and_grad(new)[0] < value
        assert len(state.steps) == 1
        assert not np.array_equal(state.steps[0], flat)

    @pytest.mark.parametrize(("slope", "first"), [(0.05, 0.05), (5.0, 1.0)])
    def test_first_step_is_no_longer_than_the_gradient(self, slope, first):
        """Step 1 for a short gradient, length 1 for a long one."""
        params, trials = {"w": np.asarray([0.0])}, []

        def parabola(params):
            trials.append(params["w"][0])
            return slope * (params["w"] @ params["w"] / 2 - params["w"][0]), {
                "w": slope * (params["w"] - 1.0)
            }

        opt = optim.lbfgs()
        value, grads = parabola(params)
        opt.update(grads, opt.init(params), params, value=value, value_and_grad=parabola)
        assert trials[1] == pytest.approx(first)

    def test_max_evaluations(self):
        trials = []

        def falls(params):
            trials.append(params)
            return -params["w"][0], {"w": np.asarray([-1.0])}

        opt, params = optim.lbfgs(max_evaluations=1), {"w": np.asarray([0.0])}
        value, grads = falls(params)
        opt.update(grads, opt.init(params), params, value=value, value_and_grad=falls)
        assert len(trials) == 2  # the one here, and one of the line search

    def test_a_loss_that_stays_the_same_is_no_progress(self):
        def flat(params):
            return 1.0, {"w": np.ones(2)}

        opt, params = optim.lbfgs(), {"w": np.zeros(2)}
        new, state = opt.update(
            flat(params)[1], opt.init(params), params, value=1.0, value_and_grad=flat
        )
        assert new is params
        assert "the line search found no lower loss" in state.message

    def test_a_minimum_very_close_by_is_found(self):
        """The first trial overshoots it ten thousandfold."""

        def hyperbola(params):
            error = params["w"] - 1e-4
            root = np.sqrt(error**2 + 1e-12)
            return root[0], {"w": error / root}

        params, *_ = minimise(optim.lbfgs(), hyperbola, {"w": np.asarray([0.0])}, 30)
        assert params["w"][0] == pytest.approx(1e-4, rel=1e-6)

    def test_a_pair_is_remembered_if_its_curvature_is_positive(self):
        opt = optim.lbfgs(history=2)
        state = opt.init({})
        step = np.asarray([1.0, 0.0])

        def lower(step, change):
            cosine = step @ change / np.sqrt((step @ step) * (change @ change))
            return _Lower({}, step, change, float(cosine))

        assert opt._remember(state, lower(step, -step)) is state
        for curvature in (0.01, 1.0, 2.0):  # small, but far from rounding
            change = np.asarray([curvature, 1.0])
            state = opt._remember(state, lower(curvature * step, change))
            assert state.steps[-1][0] == state.changes[-1][0] == curvature
        assert [s[0] for s in state.steps] == [y[0] for y in state.changes] == [1.0, 2.0]

    def test_returns_a_dict_it_has_evaluated(self):
        value_and_grad, params, _ = quadratic()
        seen = []

        def remember(params):
            seen.append(params)
            return value_and_grad(params)

        opt = optim.lbfgs()
        value, grads = value_and_grad(params)
        new, _ = opt.update(grads, opt.init(params), params, value=value, value_and_grad=remember)
        assert any(new is trial for trial in seen)

    def test_needs_the_function(self):
        opt, params = optim.lbfgs(), {"w": np.ones(1)}
        with pytest.raises(ValueError, match="needs value= and value_and_grad="):
            opt.update({"w": np.ones(1)}, opt.init(params), params)

    def test_vectors_never_visit_the_host(self, case, monkeypatch):
        """A handful of scalars is read at a time, once for a line and once for an evaluation."""
        params = {"w": case.array([[1.0, -2.0, 0.3, 0.7], [0.5, 3.0, 0.2, 0.9]])}
        sizes, to_numpy = [], quasi_newton.to_numpy
        monkeypatch.setattr(
            quasi_newton, "to_numpy", lambda a: (sizes.append(math.prod(a.shape)), to_numpy(a))[1]
        )

        def value_and_grad(params):
            return case.xp.sum(params["w"] ** 2), {"w": 2.0 * params["w"]}

        opt = optim.lbfgs()
        value, grads = value_and_grad(params)
        with case.guard(allow=3) as reads:
            opt.update(grads, opt.init(params), params, value=value, value_and_grad=value_and_grad)
        assert set(reads) <= {"to_device"}
        assert sizes[0] == 6
        assert set(sizes[1:]) == {4}


class TestLineSearch:
    @staticmethod
    def along(function, slope):
        return lambda t: Point(t, function(t), slope(t))

    @pytest.mark.parametrize("first", [1e-3, 0.1, 1.0, 10.0, 1e3])
    def test_strong_wolfe_conditions_hold(self, first):
        """On a function with a kink-free valley, from steps far too short and far too long."""
        evaluate = self.along(
            lambda t: -t / (t * t + 2.0), lambda t: (t * t - 2.0) / (t * t + 2.0) ** 2
        )
        start = evaluate(0.0)
        found = strong_wolfe(evaluate, start, first)
        assert found.value <= start.value + 1e-4 * found.step * start.slope
        assert abs(found.slope) <= 0.9 * abs(start.slope)

    def test_a_tight_curvature_condition(self):
        evaluate = self.along(lambda t: (t - 3.0) ** 4, lambda t: 4.0 * (t - 3.0) ** 3)
        found = strong_wolfe(evaluate, evaluate(0.0), 1.0, c2=1e-3)
        assert abs(found.slope) <= 1e-3 * 108.0

    def test_survives_values_that_are_not_finite(self):
        """A step too long overflows; the search comes back from there."""

        def evaluate(t):
            if t > 0.5:
                return Point(t, math.nan, math.nan)
            return Point(t, (t - 0.3) ** 2, 2.0 * (t - 0.3))

        found = strong_wolfe(evaluate, evaluate(0.0), 1.0)
        assert 0.0 < found.step <= 0.5
        assert found.value < 0.09

    def test_gives_the_start_back_if_nothing_is_lower(self):
        evaluate = self.along(lambda t: t, lambda t: 1.0)
        start = Point(0.0, 0.0, -1.0)  # a slope that lies, as rounding may make it
        assert strong_wolfe(evaluate, start, 1.0, max_evaluations=7) is start

    def test_keeps_to_its_budget(self):
        calls = []

        def evaluate(t):
            calls.append(t)
            return Point(t, -t, -1.0)  # falls for ever

        strong_wolfe(evaluate, Point(0.0, 0.0, -1.0), 1.0, max_evaluations=9)
        assert len(calls) == 9
        assert calls == sorted(calls)

    def test_strong_wolfe_conditions_on_random_functions(self):
        """Six sines, a parabola and a wall: a few searches may end early, one in a hundred."""
        rng = np.random.default_rng(0)
        searches = missed = most = 0
        for _ in range(1500):
            height, phase = rng.standard_normal(6), rng.uniform(0, 6, 6)
            speed, bend, wall = rng.uniform(0.2, 3, 6), rng.uniform(0.001, 0.2), rng.uniform(1, 20)
            first, calls = 10 ** rng.uniform(-3, 3), []

            def evaluate(t):
                calls.append(t)  # noqa: B023
                if t > wall:  # noqa: B023
                    return Point(t, math.inf, math.nan)
                angle = speed * t + phase  # noqa: B023
                value = height @ np.sin(angle) + bend * t * t  # noqa: B023
                slope = height @ (speed * np.cos(angle)) + 2.0 * bend * t  # noqa: B023
                return Point(t, float(value), float(slope))

            start = evaluate(0.0)
            if start.slope >= -1e-3:
                continue
            found = strong_wolfe(evaluate, start, first, c2=0.1)
            enough = found.value <= start.value + 1e-4 * found.step * start.slope + 1e-13
            missed += not (enough and abs(found.slope) <= 0.1 * abs(start.slope))
            searches += 1
            most = max(most, len(calls) - 1)
        assert searches > 700
        assert missed < 10
        assert most == 25

    @pytest.mark.parametrize(
        ("high", "crowded", "expected"),
        [
            (Point(1.0, 99.0, 199.0), False, (pytest.approx(0.005), True)),
            (Point(1.0, 99.0, 199.0), True, (0.1, False)),  # stuck there twice: moved away
            (Point(1.0, -5.0, -1.0), False, (0.9, False)),  # never an end itself
            (Point(1.0, math.inf, 1.0), True, (0.5, False)),
        ],
    )
    def test_trial_steps_keep_off_the_ends(self, high, crowded, expected):
        assert _inside(Point(0.0, 0.0, -1.0), high, crowded) == expected


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: optim.lbfgs(history=0), "LBFGS: history must be >= 1, got 0"),
        (lambda: optim.lbfgs(max_evaluations=0), "LBFGS: max_evaluations must be >= 1, got 0"),
        (lambda: optim.lbfgs(tolerance=-1.0), "LBFGS: tolerance must be >= 0, got -1.0"),
    ],
)
def test_bad_hyperparameters(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_an_update_on_a_device_reads_once_and_once_for_each_evaluation(monkeypatch):
    strict = rx.get_backend("array_api_strict", device="device1", dtype="float64")
    x, y = rx.make_windows(np.sin(np.arange(46.0)), seq_length=4)
    batch = Batch(strict.asarray(x), strict.asarray(y))
    optimizer, net = optim.lbfgs(), rx.Network(hidden_size=3)
    engine = PortableEngine(net, rx.losses.mse, optimizer, strict, batch, 64)
    params = net.init(seed=0, backend=strict)
    state, reads = optimizer.init(params), []
    for name in ("__float__", "__int__", "__bool__", "__index__", "__complex__"):
        read = getattr(type(batch.x), name)
        monkeypatch.setattr(
            type(batch.x), name, lambda a, n=name, r=read: (reads.append(n), r(a))[1]
        )
    to_numpy = quasi_newton.to_numpy
    monkeypatch.setattr(
        quasi_newton, "to_numpy", lambda a: (reads.append("transfer"), to_numpy(a))[1]
    )
    for epoch in range(12):
        reads.clear()
        before = engine.evaluations
        params, state, _ = engine.run(params, state, 1, epoch)
        evaluated = engine.evaluations - before - (epoch == 0)  # the first point is evaluated too
        assert evaluated >= 1
        assert reads == ["transfer"] * (1 + evaluated)
        assert not state.message
