"""Training that diverges: what is noticed, when, and what is kept."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from problems import windows

import rnn_xp as rx
from rnn_xp.losses import mse
from rnn_xp.training import loop as training_loop
from rnn_xp.training.watch import Watch

NET = rx.Network(input_size=1, hidden_size=8, output_size=1)
FLOAT64 = rx.get_backend("numpy", dtype="float64")


class TestDivergence:
    def test_keeps_the_last_good_parameters(self):
        x, y = windows()
        net = rx.Network(input_size=1, hidden_size=8, output_size=1, activation="relu")
        with pytest.raises(rx.DivergenceError) as caught:
            rx.fit(net, x, y, optimizer=rx.optim.sgd(1e4), epochs=50)
        error = caught.value
        assert f"the loss is not finite at epoch {error.epoch}" in str(error)
        assert len(error.history["loss"]) == error.epoch - 1
        assert np.isfinite(error.history["loss"]).all()
        assert error.epoch > 1
        good, _ = net.value_and_grad(error.params, x.astype("f4"), y.astype("f4"))
        assert float(good) == pytest.approx(error.history["loss"][-1], rel=1e-5)

    @pytest.mark.parametrize("at", [1, 4, 5])
    def test_a_planted_nan_names_its_epoch(self, at):
        x, y = windows()
        calls = []

        def poisoned(pred, target, weight=None, total=None):
            calls.append(None)
            value, dpred = mse(pred, target, weight, total)
            return (value * np.nan if len(calls) == at else value), dpred

        with pytest.raises(rx.DivergenceError) as caught:
            rx.fit(NET, x, y, optimizer=rx.optim.sgd(0.01), epochs=5, loss=poisoned, workers=1)
        assert caught.value.epoch == at
        assert len(caught.value.history["loss"]) == at - 1

    @pytest.mark.parametrize("epochs", [1, 13, 20])
    def test_parameters_broken_by_the_last_update(self, epochs, monkeypatch):
        """No loss sees them any more; on an accelerator they end a chunk of ten."""
        x, y = windows(8)
        calls = []

        def poisoned(pred, target, weight=None, total=None):
            calls.append(None)
            value, dpred = mse(pred, target, weight, total)
            return value, dpred * (np.nan if len(calls) in breaking else 1.0)

        options = {"optimizer": rx.optim.sgd(0.01), "epochs": epochs, "backend": FLOAT64}
        found = []
        for accelerated in (False, True):
            calls.clear()
            # On an accelerator the last chunk is done again, one by one.
            breaking = {epochs, epochs + (epochs - 1) % 10 + 1} if accelerated else {epochs}
            monkeypatch.setattr(training_loop, "on_accelerator", lambda backend, a=accelerated: a)
            with pytest.raises(rx.DivergenceError, match="updated parameters are not") as caught:
                rx.fit(NET, x, y, loss=poisoned, workers=1, **options)
            found.append(caught.value)
        assert found[0].epoch == found[1].epoch == epochs
        assert len(found[0].history["loss"]) == epochs
        good, _ = NET.value_and_grad(found[0].params, x, y)
        assert float(good) == pytest.approx(found[0].history["loss"][-1], rel=1e-13)
        for name, p in found[0].params.items():
            assert np.array_equal(found[1].params[name], p)

    def test_a_broken_gradient_of_a_line_search_is_divergence_too(self):
        x, y = windows()

        def poisoned(pred, target, weight=None, total=None):
            value, dpred = mse(pred, target, weight, total)
            return value, dpred * np.nan

        with pytest.raises(rx.DivergenceError) as caught:
            rx.fit(NET, x, y, optimizer=rx.optim.lbfgs(), epochs=3, loss=poisoned)
        assert caught.value.epoch == 1
        assert "diverged: LBFGS: the gradient is not finite at epoch 1." in str(caught.value)
        assert isinstance(caught.value.__cause__, rx.optim.NotFiniteError)

    def test_an_error_of_your_own_is_not_taken_for_divergence(self):
        x, y = windows()

        def own_loss(pred, target, weight=None, total=None):
            raise FloatingPointError("of the loss")

        def own_callback(epoch):
            raise FloatingPointError("of the callback")

        for options in ({"loss": own_loss}, {"callbacks": [own_callback]}):
            for optimizer in (rx.optim.sgd(0.01), rx.optim.lbfgs()):
                with pytest.raises(FloatingPointError, match=r"^of the (loss|callback)$") as caught:
                    rx.fit(NET, x, y, optimizer=optimizer, epochs=3, workers=1, **options)
                assert type(caught.value) is FloatingPointError

    def test_it_can_be_pickled(self):
        """So a pool of processes returns it, instead of breaking."""
        history = {"loss": [1.0, 2.0]}
        error = rx.DivergenceError(3, {"w": np.ones(2)}, history, "the loss is not finite")
        again = pickle.loads(pickle.dumps(error))
        assert type(again) is rx.DivergenceError
        assert str(again) == str(error)
        assert (again.epoch, again.history, again.what) == (3, history, "the loss is not finite")
        assert np.array_equal(again.params["w"], np.ones(2))

    @pytest.mark.parametrize("options", [{"activation": "relu"}, {}, {"read": "max"}])
    def test_a_nan_shows(self, options):
        """relu and max must not take it for an idle unit or a small value."""
        net = rx.Network(hidden_size=4, **options)
        params = net.init(0, FLOAT64)
        params["layer0.w_xh"] = params["layer0.w_xh"] * np.nan
        with np.errstate(invalid="ignore"):
            pred, _ = net.forward(params, np.ones((2, 3, 1)))
        assert np.isnan(pred).all()

    def test_given_parameters_must_be_finite(self):
        params = {k: p * np.nan for k, p in NET.init(0).items()}
        with pytest.raises(ValueError, match="the given params have values that are not finite"):
            rx.fit(NET, *windows(), optimizer=rx.optim.adam(), epochs=1, params=params)

    @pytest.mark.parametrize("at", [1, 5, 10, 11, 12, 21])
    def test_on_an_accelerator_the_chunk_is_replayed_to_find_the_epoch(self, at, monkeypatch):
        """Losses are read every ten epochs there; what is found must be the same."""
        x, y = windows(8)

        def poisoned(pred, target, weight=None, total=None):
            # Gradients that push all predictions up by a step each: the epoch is in the data.
            value = np.mean(pred - target)
            broken = value > threshold
            return (np.asarray(np.nan) if broken else value), -np.ones_like(pred) / pred.size

        options = {"optimizer": rx.optim.sgd(0.01), "epochs": 30, "backend": FLOAT64}
        threshold = np.inf
        losses = rx.fit(NET, x, y, loss=poisoned, **options).history["loss"]
        assert losses == sorted(losses)
        threshold = -np.inf if at == 1 else (losses[at - 2] + losses[at - 1]) / 2
        found, told = [], []
        for accelerated in (False, True):
            monkeypatch.setattr(training_loop, "on_accelerator", lambda backend, a=accelerated: a)
            told.append([])
            watch = [lambda epoch, to=told[-1]: to.append((epoch.number, epoch.loss))]
            with pytest.raises(rx.DivergenceError) as caught:
                rx.fit(NET, x, y, loss=poisoned, callbacks=watch, **options)
            found.append(caught.value)
        assert found[0].epoch == found[1].epoch == at
        assert found[0].history == found[1].history == {"loss": losses[: at - 1]}
        assert told[0] == told[1] == list(enumerate(losses[: at - 1], start=1))
        for name, p in found[0].params.items():
            assert np.array_equal(found[1].params[name], p)


class TestFarAboveTheLowest:
    """A loss that stays finite may have diverged all the same."""

    @staticmethod
    def see(losses):
        watch = Watch()
        for epoch, loss in enumerate(losses, start=1):
            watch.see(loss)
            if watch.diverged:
                return epoch, watch.diverged
        return None, ""

    def test_for_a_hundred_epochs(self):
        epoch, why = self.see([1.0, 0.05, *[0.6] * 200])
        assert epoch == 102
        assert why == (
            "the loss has been over 10 times its lowest, 0.05 of epoch 2, for 100 epochs"
        )

    @pytest.mark.parametrize(
        "losses",
        [
            [1.0, 0.05, *[0.49] * 200],  # not ten times
            [1.0, 0.05, *[0.6] * 99, 0.4, *[0.6] * 99],  # comes back
            [1.0, 1e-9, *[0.009] * 200],  # below a hundredth of the first: no harm
            [0.0, *[0.0] * 200],
        ],
        ids=["near", "back", "low", "zero"],
    )
    def test_and_not_otherwise(self, losses):
        assert self.see(losses) == (None, "")

    @pytest.mark.parametrize("accelerated", [False, True])
    def test_ends_training_and_keeps_the_parameters_of_the_lowest(self, accelerated, monkeypatch):
        monkeypatch.setattr(training_loop, "on_accelerator", lambda backend: accelerated)
        x, y = windows(8)
        calls = []

        def leaps(pred, target, weight=None, total=None):
            """Falls to its lowest at the 20th epoch, then is a hundred times as high."""
            calls.append(None)
            _, dpred = mse(pred, target, weight, total)
            return np.asarray(1.0 / len(calls) if len(calls) <= 21 else 5.0), dpred

        told = []
        with pytest.raises(rx.DivergenceError, match="over 10 times its lowest.*clip_norm=") as e:
            rx.fit(
                NET, x, y, optimizer=rx.optim.sgd(0.01), epochs=500, loss=leaps, workers=1,
                backend=FLOAT64, callbacks=[told.append],
            )  # fmt: skip
        error = e.value
        assert error.epoch == (130 if accelerated else 121)
        assert len(error.history["loss"]) == error.epoch
        assert len(told) == error.epoch - (10 if accelerated else 1), "no checkpoint of it"
        expected = rx.fit(
            NET, x, y, optimizer=rx.optim.sgd(0.01), epochs=20, workers=1, backend=FLOAT64
        )
        for name, p in expected.params.items():
            assert np.array_equal(error.params[name], p)

    def test_of_a_warm_start_nothing_is_known(self):
        """Its first loss does not say how high is high."""
        t = np.arange(200.0)
        x, y = rx.make_windows(np.sin(t / 5.0), 10)
        net = rx.Network(hidden_size=8)
        good = rx.fit(net, x, y, optimizer=rx.optim.lbfgs(), epochs=300, backend=FLOAT64)
        options = {"optimizer": rx.optim.adam(0.01), "params": good.params, "backend": FLOAT64}
        warm = rx.fit(net, x, y, epochs=150, **options)
        assert max(warm.history["loss"]) > 1e3 * warm.history["loss"][0]
        resumed = rx.fit(
            net, x, y, epochs=200, optimizer=rx.optim.adam(0.01), backend=FLOAT64, resume=warm
        )
        assert len(resumed.history["loss"]) == 200

    @pytest.mark.parametrize("losses", [[0.0, *[1e-9] * 200], [-1e-3, *[-1e-6] * 200]])
    def test_a_loss_of_zero_or_below_has_no_measure(self, losses):
        assert self.see(losses) == (None, "")

    def test_parameters_broken_by_the_update_before_a_stop(self):
        """No epoch follows that would see them."""
        x, y = windows(8)
        calls = []

        def poisoned(pred, target, weight=None, total=None):
            calls.append(None)
            value, dpred = mse(pred, target, weight, total)
            return value, dpred * (np.nan if len(calls) == 3 else 1.0)

        with pytest.raises(rx.DivergenceError, match="parameters are not finite at epoch 3"):
            rx.fit(
                NET, x, y, optimizer=rx.optim.sgd(0.01), epochs=9, loss=poisoned, workers=1,
                callbacks=[lambda epoch: "enough" if epoch.number == 3 else None],
            )  # fmt: skip
