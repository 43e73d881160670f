"""The gradient checker itself: all that a network returns is held to the derivative."""

from __future__ import annotations

import numpy as np
import pytest
from problems import Problem

import rnn_xp as rx
from rnn_xp.testing import GradientError, check_gradients, compare_gradients, worst_entry


@pytest.mark.parametrize("every_entry", [False, True])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_gradient_that_is_not_finite_is_wrong(bad, every_entry):
    gradient = np.asarray([2.0, bad])
    with np.errstate(invalid="ignore"), pytest.raises(GradientError, match=r"entry w\[1\]"):
        compare_gradients(
            lambda at: np.sum(at["w"] ** 2), {"w": np.ones(2)}, {"w": gradient},
            every_entry=every_entry,
        )  # fmt: skip


@pytest.mark.parametrize("most", [None, 100, 6, 3, 1])
def test_the_worst_of_some_entries(most):
    """Evenly spaced ones, of which the number is said."""
    w = np.arange(1.0, 7.0).reshape(2, 3)
    gradient = 2.0 * w + np.asarray([[0.0, 0.0, 0.0], [0.0, 0.0, 0.5]])
    worst = worst_entry(lambda at: np.sum(at["w"] ** 2), {"w": w}, "w", gradient, most=most)
    entries = {None: 6, 100: 6}.get(most, most)
    assert worst.entries == entries
    if entries == 6:
        assert worst.at == (1, 2)
        assert (worst.gradient, worst.derivative) == pytest.approx((12.5, 12.0), rel=1e-15)
        assert worst.error == pytest.approx(0.5 / 12.5)
    else:
        assert worst.error < 1e-15


def test_a_gradient_of_another_shape_is_wrong():
    with pytest.raises(GradientError, match=r"w has shape \(3,\), its argument \(2,\)"):
        compare_gradients(lambda at: np.sum(at["w"]), {"w": np.ones(2)}, {"w": np.ones(3)})


class TestEverythingIsChecked:
    """Each of what a network returns is held to the derivative, not only what training uses."""

    def test_the_value_of_value_and_grad(self, monkeypatch):
        right = rx.Network.value_and_grad

        def seven_times(self, *args, **options):
            value, grads = right(self, *args, **options)
            return 7.0 * value, grads

        monkeypatch.setattr(rx.Network, "value_and_grad", seven_times)
        with pytest.raises(GradientError, match="value_and_grad returned the value"):
            check_gradients(*basics())

    def test_value_and_grad_alone(self, monkeypatch):
        right = rx.Network.value_and_grad

        def wrong(self, *args, **options):
            value, grads = right(self, *args, **options)
            return value, grads | {"layer0.b_h": -grads["layer0.b_h"]}

        monkeypatch.setattr(rx.Network, "value_and_grad", wrong)
        with pytest.raises(GradientError, match="the gradient of layer0.b_h is wrong"):
            check_gradients(*basics())

    @pytest.mark.parametrize("name", ["layer0.w_hh", "x", "state.h"])
    def test_vjp_alone(self, name, monkeypatch):
        right = rx.Network.vjp

        def vjp(self, *args, **options):
            pred, final, back = right(self, *args, **options)

            def three_times(dpred, dstate=None):
                grads = back(dpred, dstate)
                if name.startswith("state"):
                    return grads | {"state": rx.RNNState(3.0 * grads["state"].h)}
                return grads | {name: 3.0 * grads[name]}

            return pred, final, three_times

        monkeypatch.setattr(rx.Network, "vjp", vjp)
        with pytest.raises(GradientError, match=f"the gradient of {name} is wrong"):
            check_gradients(*basics(), state=Problem().state)

    def test_the_gradient_that_enters_by_the_final_state(self, monkeypatch):
        right = rx.Network.vjp

        def vjp(self, *args, **options):
            pred, final, back = right(self, *args, **options)
            return pred, final, lambda dpred, dstate=None: back(dpred)

        monkeypatch.setattr(rx.Network, "vjp", vjp)
        with pytest.raises(GradientError):
            check_gradients(*basics())

    @pytest.mark.parametrize("factor", [1 + 5e-12, 1 - 5e-12])
    def test_to_twelve_digits(self, factor):
        w = np.asarray([1.0, 2.0, -3.0])
        with pytest.raises(GradientError):
            compare_gradients(lambda at: np.sum(at["w"] ** 2), {"w": w}, {"w": 2 * w * factor})
        compare_gradients(
            lambda at: np.sum(at["w"] ** 2), {"w": w}, {"w": 2 * w * factor}, tolerance=1e-10
        )

    def test_in_the_precision_of_the_argument(self):
        w = np.asarray([1.0, 2.0])
        with pytest.raises(GradientError, match="w is float32, its argument float64"):
            compare_gradients(lambda at: np.sum(at["w"]), {"w": w}, {"w": np.ones(2, "f4")})

    def test_directions_are_random(self):
        """Opposite errors of two entries cancel along a direction of ones."""
        w = np.asarray([1.0, 1.0])
        with pytest.raises(GradientError):
            compare_gradients(
                lambda at: np.sum(at["w"] ** 2), {"w": w}, {"w": 2 * w + np.asarray([0.1, -0.1])}
            )


def basics():
    p = Problem()
    return p.net, p.params, p.x, p.y


def test_zeros_are_wrong_where_the_derivative_is_not_zero():
    with pytest.raises(GradientError, match=r"gradient 0, complex step 2"):
        compare_gradients(lambda at: np.sum(at["w"] ** 2), {"w": np.ones(2)}, {"w": np.zeros(2)})


def test_an_unknown_method_is_refused():
    p = Problem()
    with pytest.raises(ValueError, match="method='autograd' is not known. Valid: 'complex_step'"):
        check_gradients(p.net, p.params, p.x, p.y, method="autograd")
