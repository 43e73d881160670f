"""What is particular to each loss: its errors, kinks, limits, and the total of weights."""

from __future__ import annotations

import numpy as np
import pytest
from loss_contracts import (
    LOSSES,
    QUANTILES,
    N,
    O,
    T,
    draw,
    every_layout,
    every_loss,
    on,
    softmax_then_log,
)

from rnn_xp import losses
from rnn_xp.losses import Huber, Pinball


class TestErrors:
    """Losses of pred - target alone."""

    @pytest.mark.cover("values")
    @pytest.mark.parametrize("name", ["mse", "mae", "huber", "pinball"])
    def test_a_perfect_prediction(self, name, case):
        """Value 0, and 0 is the subgradient chosen at the kink."""
        pred = draw(name, "sequence-unweighted")[0]
        value, dpred = case.jit(LOSSES[name].loss)(*on(case, pred, pred))
        case.assert_close(value, np.asarray(0.0))
        case.assert_close(dpred, np.zeros(pred.shape))

    @pytest.mark.parametrize("name", ["mae", "huber", "pinball"])
    def test_large_errors_stay_finite_in_single_precision(self, name):
        """Their squares would not: 1e30 * 1e30 overflows."""
        pred = np.full((1, O), 1e30, dtype="f4")
        value, dpred = LOSSES[name].loss(pred, -pred)
        assert value.dtype == dpred.dtype == np.float32
        slope = {"mae": 1.0, "huber": 0.7, "pinball": np.mean(1 - QUANTILES)}[name]
        assert float(value) == pytest.approx(2e30 * slope, rel=1e-6)


class TestHuber:
    def test_both_pieces_and_the_joints(self, case):
        error = np.asarray([[-3.0], [-2.0], [-0.5], [0.0], [0.5], [2.0], [3.0]])
        value, dpred = case.jit(Huber(2.0))(*on(case, error, np.zeros((7, 1)), None), 1.0)
        case.assert_close(value, np.asarray(2 * (0.125 + 2.0 + 4.0)))
        case.assert_close(dpred, np.clip(error, -2.0, 2.0))

    def test_half_of_mse_where_delta_is_large(self):
        arrays = draw("mse", "sequence-weights_of_steps")
        value, dpred = Huber(1e3)(*arrays)
        half, dhalf = losses.mse(*arrays)
        assert float(value) == pytest.approx(float(half) / 2, rel=1e-14)
        np.testing.assert_allclose(dpred, dhalf / 2, rtol=1e-14)

    def test_mae_times_delta_where_delta_is_small(self):
        arrays = draw("mae", "sequence-weights_of_steps")
        delta = 1e-6
        value, dpred = Huber(delta)(*arrays)
        mean, dmean = losses.mae(*arrays)
        assert float(value) == pytest.approx(delta * (float(mean) - delta / 2), rel=1e-13)
        np.testing.assert_allclose(dpred, delta * dmean, rtol=1e-14)

    @pytest.mark.parametrize("delta", [0.0, -1.0, np.inf, np.nan])
    def test_delta_is_positive_and_finite(self, delta):
        with pytest.raises(ValueError, match="Huber: delta must be a finite number > 0, got"):
            Huber(delta)

    def test_is_a_value(self):
        assert Huber() == Huber(1) == Huber(np.float32(1.0)) != Huber(2.0)
        assert len({Huber(), Huber(1.0)}) == 1
        assert repr(Huber(np.float64(0.5))) == "Huber(delta=0.5)"


class TestPinball:
    def test_the_median_is_half_of_mae(self):
        arrays = draw("mae", "sequence-weights_of_steps")
        value, dpred = Pinball([0.5] * O)(*arrays)
        mean, dmean = losses.mae(*arrays)
        assert float(value) == pytest.approx(float(mean) / 2, rel=1e-14)
        np.testing.assert_allclose(dpred, dmean / 2, rtol=1e-14)

    def test_is_least_at_the_quantile(self):
        """Among constant predictions, as the definition of a quantile asks."""
        sample = np.random.default_rng(0).standard_normal((101, 1))
        values = [float(Pinball([0.8])(np.full((101, 1), c), sample)[0]) for c in sample[:, 0]]
        assert sample[np.argmin(values), 0] == np.quantile(sample, 0.8)

    def test_one_column_per_quantile(self):
        with pytest.raises(ValueError, match=r"each of the quantiles \(0.1, 0.9\), got 3"):
            Pinball((0.1, 0.9))(np.zeros((N, 3)), np.zeros((N, 3)))

    @pytest.mark.parametrize("quantiles", [(), 0.5, (0.0,), (0.5, 1.0), (np.nan,), (-0.1,)])
    def test_quantiles_lie_between_0_and_1(self, quantiles):
        with pytest.raises(ValueError, match="Pinball: quantiles must be a sequence of numbers"):
            Pinball(quantiles)

    def test_is_a_value(self):
        assert Pinball([0.1, 0.9]) == Pinball((0.1, 0.9)) != Pinball((0.9, 0.1))
        assert len({Pinball([0.5]), Pinball((0.5,))}) == 1
        assert repr(Pinball([np.float64(0.1), 0.9])) == "Pinball(quantiles=(0.1, 0.9))"


