"""Functions with a known minimum, and a loop that looks for it."""

from __future__ import annotations

import numpy as np


def quadratic(seed=0, size=6, condition=100.0, decay=0.0, decay_biases=False):
    """A convex quadratic over two arrays: value_and_grad, a start, and its minimum.

    The minimum is that with a weight decay; value and gradient are those without.
    """
    rng = np.random.default_rng(seed)
    q, _ = np.linalg.qr(rng.standard_normal((size, size)))
    a = q @ np.diag(np.geomspace(1.0, condition, size)) @ q.T
    best = rng.standard_normal(size)

    def value_and_grad(params):
        error = np.concatenate([params["a"].ravel(), params["b"]]) - best
        grad = a @ error
        return 0.5 * error @ grad, {"a": grad[:4].reshape(2, 2), "b": grad[4:]}

    start = {"a": np.zeros((2, 2)), "b": np.zeros(size - 4)}
    decays = decay * np.where(np.arange(size) < 4, 1.0, float(decay_biases))
    return value_and_grad, start, np.linalg.solve(a + np.diag(decays), a @ best)


def rosenbrock(params):
    x, y = params["p"]
    value = (1 - x) ** 2 + 100 * (y - x * x) ** 2
    return value, {"p": np.asarray([-2 * (1 - x) - 400 * x * (y - x * x), 200 * (y - x * x)])}


def minimise(optimizer, value_and_grad, params, updates, state=None):
    state = optimizer.init(params) if state is None else state
    evaluations, values = [], []

    def counted(params):
        evaluations.append(params)
        return value_and_grad(params)

    for name in optimizer.needs:
        setattr(counted, name, getattr(value_and_grad, name))
    for _ in range(updates):
        value, grads = value_and_grad(params)
        values.append(float(value))
        params, state = optimizer.update(grads, state, params, value=value, value_and_grad=counted)
        if getattr(optimizer, "watches_loss", False):
            state = optimizer.observe(state, float(value))
        if getattr(state, "message", ""):
            break
    return params, state, values, len(evaluations)


class LeastSquares:
    """The mean of squared residuals r(p), as an objective with second derivatives.

    ``residuals(p)`` gives r (N,) and its Jacobian (N, P) for a vector p, the parameter "p".
    """

    def __init__(self, residuals):
        self.residuals = residuals
        self.curvatures = 0

    def __call__(self, params):
        r, jacobian = self.residuals(params["p"])
        return np.mean(r * r), {"p": 2.0 / r.size * (jacobian.T @ r)}

    def value(self, params):
        return self(params)[0]

    def curvature(self, params):
        self.curvatures += 1
        r, jacobian = self.residuals(params["p"])
        return 2.0 / r.size * (jacobian.T @ jacobian)

    def curvature_factor(self, params, every, first):
        r, jacobian = self.residuals(params["p"])
        return np.sqrt(2.0 * every / r.size) * jacobian[first::every]

    def curvature_product(self, params, vector):
        r, jacobian = self.residuals(params["p"])
        return {"p": 2.0 / r.size * (jacobian.T @ (jacobian @ vector["p"]))}


def rosenbrock_residuals(p):
    """Rosenbrock's function as a sum of two squares (Nocedal and Wright, problem 2.1)."""
    x, y = p
    return np.asarray([1 - x, 10 * (y - x * x)]), np.asarray([[-1.0, 0.0], [-20 * x, 10.0]])


def line_residuals(rows=50, size=7, seed=0):
    """A linear least-squares problem, and its solution with a weight decay."""
    rng = np.random.default_rng(seed)
    a, b = rng.standard_normal((rows, size)), rng.standard_normal(rows)

    def best(decay=0.0):
        return np.linalg.solve(2.0 / rows * a.T @ a + decay * np.eye(size), 2.0 / rows * a.T @ b)

    return lambda p: (a @ p - b, a), best
