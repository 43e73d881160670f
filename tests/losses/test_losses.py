"""Losses: value, gradient, weights, totals, and shapes that must not broadcast."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from loss_contracts import (
    HIDDEN,
    LAYOUTS,
    LOSSES,
    N,
    O,
    T,
    double,
    draw,
    every_layout,
    every_loss,
    every_weighted_layout,
    expected_value,
    on,
)

from rnn_xp import losses
from rnn_xp.testing import compare_gradients


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
        with pytest.raises(TypeError, match="target must be an array, got list"):
            contract.loss(pred, target.tolist())

    @every_layout
    def test_nothing_comes_from_the_host(self, name, layout, monkeypatch):
        """A transfer on every call could not be part of a CUDA graph."""
        pred, target, weight = draw(name, layout)

        def transfer(*args, **kwargs):
            raise AssertionError("an array is made of numbers of the host")

        with monkeypatch.context() as patch:
            for maker in ("asarray", "array"):
                patch.setattr(f"array_api_compat.numpy.{maker}", transfer)
            value, dpred = LOSSES[name].loss(pred, target, weight)
        again, expected = LOSSES[name].loss(pred, target, weight)
        assert value == again
        assert np.array_equal(dpred, expected)

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
