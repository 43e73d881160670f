"""Losses: value, gradient, weights, totals, and shapes that must not broadcast."""

from __future__ import annotations

import numpy as np
import pytest

from rnn_xp import losses
from rnn_xp.testing import compare_gradients

N, O = 6, 2  # noqa: E741

LOSSES = {"mse": (losses.mse, lambda e: e * e)}


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    return rng.standard_normal((N, O)), rng.standard_normal((N, O)), rng.uniform(0.5, 2.0, N)


@pytest.mark.parametrize("name", LOSSES)
class TestEvery:
    """The contract of all losses: a new one joins the table above."""

    def test_value(self, name, data, case):
        loss, entry = LOSSES[name]
        pred, target, weight = data
        value, dpred = loss(*map(case.array, data))
        expected = np.sum(weight[:, None] * entry(pred - target)) / (weight.sum() * O)
        case.assert_close(value, np.asarray(expected))
        assert dpred.shape == (N, O)
        assert dpred.dtype == case.dtype
        plain, _ = loss(case.array(pred), case.array(target))
        case.assert_close(plain, np.asarray(np.mean(entry(pred - target))))

    def test_gradient(self, name, data, case):
        loss, _ = LOSSES[name]
        pred, target, weight = (case.array(a) for a in data)
        with case.guard():
            _, dpred = loss(pred, target, weight)
        host_target, host_weight = case.to_numpy(target), case.to_numpy(weight)
        compare_gradients(
            lambda at: loss(at["pred"], host_target.astype("f8"), host_weight.astype("f8"))[0],
            {"pred": case.to_numpy(pred)},
            {"pred": case.to_numpy(dpred)},
            every_entry=True,
        )

    def test_blocks_with_the_common_total_add_up(self, name, data):
        loss, _ = LOSSES[name]
        pred, target, weight = data
        whole, dwhole = loss(pred, target, weight)
        total = losses.total_weight(target, weight)
        parts = [loss(pred[a:b], target[a:b], weight[a:b], total) for a, b in ((0, 4), (4, 6))]
        assert sum(float(value) for value, _ in parts) == pytest.approx(float(whole), rel=1e-14)
        np.testing.assert_allclose(np.concatenate([d for _, d in parts]), dwhole, rtol=1e-14)

    def test_a_perfect_prediction(self, name, data):
        loss, _ = LOSSES[name]
        value, dpred = loss(data[0], data[0])
        assert float(value) == 0.0
        assert not dpred.any()

    @pytest.mark.parametrize("shape", [(N,), (1, O), (N, 1), (O, N)])
    def test_nothing_is_broadcast(self, name, data, shape):
        loss, _ = LOSSES[name]
        with pytest.raises(ValueError, match=f"{name}: pred .* must have the same shape"):
            loss(data[0], np.zeros(shape))

    @pytest.mark.parametrize("shape", [(), (1,), (N, 1), (N + 1,)])
    def test_weights_are_one_per_sample(self, name, data, shape):
        loss, _ = LOSSES[name]
        with pytest.raises(ValueError, match=rf"{name}: sample_weight must have shape \({N},\)"):
            loss(data[0], data[1], np.ones(shape))


class TestTotalWeight:
    def test_counts_entries(self):
        assert losses.total_weight(np.zeros((8317, 1))) == 8317.0
        assert losses.total_weight(np.zeros((N, O))) == N * O

    def test_weighs_them(self, data):
        assert float(losses.total_weight(data[1], data[2])) == pytest.approx(data[2].sum() * O)
