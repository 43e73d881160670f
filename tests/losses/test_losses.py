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


@pytest.mark.cover("pairs")
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
