"""Losses: value, gradient, weights, totals, and shapes that must not broadcast."""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from rnn_xp import losses
from rnn_xp.losses import Huber, Pinball
from rnn_xp.testing import compare_gradients

N, T, O = 6, 5, 3  # noqa: E741
QUANTILES = np.asarray([0.1, 0.5, 0.8])
HIDDEN = {  # what may stand where the weight is 0, by the kind of target
    "numbers": np.nan,
    "probabilities": np.nan,
    "classes": -1,
}


def squared(pred, target):
    return (pred - target) ** 2


def absolute(pred, target):
    return np.abs(pred - target)


def huber(pred, target, delta=0.7):
    a = np.abs(pred - target)
    return np.where(a <= delta, a * a / 2, delta * a - delta * delta / 2)


def pinball(pred, target):
    return np.maximum(QUANTILES * (target - pred), (QUANTILES - 1) * (target - pred))


def softmax_then_log(pred, target):
    p = np.exp(pred) / np.exp(pred).sum(axis=-1, keepdims=True)
    picked = [-np.log(p[index][target[index]]) for index in np.ndindex(target.shape)]
    return np.reshape(picked, target.shape)


def sigmoid_then_log(pred, target):
    p = 1 / (1 + np.exp(-pred))
    return -(target * np.log(p) + (1 - target) * np.log(1 - p))


@dataclasses.dataclass(frozen=True)
class Contract:
    loss: Any
    entries: Callable[..., Any]  # the loss of each entry, as the books write it
    target: str = "numbers"
    kinks: tuple[float, ...] = ()  # errors at which it has no derivative, or no second one
    name: str | None = None  # in messages

    @property
    def elementwise(self):
        return self.target != "classes"


LOSSES = {
    "mse": Contract(losses.mse, squared),
    "mae": Contract(losses.mae, absolute, kinks=(0.0,)),
    "huber": Contract(Huber(0.7), huber, kinks=(-0.7, 0.7), name="Huber"),
    "pinball": Contract(Pinball(tuple(QUANTILES)), pinball, kinks=(0.0,), name="Pinball"),
    "cross_entropy": Contract(losses.cross_entropy, softmax_then_log, "classes"),
    "binary_cross_entropy": Contract(
        losses.binary_cross_entropy, sigmoid_then_log, "probabilities"
    ),
}
LAYOUTS = {  # id: leading axes of pred, shape of the weights
    "many_to_one-unweighted": ((N,), None),
    "many_to_one-weighted": ((N,), (N,)),
    "sequence-unweighted": ((N, T), None),
    "sequence-weights_of_samples": ((N, T), (N,)),
    "sequence-weights_of_steps": ((N, T), (N, T)),
}
WEIGHTED = [name for name, (_, weights) in LAYOUTS.items() if weights]

every_loss = pytest.mark.parametrize("name", LOSSES)
every_layout = pytest.mark.parametrize("layout", LAYOUTS)
every_weighted_layout = pytest.mark.parametrize("layout", WEIGHTED)


def draw(name, layout):
    """Random pred, target and weight (or None), with no error near a kink."""
    contract, (lead, weights) = LOSSES[name], LAYOUTS[layout]
    rng = np.random.default_rng(1)
    pred = rng.standard_normal((*lead, O))
    target = {
        "numbers": lambda: rng.standard_normal((*lead, O)),
        "classes": lambda: rng.integers(O, size=lead),
        "probabilities": lambda: rng.uniform(size=(*lead, O)).round(1),  # with 0 and 1 among them
    }[contract.target]()
    for kink in contract.kinks:
        near = np.abs(pred - target - kink) < 1e-2
        target = target - 0.05 * near
        assert np.abs(pred - target - kink).min() > 1e-3
    return pred, target, None if weights is None else rng.uniform(0.5, 2.0, weights)


def expected_value(name, pred, target, weight):
    """Weighted mean over all entries, by np.average and not by a total of our own."""
    entries = LOSSES[name].entries(pred, target)
    if weight is None:
        return np.mean(entries)
    full = np.ones(entries.shape)
    full *= weight.reshape(weight.shape + (1,) * (entries.ndim - weight.ndim))
    return np.average(entries, weights=full)


def on(case, *arrays):
    return [None if a is None else case.array(a) for a in arrays]


def double(case, array):
    """What the device holds, in double precision; indices stay integers."""
    if array is None:
        return None
    host = case.to_numpy(array)
    return host.astype("f8") if host.dtype.kind == "f" else host