class TestCrossEntropy:
    def test_uniform_logits_give_log_of_the_number_of_classes(self, case):
        pred, target = on(case, np.full((N, T, 7), -3.0), np.full((N, T), 6))
        value, _ = case.jit(losses.cross_entropy)(pred, target)
        case.assert_close(value, np.asarray(np.log(7.0)))

    def test_extreme_logits(self, case):
        """Certain and right: 0. Certain and wrong: the difference of the logits, and slope 1."""
        pred = np.asarray([[1e4, -1e4, 0.0], [1e4, -1e4, 0.0], [-1e4, -1e4, -1e4]])
        third = 1 / 3
        value, dpred = case.jit(losses.cross_entropy)(
            *on(case, pred, np.asarray([0, 1, 2])), None, 1.0
        )
        case.assert_close(value, np.asarray(2e4 + np.log(3.0)))
        case.assert_close(dpred, np.asarray([[0.0, 0, 0], [1, -1, 0], [third, third, third - 1]]))

    def test_a_class_ruled_out_by_minus_infinity(self):
        value, dpred = losses.cross_entropy(np.asarray([[0.0, -np.inf, 0.0]]), np.asarray([2]))
        assert float(value) == pytest.approx(np.log(2.0))
        assert dpred.tolist() == [[0.5, 0.0, -0.5]]

    @pytest.mark.cover("values")
    @pytest.mark.parametrize("dtype", ["int8", "uint8", "int64"])
    def test_any_integers(self, dtype, case):
        """Also where the classes outnumber what the dtype can hold."""
        pred = np.random.default_rng(0).standard_normal((4, 300))
        target = np.asarray([0, 1, 44, 127])
        value, _ = case.jit(losses.cross_entropy)(*on(case, pred, target.astype(dtype)))
        case.assert_close(value, np.asarray(np.mean(softmax_then_log(pred, target))))

    @pytest.mark.cover("values")
    @pytest.mark.parametrize("unknown", [-1, O, 99])
    def test_an_unknown_class_that_counts_gives_nan(self, unknown, case):
        pred, target, weight = draw("cross_entropy", "sequence-weights_of_steps")
        target[2, 1] = unknown
        value, dpred = case.jit(losses.cross_entropy)(*on(case, pred, target, weight))
        assert np.isnan(case.to_numpy(value))
        assert np.isnan(case.to_numpy(dpred)[2, 1]).all()
        assert np.isnan(case.to_numpy(dpred)).sum() == O

    def test_one_hot_targets_are_refused(self):
        pred = np.zeros((N, O))
        with pytest.raises(ValueError, match=r"for one-hot y give argmax\(y, -1\)"):
            losses.cross_entropy(pred, np.eye(N, O))

    @pytest.mark.parametrize("dtype", ["float64", "bool"])
    def test_classes_are_integers(self, dtype):
        with pytest.raises(TypeError, match=f"of an integer dtype, got {dtype}"):
            losses.cross_entropy(np.zeros((N, O)), np.zeros(N, dtype=dtype))

    def test_one_column_is_not_a_choice(self):
        """Its softmax is always 1 and its loss always 0."""
        with pytest.raises(ValueError, match="single logit use binary_cross_entropy"):
            losses.cross_entropy(np.zeros((N, 1)), np.zeros(N, dtype=int))


class TestBinaryCrossEntropy:
    def test_equals_cross_entropy_of_two_classes(self, case):
        """Logits (0, z): the same value, and the same slope in z."""
        rng = np.random.default_rng(0)
        z, target, weight = (
            rng.standard_normal((N, T, 1)),
            rng.integers(2, size=(N, T)),
            rng.uniform(size=N),
        )
        pred = np.concatenate([np.zeros((N, T, 1)), z], axis=-1)
        two, dtwo = losses.cross_entropy(pred, target, weight)
        value, dpred = case.jit(losses.binary_cross_entropy)(
            *on(case, z, target[..., None].astype("f8"), weight)
        )
        case.assert_close(value, np.asarray(two))
        case.assert_close(dpred, dtwo[..., 1:])

    def test_extreme_logits(self, case):
        """Certain and right: 0. Certain and wrong: the size of the logit, and slope 1."""
        pred = np.asarray([[1e4, -1e4, 1e4, -1e4, 1e4, 0.0]])
        target = np.asarray([[1.0, 0.0, 0.0, 1.0, 0.25, 0.5]])
        value, dpred = case.jit(losses.binary_cross_entropy)(*on(case, pred, target), None, 1.0)
        case.assert_close(value, np.asarray(1e4 + 1e4 + 7.5e3 + np.log(2.0)))
        case.assert_close(dpred, np.asarray([[0.0, 0.0, 1.0, -1.0, 0.75, 0.0]]))

    def test_small_tails_keep_their_digits(self):
        """In float32 p rounds to 1 at z = 20, but the slope p - 1 must not round to 0."""
        pred = np.asarray([[20.0, -20.0]], dtype="f4")
        value, dpred = losses.binary_cross_entropy(
            pred, np.asarray([[1, 0]], dtype="f4"), None, 1.0
        )
        tail = np.exp(-20.0)
        assert float(value) == pytest.approx(2 * tail, rel=1e-6)
        np.testing.assert_allclose(dpred, [[-tail, tail]], rtol=1e-6)


class TestTotalWeight:
    def test_counts_entries(self):
        assert losses.total_weight(np.zeros((8317, 1))) == 8317.0
        assert losses.total_weight(np.zeros((N, O))) == N * O

    @pytest.mark.cover("pairs")
    @every_loss
    @every_layout
    def test_is_the_weight_of_all_entries(self, name, layout, case):
        """Of the entries that the loss sums, which every mean divides by."""
        pred, target, weight = draw(name, layout)
        entries = LOSSES[name].entries(pred, target)
        with case.guard():
            total = losses.total_weight(*on(case, target, weight))
        if weight is None:
            assert total == float(entries.size)
        else:
            case.assert_close(total, np.asarray(weight.sum() * (entries.size / weight.size)))


def test_which_losses_take_logits():
    taking = {name for name, contract in LOSSES.items() if losses.takes_logits(contract.loss)}
    assert taking == {"cross_entropy", "binary_cross_entropy"}
    assert losses.takes_logits(lambda pred, target, weight=None, total=None: (0.0, pred)) is False
