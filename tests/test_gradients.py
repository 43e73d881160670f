"""The gradient contract.

Every cell, option and topology must pass every test in this file, on every backend, with random
weights and distinct sizes (T=5, N=3, I=2, H=4, O=2), so that no transposed or mixed-up axis can
hide. Nothing here is ever skipped for a configuration, and no tolerance is a configuration's own.

The oracle is the definition of the derivative, evaluated in complex arithmetic on the host
(`rnn_xp.testing`). It knows nothing of backpropagation.
"""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rnn_xp as rx
from rnn_xp.cells import RNNState
from rnn_xp.testing import check_gradients, compare_gradients

T, N, I, H, O = 5, 3, 2, 4, 2  # noqa: E741  (the field's letters)

CONFIGURATIONS = {
    "tanh": {"activation": "tanh"},
    "relu": {"activation": "relu"},
}


class Problem:
    """A network with random weights, data, initial state and upstream gradients, on the host.

    Biases are random too: an initial bias of zero would hide a bias that is never used.
    """

    def __init__(self, seed=0, steps=T, rows=N, inputs=I, hidden=H, outputs=O, **options):
        self.net = rx.Network(input_size=inputs, hidden_size=hidden, output_size=outputs, **options)
        rng = np.random.default_rng(seed)
        self.params = {k: 0.7 * rng.standard_normal(s) for k, s in self.net.shapes.items()}
        self.x = rng.standard_normal((rows, steps, inputs))
        self.y = rng.standard_normal((rows, outputs))
        self.weight = rng.uniform(0.5, 2.0, rows)
        self.state = RNNState(rng.standard_normal((1, rows, hidden)))
        self.dpred = rng.standard_normal((rows, outputs))
        self.dstate = RNNState(rng.standard_normal((1, rows, hidden)))

    def on(self, case):
        """The same numbers as arrays of a backend."""
        there = object.__new__(Problem)
        there.net = self.net
        there.params = {k: case.array(p) for k, p in self.params.items()}
        for name in ("x", "y", "weight", "dpred"):
            setattr(there, name, case.array(getattr(self, name)))
        there.state = RNNState(case.array(self.state.h))
        there.dstate = RNNState(case.array(self.dstate.h))
        return there


@pytest.fixture(params=CONFIGURATIONS, ids=str)
def problem(request):
    return Problem(**CONFIGURATIONS[request.param])


def through_everything(net, dpred, dstate):
    """A scalar that depends on all that a network returns, with random upstream gradients."""

    def function(at):
        params = {name: at[name] for name in net.shapes}
        pred, state = net.forward(params, at["x"], RNNState(at["state"]))
        return np.sum(pred * dpred) + np.sum(state.h * dstate.h)

    return function


class TestEveryEntry:
    """Each single derivative, with respect to parameters, input and initial state."""

    @pytest.mark.parametrize("method", ["complex_step", "central_difference"])
    def test_vjp(self, problem, case, method):
        there = problem.on(case)

        def gradients(params, x, state, dpred, dstate):
            return there.net.vjp(params, x, state)[2](dpred, dstate)

        with case.guard():
            grads = case.jit(gradients)(
                there.params, there.x, there.state, there.dpred, there.dstate
            )

        # The very numbers the backend computed with: float32 ones are exact in float64.
        at = {k: case.to_numpy(p) for k, p in there.params.items()}
        at |= {"x": case.to_numpy(there.x), "state": case.to_numpy(there.state.h)}
        grads = {**grads, "state": grads["state"].h}
        assert grads.keys() == at.keys()
        for name, grad in grads.items():
            assert grad.dtype == case.dtype, name
        compare_gradients(
            through_everything(
                problem.net, case.to_numpy(there.dpred), RNNState(case.to_numpy(there.dstate.h))
            ),
            at,
            {k: case.to_numpy(g) for k, g in grads.items()},
            method=method,
            every_entry=True,
        )

    def test_value_and_grad(self, problem, case):
        there = problem.on(case)
        check_gradients(there.net, there.params, there.x, there.y, every_entry=True)

    def test_value_and_grad_with_weights(self, problem, case):
        there = problem.on(case)
        check_gradients(
            there.net, there.params, there.x, there.y,
            sample_weight=there.weight, every_entry=True,
        )  # fmt: skip

    def test_initial_state(self, problem, case):
        there = problem.on(case)
        errors = check_gradients(
            there.net, there.params, there.x, there.y, state=there.state, every_entry=True
        )
        assert "state.h" in errors


