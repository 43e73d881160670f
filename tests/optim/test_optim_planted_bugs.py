"""Mistakes in the optimisers of second order, planted line by line, and each caught by a check.

Each entry is a line of the source as it stands and as a tired engineer might have written it. The
module is compiled anew with that one change, and the check must fail. With the source as it is,
every check passes. Under most of the mistakes the loss still falls.
"""

from __future__ import annotations

import importlib
import inspect
import sys
import types

import numpy as np
import problems
import pytest
from minimising import LeastSquares
from problems import Problem
from small_fits import FLOAT64

import rnn_xp as rx
from rnn_xp import losses
from rnn_xp.engines import portable
from rnn_xp.engines.blocks import Batch

P = 150  # the Cholesky decomposition halves it once
DECAY = 0.3


def linear(rows, seed=0):
    """Linear least squares, of which a first trial is accepted."""
    rng = np.random.default_rng(seed)
    jacobian, right = rng.standard_normal((rows, P)), rng.standard_normal(rows)
    return (
        jacobian,
        LeastSquares(lambda p: (jacobian @ p - right, jacobian)),
        rng.standard_normal(P),
    )


def update(optimizer, objective, start, updates=1):
    params = {"p": start}
    state = optimizer.init(params)
    for _ in range(updates):
        value, grads = objective(params)
        params, state = optimizer.update(
            grads, state, params, value=value, value_and_grad=objective
        )
    return params["p"], state


def penalised(objective, p):
    return objective.value({"p": p}) + 0.5 * DECAY * p @ p


def marquardt_step(module):
    """The step is -(A + (damping * scale + decay) I)^-1 (g + decay p)."""
    jacobian, objective, start = linear(400)
    optimizer = module.LevenbergMarquardt(damping=2.0, weight_decay=DECAY)
    after, state = update(optimizer, objective, start)
    matrix = 2 / 400 * jacobian.T @ jacobian
    scale = np.mean(np.diag(matrix))
    gradient = objective({"p": start})[1]["p"] + DECAY * start
    step = np.linalg.solve(matrix + (2.0 * scale + DECAY) * np.eye(P), -gradient)
    np.testing.assert_allclose(after, start + step, rtol=1e-9)
    assert state.damping == pytest.approx(2.0 * 0.2)
    assert state.scale == pytest.approx(scale)
    assert state.updates == 1


def part_of_the_samples(module):
    """The second update uses the other half of the rows, in a system of their number."""
    jacobian, objective, start = linear(200)
    optimizer = module.LevenbergMarquardt(damping=9.0, subsample=0.5, decrease=0.5)
    once, first = update(optimizer, objective, start)
    twice, state = update(optimizer, objective, start, updates=2)
    matrix = 4 / 200 * jacobian[1::2].T @ jacobian[1::2]
    gradient = objective({"p": once})[1]["p"]
    shift = first.damping * first.scale * np.eye(P)
    np.testing.assert_allclose(twice, once + np.linalg.solve(matrix + shift, -gradient), rtol=1e-8)
    assert (first.damping, state.damping) == (4.5, 2.25)
    half = 4 / 200 * jacobian[::2].T @ jacobian[::2]
    assert first.scale == pytest.approx(np.mean(np.diag(half)))


def tiny_damping_in_the_dual(module):
    """Where the shift is small beside A, the difference cancels; the refinement makes up for it."""
    factor = linear(50)[0]
    inner = np.linspace(-1.0, 1.0, 50)
    right = factor.T @ inner
    step = module._Dual(factor, factor @ factor.T).solve(1e-9, right)
    expected = factor.T @ np.linalg.solve(factor @ factor.T + 1e-9 * np.eye(50), inner)
    error = np.linalg.norm(factor @ (step - expected)) / np.linalg.norm(factor @ expected)
    assert error < 1e-7  # without the refinement 1e-4


def rejection(module):
    """A step that would raise the loss is not taken, and the damping grows before the next."""
    objective = LeastSquares(lambda p: (np.arctan(p), np.diag(1.0 / (1.0 + p * p))))
    optimizer = module.LevenbergMarquardt(damping=1e-6)
    after, state = update(optimizer, objective, np.asarray([5.0]))
    assert objective.value({"p": after}) < objective.value({"p": np.asarray([5.0])})
    trials = np.log2(state.damping / (1e-6 * 0.2))
    assert trials == pytest.approx(round(trials))
    assert trials > 5
    stuck, state = update(module.LevenbergMarquardt(max_trials=2), objective, np.zeros(1))
    assert stuck == 0.0
    assert "no step lowers the loss" in state.message


