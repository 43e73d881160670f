"""The examples of the notes that this library grew from, with their own numbers.

Windows: `test_windows.py`. Here: shapes of a batch, and T = 2 and N = 1 by hand.
"""

from __future__ import annotations

import math

import numpy as np

import rnn_xp as rx

REFERENCE = rx.Network(input_size=1, hidden_size=50, output_size=1)


def reference_batch(rows):
    rng = np.random.default_rng(0)
    params = {k: 0.3 * rng.standard_normal(s) for k, s in REFERENCE.shapes.items()}
    return params, rng.standard_normal((rows, 10, 1)), rng.standard_normal((rows, 1))


def test_the_reference_network_has_2651_parameters():
    assert REFERENCE.shapes == {
        "layer0.w_xh": (50, 1),
        "layer0.w_hh": (50, 50),
        "layer0.b_h": (50,),
        "readout.w_hy": (1, 50),
        "readout.b_y": (1,),
    }
    assert REFERENCE.num_parameters == 50 + 2500 + 50 + 50 + 1


def test_a_batch_of_n_windows_gives_n_outputs_never_one():
    for rows in (1, 2, 8317):
        params, x, _ = reference_batch(rows)
        pred, state = REFERENCE.forward(params, x)
        assert pred.shape == (rows, 1)
        assert state.h.shape == (1, rows, 50)


def test_shapes_of_a_step_in_row_and_in_column_convention():
    rows = 7
    params, x, _ = reference_batch(rows)
    x_t = x[:, 0, :]
    w_xh, w_hh, w_hy = (params[k] for k in ("layer0.w_xh", "layer0.w_hh", "readout.w_hy"))
    assert x_t.shape == (rows, 1)
    h = np.tanh(x_t @ w_xh.T)  # (N, 1) @ (1, 50)
    assert h.shape == (rows, 50)
    assert (h @ w_hh.T).shape == (rows, 50)  # (N, 50) @ (50, 50)
    assert (h @ w_hy.T).shape == (rows, 1)  # (N, 50) @ (50, 1)
    h_column = np.tanh(w_xh @ x_t.T)  # (50, 1) @ (1, N)
    assert h_column.shape == (50, rows)
    assert (w_hy @ h_column).shape == (1, rows)  # (1, 50) @ (50, N)
    np.testing.assert_allclose(h_column.T, h, rtol=1e-15)


def test_two_steps_by_hand():
    """Many-to-one, T = 2, H = 1: the chain rule written out with plain numbers."""
    net = rx.Network(input_size=1, hidden_size=1, output_size=1)
    w_xh, w_hh, b_h, w_hy, b_y = 0.7, -0.4, 0.1, 1.3, -0.2
    x_1, x_2, target, h_0 = 0.5, -0.8, 0.3, 0.0

    h_1 = math.tanh(w_xh * x_1 + w_hh * h_0 + b_h)
    h_2 = math.tanh(w_xh * x_2 + w_hh * h_1 + b_h)
    pred = w_hy * h_2 + b_y
    dpred = 2.0 * (pred - target)
    dh_2 = dpred * w_hy
    dz_2 = dh_2 * (1.0 - h_2**2)
    dh_1 = dz_2 * w_hh  # no loss of its own at step 1: all comes back through h_2
    dz_1 = dh_1 * (1.0 - h_1**2)

    params = {
        "layer0.w_xh": np.asarray([[w_xh]]),
        "layer0.w_hh": np.asarray([[w_hh]]),
        "layer0.b_h": np.asarray([b_h]),
        "readout.w_hy": np.asarray([[w_hy]]),
        "readout.b_y": np.asarray([b_y]),
    }
    x, y = np.asarray([[[x_1], [x_2]]]), np.asarray([[target]])
    loss, grads = net.value_and_grad(params, x, y)
    terms = net.grad_per_step(params, x, y)

    np.testing.assert_allclose(loss, (pred - target) ** 2, rtol=1e-14)
    by_hand = {
        "layer0.w_hh": (dz_1 * h_0, dz_2 * h_1),
        "layer0.w_xh": (dz_1 * x_1, dz_2 * x_2),
        "layer0.b_h": (dz_1, dz_2),
        "readout.w_hy": (0.0, dpred * h_2),
        "readout.b_y": (0.0, dpred),
    }
    for name, (first, second) in by_hand.items():
        np.testing.assert_allclose(terms[name].ravel(), [first, second], rtol=1e-13, err_msg=name)
        np.testing.assert_allclose(grads[name].ravel(), [first + second], rtol=1e-13)


