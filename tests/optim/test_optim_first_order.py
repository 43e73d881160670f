"""Optimisers that use one gradient per update: their formulas, decay, clipping, and checks."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest

from rnn_xp import optim

GRADIENTS = [3.0, -1.0, 0.5, 0.0, 2.0]


def follow(opt, gradients=GRADIENTS, start=1.0):
    """The values that one parameter takes."""
    params = {"w": np.asarray([[start]])}
    state, values = opt.init(params), []
    for g in gradients:
        params, state = opt.update({"w": np.asarray([[g]])}, state, params)
        values.append(params["w"].item())
    return values


class TestFormulas:
    """Five updates each, against the published formula in plain floats."""

    def test_sgd(self):
        w, expected = 1.0, []
        for g in GRADIENTS:
            w -= 0.1 * g
            expected.append(w)
        assert follow(optim.sgd(0.1)) == pytest.approx(expected, rel=1e-14)

    @pytest.mark.parametrize("nesterov", [False, True])
    def test_momentum(self, nesterov):
        w, v, expected = 1.0, 0.0, []
        for g in GRADIENTS:
            v = 0.5 * v + g
            w -= 0.1 * (g + 0.5 * v if nesterov else v)
            expected.append(w)
        assert follow(optim.sgd(0.1, 0.5, nesterov)) == pytest.approx(expected, rel=1e-14)

    @pytest.mark.parametrize("decay", [None, 0.0, 0.25])
    def test_adam_and_adamw(self, decay):
        """Algorithm 1 of the one paper, Algorithm 2 of the other."""
        w, m, v, expected = 1.0, 0.0, 0.0, []
        for t, g in enumerate(GRADIENTS, start=1):
            m = 0.8 * m + (1 - 0.8) * g
            v = 0.95 * v + (1 - 0.95) * g * g
            w -= 0.1 * (decay or 0.0) * w
            w -= 0.1 * (m / (1 - 0.8**t)) / (math.sqrt(v / (1 - 0.95**t)) + 1e-3)
            expected.append(w)
        given = (0.1, 0.8, 0.95, 1e-3)
        opt = optim.adam(*given) if decay is None else optim.adamw(*given, weight_decay=decay)
        assert follow(opt) == pytest.approx(expected, rel=1e-12)

    @pytest.mark.parametrize("momentum", [0.0, 0.5])
    def test_rmsprop(self, momentum):
        w, v, u, expected = 1.0, 0.0, 0.0, []
        for g in GRADIENTS:
            v = 0.8 * v + (1 - 0.8) * g * g
            u = momentum * u + g / (math.sqrt(v) + 1e-3)
            w -= 0.1 * u
            expected.append(w)
        assert follow(optim.rmsprop(0.1, 0.8, 1e-3, momentum)) == pytest.approx(expected, rel=1e-12)

    def test_adagrad(self):
        w, v, expected = 1.0, 0.5, []
        for g in GRADIENTS:
            v += g * g
            w -= 0.1 * g / (math.sqrt(v) + 1e-3)
            expected.append(w)
        assert follow(optim.adagrad(0.1, 1e-3, 0.5)) == pytest.approx(expected, rel=1e-12)

    def test_defaults(self):
        shared = {
            "weight_decay": 0.0,
            "decay_biases": False,
            "clip_value": None,
            "clip_norm": None,
        }
        adam = {"learning_rate": 0.001, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, **shared}
        assert vars(optim.adam()) == adam
        assert vars(optim.adamw()) == {**adam, "weight_decay": 0.01}
        assert vars(optim.sgd()) == {
            **shared, "learning_rate": 0.01, "momentum": 0.0, "nesterov": False
        }  # fmt: skip
        assert vars(optim.rmsprop()) == {
            **shared, "learning_rate": 0.01, "alpha": 0.99, "eps": 1e-8, "momentum": 0.0
        }  # fmt: skip
        assert vars(optim.adagrad()) == {
            **shared, "learning_rate": 0.01, "eps": 1e-10, "initial": 0.0
        }  # fmt: skip

    def test_float32_stays_float32(self):
        opt, params = optim.adam(), {"w": np.ones(3, dtype="float32")}
        params, state = opt.update({"w": np.ones(3, dtype="float32")}, opt.init(params), params)
        m, v = state.slots["m"], state.slots["v"]
        assert params["w"].dtype == m["w"].dtype == v["w"].dtype == np.float32

    def test_hyperparameters_of_numpy_change_no_dtype(self):
        tenth, params = np.float64(0.1), {"w": np.ones((3, 1), dtype="float32")}
        for opt in (
            optim.sgd(tenth, tenth, weight_decay=tenth, clip_value=tenth, clip_norm=tenth),
            optim.adamw(tenth, tenth, tenth, tenth, weight_decay=tenth),
            optim.rmsprop(tenth, tenth, tenth, tenth),
            optim.adagrad(tenth, tenth, tenth),
        ):
            new, state = opt.update(params, opt.init(params), params)
            arrays = [new["w"], *opt.pack(state)[0].values()]
            assert {array.dtype for array in arrays} == {np.dtype("float32")}
            assert "np." not in repr(opt)

    def test_state(self):
        """The names are those in files."""
        params = {"w": np.ones((2, 1)), "b": np.ones(2)}
        for opt, slots in (
            (optim.sgd(), []),
            (optim.sgd(0.1, 0.9), ["velocity"]),
            (optim.adam(), ["m", "v"]),
            (optim.adamw(), ["m", "v"]),
            (optim.rmsprop(), ["v"]),
            (optim.rmsprop(momentum=0.5), ["v", "velocity"]),
            (optim.adagrad(initial=0.5), ["v"]),
        ):
            state = opt.init(params)
            arrays, values = opt.pack(state)
            assert [*arrays] == [f"{slot}.{name}" for slot in slots for name in params]
            assert values == {"step": 0, "plateau": None}
            for array in arrays.values():
                np.testing.assert_array_equal(array, getattr(opt, "initial", 0.0))
            _, state = opt.update(params, state, params)
            assert opt.pack(state)[1] == {"step": 1, "plateau": None}

    def test_gradients_of_anything_else_are_left_out(self):
        opt, params = optim.adam(0.1, clip_norm=1.0), {"w": np.ones((1, 2))}
        grads = {"x": np.full(7, 100.0), "w": np.ones((1, 2)), "state": None}
        both = [opt.update(g, opt.init(params), params) for g in (grads, {"w": grads["w"]})]
        np.testing.assert_equal(both[0], both[1])

    def test_the_state_of_another_optimiser_is_refused(self):
        params = {"w": np.ones(1)}
        for opt, other in (
            (optim.adam(), optim.sgd()),
            (optim.sgd(), optim.sgd(0.1, 0.9)),
            (optim.rmsprop(), optim.rmsprop(momentum=0.5)),
        ):
            with pytest.raises(ValueError, match=rf"{type(opt).__name__}: the state has \["):
                opt.update(params, other.init(params), params)


PARAMS = {"w": np.asarray([[2.0]]), "b": np.asarray([2.0]), "gain": np.asarray(2.0)}
GRADS = {"w": np.asarray([[1.0]]), "b": np.asarray([1.0]), "gain": np.asarray(1.0)}


class TestWeightDecay:
    @pytest.mark.parametrize("decay_biases", [False, True])
    @pytest.mark.parametrize("kind", [optim.sgd, optim.rmsprop, optim.adagrad, optim.adam])
    def test_is_part_of_the_gradient(self, kind, decay_biases):
        """Exactly as if the gradient had been that of loss + decay / 2 * |p|**2."""
        opt = kind(0.1, weight_decay=0.5, decay_biases=decay_biases)
        decayed = {"w"} if not decay_biases else {*PARAMS}
        grads = {k: g + 0.5 * 2.0 if k in decayed else g for k, g in GRADS.items()}
        found = opt.update(GRADS, opt.init(PARAMS), PARAMS)
        expected = kind(0.1).update(grads, opt.init(PARAMS), PARAMS)
        np.testing.assert_equal(found, expected)

    @pytest.mark.parametrize("decay_biases", [False, True])
    def test_of_adamw_is_apart_from_the_gradient(self, decay_biases):
        options = {"weight_decay": 0.5, "decay_biases": decay_biases}
        opt = optim.adamw(optim.Cosine(0.2, 2), **options)
        decayed = {"w"} if not decay_biases else {*PARAMS}
        state = opt.init(PARAMS)._replace(step=1)  # where the rate is 0.1
        new, after = opt.update(GRADS, state, PARAMS)
        plain = optim.adam(optim.Cosine(0.2, 2))
        expected, same = plain.update(GRADS, state, PARAMS)
        np.testing.assert_equal(after, same)
        for key, value in expected.items():
            shrink = 2.0 * 0.1 * 0.5 if key in decayed else 0.0
            np.testing.assert_allclose(new[key], value - shrink, rtol=1e-14)

    def test_comes_after_clipping(self):
        opt = optim.sgd(1.0, weight_decay=0.5, clip_value=0.25, clip_norm=0.25)
        new, _ = opt.update({"w": GRADS["w"]}, opt.init({}), {"w": PARAMS["w"]})
        assert new["w"].item() == 2.0 - (0.25 + 0.5 * 2.0)


@pytest.mark.full("jax")
class TestClipping:
    @staticmethod
    def clipped(grads, **options):
        """The gradient that reaches the rule: gradient descent from zero at rate 1."""
        params = {k: 0.0 * g for k, g in grads.items()}
        opt = optim.sgd(1.0, **options)
        new, _ = opt.update(grads, opt.init(params), params)
        return {k: -p for k, p in new.items()}

    @staticmethod
    def norm(grads):
        return math.sqrt(sum(float(np.sum(np.square(g, dtype="float64"))) for g in grads.values()))

    def test_entries(self, case):
        grads = {"w": case.array([[3.0, -0.5], [0.25, -7.0]]), "b": case.array([0.5, -0.75])}
        with case.guard():
            found = self.clipped(grads, clip_value=0.5)
        case.assert_close(found["w"], [[0.5, -0.5], [0.25, -0.5]])
        case.assert_close(found["b"], [0.5, -0.5])

    @pytest.mark.cover("values")
    @pytest.mark.parametrize("size", [1e-30, 1.0, 1e20, 4.5e37])
    def test_norm_over_all_arrays(self, case, size):
        """Squares of 1e-30 and 1e20 do not fit float32, nor does the norm of 3.6e38 itself."""
        host = {"w": np.asarray([[3.0, 0.0], [1.0, -2.0]]), "b": np.asarray([-1.0]), "c": -7.0}
        host = {k: np.asarray(v) * size for k, v in host.items()}
        grads = {k: case.array(v) for k, v in host.items()}
        limit = 0.5 * size
        with case.guard():
            found = self.clipped(grads, clip_norm=limit)
        for key, value in host.items():
            case.assert_close(found[key], value * (limit / self.norm(host)))

    def test_a_short_gradient_stays_to_the_bit(self, case):
        draws = np.random.default_rng(0).standard_normal((3, 5))
        grads = {"w": case.array(draws), "b": case.array([1e-30])}
        for limit in (1.0001 * self.norm({"w": draws}), 1e30):
            found = self.clipped(grads, clip_norm=limit)
            for key, g in grads.items():
                np.testing.assert_array_equal(case.to_numpy(found[key]), case.to_numpy(g))

    def test_a_gradient_of_zero_stays(self, case):
        grads = {"w": case.array(np.zeros((2, 2))), "b": case.array([0.0])}
        found = self.clipped(grads, clip_norm=1.0)
        case.assert_close(found["w"], np.zeros((2, 2)))
        case.assert_close(found["b"], [0.0])

    @pytest.mark.parametrize("factor", [0.999, 1.001])
    def test_the_limit_is_the_norm(self, factor):
        grads = {"w": np.asarray([[3.0]]), "b": np.asarray([4.0])}
        found = self.clipped(grads, clip_norm=5.0 * factor)
        assert self.norm(found) == pytest.approx(5.0 * min(factor, 1.0), rel=1e-14)

    def test_entries_first_and_then_the_norm(self):
        grads = {"w": np.asarray([[30.0, 0.0]]), "b": np.asarray([4.0])}
        found = self.clipped(grads, clip_value=3.0, clip_norm=np.sqrt(18.0) / 3.0)
        np.testing.assert_allclose(found["w"], [[1.0, 0.0]])
        np.testing.assert_allclose(found["b"], [1.0])

    @pytest.mark.cover("values")
    @pytest.mark.parametrize(
        ("bad", "options"),
        [
            (math.nan, {"clip_norm": 1.0}),
            (math.nan, {"clip_value": 1.0}),
            (math.nan, {"clip_value": 1.0, "clip_norm": 1.0}),
            (math.inf, {"clip_norm": 1.0}),
        ],
    )
    def test_does_not_hide_a_gradient_that_is_not_finite(self, case, bad, options):
        grads = {"w": case.array([[bad, 1.0]]), "b": case.array([1.0])}
        with np.errstate(invalid="ignore"):
            found = self.clipped(grads, **options)
        assert not np.isfinite(case.to_numpy(found["w"])).all()


def bad(kind, field, values, interval):
    for value in values:
        make = functools.partial(kind, **{field: value})
        yield make, rf"{kind.__name__}: {field} must be in {interval}, got"


POSITIVE, SHARE = (0.0, -1.0, math.inf, math.nan, "1", True), (-0.1, 1.0, math.nan, None, False)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: optim.sgd(0.0), r"SGD: learning_rate must be in \(0, inf\), got 0.0"),
        (lambda: optim.sgd(0.1, momentum=1.0), r"SGD: momentum must be in \[0, 1\), got 1.0"),
        (lambda: optim.adam(-1.0), r"Adam: learning_rate must be in \(0, inf\), got -1.0"),
        (lambda: optim.adam(float("nan")), "Adam: learning_rate .* got nan"),
        (lambda: optim.adam(beta1=1.0), r"Adam: beta1 must be in \[0, 1\), got 1.0"),
        (lambda: optim.adam(beta2=-0.1), r"Adam: beta2 must be in \[0, 1\), got -0.1"),
        (lambda: optim.adam(eps=0.0), r"Adam: eps must be in \(0, inf\), got 0.0"),
        *bad(optim.sgd, "momentum", SHARE, r"\[0, 1\)"),
        *bad(optim.adam, "beta1", SHARE, r"\[0, 1\)"),
        *bad(optim.adamw, "beta2", SHARE, r"\[0, 1\)"),
        *bad(optim.rmsprop, "alpha", SHARE, r"\[0, 1\)"),
        *bad(optim.rmsprop, "momentum", SHARE, r"\[0, 1\)"),
        *bad(optim.adam, "eps", POSITIVE, r"\(0, inf\)"),
        *bad(optim.rmsprop, "eps", POSITIVE, r"\(0, inf\)"),
        *bad(optim.adagrad, "eps", POSITIVE, r"\(0, inf\)"),
        *bad(optim.adagrad, "initial", (-0.1, math.inf, math.nan), r"\[0, inf\)"),
        *bad(optim.adagrad, "learning_rate", (*POSITIVE, None), r"\(0, inf\)"),
        *bad(optim.sgd, "weight_decay", (-0.1, math.inf, math.nan, None), r"\[0, inf\)"),
        *bad(optim.sgd, "clip_value", POSITIVE, r"\(0, inf\)"),
        *bad(optim.adamw, "clip_norm", POSITIVE, r"\(0, inf\)"),
        (lambda: optim.sgd(nesterov=True), "SGD: nesterov needs momentum > 0"),
        (lambda: optim.sgd(0.1, 0.9, 0.1), "SGD: nesterov must be True or False, got 0.1"),
        (lambda: optim.adam(decay_biases=1), "Adam: decay_biases must be True or False, got 1"),
    ],
)
def test_bad_hyperparameters(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_what_all_share_is_given_by_keyword():
    for kind, fields in ((optim.sgd, 3), (optim.adam, 4), (optim.adamw, 4), (optim.adagrad, 3)):
        with pytest.raises(TypeError, match="positional"):
            kind(*[0.5] * (fields + 1))