class TestIndependent:
    """Agreement with an implementation that shares no line with the library."""

    @staticmethod
    def reference(problem):
        """Textbook RNN in column convention, one sample at a time, differentiated by JAX."""
        f = {"tanh": jnp.tanh, "relu": jax.nn.relu}[problem.net.activation]

        def predict(p, x, h):
            for x_t in x:
                h = f(p["layer0.w_xh"] @ x_t + p["layer0.w_hh"] @ h + p["layer0.b_h"])
            return p["readout.w_hy"] @ h + p["readout.b_y"], h

        def loss(p, x, h0):
            pred, h = jax.vmap(predict, in_axes=(None, 0, 0))(p, x, h0)
            return jnp.sum(pred * problem.dpred) + jnp.sum(h * problem.dstate.h[0])

        arguments = (problem.params, problem.x, problem.state.h[0])
        pred, _ = jax.vmap(predict, in_axes=(None, 0, 0))(*arguments)
        by_params, by_x, by_state = jax.grad(loss, argnums=(0, 1, 2))(*arguments)
        return pred, {**by_params, "x": by_x, "state": by_state[None]}

    def test_predictions_and_gradients(self, problem, case):
        pred, expected = self.reference(problem)
        there = problem.on(case)
        ours, _, back = there.net.vjp(there.params, there.x, there.state)
        grads = back(there.dpred, there.dstate)
        grads["state"] = grads["state"].h
        case.assert_close(ours, pred)
        assert grads.keys() == expected.keys()
        for name, gradient in expected.items():
            case.assert_close(grads[name], gradient)


class TestStructure:
    """What must hold of any gradient through time, whatever the numbers."""

    def test_zero_upstream_gives_exactly_zero(self, problem, case):
        there = problem.on(case)
        _, _, back = there.net.vjp(there.params, there.x, there.state)
        grads = back(case.xp.zeros_like(there.dpred))
        for name, grad in {**grads, "state": grads["state"].h}.items():
            assert not np.any(case.to_numpy(grad)), name

    def test_first_step_takes_part(self, problem, case):
        there = problem.on(case)
        terms = there.net.grad_per_step(there.params, there.x, there.y)
        assert np.any(case.to_numpy(terms["layer0.w_xh"])[0])
        assert np.any(case.to_numpy(terms["layer0.b_h"])[0])
        assert not np.any(case.to_numpy(terms["layer0.w_hh"])[0]), "h_0 is zero here"
        _, _, back = there.net.vjp(there.params, there.x, there.state)
        grads = back(there.dpred)
        assert np.any(case.to_numpy(grads["x"])[:, 0, :])
        assert np.any(case.to_numpy(grads["state"].h))

    def test_terms_of_the_steps_sum_to_the_gradient(self, problem, case):
        there = problem.on(case)
        terms = there.net.grad_per_step(there.params, there.x, there.y, "mse", there.weight)
        _, grads = there.net.value_and_grad(there.params, there.x, there.y, "mse", there.weight)
        for name, grad in grads.items():
            assert terms[name].shape == (T, *grad.shape)
            case.assert_close(case.xp.sum(terms[name], axis=0), grad)

    def test_batch_is_the_sum_of_its_samples(self, problem, case):
        there = problem.on(case)
        value, grads = there.net.value_and_grad(there.params, there.x, there.y)
        singles = [
            there.net.value_and_grad(
                there.params, there.x[n : n + 1, ...], there.y[n : n + 1, ...], total=float(N * O)
            )
            for n in range(N)
        ]
        case.assert_close(sum((v for v, _ in singles[1:]), singles[0][0]), value)
        for name, grad in grads.items():
            parts = [g[name] for _, g in singles]
            case.assert_close(sum(parts[1:], parts[0]), grad)

    def test_predictions_one_by_one(self, problem, case):
        there = problem.on(case)
        together, _ = there.net.forward(there.params, there.x)
        for n in range(N):
            alone, _ = there.net.forward(there.params, there.x[n : n + 1, ...])
            case.assert_close(together[n : n + 1, ...], alone)

    @pytest.mark.parametrize("cut", range(1, T))
    def test_split_in_time_equals_whole(self, problem, case, cut):
        there = problem.on(case)
        net, params, x = there.net, there.params, there.x
        pred, state, back = net.vjp(params, x, there.state)
        whole = back(there.dpred, there.dstate)

        _, carried, back_1 = net.vjp(params, x[:, :cut, :], there.state)
        pred_2, state_2, back_2 = net.vjp(params, x[:, cut:, :], carried)
        second = back_2(there.dpred, there.dstate)
        first = back_1(case.xp.zeros_like(there.dpred), second["state"])

        case.assert_close(pred_2, pred)
        case.assert_close(state_2.h, state.h)
        case.assert_close(first["state"].h, whole["state"].h)
        case.assert_close(case.xp.concat([first["x"], second["x"]], axis=1), whole["x"])
        for name in net.shapes:
            case.assert_close(first[name] + second[name], whole[name])

    def test_nothing_given_is_changed(self, problem, case):
        there = problem.on(case)
        there.net.value_and_grad(there.params, there.x, there.y, "mse", there.weight)
        there.net.vjp(there.params, there.x, there.state)[2](there.dpred, there.dstate)
        before = problem.on(case)
        for name, value in before.params.items():
            assert np.array_equal(case.to_numpy(there.params[name]), case.to_numpy(value))
        for name in ("x", "y", "weight", "dpred"):
            given = case.to_numpy(getattr(before, name))
            assert np.array_equal(case.to_numpy(getattr(there, name)), given), name
        assert np.array_equal(case.to_numpy(there.state.h), case.to_numpy(before.state.h))
        assert np.array_equal(case.to_numpy(there.dstate.h), case.to_numpy(before.dstate.h))

    def test_one_step_is_a_dense_layer(self, problem):
        p, x = problem.params, problem.x[:, :1, :]
        z = x[:, 0, :] @ p["layer0.w_xh"].T + p["layer0.b_h"]
        h = {"tanh": np.tanh, "relu": lambda z: np.maximum(z, 0.0)}[problem.net.activation](z)
        slope = 1.0 - h * h if problem.net.activation == "tanh" else (z > 0).astype(float)
        dz = (problem.dpred @ p["readout.w_hy"]) * slope

        pred, _, back = problem.net.vjp(p, x)
        grads = back(problem.dpred)
        np.testing.assert_allclose(
            pred, h @ p["readout.w_hy"].T + p["readout.b_y"], rtol=1e-13, atol=1e-13
        )
        np.testing.assert_allclose(grads["layer0.w_xh"], dz.T @ x[:, 0, :], rtol=1e-12)
        np.testing.assert_allclose(grads["layer0.b_h"], dz.sum(axis=0), rtol=1e-12)
        assert not np.any(grads["layer0.w_hh"]), "with h_0 = 0 and one step w_hh has no effect"

    def test_a_float32_gradient_is_the_rounded_float64_one(self, problem):
        exact = problem.net.value_and_grad(problem.params, problem.x, problem.y)[1]
        single = {k: p.astype("float32") for k, p in problem.params.items()}
        rounded = problem.net.value_and_grad(
            single, problem.x.astype("float32"), problem.y.astype("float32")
        )[1]
        for name, grad in exact.items():
            assert rounded[name].dtype == np.float32
            np.testing.assert_allclose(rounded[name], grad, atol=2e-5 * np.abs(grad).max())