def triangles(module):
    """Solutions of a shifted system whose matrix is halved twice."""
    rng = np.random.default_rng(0)
    root, right = rng.standard_normal((300, 300)), rng.standard_normal(300)
    matrix = root @ root.T / 300
    solution = module.solve(module.cholesky(matrix, 0.5, xp=np), right, xp=np)
    np.testing.assert_allclose((matrix + 0.5 * np.eye(300)) @ solution, right, rtol=1e-9)


def hessian_free(module):
    """On a quadratic loss, with as many products as unknowns, one step is the damped solution."""
    jacobian, objective, start = linear(400)
    optimizer = module.HessianFree(damping=2.0, weight_decay=DECAY, max_products=3 * P)
    after, state = update(optimizer, objective, start)
    matrix = 2 / 400 * jacobian.T @ jacobian
    gradient = objective({"p": start})[1]["p"] + DECAY * start
    scale = gradient @ matrix @ gradient / (gradient @ gradient)
    step = np.linalg.solve(matrix + (2.0 * scale + DECAY) * np.eye(P), -gradient)
    np.testing.assert_allclose(after, start + step, rtol=2e-3, atol=2e-3)
    assert state.scale == pytest.approx(scale)
    assert state.damping == pytest.approx(2.0 * 2 / 3)  # the model is the loss: trust it more
    np.testing.assert_allclose(state.direction, after - start, rtol=1e-9, atol=1e-12)
    assert penalised(objective, after) < penalised(objective, start)


def conjugate_gradients(module):
    rng = np.random.default_rng(1)
    root = rng.standard_normal((8, 8))
    matrix, right = root @ root.T + np.eye(8), rng.standard_normal(8)
    start = rng.standard_normal(8)
    solution, _ = module.conjugate_gradients(lambda v: matrix @ v, right, start, 60, xp=np)
    np.testing.assert_allclose(matrix @ solution, right, rtol=1e-4, atol=1e-4)
    rough, model = module.conjugate_gradients(lambda v: matrix @ v, right, start, 4, xp=np)
    assert model == pytest.approx(0.5 * rough @ matrix @ rough - right @ rough)


def gauss_newton(module):
    """Weights, lengths and a loss with a full second derivative, by the matrix's definition."""
    problem = Problem(topology="many_to_many", cell="gru", with_=("lengths",), rows=5)
    labels = np.random.default_rng(1).integers(0, problems.O, problem.y.shape[:-1])
    batch = Batch(problem.x, labels, problem.weight, **problem.arrays)
    engine = portable.PortableEngine(
        problem.net, losses.cross_entropy, rx.optim.levenberg_marquardt(), FLOAT64, batch, 2
    )
    second = module.GaussNewton(
        engine.net, engine.loss, FLOAT64, engine.blocks, engine.number_of_blocks,
        engine.total_of_data, engine._sum, engine._map,
    )  # fmt: skip
    rng = np.random.default_rng(2)
    vector = {name: rng.standard_normal(p.shape) for name, p in problem.params.items()}
    flat = np.concatenate([vector[name].ravel() for name in sorted(vector)])
    product = problem.net.gnvp(
        problem.params, problem.x, labels, vector, losses.cross_entropy, problem.weight,
        **problem.arrays,
    )  # fmt: skip
    expected = np.concatenate([product[name].ravel() for name in sorted(product)])
    size = np.abs(expected).max()
    found = second.matrix(problem.params) @ flat
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12 * size)
    rows = [second.factor(problem.params, 2, k) for k in (0, 1)]
    found = sum(r.T @ (r @ flat) for r in rows) / 2
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12 * size)


MODULES = {
    "optim.levenberg_marquardt": (
        marquardt_step, part_of_the_samples, tiny_damping_in_the_dual, rejection,
    ),
    "optim.cholesky": (triangles,),
    "optim.hessian_free": (hessian_free, conjugate_gradients),
    "engines.curvature": (gauss_newton,),
}  # fmt: skip

