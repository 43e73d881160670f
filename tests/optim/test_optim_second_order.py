"""Levenberg-Marquardt and Hessian-free optimisation, on problems with known solutions."""

from __future__ import annotations

import copy
import itertools

import numpy as np
import pytest
from minimising import LeastSquares, line_residuals, minimise, rosenbrock_residuals

import rnn_xp as rx
from rnn_xp import optim
from rnn_xp.engines.blocks import Batch
from rnn_xp.engines.portable import PortableEngine
from rnn_xp.optim.cholesky import cholesky, solve
from rnn_xp.optim.hessian_free import conjugate_gradients

BOTH = [optim.levenberg_marquardt, optim.hessian_free]
START = {"p": np.asarray([-1.2, 1.0])}


def test_every_optimiser_with_needs_is_tested_here():
    exported = [getattr(optim, name) for name in optim.__all__]
    kinds = {e for e in exported if isinstance(e, type) and issubclass(e, optim.Optimizer)}
    assert {kind for kind in kinds if kind.needs} == set(BOTH)


class TestBoth:
    @pytest.mark.parametrize("make", BOTH)
    def test_rosenbrock_as_least_squares(self, make):
        params, _, values, _ = minimise(make(), LeastSquares(rosenbrock_residuals), START, 60)
        np.testing.assert_allclose(params["p"], [1.0, 1.0], atol=1e-6)
        assert all(after < before for before, after in itertools.pairwise(values))

    @pytest.mark.parametrize("make", BOTH)
    @pytest.mark.parametrize("decay", [0.0, 0.3])
    def test_the_solution_of_linear_least_squares(self, make, decay):
        residuals, best = line_residuals()
        optimizer = make(weight_decay=decay)
        params, *_ = minimise(optimizer, LeastSquares(residuals), {"p": np.zeros(7)}, 60)
        np.testing.assert_allclose(params["p"], best(decay), atol=1e-7)

    @pytest.mark.parametrize("make", BOTH)
    def test_the_tolerance_bounds_the_gradient(self, make):
        objective = LeastSquares(rosenbrock_residuals)
        params, state, *_ = minimise(make(tolerance=1e-3), objective, START, 100)
        assert state.message == "the gradient is within the tolerance"
        assert np.abs(objective(params)[1]["p"]).max() <= 1e-3
        assert make().restart(state).message == ""

    @pytest.mark.parametrize("make", BOTH)
    def test_at_the_minimum_it_stops_and_says_so(self, make):
        params = {"p": np.asarray([1.0, 1.0])}
        objective = LeastSquares(lambda p: (np.ones(2), np.asarray([[0.0, 1e-30], [0.0, 0.0]])))
        after, state, *_ = minimise(make(), objective, params, 5)
        assert "lowers the loss" in state.message
        assert np.array_equal(after["p"], params["p"])

    @pytest.mark.parametrize("make", BOTH)
    def test_a_state_survives_a_file_to_the_bit(self, make):
        optimizer, objective = make(), LeastSquares(rosenbrock_residuals)
        params, state, *_ = minimise(optimizer, objective, START, 4)
        restored = optimizer.unpack(*optimizer.pack(state), params)
        on, *_ = minimise(optimizer, objective, params, 3, state=state)
        again, *_ = minimise(optimizer, objective, params, 3, state=restored)
        assert np.array_equal(on["p"], again["p"])

    @pytest.mark.parametrize("make", BOTH)
    def test_a_saved_state_that_was_tampered_with_is_refused(self, make):
        optimizer = make()
        params, state, *_ = minimise(optimizer, LeastSquares(rosenbrock_residuals), START, 3)
        arrays, values = optimizer.pack(state)
        for wrong in ({**values, "damping": "much"}, {**values, "more": 1}, {}):
            with pytest.raises(ValueError, match="does not fit this optimiser"):
                optimizer.unpack(arrays, wrong, params)

    @pytest.mark.parametrize("make", BOTH)
    def test_an_update_changes_none_of_its_arguments(self, make):
        optimizer, objective = make(), LeastSquares(rosenbrock_residuals)
        params, state, *_ = minimise(optimizer, objective, START, 3)
        value, grads = objective(params)
        given = (grads, state, params)
        before = copy.deepcopy(given)
        optimizer.update(*given, value=value, value_and_grad=objective)
        np.testing.assert_equal(given, before)

    @pytest.mark.parametrize("make", BOTH)
    def test_a_gradient_that_is_not_finite_is_an_error(self, make):
        objective, optimizer = LeastSquares(rosenbrock_residuals), make()
        with pytest.raises(optim.NotFiniteError, match="the gradient is not finite"):
            optimizer.update(
                {"p": np.asarray([np.nan, 0.0])}, optimizer.init(START), START,
                value=np.asarray(1.0), value_and_grad=objective,
            )  # fmt: skip

    @pytest.mark.parametrize("make", BOTH)
    def test_an_objective_without_second_derivatives_is_refused(self, make):
        objective, optimizer = LeastSquares(rosenbrock_residuals), make()
        value, grads = objective(START)
        with pytest.raises(ValueError, match=r"needs value= and value_and_grad= with the methods"):
            optimizer.update(
                grads, optimizer.init(START), START, value=value, value_and_grad=objective.__call__
            )

    @pytest.mark.parametrize(
        ("make", "options", "message"),
        [
            (
                optim.levenberg_marquardt,
                {"damping": 0.0},
                r"damping must be in \(0, inf\), got 0",
            ),
            (
                optim.levenberg_marquardt,
                {"decrease": 1.0},
                r"decrease must be in \(0, 1\), got 1",
            ),
            (optim.levenberg_marquardt, {"increase": 1}, r"increase must be in \(1, inf\), got 1"),
            (optim.levenberg_marquardt, {"max_trials": 0}, "max_trials must be an integer >= 1"),
            (optim.hessian_free, {"damping": -1.0}, r"damping must be in \(0, inf\), got -1.0"),
            (optim.hessian_free, {"max_products": 1.5}, "max_products must be an integer >= 1"),
            (optim.hessian_free, {"weight_decay": -1}, r"weight_decay must be in \[0, inf\), got"),
        ],
    )
    def test_bad_hyperparameters(self, make, options, message):
        with pytest.raises(ValueError, match=message):
            make(**options)