class TestComplexStepRunsEverywhere:
    """The portable code itself takes complex arrays, on every library."""

    def test_forward(self, problem, case):
        at = problem.on(case)
        direction = np.random.default_rng(1).standard_normal((H, H))
        shifted = {k: case.array(p + 0j) for k, p in problem.params.items()}
        shifted["layer0.w_hh"] = case.array(problem.params["layer0.w_hh"] + 1e-30j * direction)
        pred, _ = at.net.forward(shifted, case.array(problem.x + 0j))
        derivative = np.sum(case.to_numpy(pred).imag * problem.dpred) / 1e-30
        grads = problem.net.vjp(problem.params, problem.x)[2](problem.dpred)
        expected = np.sum(grads["layer0.w_hh"] * direction)
        assert derivative == pytest.approx(expected, rel=case.tolerance)


sizes = st.integers(1, 6)


class TestAnySize:
    """The same for sizes nobody chose."""

    @settings(max_examples=60, deadline=None, derandomize=True)
    @given(sizes, sizes, sizes, sizes, sizes, st.sampled_from(sorted(CONFIGURATIONS)))
    def test_complex_step(self, steps, rows, inputs, hidden, outputs, name):
        p = Problem(7, steps, rows, inputs, hidden, outputs, **CONFIGURATIONS[name])
        check_gradients(p.net, p.params, p.x, p.y, sample_weight=p.weight)
        check_gradients(p.net, p.params, p.x, p.y, state=p.state)

    @settings(max_examples=30, deadline=None, derandomize=True)
    @given(st.permutations(range(H)), st.sampled_from(sorted(CONFIGURATIONS)))
    def test_hidden_units_have_no_order(self, order, name):
        p = Problem(**CONFIGURATIONS[name])
        rename = {
            "layer0.w_xh": lambda w: w[order],
            "layer0.w_hh": lambda w: w[order][:, order],
            "layer0.b_h": lambda b: b[order],
            "readout.w_hy": lambda w: w[:, order],
            "readout.b_y": lambda b: b,
        }
        value, grads = p.net.value_and_grad(p.params, p.x, p.y)
        renamed = {k: rename[k](v) for k, v in p.params.items()}
        value_2, grads_2 = p.net.value_and_grad(renamed, p.x, p.y)
        assert value_2 == pytest.approx(value, rel=1e-13)
        for name, grad in grads.items():
            np.testing.assert_allclose(
                grads_2[name], rename[name](grad), atol=1e-13 * np.abs(grad).max()
            )

    @settings(max_examples=30, deadline=None, derandomize=True)
    @given(st.lists(st.integers(1, 4), min_size=1, max_size=5))
    def test_any_cut_of_the_batch_gives_the_same_gradient(self, pieces):
        p = Problem(rows=sum(pieces))
        _, whole = p.net.value_and_grad(p.params, p.x, p.y, "mse", p.weight)
        total = float(p.weight.sum()) * O
        ends = [0, *itertools.accumulate(pieces)]
        parts = [
            p.net.value_and_grad(p.params, p.x[a:b], p.y[a:b], "mse", p.weight[a:b], total=total)[1]
            for a, b in itertools.pairwise(ends)
        ]
        for name, grad in whole.items():
            np.testing.assert_allclose(
                sum(part[name] for part in parts), grad, atol=1e-13 * np.abs(grad).max()
            )