@every_loss
class TestEvery:
    """The contract of all losses: a new one joins the table above."""

    @every_layout
    def test_value(self, name, layout, case):
        pred, target, weight = draw(name, layout)
        value, dpred = case.jit(LOSSES[name].loss)(*on(case, pred, target, weight))
        case.assert_close(value, np.asarray(expected_value(name, pred, target, weight)))
        assert dpred.shape == pred.shape
        assert dpred.dtype == case.dtype

    @every_layout
    def test_gradient(self, name, layout, case):
        """Every entry, to 1e-12 by the complex step and to 1e-7 by differences.

        Where a loss has kinks it is analytic on either side, so that both hold away from them.
        """
        contract = LOSSES[name]
        pred, target, weight = on(case, *draw(name, layout))
        with case.guard():
            _, dpred = case.jit(contract.loss)(pred, target, weight)
        host_target, host_weight = double(case, target), double(case, weight)
        for method in ("complex_step", "central_difference"):
            compare_gradients(
                lambda at: contract.loss(at["pred"], host_target, host_weight)[0],
                {"pred": case.to_numpy(pred)},
                {"pred": case.to_numpy(dpred)},
                method=method,
                every_entry=True,
            )

    def test_complex_predictions(self, name, case):
        """The complex step of a whole network passes through here on every library."""
        pred, target, weight = draw(name, "sequence-weights_of_samples")
        value, _ = case.jit(LOSSES[name].loss)(*on(case, pred + 0j, target, weight))
        expected = expected_value(name, pred, target, weight)
        case.assert_close(value, np.asarray(expected + 0j))

    @every_weighted_layout
    def test_blocks_with_the_common_total_add_up(self, name, layout, case):
        loss = LOSSES[name].loss
        arrays = draw(name, layout)
        whole, dwhole = loss(*arrays)
        total = losses.total_weight(*on(case, *arrays[1:]))
        parts = []
        for rows in (slice(0, 4), slice(4, 6)):
            block = on(case, *(None if a is None else a[rows] for a in arrays))
            with case.guard():
                parts.append(case.jit(loss)(*block, total))
        case.assert_close(parts[0][0] + parts[1][0], np.asarray(whole))
        case.assert_close(case.xp.concat([dpred for _, dpred in parts]), dwhole)

    @every_weighted_layout
    def test_weights_are_repetitions(self, name, layout):
        """Weight 2 counts like the same row twice, weight 0 like none."""
        loss = LOSSES[name].loss
        pred, target, weight = draw(name, layout)
        times = np.random.default_rng(2).integers(3, size=weight.shape)
        value, _ = loss(pred, target, times.astype("f8"))
        if len(weight.shape) == 2:  # of steps: each becomes a row
            pred, target = pred.reshape(N * T, O), target.reshape(N * T, *target.shape[2:])
        index = np.repeat(np.arange(times.size), times.ravel())
        repeated, _ = loss(pred[index], target[index])
        assert float(value) == pytest.approx(float(repeated), rel=1e-13)

    @every_weighted_layout
    def test_a_weight_of_zero_hides(self, name, layout, case):
        """Neither NaN, infinities nor classes out of range come through, on any library."""
        contract = LOSSES[name]
        pred, target, weight = draw(name, layout)
        weight.reshape(-1)[[1, 3]] = 0.0
        clean = on(case, pred, target, weight)
        hidden = weight == 0.0
        pred, target = pred.copy(), target.copy()
        pred[hidden], target[hidden] = np.inf, HIDDEN[contract.target]
        pred[hidden, ..., 0] = np.nan
        with case.guard():
            value, dpred = case.jit(contract.loss)(*on(case, pred, target, weight))
        expected, dexpected = case.jit(contract.loss)(*clean)
        case.assert_close(value, case.to_numpy(expected), rtol=0.0)
        case.assert_close(dpred, case.to_numpy(dexpected), rtol=0.0)
        assert not case.to_numpy(dpred)[hidden].any()
        assert case.to_numpy(dpred)[~hidden].any()

    def test_all_weights_zero(self, name, case):
        """A minibatch of padding alone: no loss and no gradient, rather than 0 / 0."""
        pred, target, weight = draw(name, "sequence-weights_of_steps")
        with case.guard():
            value, dpred = case.jit(LOSSES[name].loss)(*on(case, pred, target, 0.0 * weight))
        case.assert_close(value, np.asarray(0.0))
        case.assert_close(dpred, np.zeros(pred.shape))

    def test_nan_that_counts_is_seen(self, name, case):
        pred, target, weight = draw(name, "sequence-weights_of_samples")
        pred[1, ..., 2] = np.nan
        value, dpred = case.jit(LOSSES[name].loss)(*on(case, pred, target, weight))
        assert np.isnan(case.to_numpy(value))
        assert np.isnan(case.to_numpy(dpred)[1, ..., 2]).all()

    @pytest.mark.parametrize("layout", ["many_to_one-weighted", "sequence-weights_of_steps"])
    def test_nothing_is_broadcast(self, name, layout):
        contract = LOSSES[name]
        pred, target, _ = draw(name, layout)
        lead = LAYOUTS[layout][0]
        rule = "must have the same shape" if contract.elementwise else "classes, of shape"
        others = {
            (),
            (1,),
            lead,
            (*lead, 1),
            (*lead, O),
            (1, *lead[1:], O),
            (*lead, O, 1),
            (1, *lead),
        }
        for shape in others - {target.shape}:
            with pytest.raises(ValueError, match=rule) as error:
                contract.loss(pred, np.zeros(shape, dtype=target.dtype))
            given = f"{contract.name or name}: pred {pred.shape} and target {shape} must "
            assert str(error.value).startswith(given)

    @pytest.mark.parametrize("layout", ["many_to_one-weighted", "sequence-weights_of_steps"])
    def test_weights_are_one_per_sample_or_step(self, name, layout):
        contract = LOSSES[name]
        pred, target, weight = draw(name, layout)
        lead = weight.shape
        message = rf"{contract.name or name}: sample_weight must have shape \({N},\), one weight"
        if lead[1:]:
            message += rf" per sample, or \({N}, {T}\), one per step"
        for shape in {(), (1,), (*lead, 1), (*lead, O), (lead[0] + 1, *lead[1:]), (T, N), (T,)}:
            with pytest.raises(ValueError, match=message):
                contract.loss(pred, target, np.ones(shape))

    def test_dtypes_are_not_mixed(self, name):
        contract = LOSSES[name]
        pred, target, weight = draw(name, "many_to_one-weighted")
        with pytest.raises(TypeError, match="sample_weight is float32"):
            contract.loss(pred, target, weight.astype("f4"))
        with pytest.raises(TypeError, match="float32 or float64 is required; sample_weight is int"):
            contract.loss(pred, target, np.ones(N, dtype=int))
        if contract.elementwise:
            with pytest.raises(TypeError, match="target is float32"):
                contract.loss(pred, target.astype("f4"))
        with pytest.raises(TypeError, match="arrays of one library"):
            contract.loss(pred, target.tolist())

    def test_survives_pickling(self, name):
        """Worker processes and saved configurations need it."""
        loss = LOSSES[name].loss
        assert pickle.loads(pickle.dumps(loss)) == loss