def test_two_steps_by_hand_with_a_state_that_came_before():
    """With h_0 given, the first of the two terms of dL/dW_hh is not zero."""
    net = rx.Network(input_size=1, hidden_size=3, output_size=1)
    rng = np.random.default_rng(3)
    p = {k: rng.standard_normal(s) for k, s in net.shapes.items()}
    x, dpred = rng.standard_normal((4, 2, 1)), rng.standard_normal((4, 1))
    h_0 = rng.standard_normal((4, 3))

    def step(x_t, h):
        return np.tanh(x_t @ p["layer0.w_xh"].T + h @ p["layer0.w_hh"].T + p["layer0.b_h"])

    h_1 = step(x[:, 0, :], h_0)
    h_2 = step(x[:, 1, :], h_1)
    dz_2 = (dpred @ p["readout.w_hy"]) * (1 - h_2**2)
    dz_1 = (dz_2 @ p["layer0.w_hh"]) * (1 - h_1**2)

    state = rx.RNNState(h_0[None])
    grads = net.vjp(p, x, state)[2](dpred)
    np.testing.assert_allclose(grads["layer0.w_hh"], dz_1.T @ h_0 + dz_2.T @ h_1, rtol=1e-12)
    np.testing.assert_allclose(grads["state"].h[0], dz_1 @ p["layer0.w_hh"], rtol=1e-12)


def test_two_steps_by_hand_many_to_many():
    """dL/dh_1 = (own loss at 1) + (through h_2), and so two terms for every weight."""
    net = rx.Network(input_size=2, hidden_size=4, output_size=3, topology="many_to_many")
    rng = np.random.default_rng(7)
    params = {name: rng.standard_normal(shape) for name, shape in net.shapes.items()}
    w_xh, w_hh, b_h, w_hy, b_y = (
        params[name]
        for name in ("layer0.w_xh", "layer0.w_hh", "layer0.b_h", "readout.w_hy", "readout.b_y")
    )
    x, y = rng.standard_normal((5, 2, 2)), rng.standard_normal((5, 2, 3))
    h_0 = rng.standard_normal((5, 4))

    h_1 = np.tanh(x[:, 0] @ w_xh.T + h_0 @ w_hh.T + b_h)
    h_2 = np.tanh(x[:, 1] @ w_xh.T + h_1 @ w_hh.T + b_h)
    dpred_1, dpred_2 = (
        2.0 * (h @ w_hy.T + b_y - y[:, t]) / y.size for t, h in enumerate((h_1, h_2))
    )
    dh_2 = dpred_2 @ w_hy
    dz_2 = dh_2 * (1.0 - h_2**2)
    own_loss, through_h_2 = dpred_1 @ w_hy, dz_2 @ w_hh
    dh_1 = own_loss + through_h_2
    dz_1 = dh_1 * (1.0 - h_1**2)

    state = rx.RNNState(h_0[None])
    flow = net.gradient_flow(params, x, y, state=state)["layer0"]
    np.testing.assert_allclose(flow, [dh_1, dh_2], rtol=1e-12)
    terms = net.grad_per_step(params, x, y, state=state)
    _, grads = net.value_and_grad(params, x, y, state=state)
    by_hand = {
        "layer0.w_xh": (dz_1.T @ x[:, 0], dz_2.T @ x[:, 1]),
        "layer0.w_hh": (dz_1.T @ h_0, dz_2.T @ h_1),
        "layer0.b_h": (dz_1.sum(axis=0), dz_2.sum(axis=0)),
        "readout.w_hy": (dpred_1.T @ h_1, dpred_2.T @ h_2),
        "readout.b_y": (dpred_1.sum(axis=0), dpred_2.sum(axis=0)),
    }
    assert terms.keys() == grads.keys() == by_hand.keys()
    for name, (first, second) in by_hand.items():
        np.testing.assert_allclose(terms[name], [first, second], rtol=1e-10, err_msg=name)
        np.testing.assert_allclose(grads[name], first + second, rtol=1e-10, err_msg=name)

    # Not an accident of the numbers: neither share alone is the gradient.
    assert abs(own_loss).min() > 0.0
    assert abs(through_h_2).min() > 0.0


def test_batch_of_one_and_batch_of_8317():
    """dL/dW_hy: a scalar times the row h for one sample, the sum of 8317 of these for all."""
    rows = 8317
    params, x, y = reference_batch(rows)
    pred, state = REFERENCE.forward(params, x)
    h = state.h[0]
    _, grads = REFERENCE.value_and_grad(params, x, y)

    one, row = REFERENCE.value_and_grad(params, x[:1], y[:1])[1], h[:1]
    scalar = 2.0 * (pred[0, 0] - y[0, 0])
    np.testing.assert_allclose(one["readout.w_hy"], scalar * row, rtol=1e-13)

    added_up = np.zeros((1, 50))
    for n in range(rows):
        added_up += 2.0 * (pred[n, 0] - y[n, 0]) / rows * h[n]
    np.testing.assert_allclose(grads["readout.w_hy"], added_up, rtol=1e-10)
