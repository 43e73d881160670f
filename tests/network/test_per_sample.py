"""Gradients before the sum over samples: the Jacobian, and the gradient's terms by sample."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from extending import MinGRUCell
from problems import I, N, O, Problem, T, windows

import rnn_xp as rx
from rnn_xp.cells import CELLS as KINDS
from rnn_xp.cells.gates import collect
from rnn_xp.network.sequence import map_state


def reference(dtype="float32"):
    """The reference workload: 8317 windows of 10 values, 50 hidden units."""
    t = np.arange(8327.0)
    x, y = rx.make_windows((np.sin(t / 7.0) + 0.3 * np.sin(t)).astype(dtype), seq_length=10)
    net = rx.Network(input_size=1, hidden_size=50, output_size=1)
    return net, net.init(seed=0, backend=rx.get_backend(dtype=dtype)), np.array(x), y


def rounding_of_a_sum(terms, dtype):
    """What N additions one after the other may lose: sqrt(N) units (Higham and Mary 2019)."""
    size = np.sum(np.abs(terms), axis=0, dtype=np.float64)
    return np.sqrt(len(terms)) * np.finfo(dtype).eps / 2 * size


def test_8317_of_them_add_up_to_dw_hy_and_the_matmul_is_that_sum():
    """dL/dW_hy (O,H) = dL/dy (O,N) @ dy/dW_hy (N,H), and each of the N terms is one sample's."""
    net, params, x, y = reference()
    terms = net.per_sample_grads(params, x, y)
    _, grads = net.value_and_grad(params, x, y)
    assert terms["readout.w_hy"].shape == (8317, 1, 50)
    for name, term in terms.items():
        error = np.abs(grads[name] - np.sum(term, axis=0, dtype=np.float64))
        assert np.all(error <= rounding_of_a_sum(term, np.float32)), name
    pred, _, back = net.vjp(params, x)
    dpred = 2.0 * (pred - y) / 8317
    h = net.jacobian(params, x)["readout.w_hy"][:, 0, 0, :]  # dy/dW_hy is the last hidden state
    assert np.array_equal(np.matmul(dpred.T, h), back(dpred)["readout.w_hy"])
    assert np.array_equal(dpred * h, terms["readout.w_hy"][:, 0, :])


def test_the_last_place_of_rounding_in_double_precision():
    net, params, x, y = reference("float64")
    terms = net.per_sample_grads(params, x, y)
    _, grads = net.value_and_grad(params, x, y)
    for name, term in terms.items():
        error = np.abs(grads[name] - np.sum(term, axis=0, dtype=np.longdouble))
        assert np.all(error <= rounding_of_a_sum(term, np.float64)), name


def test_one_step_by_hand():
    """T = 1: pred = w_hy tanh(w_xh x + b_h) + b_y."""
    net = rx.Network(input_size=1, hidden_size=1, output_size=1)
    value = {"layer0.w_xh": 0.5, "layer0.w_hh": 9.0, "layer0.b_h": 0.1, "readout.w_hy": 2.0}
    params = {k: np.full(s, value.get(k, 0.3)) for k, s in net.shapes.items()}
    x = np.asarray([[[1.0]], [[-2.0]]])
    h = np.tanh(0.5 * x[:, 0, 0] + 0.1)
    jacobian = net.jacobian(params, x)
    assert {k: v.shape for k, v in jacobian.items()} == {
        k: (2, 1, *s) for k, s in net.shapes.items()
    }
    flat = {k: v.ravel() for k, v in jacobian.items()}
    np.testing.assert_allclose(flat["layer0.w_xh"], 2.0 * (1 - h**2) * x[:, 0, 0], rtol=1e-15)
    np.testing.assert_allclose(flat["layer0.b_h"], 2.0 * (1 - h**2), rtol=1e-15)
    np.testing.assert_allclose(flat["readout.w_hy"], h, rtol=1e-15)
    assert flat["readout.b_y"].tolist() == [1.0, 1.0]
    assert flat["layer0.w_hh"].tolist() == [0.0, 0.0]  # h_0 is zero


