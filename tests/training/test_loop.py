"""The loop over epochs: divergence, what decides after every epoch, what callbacks are told."""

from __future__ import annotations

import numpy as np
import pytest
from small_fits import assert_equal, fit, saying

import rnn_xp as rx
from rnn_xp.optim.schedules import Plateau, ReduceOnPlateau
from rnn_xp.training import loop as training_loop
from rnn_xp.training.watch import Watch


class TestDetector:
    """Over ten times the lowest for a hundred epochs in a row."""

    @pytest.mark.parametrize(
        ("losses", "ends"),
        [
            ([1.0, 0.1, *[1.01] * 100], 102),
            ([1.0, 0.1, *[1.0] * 200], None),  # ten times is not over ten times
            ([1.0, 0.1, *[1.01] * 99, 0.5, *[1.01] * 99], None),
            ([1.0, 0.1, *[1.01] * 99, 0.5, *[1.01] * 100], 202),
            ([1.0, 1e-9, *[0.01] * 200], None),  # a thousandth of the first is low enough
            ([1.0, 1e-9, *[0.011] * 100], 102),
            ([1.0, 1e-9, *[0.005] * 200], None),
        ],
    )
    def test_when(self, losses, ends):
        watch, at = Watch(), None
        for epoch, loss in enumerate(losses, start=1):
            watch.see(loss)
            if watch.diverged and at is None:
                at = epoch
        assert at == ends

    def test_what_is_said_and_kept(self):
        losses = [1.0, 0.5, 0.01, *[0.2] * 200]
        with pytest.raises(rx.DivergenceError) as caught:
            fit(loss=saying(losses), epochs=203)
        error = caught.value
        assert (
            "the loss has been over 10 times its lowest, 0.01 of epoch 3, for 100 epochs at epoch "
            "103." in str(error)
        )
        assert (error.epoch, error.history["loss"]) == (103, losses[:103])
        assert_equal(error.params, fit(epochs=2).params)  # whose loss was the lowest

    def test_goes_on_counting_in_a_resumed_run(self):
        losses = [1.0, 0.01, *[0.2] * 200]
        half = fit(loss=saying(losses), epochs=60)
        with pytest.raises(rx.DivergenceError) as caught:
            fit(loss=saying(losses[60:]), epochs=202, resume=half.state)
        assert (caught.value.epoch, caught.value.history["loss"]) == (102, losses[:102])

    def test_a_broken_validation_keeps_what_had_the_lowest_loss(self):
        # Each epoch asks for the loss twice, the second time of the validation rows.
        losses = [1.0, 1.0, 0.5, 1.0, 0.7, np.inf]
        with pytest.raises(rx.DivergenceError, match="validation loss is not finite") as caught:
            fit(loss=saying(losses), epochs=9, validation=0.2)
        assert caught.value.epoch == 3
        assert caught.value.history == {"loss": [1.0, 0.5], "validation_loss": [1.0, 1.0]}
        assert_equal(caught.value.params, fit(epochs=1, validation=0.2).params)


@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": rx.optim.sgd(1e-300), "patience": 4},
        {"optimizer": rx.optim.lbfgs(tolerance=1e-1)},
        {"optimizer": rx.optim.sgd(ReduceOnPlateau(2.0, patience=1))},
        {"validation": 0.2},
    ],
    ids=["patience", "lbfgs", "plateau", "validation"],
)
def test_what_decides_after_every_epoch_does_so_on_an_accelerator_too(options, monkeypatch):
    found = []
    for accelerated in (False, True):
        monkeypatch.setattr(training_loop, "on_accelerator", lambda backend, a=accelerated: a)
        found.append(fit(epochs=25, **options))
    assert found[0].history == found[1].history
    assert found[0].stopped == found[1].stopped
    assert_equal(found[0].params, found[1].params)


class TestTold:
    def test_patience_is_told_as_the_reason(self):
        told = []
        found = fit(epochs=50, optimizer=rx.optim.sgd(1e-300), patience=4, callbacks=[told.append])
        assert [e.stopped for e in told] == ["", "", "", "", found.stopped]
        assert [e.final for e in told] == [False] * 4 + [True]

    def test_an_equal_validation_loss_is_no_improvement(self):
        told = []
        found = fit(
            epochs=4, optimizer=rx.optim.sgd(1e-300), validation=0.2, callbacks=[told.append]
        )
        assert len(set(found.history["validation_loss"])) == 1
        assert found.best_epoch == 1
        assert [e.improved for e in told] == [True, False, False, False]

    def test_a_plateau_is_one_of_the_validation_loss(self):
        schedule, told = ReduceOnPlateau(0.1, patience=1), []
        found = fit(
            epochs=30, optimizer=rx.optim.adam(schedule), validation=0.2, callbacks=[told.append]
        )

        def rates(losses):
            plateau = Plateau()
            for loss in losses:
                plateau = schedule.observe(plateau, loss)
                yield schedule.rate(plateau)

        assert [e.learning_rate for e in told] == list(rates(found.history["validation_loss"]))
        assert list(rates(found.history["loss"])) != list(rates(found.history["validation_loss"]))
