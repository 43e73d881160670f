"""Updates compiled by JAX, in which the number of past updates is an array without a value."""

from __future__ import annotations

import numpy as np
import pytest
from optimizers import OPTIMIZERS

import rnn_xp as rx
from rnn_xp import optim

jax = pytest.importorskip("jax", reason="jax is not installed")

COMPILED = OPTIMIZERS | {
    "warm": optim.adam(optim.WarmUp(5, optim.Cosine(0.05, 10))),
    "falling": optim.sgd(optim.Step(0.1, every=3)),
    "plateau": optim.rmsprop(optim.ReduceOnPlateau(0.01)),
    "without a mean": optim.adam(0.01, beta1=0.0),
}


def on_jax(arrays, dtype="float64"):
    backend = rx.get_backend("jax", dtype=dtype)
    return {name: backend.asarray(array) for name, array in arrays.items()}


def largest_difference(params, others):
    return max(float(abs(params[name] - others[name]).max()) for name in params)


@pytest.mark.parametrize(
    ("name", "dtype"), [*((name, "float64") for name in COMPILED), ("adamw", "float32")]
)
def test_twenty_compiled_updates_equal_those_that_are_not(name, dtype):
    optimizer, rng = COMPILED[name], np.random.default_rng(0)
    params, *draws = (
        {"w": rng.standard_normal((2, 3)), "b": rng.standard_normal(3)} for _ in range(21)
    )
    compiled, update = on_jax(params, dtype), jax.jit(optimizer.update)
    state, there = optimizer.init(params), optimizer.init(compiled)
    for grads in draws:
        params, state = optimizer.update(grads, state, params)
        compiled, there = update(on_jax(grads, dtype), there, compiled)
    close = 4e-6 if dtype == "float32" else 1e-13
    assert {param.dtype.name for param in compiled.values()} == {dtype}
    assert largest_difference(params, compiled) < close
    assert update._cache_size() <= 2  # the first state has Python numbers, later ones arrays

    arrays, values = optimizer.pack(there)  # as a checkpoint has them
    assert values == optimizer.pack(state)[1]
    assert type(values["step"]) is int
    expected = optimizer.pack(state)[0]
    assert arrays.keys() == expected.keys()
    for path, array in expected.items():
        np.testing.assert_allclose(arrays[path], array, atol=close, rtol=0)
    assert optimizer.restart(there)[::2] == state[::2]  # step and plateau


def test_a_whole_step_of_training_is_compiled_at_once():
    """The step of docs/guide/performance.md."""
    rng, net = np.random.default_rng(0), rx.Network(hidden_size=4)
    x, y = rng.standard_normal((8, 3, 1)), rng.standard_normal((8, 1))
    host, optimizer = rx.get_backend("numpy", dtype="float64"), optim.adam(0.01)
    params = net.init(0, host)
    expected = rx.fit(net, x, y, optimizer=optimizer, params=params, epochs=20, backend=host)

    @jax.jit
    def step(params, state, x, y):
        loss, grads = net.value_and_grad(params, x, y)
        return loss, *optimizer.update(grads, state, params)

    params, data = on_jax(params), on_jax({"x": x, "y": y})
    state, losses = optimizer.init(params), []
    for _ in range(20):
        loss, params, state = step(params, state, **data)
        losses.append(float(loss))
    np.testing.assert_allclose(losses, expected.history["loss"], rtol=1e-12)
    assert largest_difference(params, expected.params) < 1e-12


def test_a_plateau_is_observed_between_compiled_updates():
    optimizer = optim.sgd(optim.ReduceOnPlateau(0.8, patience=0))
    grads = params = on_jax({"w": np.ones(1)})
    update, state, rates = jax.jit(optimizer.update), optimizer.init(params), []
    for loss in (3.0, 3.0, 2.0):
        after, state = update(grads, state, params)
        rates.append(float((params["w"] - after["w"])[0]))
        state = optimizer.observe(state, loss)
    assert rates == pytest.approx([0.8, 0.8, 0.4])
