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

    for _ in range(updates):
        value, grads = value_and_grad(params)
        values.append(float(value))
        params, state = optimizer.update(grads, state, params, value=value, value_and_grad=counted)
        if getattr(optimizer, "watches_loss", False):
            state = optimizer.observe(state, float(value))
        if getattr(state, "message", ""):
            break
    return params, state, values, len(evaluations)
