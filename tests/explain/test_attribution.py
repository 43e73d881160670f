"""Attributions against the definition, their completeness, and the influence of windows."""

from __future__ import annotations

import numpy as np
import pytest
from problems import CELLS, Problem, windows
from small_fits import FLOAT64

import rnn_xp as rx
from rnn_xp import explain, losses

READS = {
    "many-to-one": {"topology": "many_to_one"},
    "mean": {"topology": "many_to_one", "read": "mean"},
    "many-to-many": {"topology": "many_to_many"},
    "two-layers": {"num_layers": 2, "bidirectional": True},
    "linear-path": {"linear_lags": 3},
    "softmax": {"output_activation": "softmax"},
}


def predicted(net, params, x, output, step, **options):
    pred, _ = net.forward(params, x, **options)
    return pred[..., output] if pred.ndim == 2 else pred[:, step, output]


class TestSaliency:
    @pytest.mark.cover("values")
    @pytest.mark.parametrize("read", READS)
    @pytest.mark.parametrize("cell", CELLS)
    def test_is_the_derivative_of_one_predicted_number(self, cell, read):
        problem = Problem(**CELLS[cell], **READS[read])
        net, params, x = problem.net, problem.params, problem.x
        result = explain.saliency(net, params, x, output=1, step=2)
        expected = np.empty_like(x)
        for t in range(x.shape[1]):
            for i in range(x.shape[2]):
                tangent = np.zeros_like(x)
                tangent[:, t, i] = 1.0
                _, along = net.jvp(params, x, {"x": tangent})
                expected[:, t, i] = along[:, 1] if along.ndim == 2 else along[:, 2, 1]
        np.testing.assert_allclose(result, expected, rtol=1e-10, atol=1e-13)

    def test_steps_after_the_prediction_have_none(self):
        problem = Problem(topology="many_to_many", cell="gru")
        result = explain.saliency(problem.net, problem.params, problem.x, step=2)
        assert np.all(result[:, 3:] == 0.0)
        assert np.all(result[:, 2] != 0.0)

    def test_masked_steps_have_none(self):
        problem = Problem(with_=("mask",))
        mask = problem.arrays["mask"]
        result = explain.saliency(problem.net, problem.params, problem.x, mask=mask)
        assert np.all(result[~mask] == 0.0)

    @pytest.mark.parametrize(
        ("net", "options", "message"),
        [
            ({}, {"output": 2}, r"output must be in 0\.\.1, got 2"),
            ({"topology": "many_to_many"}, {"step": 5}, r"step must be in 0\.\.4, got 5"),
            ({}, {"output": 0.5}, "output must be an integer >= 0, got 0.5"),
            ({"topology": "one_to_many"}, {}, "need an input with time steps"),
        ],
    )
    def test_bad_arguments(self, net, options, message):
        problem = Problem(**net)
        with pytest.raises(ValueError, match=message):
            explain.saliency(problem.net, problem.params, problem.x, **options)


