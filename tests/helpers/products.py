"""Jacobians and products with derivatives, compared with the complex step of the forward pass."""

from __future__ import annotations

import numpy as np
from problems import N

from rnn_xp.network.sequence import map_state

H = 1e-30
RELATIVE = 1e-11


def direction(problem, seed=5):
    """A random direction in the parameters, the input and, where one is given, the state."""
    rng = np.random.default_rng(seed)
    v = {name: rng.standard_normal(shape) for name, shape in problem.net.shapes.items()}
    beside = {"x": rng.standard_normal(problem.x.shape)}
    if "state" in problem.arrays:
        beside["state"] = map_state(lambda a: rng.standard_normal(a.shape), problem.state)
    return v, beside


def close(actual, desired, size=None):
    """To 1e-11 of the largest entry, or of the terms of which the entries are sums."""
    actual, desired = np.asarray(actual), np.asarray(desired)
    assert actual.shape == desired.shape
    scale = np.max(np.abs(desired)) if size is None else np.max(size)
    worst = np.max(np.abs(actual - desired), initial=0.0)
    assert worst <= RELATIVE * scale, f"{worst:.3g} of {scale:.3g}"


def along(terms, v, read):
    """Contract the parameters' axes of (N, ..., *shape) with a direction; also of sizes."""
    total, size = 0.0, 0.0
    for name, term in terms.items():
        flat = term.reshape(*term.shape[: 1 + read], -1)
        total = total + flat @ v[name].ravel()
        size = size + np.abs(flat) @ np.abs(v[name].ravel())
    return total, size


def stepped(problem, v, beside):
    """Predictions a complex step along a direction away; without it, the predictions."""
    p, options = problem, problem.options()
    at = {name: param + 1j * H * v[name] for name, param in p.params.items()}
    x = p.x + 1j * H * beside.get("x", np.zeros_like(p.x))
    if "state" in options:
        tangent = beside.get("state", map_state(np.zeros_like, p.state))
        options["state"] = map_state(lambda a, b: a + 1j * H * b, options["state"], tangent)
    return p.net.vjp(at, x, **options)[0]


def loss_weight(problem):
    """Weight of every entry of the loss, (N, 1) or (N, T, 1), and their total."""
    weight = problem.weight
    if problem.y.ndim == 3:
        if "mask" in problem.arrays:
            weight = weight * problem.arrays["mask"]
        if "lengths" in problem.arrays:
            inside = np.arange(problem.y.shape[1]) < problem.arrays["lengths"][:, None]
            weight = weight * inside
    return weight[..., None], weight.sum() * problem.y.shape[-1]


def check_jacobian_and_jvp(p):
    v, beside = direction(p)
    jacobian = p.net.jacobian(p.params, p.x, **p.options())
    shifted = stepped(p, v, {})
    read = shifted.ndim - 1
    product, size = along(jacobian, v, read)
    close(product, shifted.imag / H, size)
    both = stepped(p, v, beside)
    pred, dpred = p.net.jvp(p.params, p.x, {**v, **beside}, **p.options())
    close(pred, both.real)
    close(dpred, both.imag / H)


def check_per_sample_grads(p):
    v, _ = direction(p)
    weight, total = loss_weight(p)
    error = stepped(p, v, {}) - p.y
    values = np.sum((weight * error * error / total).reshape(N, -1), axis=1)
    arguments = (p.params, p.x, p.y, "mse", p.weight)
    terms = p.net.per_sample_grads(*arguments, **p.options(steps=False))
    product, size = along(terms, v, 0)
    close(product, values.imag / H, size)
    if not p.noisy:
        blocks = list(p.net.per_sample_grads(*arguments, in_blocks=2, **p.options(steps=False)))
        for name, term in terms.items():
            close(np.concatenate([block[name] for block in blocks]), term)
    _, grads = p.net.value_and_grad(*arguments, **p.options(steps=False))
    for name, grad in grads.items():
        close(terms[name].sum(axis=0), grad, np.abs(terms[name]).sum(axis=0))


def check_hvp_and_gnvp(p):
    """J^T L'' J v as it is defined; H v is the gradient's derivative, and u H v = v H u."""
    (v, _), (u, _) = direction(p), direction(p, seed=6)
    loss, options = (p.params, p.x, p.y), p.options
    weighted = {"sample_weight": p.weight}
    gnvp = p.net.gnvp(*loss, v, **weighted, **options(steps=False))
    weight, total = loss_weight(p)
    jacobian = p.net.jacobian(p.params, p.x, **options())
    product, _ = along(jacobian, v, p.y.ndim - 1)
    upstream = 2.0 * weight / total * product
    hvp = p.net.hvp(*loss, v, **weighted, **options(steps=False))
    other = p.net.hvp(*loss, u, **weighted, **options(steps=False))
    at = {name: param + 1j * H * v[name] for name, param in p.params.items()}
    state = options(steps=False)
    if "state" in state:
        state["state"] = map_state(lambda a: a.astype(complex), state["state"])
    _, shifted = p.net.value_and_grad(at, p.x.astype(complex), p.y, "mse", p.weight, **state)
    for name, shape in p.net.shapes.items():
        close(hvp[name], shifted[name].imag / H, max(np.abs(h).max() for h in hvp.values()))
        flat = jacobian[name].reshape(upstream.size, -1)
        expected = np.matmul(upstream.ravel(), flat).reshape(shape)
        close(gnvp[name], expected, np.matmul(np.abs(upstream).ravel(), np.abs(flat)))
    sides = [sum(np.sum(a[k] * b[k]) for k in a) for a, b in ((u, hvp), (v, other))]
    close(*sides, sum(np.sum(np.abs(u[k] * hvp[k])) for k in u))