class TestLevenbergMarquardt:
    def test_the_step_by_hand(self):
        """With r = p - 3 and J = 1: A = 2, scale = 2, d = -g / (2 + 0.5 * 2)."""
        objective = LeastSquares(lambda p: (p - 3.0, np.eye(1)))
        optimizer, params = optim.levenberg_marquardt(damping=0.5), {"p": np.zeros(1)}
        value, grads = objective(params)
        params, state = optimizer.update(
            grads, optimizer.init(params), params, value=value, value_and_grad=objective
        )
        assert params["p"].tolist() == pytest.approx([6.0 / 3.0])
        assert state == (0.5 * 0.2, 2.0, 1, "")

    def test_a_rejected_step_raises_the_damping_and_needs_no_new_matrix(self):
        """Here the undamped step from 0 overshoots: the residual is atan-shaped."""

        def steep(p):
            return np.arctan(p), np.diag(1.0 / (1.0 + p * p))

        objective = LeastSquares(steep)
        optimizer, params = optim.levenberg_marquardt(damping=1e-6), {"p": np.asarray([5.0])}
        value, grads = objective(params)
        after, state = optimizer.update(
            grads, optimizer.init(params), params, value=value, value_and_grad=objective
        )
        trials = round(np.log2(state.damping / (1e-6 * 0.2)))
        assert trials > 5
        assert objective.curvatures == 1
        assert objective.value(after) < value

    def test_more_parameters_than_memory_allows_names_the_way_out(self):
        optimizer = optim.levenberg_marquardt(max_bytes=2**30)
        with pytest.raises(
            ValueError,
            match=r"7000 parameters need 4 matrices of 7000 x 7000 .*"
            r"1.5 GiB.*Allow more, take a smaller subsample, or use rnn_xp.optim.hessian_f",
        ):
            optimizer.init({"p": np.zeros(7000)})

    def test_a_part_of_the_samples_takes_turns(self):
        """Each residual alone is solved by its own step, in a system of one row."""
        objective = LeastSquares(lambda p: (p - np.asarray([1.0, 2.0, 3.0]), np.eye(3)))
        optimizer = optim.levenberg_marquardt(damping=1e-9, subsample=1 / 3)
        params, state = {"p": np.zeros(3)}, optimizer.init({"p": np.zeros(3)})
        for turn in range(3):
            value, grads = objective(params)
            params, state = optimizer.update(
                {"p": np.where(np.arange(3) == turn, grads["p"], 0.0)}, state, params,
                value=value, value_and_grad=objective,
            )  # fmt: skip
            assert state.updates == turn + 1
            # One in three estimates the mean over all three: three times too much for one.
            expected = np.where(np.arange(3) <= turn, np.asarray([1.0, 2.0, 3.0]) / 3, 0.0)
            np.testing.assert_allclose(params["p"], expected, rtol=1e-6)

    @pytest.mark.parametrize("rows", [4, 6, 9])
    def test_few_rows_give_the_step_of_the_whole_matrix(self, rows):
        """Fewer rows than parameters (6) are solved in a system of their number, to one result."""
        rng = np.random.default_rng(rows)
        jacobian, right = rng.standard_normal((2 * rows, 6)), rng.standard_normal(2 * rows)
        objective = LeastSquares(lambda p: (jacobian @ p - right, jacobian))
        params = {"p": rng.standard_normal(6)}
        value, grads = objective(params)
        optimizer = optim.levenberg_marquardt(damping=0.5, subsample=0.5)
        after, state = optimizer.update(
            grads, optimizer.init(params), params, value=value, value_and_grad=objective
        )
        matrix = 2 / rows * jacobian[::2].T @ jacobian[::2]
        scale = np.mean(np.diag(matrix))
        trials = round(np.log2(state.damping / (0.5 * 0.2)))
        shift = 0.5 * 2.0**trials * scale
        step = np.linalg.solve(matrix + shift * np.eye(6), -grads["p"])
        np.testing.assert_allclose(after["p"], params["p"] + step, rtol=1e-10)
        assert state.scale == pytest.approx(scale)

    def test_too_many_rows_are_refused_by_the_update_that_has_them(self):
        jacobian = np.ones((60, 50))
        objective = LeastSquares(lambda p: (jacobian @ p - 1.0, jacobian))
        optimizer = optim.levenberg_marquardt(subsample=0.5, max_bytes=10_000)
        params = {"p": np.zeros(50)}
        value, grads = objective(params)
        with pytest.raises(ValueError, match=r"30 rows of the Jacobian need 4 matrices of 30 x 30"):
            optimizer.update(
                grads, optimizer.init(params), params, value=value, value_and_grad=objective
            )

    @pytest.mark.parametrize("size", [1, 127, 128, 129, 300])
    def test_positive_definite_systems(self, size):
        rng = np.random.default_rng(size)
        root = rng.standard_normal((size, size))
        matrix, right = root @ root.T + size * np.eye(size), rng.standard_normal(size)
        solved = solve(cholesky(matrix, 0.5, xp=np), right, xp=np)
        np.testing.assert_allclose(
            solved, np.linalg.solve(matrix + 0.5 * np.eye(size), right), rtol=1e-10, atol=1e-14
        )

    def test_a_matrix_that_is_not_positive_definite_has_no_step(self):
        assert cholesky(np.asarray([[1.0, 2.0], [2.0, 1.0]]), 0.0, xp=np) is None