class TestIntegratedGradients:
    @pytest.mark.cover("values")
    @pytest.mark.parametrize("read", READS)
    @pytest.mark.parametrize("cell", ["rnn-tanh", "gru", "gru-reset-before", "lstm"])
    def test_add_up_to_the_difference_of_the_predictions(self, cell, read):
        problem = Problem(**CELLS[cell], **READS[read], scale=0.4)
        net, params, x = problem.net, problem.params, problem.x
        baseline = 0.3 * np.ones_like(x[0])
        result = explain.integrated_gradients(net, params, x, baseline, output=1, points=32)
        difference = predicted(net, params, x, 1, -1)
        difference = difference - predicted(net, params, baseline + 0.0 * x, 1, -1)
        np.testing.assert_allclose(result.difference, difference, rtol=1e-12)
        np.testing.assert_allclose(result.attributions.sum((1, 2)), difference, atol=1e-7)
        np.testing.assert_allclose(result.gap, difference - result.attributions.sum((1, 2)))

    def test_of_a_linear_network_is_weight_times_input(self):
        problem = Problem(linear_lags=3)
        params = {k: np.zeros_like(p) for k, p in problem.params.items()}
        params["readout.w_xy"] = problem.params["readout.w_xy"]
        result = explain.integrated_gradients(problem.net, params, problem.x, points=1)
        expected = np.zeros_like(problem.x)
        weights = params["readout.w_xy"][0].reshape(3, -1)
        expected[:, -3:] = weights * problem.x[:, -3:]
        np.testing.assert_allclose(result.attributions, expected, rtol=1e-12, atol=1e-15)

    def test_numbers_equal_to_the_baseline_get_nothing(self):
        problem = Problem(cell="lstm")
        baseline = problem.x.copy()
        baseline[:, 1] += 1.0
        result = explain.integrated_gradients(problem.net, problem.params, problem.x, baseline)
        assert np.all(result.attributions[:, [0, 2, 3, 4]] == 0.0)
        assert np.all(result.attributions[:, 1] != 0.0)

    def test_too_few_points_are_noticed(self):
        problem = Problem(scale=2.0)
        with pytest.raises(ValueError, match="miss the difference .* Give more points than 1"):
            explain.integrated_gradients(problem.net, problem.params, 3.0 * problem.x, points=1)

    def test_a_baseline_of_another_shape_is_refused(self):
        problem = Problem()
        with pytest.raises(ValueError, match=r"baseline must have the shape of x, \(3, 5, 2\)"):
            explain.integrated_gradients(problem.net, problem.params, problem.x, np.zeros(5))


class TestInfluence:
    @pytest.mark.parametrize("name", ["mse", "huber", "cross_entropy"])
    @pytest.mark.parametrize("topology", ["many_to_one", "many_to_many"])
    def test_is_the_inner_product_of_the_samples_own_gradients(self, topology, name):
        problem = Problem(topology=topology, rows=6)
        net, params, x, y = problem.net, problem.params, problem.x, problem.y
        if name == "cross_entropy":
            y = np.random.default_rng(0).integers(0, 2, y.shape[:-1])
        scores = explain.influence(net, params, x, y, x[2:4], y[2:4], name)
        _, wanted = net.value_and_grad(params, x[2:4], y[2:4], name)
        for n in range(6):
            _, grads = net.value_and_grad(params, x[n : n + 1], y[n : n + 1], name)
            expected = sum(np.sum(grads[key] * wanted[key]) for key in grads)
            assert scores[n] == pytest.approx(expected, rel=1e-10)

    def test_a_step_on_the_best_sample_lowers_the_loss_by_that_much(self):
        x, y = windows()
        net = rx.Network(hidden_size=4)
        params = net.init(seed=0, backend=FLOAT64)
        scores = explain.influence(net, params, x, y, x[9:10], y[9:10])
        best, size = int(np.argmax(scores)), 1e-6
        _, grads = net.value_and_grad(params, x[best : best + 1], y[best : best + 1])
        before, _ = net.value_and_grad(params, x[9:10], y[9:10])
        after, _ = net.value_and_grad(
            {key: p - size * grads[key] for key, p in params.items()}, x[9:10], y[9:10]
        )
        assert (before - after) / size == pytest.approx(scores[best], rel=1e-3)


@pytest.mark.full("jax")
@pytest.mark.parametrize("library", ["array_api_strict", "torch", "jax"])
def test_on_other_libraries(library):
    pytest.importorskip(library)
    backend = rx.get_backend(library, dtype="float32")
    x, y = (a.astype("float32") for a in windows())
    net = rx.Network(hidden_size=3)
    results = []
    for b in (rx.get_backend("numpy", dtype="float32"), backend):
        params, there_x, there_y = net.init(0, b), b.asarray(x), b.asarray(y)
        arrays = (
            explain.saliency(net, params, there_x),
            explain.integrated_gradients(net, params, there_x).attributions,
            explain.influence(net, params, there_x, there_y, there_x[:1, ...], there_y[:1, ...]),
        )
        results.append([b.to_numpy(array) for array in arrays])
    for here, there in zip(*results, strict=True):
        np.testing.assert_allclose(there, here, rtol=1e-4, atol=1e-5)


