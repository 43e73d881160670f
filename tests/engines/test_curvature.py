"""The Gauss-Newton matrix that the engine hands to optimisers, and the trainings that use it."""

from __future__ import annotations

import numpy as np
import problems
import pytest
from problems import CELLS, TOPOLOGIES, Problem
from small_fits import FLOAT64, assert_equal

import rnn_xp as rx
from rnn_xp import losses
from rnn_xp.engines import curvature
from rnn_xp.engines.blocks import Batch, weights_of
from rnn_xp.engines.portable import PortableEngine
from rnn_xp.optim.flat import flatten

LM = rx.optim.levenberg_marquardt()
LOSSES = ["mse", "cross_entropy", "binary_cross_entropy"]


def hessian_of_loss(loss, pred, target, weight, total):
    """d2 value / d pred**2 of one row, by the complex step through the loss's own gradient."""
    columns = []
    for k in range(pred.size):
        shifted = pred.astype(complex)
        shifted.flat[k] += 1e-30j
        columns.append(loss(shifted[None], target[None], weight, total)[1].imag.ravel() / 1e-30)
    return np.stack(columns, axis=1)


def by_definition(net, params, batch, loss, weight, total):
    """sum_n J_n^T L_n J_n, one row at a time."""
    steps = batch.y.shape[1] if net.topology == "one_to_many" else None
    pred, _ = net.forward(params, batch.x, steps=steps, **batch.options)
    jacobian = net.jacobian(params, batch.x, steps=steps, **batch.options)
    size = len(pred.shape)
    flat = np.concatenate(
        [jacobian[name].reshape(*pred.shape, -1) for name in sorted(jacobian)], axis=size
    )
    result = 0.0
    for n, row in enumerate(flat):
        mine = None if weight is None else weight[n : n + 1]
        hessian = hessian_of_loss(loss, pred[n], batch.y[n], mine, total)
        row = row.reshape(pred[n].size, -1)
        result = result + row.T @ hessian @ row
    return result


def engine(net, batch, loss, block_rows=2, **options):
    return PortableEngine(net, loss, LM, FLOAT64, batch, block_rows, **options)


def targets(problem, name):
    if name == "cross_entropy":
        return np.random.default_rng(1).integers(0, 2, problem.y.shape[:-1])
    return problem.y if name == "mse" else (problem.y > 0).astype(float)


@pytest.mark.cover("pairs", "cell", "topology", "name", "weighted")
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("cell", CELLS)
def test_the_matrix_is_the_sum_over_samples_of_jt_l_j(cell, topology, name, weighted):
    problem = Problem(**CELLS[cell], **TOPOLOGIES[topology])
    weight = problem.weight if weighted else None
    batch = Batch(problem.x, targets(problem, name), weight)
    loss = losses.resolve_loss(name)
    made = engine(problem.net, batch, loss)
    total = losses.total_weight(batch.y, weight)
    expected = by_definition(problem.net, problem.params, batch, loss, weight, total)
    found = made.full_batch.curvature(problem.params)
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-12 * np.abs(expected).max())
    assert np.array_equal(found, found.T)
    assert np.linalg.eigvalsh(found).min() > -1e-12 * np.abs(found).max()


@pytest.mark.cover("pairs", "cell", "topology", "name", "weighted")
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("cell", CELLS)
def test_the_estimates_of_all_turns_have_the_matrix_as_their_mean(cell, topology, name, weighted):
    problem = Problem(rows=5, **CELLS[cell], **TOPOLOGIES[topology])
    batch = Batch(problem.x, targets(problem, name), problem.weight if weighted else None)
    second = engine(problem.net, batch, losses.resolve_loss(name)).full_batch
    expected = second.curvature(problem.params)
    for every in (1, 2, 3):  # blocks have two rows: in the third turn of three, none
        factors = [second.curvature_factor(problem.params, every, k) for k in range(every)]
        mean = sum(r.T @ r for r in factors) / every
        np.testing.assert_allclose(mean, expected, rtol=1e-11, atol=1e-12 * np.abs(expected).max())


@pytest.mark.parametrize("given", ["lengths", "mask", "reset"])
def test_with_the_options_of_a_call(given):
    problem = Problem(topology="many_to_many", cell="gru", with_=(given,), rows=5)
    batch = Batch(problem.x, problem.y, None, **problem.arrays)
    made = engine(problem.net, batch, losses.mse)
    weight = weights_of(problem.net, batch, FLOAT64)
    total = losses.total_weight(batch.y, weight)
    if weight is not None:
        weight = np.asarray(weight)
    expected = by_definition(problem.net, problem.params, batch, losses.mse, weight, total)
    np.testing.assert_allclose(
        made.full_batch.curvature(problem.params), expected,
        rtol=1e-11, atol=1e-12 * np.abs(expected).max(),
    )  # fmt: skip