MISTAKES = [
    ("optim.levenberg_marquardt", marquardt_step, old, new)
    for old, new in [
        ("flatten(grads) + self.weight_decay * origin", "flatten(grads)"),
        ("damping * scale + self.weight_decay, -gradient", "damping * scale, -gradient"),
        ("damping * scale + self.weight_decay, -gradient", "damping, -gradient"),
        ("damping *= self.decrease", "damping = damping"),
        ("state.updates + 1", "state.updates"),
        ("self.xp.mean(self.xp.linalg.diagonal(matrix))", "self.xp.mean(matrix)"),
    ]
] + [
    ("optim.levenberg_marquardt", check, old, new)
    for check, old, new in [
        (part_of_the_samples, "first = state.updates % self._every", "first = 0"),
        (part_of_the_samples, "mean_curvature * factor.shape[0] / factor.shape[1]",
         "mean_curvature"),
        (part_of_the_samples, "round(1.0 / self.subsample)", "round(1.0 / self.subsample) + 1"),
        (part_of_the_samples, "xp.matmul(factor, right), xp=xp",
         "xp.matmul(factor, 0.9 * right), xp=xp"),
        (part_of_the_samples, "(right - xp.matmul(transposed, inner)) / shift",
         "right - xp.matmul(transposed, inner)"),
        (tiny_damping_in_the_dual, "return step + once(", "return step + 0.0 * once("),
        (part_of_the_samples, "- shift * step)", "+ shift * step)"),
        (rejection, "origin + step) < start:", "origin + step) < 9.0 * start:"),
        (rejection, "            damping *= self.increase", "            damping /= self.increase"),
        (rejection, 'f"no step lowers the loss', 'f"all is well'),
    ]
] + [
    ("optim.cholesky", triangles, old, new)
    for old, new in [
        ("matrix + shift * unit", "matrix + unit"),
        ("matrix[half:, half:] - xp", "matrix[half:, half:] + xp"),
        ("matrix[half:, :half]", "matrix[:half, half:]"),
        ("Halves(top, below, _halved(rest", "Halves(top, below, _halved(matrix[half:, half:]"),
        ("xp.matmul(matrix, xp.matrix_transpose(triangle))", "xp.matmul(matrix, triangle)"),
        ("left = _solve_from_right(top, matrix", "left = _solve_from_right(bottom, matrix"),
        ("matrix[:, half:] - xp.matmul(left", "matrix[:, half:] + xp.matmul(left"),
        ("_forward(triangle, right, xp=xp), xp=xp)", "right, xp=xp)"),
        ("rest = right[half:] - xp.matmul(below, first)", "rest = right[half:]"),
        ("rest = right[:half] - xp.matmul", "rest = right[:half] + xp.matmul"),
        ("_backward(top, rest, xp=xp), last", "last, _backward(top, rest, xp=xp)"),
    ]
] + [
    ("optim.hessian_free", check, old, new)
    for check, old, new in [
        (hessian_free, "flatten(grads) + self.weight_decay * origin", "flatten(grads)"),
        (hessian_free, "state.damping * scale + self.weight_decay", "state.damping * scale"),
        (hessian_free, "damping *= 2 / 3", "damping *= 3 / 2"),
        (hessian_free, "if full < 0.75 * model:", "if full > 0.75 * model:"),
        (hessian_free, "along / squared if", "squared / along if"),
        (hessian_free, "HessianFreeState(damping, scale, direction,",
         "HessianFreeState(damping, scale, 0.0 * direction,"),
        (hessian_free, "curvature(vector) + shift * vector", "curvature(vector)"),
        (conjugate_gradients, "residual = right - product(start)", "residual = right"),
        (conjugate_gradients, "residual - length * image", "residual - length * search"),
        (conjugate_gradients, "(squared / before) * search", "(before / squared) * search"),
        (conjugate_gradients, "-0.5 * xp.vecdot(solution, right + residual)",
         "-0.5 * xp.vecdot(solution, right - residual)"),
    ]
] + [
    ("engines.curvature", gauss_newton, old, new)
    for old, new in [
        ("weight = weights_of(net, rows, self.backend)", "weight = None"),
        ("total = self.total / every", "total = self.total"),
        ("self.blocks[number].every(every, first)", "self.blocks[number].every(every, 0)"),
        ("for name in sorted(params)", "for name in params"),
        ("(steps == step, shares", "(steps == 0, shares"),
        ("functools.reduce(add, map(square, factors))", "square(next(factors)) * 0.5"),
        ("a += b  #", "pass  #"),
        ("spare.append(b)", "spare.append(a)"),
        ("yield shares[:, :, k, :]", "yield shares[:, :, 0, :]"),
        ("start + few), self.total)", "start + few), total=1.0)"),
    ]
]  # fmt: skip


def changed(name, old="", new=""):
    module = importlib.import_module(f"rnn_xp.{name}")
    source = inspect.getsource(sys.modules[module.__name__])
    assert old in source, f"{old!r} is not in {name} any more"
    result = types.ModuleType(f"planted_{name.rpartition('.')[2]}")
    sys.modules[result.__name__] = result  # dataclasses look their module up
    try:
        exec(source.replace(old, new, 1) if old else source, result.__dict__)
    finally:
        del sys.modules[result.__name__]
    return result


@pytest.mark.parametrize(
    ("name", "check"), [(name, check) for name, checks in MODULES.items() for check in checks]
)
def test_without_a_mistake_every_check_passes(name, check):
    check(changed(name))


@pytest.mark.parametrize(("name", "check", "old", "new"), MISTAKES)
def test_every_mistake_is_caught(name, check, old, new):
    module = changed(name, old, new)
    with pytest.raises((AssertionError, ValueError, ArithmeticError, IndexError)):
        check(module)
