"""The gradient contract, entry by entry, for every cell on every backend.

Every cell, option and topology must pass the contract, with random weights and distinct sizes
(T=5, N=3, I=2, H=4, O=2), so that no transposed or mixed-up axis can hide. Nothing here is ever
skipped for a configuration, and no tolerance is a configuration's own. The product with all
topologies and options is in `test_contract.py`.

The oracle is the definition of the derivative, evaluated in complex arithmetic on the host
(`rnn_xp.testing`). It knows nothing of backpropagation.
"""

from __future__ import annotations

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import CELLS as OWN_CELLS
from problems import EXAMPLES, H, N, O, Problem, T, everything, flat

from rnn_xp.testing import check_gradients, compare_gradients

pytestmark = [
    pytest.mark.usefixtures("mingru"),
    pytest.mark.cover("pairs"),  # of test, cell, backend and what else a test has
]

CELLS = OWN_CELLS | EXAMPLES


@pytest.fixture(params=CELLS, ids=str)
def problem(request):
    return Problem(with_=("state",), **CELLS[request.param])


class TestEveryEntry:
    """Each single derivative, with respect to parameters, input and initial state."""

    @pytest.mark.parametrize("method", ["complex_step", "central_difference"])
    def test_vjp(self, problem, case, method):
        there = problem.on(case)

        def gradients(params, x, state, dpred, dstate):
            return flat(there.net.vjp(params, x, state)[2](dpred, dstate))

        with case.guard():
            grads = case.jit(gradients)(
                there.params, there.x, there.state, there.dpred, there.dstate
            )
        for name, grad in grads.items():
            assert grad.dtype == case.dtype, name
        function, arguments = everything(problem, case)
        assert grads.keys() == arguments.keys()
        compare_gradients(
            function,
            arguments,
            {name: case.to_numpy(grad) for name, grad in grads.items()},
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
        assert {f"state.{field}" for field in there.state._fields} <= errors.keys()


def sigmoid(z):
    return 1.0 / (1.0 + jnp.exp(-z))


def elman(f):
    def step(p, x, h):
        return (f(p["layer0.w_xh"] @ x + p["layer0.w_hh"] @ h + p["layer0.b_h"]),)

    return step


def gru(p, x, h):
    w, u, b = (jnp.split(p[f"layer0.{k}"], 3) for k in ("w_xh", "w_hh", "b_h"))
    r = sigmoid(w[0] @ x + b[0] + u[0] @ h)
    z = sigmoid(w[1] @ x + b[1] + u[1] @ h)
    n = jnp.tanh(w[2] @ x + b[2] + r * (u[2] @ h + p["layer0.b_hn"]))
    return ((1 - z) * n + z * h,)


def gru_reset_before(p, x, h):
    w, u, b = (jnp.split(p[f"layer0.{k}"], 3) for k in ("w_xh", "w_hh", "b_h"))
    r = sigmoid(w[0] @ x + b[0] + u[0] @ h)
    z = sigmoid(w[1] @ x + b[1] + u[1] @ h)
    n = jnp.tanh(w[2] @ x + b[2] + u[2] @ (r * h))
    return ((1 - z) * n + z * h,)


def lstm(p, x, h, c):
    w, u, b = (jnp.split(p[f"layer0.{k}"], 4) for k in ("w_xh", "w_hh", "b_h"))
    i, f, g, o = (wk @ x + uk @ h + bk for wk, uk, bk in zip(w, u, b, strict=True))
    c = sigmoid(f) * c + sigmoid(i) * jnp.tanh(g)
    return sigmoid(o) * jnp.tanh(c), c


def mingru(p, x, h):
    w, b = (jnp.split(p[f"layer0.{k}"], 2) for k in ("w_xh", "b_h"))
    z = sigmoid(w[0] @ x + b[0])
    return ((1 - z) * h + z * (w[1] @ x + b[1]),)


TEXTBOOK = {
    "rnn-tanh": elman(jnp.tanh),
    "rnn-relu": elman(jax.nn.relu),
    "gru": gru,
    "gru-reset-before": gru_reset_before,
    "lstm": lstm,
    "mingru": mingru,
}


@pytest.mark.parametrize("name", CELLS)
class TestIndependent:
    """Agreement with textbook cells that share no line with the library, differentiated by JAX.

    In column convention, one sample at a time, one gate at a time.
    """

    @staticmethod
    @functools.cache
    def textbook(name):
        """A problem, its predictions and their gradients."""
        p = Problem(with_=("state",), **CELLS[name])

        def predict(params, x, *state):
            for x_t in x:
                state = TEXTBOOK[name](params, x_t, *state)
            return params["readout.w_hy"] @ state[0] + params["readout.b_y"], state

        def scalar(params, x, *state):
            rows = (None, 0, *(0 for _ in state))
            pred, final = jax.vmap(predict, in_axes=rows)(params, x, *state)
            total = jnp.sum(pred * p.dpred)
            return total + sum(
                jnp.sum(s * ds[0]) for s, ds in zip(final, p.dstate, strict=True)
            ), pred

        state = [field[0] for field in p.state]
        which = tuple(range(2 + len(state)))
        grads, pred = jax.grad(scalar, argnums=which, has_aux=True)(p.params, p.x, *state)
        expected = {**grads[0], "x": grads[1]}
        fields = zip(p.state._fields, grads[2:], strict=True)
        return p, pred, expected | {f"state.{field}": grad[None] for field, grad in fields}

    def test_predictions_and_gradients(self, name, case):
        p, pred, expected = self.textbook(name)
        there = p.on(case)
        ours, _, back = there.net.vjp(there.params, there.x, there.state)
        found = flat(back(there.dpred, there.dstate))
        case.assert_close(ours, pred)
        assert found.keys() == expected.keys()
        for key, gradient in expected.items():
            case.assert_close(found[key], gradient)


class TestStructure:
    """What must hold of any gradient through time, whatever the numbers."""

    def test_zero_upstream_gives_exactly_zero(self, problem, case):
        there = problem.on(case)
        _, _, back = there.net.vjp(there.params, there.x, there.state)
        for name, grad in flat(back(case.xp.zeros_like(there.dpred))).items():
            assert not np.any(case.to_numpy(grad)), name

    def test_first_step_takes_part(self, problem, case):
        there = problem.on(case)
        terms = there.net.grad_per_step(there.params, there.x, there.y)
        assert np.any(case.to_numpy(terms["layer0.w_xh"])[0])
        assert np.any(case.to_numpy(terms["layer0.b_h"])[0])
        if there.net.cell != "mingru":  # which has no w_hh
            assert not np.any(case.to_numpy(terms["layer0.w_hh"])[0]), "h_0 is zero here"
        grads = there.vjp()
        assert np.any(case.to_numpy(grads["x"])[:, 0, :])
        for field in there.state._fields:
            assert np.any(case.to_numpy(grads[f"state.{field}"]))

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

    @pytest.mark.full("jax")
    @pytest.mark.parametrize("cut", range(1, T))
    def test_split_in_time_equals_whole(self, problem, case, cut):
        there = problem.on(case)
        net, params, x = there.net, there.params, there.x
        pred, state, back = net.vjp(params, x, there.state)
        whole = flat(back(there.dpred, there.dstate))

        _, carried, back_1 = net.vjp(params, x[:, :cut, :], there.state)
        pred_2, state_2, back_2 = net.vjp(params, x[:, cut:, :], carried)
        second = back_2(there.dpred, there.dstate)
        first = flat(back_1(case.xp.zeros_like(there.dpred), second["state"]))

        case.assert_close(pred_2, pred)
        for field in state._fields:
            case.assert_close(getattr(state_2, field), getattr(state, field))
            case.assert_close(first[f"state.{field}"], whole[f"state.{field}"])
        case.assert_close(case.xp.concat([first["x"], second["x"]], axis=1), whole["x"])
        for name in net.shapes:
            case.assert_close(first[name] + second[name], whole[name])

    def test_nothing_given_is_changed(self, problem, case):
        there = problem.on(case)
        there.net.value_and_grad(there.params, there.x, there.y, "mse", there.weight)
        there.vjp()
        before = problem.on(case)
        for name, value in before.params.items():
            assert np.array_equal(case.to_numpy(there.params[name]), case.to_numpy(value))
        for name in ("x", "y", "weight", "dpred"):
            given = case.to_numpy(getattr(before, name))
            assert np.array_equal(case.to_numpy(getattr(there, name)), given), name
        for name in ("state", "dstate"):
            for now, then in zip(getattr(there, name), getattr(before, name), strict=True):
                assert np.array_equal(case.to_numpy(now), case.to_numpy(then)), name

    def test_a_float32_gradient_is_the_rounded_float64_one(self, problem):
        exact = problem.net.value_and_grad(problem.params, problem.x, problem.y)[1]
        single = {k: p.astype("float32") for k, p in problem.params.items()}
        rounded = problem.net.value_and_grad(
            single, problem.x.astype("float32"), problem.y.astype("float32")
        )[1]
        for name, grad in exact.items():
            assert rounded[name].dtype == np.float32
            np.testing.assert_allclose(rounded[name], grad, atol=2e-5 * np.abs(grad).max())


class TestPlainRNN:
    """What is easily said by hand of the simple cell."""

    def test_one_step_is_a_dense_layer(self):
        problem = Problem()
        p, x = problem.params, problem.x[:, :1, :]
        h = np.tanh(x[:, 0, :] @ p["layer0.w_xh"].T + p["layer0.b_h"])
        dz = (problem.dpred @ p["readout.w_hy"]) * (1.0 - h * h)

        pred, _, back = problem.net.vjp(p, x)
        grads = back(problem.dpred)
        np.testing.assert_allclose(
            pred, h @ p["readout.w_hy"].T + p["readout.b_y"], rtol=1e-13, atol=1e-13
        )
        np.testing.assert_allclose(grads["layer0.w_xh"], dz.T @ x[:, 0, :], rtol=1e-12)
        np.testing.assert_allclose(grads["layer0.b_h"], dz.sum(axis=0), rtol=1e-12)
        assert not np.any(grads["layer0.w_hh"]), "with h_0 = 0 and one step w_hh has no effect"


class TestComplexStepRunsEverywhere:
    """The portable code itself takes complex arrays, on every library."""

    def test_forward(self, problem, case):
        name = "layer0.w_xh" if problem.net.cell == "mingru" else "layer0.w_hh"
        direction = np.random.default_rng(1).standard_normal(problem.net.shapes[name])
        shifted = {k: case.array(p + 0j) for k, p in problem.params.items()}
        shifted[name] = case.array(problem.params[name] + 1e-30j * direction)
        pred, _ = problem.net.forward(shifted, case.array(problem.x + 0j))
        derivative = np.sum(case.to_numpy(pred).imag * problem.dpred) / 1e-30
        grads = problem.net.vjp(problem.params, problem.x)[2](problem.dpred)
        terms = grads[name] * direction
        assert abs(derivative - terms.sum()) <= case.tolerance * np.abs(terms).sum()


sizes = st.integers(1, 6)


class TestAnySize:
    """The same for sizes nobody chose."""

    @settings(max_examples=80, deadline=None, derandomize=True)
    @given(sizes, sizes, sizes, sizes, sizes, st.sampled_from(sorted(CELLS)))
    def test_complex_step(self, steps, rows, inputs, hidden, outputs, name):
        p = Problem(7, steps, rows, inputs, hidden, outputs, **CELLS[name])
        check_gradients(p.net, p.params, p.x, p.y, sample_weight=p.weight)
        check_gradients(p.net, p.params, p.x, p.y, state=p.state)

    @settings(max_examples=30, deadline=None, derandomize=True)
    @given(st.permutations(range(H)), st.sampled_from(sorted(CELLS)))
    def test_hidden_units_have_no_order(self, order, name):
        p = Problem(**CELLS[name])

        def rename(key, w):
            """Reorder the hidden units, within each gate."""
            kind, gates = key.rpartition(".")[2], w.shape[0] // H
            rows = [g * H + unit for g in range(gates) for unit in order]
            if kind == "b_y":
                return w
            if kind == "w_hy":
                return w[:, order]
            return w[rows][:, order] if kind == "w_hh" else w[rows]

        value, grads = p.net.value_and_grad(p.params, p.x, p.y)
        renamed = {k: rename(k, v) for k, v in p.params.items()}
        value_2, grads_2 = p.net.value_and_grad(renamed, p.x, p.y)
        assert value_2 == pytest.approx(value, rel=1e-13)
        for key, grad in grads.items():
            np.testing.assert_allclose(
                grads_2[key], rename(key, grad), atol=1e-13 * np.abs(grad).max()
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