@pytest.mark.parametrize("topology", ["many_to_one", "many_to_many", "one_to_many"])
def test_an_output_of_the_jacobian_is_vjp_of_that_output(topology):
    p = Problem(cell="lstm", topology=topology, num_layers=2)
    jacobian = p.net.jacobian(p.params, p.x, **p.options())
    pred, _, back = p.net.vjp(p.params, p.x, per_sample=True, **p.options())
    dpred = np.zeros_like(pred)
    dpred[..., 1] = 1.0
    grads = back(dpred)
    for name, shape in p.net.shapes.items():
        read = pred.shape[1:]
        assert jacobian[name].shape == (N, *read, *shape)
        axis = 1 + len(read) - 1
        column = np.take(jacobian[name], 1, axis=axis)
        column = column.sum(axis=1) if len(read) == 2 else column
        np.testing.assert_allclose(column, grads[name], rtol=1e-12, atol=1e-14)
    assert grads["x"].shape == p.x.shape


def test_the_jacobian_takes_one_pass_for_each_output_and_never_one_for_each_sample(monkeypatch):
    from rnn_xp.network import pipeline

    calls = []
    run_back, run = pipeline.run_back, pipeline.run
    monkeypatch.setattr(pipeline, "run_back", lambda *a, **k: calls.append(1) or run_back(*a, **k))
    monkeypatch.setattr(pipeline, "run", lambda *a, **k: calls.append(0) or run(*a, **k))
    p = Problem(topology="many_to_many", rows=7)
    p.net.jacobian(p.params, p.x)
    assert (calls.count(0), calls.count(1)) == (1, T * O)
    calls.clear()
    p.net.per_sample_grads(p.params, p.x, p.y)
    assert (calls.count(0), calls.count(1)) == (1, 1)


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_in_blocks_8317_windows_take_the_memory_that_is_said_and_less_than_200_mb(cell):
    """B * (2 * P + T * H * (L * D * tape + rows)) numbers, to 20 %."""
    net, (_, _, x, y) = rx.Network(cell=cell, hidden_size=50), reference()
    params, rows = net.init(seed=0, backend=rx.get_backend(dtype="float32")), 1040
    next(net.per_sample_grads(params, x[:2], y[:2], in_blocks=2))  # what is made once
    tracemalloc.start()
    try:
        for block in net.per_sample_grads(params, x, y, in_blocks=rows):
            assert block["layer0.b_h"].dtype == np.float32
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    footprint = net.layers.cells[0].footprint
    said = 4 * rows * (2 * net.num_parameters + 10 * 50 * (footprint.tape + footprint.rows))
    assert 0.8 * said < peak < 1.2 * said
    assert peak < 200e6
    if cell == "rnn":
        assert round(said / 1e6) == 28


class TestBlocks:
    def test_they_join_to_the_whole(self):
        """Rows of state, lengths, weights and targets go with their samples."""
        p = Problem(cell="gru", topology="many_to_many", rows=7, with_=("state", "lengths"))
        arguments = (p.params, p.x, p.y, "mse", p.weight)
        whole = p.net.per_sample_grads(*arguments, **p.arrays)
        blocks = list(p.net.per_sample_grads(*arguments, in_blocks=3, **p.arrays))
        assert [len(block["readout.b_y"]) for block in blocks] == [3, 3, 1]
        jacobian = p.net.jacobian(p.params, p.x, **p.arrays)
        pieces = list(p.net.jacobian(p.params, p.x, in_blocks=np.int64(2), **p.arrays))
        assert len(pieces) == 4
        for name in p.net.shapes:
            joined = np.concatenate([block[name] for block in blocks])
            np.testing.assert_allclose(joined, whole[name], rtol=1e-12, atol=1e-15)
            joined = np.concatenate([piece[name] for piece in pieces])
            np.testing.assert_allclose(joined, jacobian[name], rtol=1e-12, atol=1e-14)

    def test_a_block_is_computed_when_it_is_asked_for(self):
        p = Problem(rows=8)
        blocks = p.net.jacobian(p.params, p.x, in_blocks=4)
        p.x[...] = 0.0
        assert not next(blocks)["layer0.w_xh"].any()

    @pytest.mark.parametrize("size", [0, -1, 2.5, "3"])
    def test_a_size_that_is_none_is_refused_before_anything_is_computed(self, size):
        p = Problem()
        with pytest.raises(ValueError, match=r"Network.jacobian: in_blocks must be an integer"):
            p.net.jacobian(p.params, p.x, in_blocks=size)
        with pytest.raises(ValueError, match=r"Network.per_sample_grads: in_blocks must be"):
            p.net.per_sample_grads(p.params, p.x, p.y, in_blocks=size)

    def test_dropout_is_refused_because_its_masks_belong_to_a_whole_call(self):
        p = Problem(recurrent_dropout=0.5)
        rng = np.random.default_rng(0)
        with pytest.raises(ValueError, match=r"in_blocks= is not supported with rng=.*whole call"):
            p.net.per_sample_grads(p.params, p.x, p.y, rng=rng, in_blocks=2)
        with pytest.raises(ValueError, match=r"jacobian: in_blocks= is not supported with rng="):
            p.net.jacobian(p.params, p.x, rng=rng, in_blocks=2)