class TestHessianFree:
    def test_conjugate_gradients_solve_in_as_many_products_as_unknowns(self):
        rng = np.random.default_rng(0)
        root = rng.standard_normal((6, 6))
        matrix, right = root @ root.T + np.eye(6), rng.standard_normal(6)
        products = []

        def product(v):
            products.append(v)
            return matrix @ v

        solution, model = conjugate_gradients(product, right, np.zeros(6), 7, xp=np)
        np.testing.assert_allclose(matrix @ solution, right, rtol=1e-8)
        assert len(products) <= 7
        assert model == pytest.approx(0.5 * solution @ matrix @ solution - right @ solution)

    def test_the_damping_follows_the_quality_of_the_model(self):
        """A quadratic loss is its own model: the damping falls by 2/3 with every update."""
        residuals, _ = line_residuals()
        objective, optimizer = LeastSquares(residuals), optim.hessian_free()
        _, state, *_ = minimise(optimizer, objective, {"p": np.zeros(7)}, 1)
        assert state.damping == pytest.approx(1e-2 * 2 / 3)


@pytest.mark.parametrize("subsample", [1.0, 0.5])
def test_an_update_on_a_device_reads_nothing_but_losses(subsample, monkeypatch):
    """An update reads the loss before it and that of its one trial."""
    strict = rx.get_backend("array_api_strict", device="device1", dtype="float64")
    x, y = rx.make_windows(np.sin(np.arange(46.0)), seq_length=4)
    batch = Batch(strict.asarray(x), strict.asarray(y))
    optimizer = optim.levenberg_marquardt(damping=10.0, subsample=subsample)
    net = rx.Network(hidden_size=3)
    engine = PortableEngine(net, rx.losses.mse, optimizer, strict, batch, 16)
    params = net.init(seed=0, backend=strict)
    state, reads = optimizer.init(params), []
    for name in ("__float__", "__int__", "__bool__", "__index__", "__complex__"):
        read = getattr(type(batch.x), name)
        monkeypatch.setattr(
            type(batch.x), name, lambda a, n=name, r=read: (reads.append(n), r(a))[1]
        )
    for _ in range(3):
        reads.clear()
        params, state, _ = engine.run(params, state, 1)
        assert reads == ["__float__", "__float__"]
        assert not state.message