class TestErrors:
    """Losses of pred - target alone."""

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

    @pytest.mark.parametrize("dtype", ["int8", "uint8", "int64"])
    def test_any_integers(self, dtype, case):
        """Also where the classes outnumber what the dtype can hold."""
        pred = np.random.default_rng(0).standard_normal((4, 300))
        target = np.asarray([0, 1, 44, 127])
        value, _ = case.jit(losses.cross_entropy)(*on(case, pred, target.astype(dtype)))
        case.assert_close(value, np.asarray(np.mean(softmax_then_log(pred, target))))

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


@pytest.mark.torch
class TestAgainstTorch:
    """torch.nn.functional and its autograd, to 1e-13."""

    @staticmethod
    def peers():
        f = pytest.importorskip("torch", reason="torch is not installed").nn.functional

        def cross_entropy(pred, target, **options):
            return f.cross_entropy(pred.movedim(-1, 1), target, **options)

        return {
            "mse": f.mse_loss,
            "mae": f.l1_loss,
            "huber": lambda *args, **options: f.huber_loss(*args, delta=0.7, **options),
            "cross_entropy": cross_entropy,
            "binary_cross_entropy": f.binary_cross_entropy_with_logits,
        }

    @pytest.mark.parametrize("name", sorted({*LOSSES} - {"pinball"}))  # torch has no pinball loss
    @every_layout
    def test_value_and_gradient(self, name, layout):
        peer = self.peers()[name]
        import torch

        pred, target, weight = draw(name, layout)
        ours = torch.tensor(pred, requires_grad=True)
        if weight is None:
            theirs = peer(ours, torch.tensor(target), reduction="mean")
        else:
            entries = peer(ours, torch.tensor(target), reduction="none")
            full = torch.tensor(weight.reshape(weight.shape + (1,) * (entries.ndim - weight.ndim)))
            theirs = (full * entries).sum() / full.expand(entries.shape).sum()
        theirs.backward()
        value, dpred = LOSSES[name].loss(pred, target, weight)
        assert float(value) == pytest.approx(theirs.item(), rel=1e-13)
        np.testing.assert_allclose(dpred, ours.grad.numpy(), rtol=1e-13, atol=1e-15)

    def test_weight_zero_is_their_ignore_index(self):
        peer = self.peers()["cross_entropy"]
        import torch

        pred, target, _ = draw("cross_entropy", "sequence-unweighted")
        target[:, 3:] = -1
        ours = torch.tensor(pred, requires_grad=True)
        theirs = peer(ours, torch.tensor(target), ignore_index=-1)
        theirs.backward()
        value, dpred = losses.cross_entropy(pred, target, (target >= 0).astype("f8"))
        assert float(value) == pytest.approx(theirs.item(), rel=1e-13)
        np.testing.assert_allclose(dpred, ours.grad.numpy(), rtol=1e-13, atol=1e-15)