def test_total_one_gives_the_gradient_of_each_samples_own_loss():
    p = Problem(cell="gru")
    terms = p.net.per_sample_grads(p.params, p.x, p.y, "mse", p.weight, total=1.0)
    for n in range(N):
        own = slice(n, n + 1)
        _, grads = p.net.value_and_grad(
            p.params, p.x[own], p.y[own], "mse", p.weight[own], total=1.0
        )
        for name, grad in grads.items():
            np.testing.assert_allclose(terms[name][n], grad, rtol=1e-12, atol=1e-14)


def test_a_sample_of_weight_zero_has_no_part_even_where_it_is_not_a_number():
    p = Problem()
    weight = np.asarray([1.0, 0.0, 2.0])
    p.y[1] = np.nan
    terms = p.net.per_sample_grads(p.params, p.x, p.y, "mse", weight)
    for name, term in terms.items():
        assert not term[1].any(), name
        assert np.isfinite(term).all(), name


@pytest.mark.parametrize("steps", [4096, 4097, 10_000])
def test_a_bias_has_the_sum_of_all_steps_of_a_long_sequence(steps):
    """More rows than one product of ones takes."""
    rng = np.random.default_rng(0)
    net = rx.Network(input_size=I, hidden_size=3, topology="many_to_many")
    params = net.init(seed=0, backend=rx.get_backend(dtype="float64"))
    x, y = rng.standard_normal((2, steps, I)), rng.standard_normal((2, steps, 1))
    terms = net.per_sample_grads(params, x, y)
    _, grads = net.value_and_grad(params, x, y)
    for name, grad in grads.items():
        np.testing.assert_allclose(terms[name].sum(axis=0), grad, rtol=1e-11, atol=1e-14)


def test_a_cell_of_ones_own_that_sums_over_the_wrong_axis_is_named(mingru, monkeypatch):
    class Flat(MinGRUCell):
        def collect(self, params, xs, share, *, xp):
            return collect(params, xs, share, xp=xp) | {"b_h": xp.sum(share.dz, axis=0)}

    monkeypatch.setitem(KINDS, "mingru", Flat)
    p = Problem(cell="mingru")
    p.net.value_and_grad(p.params, p.x, p.y)
    message = r"Flat.collect must keep .* gradient of layer0.b_h for every sample .*\(3, 8\), got"
    with pytest.raises(ValueError, match=message):
        p.net.per_sample_grads(p.params, p.x, p.y)
    with pytest.raises(ValueError, match=r"for every step must have shape \(5, 8\), got \(3, 8\)"):
        p.net.grad_per_step(p.params, p.x, p.y)


def test_nothing_that_is_given_changes():
    p = Problem(cell="lstm", with_=("state", "mask"))
    before = map_state(np.copy, (p.x, p.y, p.state, tuple(p.params.values())))
    p.net.per_sample_grads(p.params, p.x, p.y, **p.arrays)
    p.net.jacobian(p.params, p.x, **p.arrays)
    map_state(np.testing.assert_array_equal, before, (p.x, p.y, p.state, tuple(p.params.values())))


def test_a_target_of_another_shape_is_refused():
    net, (x, _) = rx.Network(hidden_size=3), windows()
    params = net.init(seed=0, backend=rx.get_backend(dtype="float64"))
    with pytest.raises(ValueError, match=r"pred \(60, 1\) and target \(60,\)"):
        net.per_sample_grads(params, x, x[:, 0, 0])