class TestCurvature:
    def test_the_largest_eigenvalues_are_those_of_the_hessian(self):
        x, y = windows()
        net = rx.Network(hidden_size=3)
        params = net.init(seed=0, backend=FLOAT64)
        size, names = net.num_parameters, sorted(params)
        rows = []
        for k in range(size):
            unit, parts, start = np.eye(size)[k], {}, 0
            for name in names:
                end = start + params[name].size
                parts[name], start = unit[start:end].reshape(params[name].shape), end
            image = net.hvp(params, x, y, parts)
            rows.append(np.concatenate([image[name].ravel() for name in names]))
        values = np.linalg.eigvalsh(np.stack(rows))
        result = explain.measure_curvature(net, params, x, y, count=3, products=size)
        np.testing.assert_allclose(result.eigenvalues, values[::-1][:3], rtol=1e-9)
        assert result.smallest == pytest.approx(values[0], rel=1e-6)
        assert result.largest_rate == pytest.approx(2.0 / values[-1])
        assert result.error < 1e-9

    def test_few_products_find_the_largest_within_the_stated_error(self):
        x, y = windows()
        net = rx.Network(hidden_size=6)
        params = net.init(seed=0, backend=FLOAT64)
        exact = explain.measure_curvature(net, params, x, y, products=60).eigenvalues[0]
        few = explain.measure_curvature(net, params, x, y, products=6)
        assert few.products == 6
        assert abs(few.eigenvalues[0] - exact) <= few.error

    def test_gradient_descent_above_the_largest_rate_diverges_and_below_does_not(self):
        """The readout alone is a quadratic problem."""
        x, y = windows()
        net = rx.Network(hidden_size=3)
        start = net.init(seed=0, backend=FLOAT64)
        rate = explain.measure_curvature(net, start, x, y).largest_rate
        losses_of = {}
        for factor in (0.5, 3.0):
            fitted = rx.fit(
                net, x, y, optimizer=rx.optim.sgd(factor * rate), epochs=3, params=start,
                backend=FLOAT64,
            )  # fmt: skip
            losses_of[factor] = fitted.history["loss"]
        assert losses_of[0.5][-1] < losses_of[0.5][0]
        assert max(losses_of[3.0][1:]) > losses_of[3.0][0]

    def test_more_eigenvalues_than_products_are_refused(self):
        x, y = windows()
        net = rx.Network(hidden_size=3)
        params = net.init(seed=0, backend=FLOAT64)
        with pytest.raises(ValueError, match=r"count must be in 1\.\.5"):
            explain.measure_curvature(net, params, x, y, count=6, products=5)


class TestSharpness:
    def test_it_is_measured_at_the_parameters_of_the_epoch(self):
        x, y = windows()
        net = rx.Network(hidden_size=3)
        kept = []
        sharpness = explain.Sharpness(net, x, y, every=4, products=30)
        rx.fit(
            net, x, y, optimizer=rx.optim.sgd(0.1), epochs=9, backend=FLOAT64,
            callbacks=[sharpness, lambda epoch: kept.append(epoch.state().params)],
        )  # fmt: skip
        assert sharpness.epochs == [4, 8]
        for number, value in zip(sharpness.epochs, sharpness.values, strict=True):
            exact = explain.measure_curvature(net, kept[number - 1], x, y, products=30)
            assert value == exact.eigenvalues[0]

    @pytest.mark.pictures
    def test_the_picture_has_the_bound(self):
        sharpness = explain.Sharpness(rx.Network(hidden_size=3), *windows())
        sharpness.epochs, sharpness.values = [10, 20], [3.0, 4.0]
        ax = sharpness.plot(learning_rate=0.5)
        assert [line.get_label() for line in ax.lines] == ["sharpness", "2 / learning rate"]
        assert set(ax.lines[1].get_ydata()) == {4.0}


def test_losses_of_ones_own_are_taken():
    x, y = windows()
    net = rx.Network(hidden_size=3)
    params = net.init(seed=0, backend=FLOAT64)

    def loss(pred, target, weight=None, total=None):
        return losses.mse(pred, target, weight, total)

    named, own = (explain.influence(net, params, x, y, x[:2], y[:2], f) for f in ("mse", loss))
    assert np.array_equal(named, own)