@pytest.mark.parametrize("name", [*LOSSES, "huber"])
def test_the_product_is_that_of_the_matrix(name):
    """Of the Huber loss too, which declares no rows: its second derivative is 1 or 0."""
    problem, loss = Problem(cell="lstm", rows=5), losses.resolve_loss(name)
    batch = Batch(problem.x, targets(problem, name), problem.weight)
    total = losses.total_weight(batch.y, problem.weight)
    matrix = by_definition(problem.net, problem.params, batch, loss, problem.weight, total)
    rng = np.random.default_rng(5)
    vector = {key: rng.standard_normal(p.shape) for key, p in problem.params.items()}
    product = engine(problem.net, batch, loss).full_batch.curvature_product(problem.params, vector)
    expected = matrix @ flatten(vector)
    np.testing.assert_allclose(
        flatten(product), expected, rtol=1e-10, atol=1e-12 * np.abs(expected).max()
    )


def test_few_rows_at_a_time_give_the_same_matrix(monkeypatch):
    problem = Problem(rows=7)
    made = engine(problem.net, Batch(problem.x, problem.y), losses.mse, block_rows=7)
    at_once = made.full_batch.curvature(problem.params)
    monkeypatch.setattr(curvature, "_ENTRIES", 3 * problems.O * problem.net.num_parameters)
    np.testing.assert_allclose(
        made.full_batch.curvature(problem.params), at_once, rtol=1e-12, atol=1e-15
    )


def test_the_step_solves_the_damped_system():
    """The parameters after one update, from the definition alone."""
    x, y = problems.windows()
    net = rx.Network(hidden_size=3)
    params = net.init(seed=2, backend=FLOAT64)
    result = rx.fit(net, x, y, optimizer=LM, epochs=1, params=params, backend=FLOAT64)
    _, grads = net.value_and_grad(params, x, y)
    total = losses.total_weight(y)
    matrix = by_definition(net, params, Batch(x, y), losses.mse, None, total)
    shift = LM.damping * np.mean(np.diag(matrix)) * np.eye(len(matrix))
    step = np.linalg.solve(matrix + shift, -flatten(grads))
    np.testing.assert_allclose(flatten(result.params), flatten(params) + step, rtol=1e-9)


@pytest.mark.parametrize("subsample", [1.0, 0.2])
def test_any_number_of_threads_gives_the_same_bits(subsample):
    x, y = problems.windows(90)
    optimizer = rx.optim.levenberg_marquardt(subsample=subsample)
    options = {"optimizer": optimizer, "epochs": 4, "block_rows": 8, "backend": FLOAT64}
    net = rx.Network(hidden_size=4)
    one, three = (rx.fit(net, x, y, workers=k, **options) for k in (1, 3))
    assert one.history == three.history
    assert_equal(one.params, three.params)


@pytest.mark.full("jax", "torch")
@pytest.mark.parametrize(
    "optimizer",
    [LM, rx.optim.levenberg_marquardt(subsample=0.25), rx.optim.hessian_free()],
    ids=["lm", "subsample", "hf"],
)
@pytest.mark.parametrize("name", ["array_api_strict", "torch", "jax"])
def test_on_other_libraries(name, optimizer):
    pytest.importorskip(name)
    if name == "jax":
        pytest.importorskip("jax").config.update("jax_enable_x64", True)
    x, y = problems.windows()
    net, options = rx.Network(hidden_size=3), {"optimizer": optimizer, "epochs": 5}
    here = rx.fit(net, x, y, backend=FLOAT64, **options)
    there = rx.fit(net, x, y, backend=rx.get_backend(name, dtype="float64"), **options)
    np.testing.assert_allclose(there.history["loss"], here.history["loss"], rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "mae"}, "needs a loss that declares its curvature, as mse, .* mae does not"),
        ({"batch_size": 10}, "LevenbergMarquardt needs the full batch"),
        ({"net": rx.Network(hidden_size=3, num_layers=2, dropout=0.1)}, "without .* dropout"),
        ({"optimizer": rx.optim.levenberg_marquardt(max_bytes=100)}, "use rnn_xp.optim.hessian_"),
    ],
)
def test_what_it_cannot_do_is_refused(options, message):
    x, y = problems.windows()
    options = {"net": rx.Network(hidden_size=3), "optimizer": LM, "epochs": 3, **options}
    with pytest.raises(ValueError, match=message):
        rx.fit(options.pop("net"), x, y, backend=FLOAT64, **options)
