"""Details of training that a planted bug once survived."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from problems import windows

import rnn_xp as rx
from rnn_xp import checkpoint
from rnn_xp.checkpoint import CheckpointError
from rnn_xp.engines.blocks import Batch, Blocks
from rnn_xp.losses import mse
from rnn_xp.optim.schedules import Plateau, ReduceOnPlateau
from rnn_xp.training import files, identity
from rnn_xp.training import loop as training_loop
from rnn_xp.training.callbacks import Checkpoint
from rnn_xp.training.ranks import digest
from rnn_xp.training.watch import Watch

NET = rx.Network(hidden_size=4)
FLOAT64 = rx.get_backend("numpy", dtype="float64")


def fit(**options):
    options = {"optimizer": rx.optim.adam(0.02), "backend": FLOAT64, "workers": 1, **options}
    return rx.fit(NET, *windows(), **options)


def assert_equal(params, expected):
    for name, p in expected.items():
        assert np.array_equal(params[name], p), name


def saying(values):
    """A loss of these values, one after the other, with the gradient of the real one."""
    values = iter(values)

    def loss(pred, target, weight=None, total=None):
        _, dpred = mse(pred, target, weight, total)
        return np.asarray(next(values)), dpred

    return loss


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


class TestKept:
    @pytest.fixture
    def kept(self, tmp_path):
        keep = Checkpoint(tmp_path)
        result = fit(epochs=5, callbacks=[keep])
        return keep.last, result.state

    def test_time_and_evaluations_add_up(self, kept):
        path, state = kept
        files.save(path, dataclasses.replace(state, seconds=1000.0))
        for resume in (dataclasses.replace(state, seconds=1000.0), path):
            found = fit(epochs=8, resume=resume)
            assert 1000.0 < found.seconds < 1060.0
            assert found.evaluations == found.state.evaluations == 8

    def test_a_moved_run_says_where_it_is_now(self, kept):
        path, state = kept
        moved = dataclasses.replace(state, run={**state.run, "where": {"backend": "other"}})
        files.save(path, moved)
        with pytest.warns(UserWarning, match="bits may differ") as caught:
            found = fit(epochs=6, resume=path)
        assert found.state.run == state.run
        assert caught[0].filename == __file__  # the line that called fit

    @pytest.mark.parametrize("key", ["seed", "optimizer", "data", "batch_size"])
    def test_a_description_with_less_or_more_is_refused(self, kept, key):
        _, state = kept
        run = {name: value for name, value in state.run.items() if name != key}
        for changed in ({**run, key: "x"}, {**run, "more": 1}, {} if key == "seed" else {key: "x"}):
            with pytest.raises(ValueError, match="the run to resume has"):
                fit(epochs=6, resume=dataclasses.replace(state, run={"where": 0, **changed}))

    def test_the_validation_rows_belong_to_the_run(self):
        x, y = windows(20)
        half = fit(epochs=2, validation=(x, y))
        assert len(fit(epochs=3, validation=(x, y), resume=half.state).history["loss"]) == 3
        with pytest.raises(ValueError, match="the run to resume has .*validation"):
            fit(epochs=3, validation=(x, y + 0.1), resume=half.state)

    def test_the_size_of_the_blocks_need_not_be_repeated(self):
        half = fit(epochs=2, block_rows=17)
        resumed, whole = fit(epochs=4, resume=half.state), fit(epochs=4, block_rows=17)
        assert resumed.block_rows == 17
        assert_equal(resumed.params, whole.params)

    def test_any_row_of_x_belongs_to_the_run(self):
        x, y = windows()
        half = fit(epochs=2)
        x = x.copy()
        x[30] += 0.1
        with pytest.raises(ValueError, match="the run to resume has .*data"):
            rx.fit(
                NET, x, y, epochs=3, optimizer=half.state.optimizer, backend=FLOAT64,
                resume=half.state,
            )  # fmt: skip

    def test_arrays_of_the_same_bytes_are_told_apart(self):
        def block(batch):
            return Blocks(batch, len(x), range(1), range(1))

        x, y = windows()
        flags = np.ones(x.shape[:2], bool)
        data = [
            Batch(x, y, mask=flags),
            Batch(x, y, reset=flags),
            Batch(x, y, mask=flags.T),
            Batch(x, y, mask=flags.view("i1")),
            Batch(x, y, lengths=np.full(len(x), 3)),
            Batch(x, y, lengths=np.full(len(x), 4)),
            Batch(x, y, reset=~flags),
        ]
        assert len({digest(block(batch), len(x), None) for batch in data}) == 7

    def test_integers_of_any_library_are_the_same_data(self):
        x, _ = windows()
        classes = np.arange(len(x))
        found = [
            digest(Blocks(Batch(x, classes.astype(kind)), len(x), range(1), range(1)), len(x), None)
            for kind in ("i4", "i8", "u1")
        ]
        assert len(set(found)) == 1

    def test_a_device_is_known_by_its_kind(self, monkeypatch):
        """On another GPU of the same kind a run goes on without a warning."""
        monkeypatch.setattr(type(FLOAT64), "device_kind", "cuda NVIDIA L4")
        assert identity.whereabouts(FLOAT64)["device"] == "cuda NVIDIA L4"

    def test_the_ends_of_ranges(self):
        with pytest.raises(ValueError, match="tolerance must be in"):
            fit(epochs=1, tolerance=1.0)
        with pytest.raises(ValueError, match="gap= goes with a share"):
            fit(epochs=1, validation=windows(20), gap=2)
        assert fit(epochs=1, validation=1e-3).state.run["rows"] == 60 - 1 - 5

    def test_one_broken_array_is_enough(self):
        params = NET.init(0, FLOAT64)
        for name in params:
            with pytest.raises(ValueError, match="given params have values that are not finite"):
                fit(epochs=1, params={**params, name: params[name] * np.nan})

    def test_history_is_float64_and_no_time_at_all_is_fine(self, kept):
        path, state = kept
        files.save(path, dataclasses.replace(state, seconds=0.0))
        assert len(fit(epochs=6, resume=path).history["loss"]) == 6
        arrays, about = checkpoint.load(path)
        arrays["history.loss"] = arrays["history.loss"].astype("f4")
        checkpoint.save(path, arrays, about)
        with pytest.raises(CheckpointError, match="one float64 for each of 5 epochs, got float32"):
            fit(epochs=6, resume=path)


def test_where_a_run_was_computed_names_the_blas_of_numpy_alone(monkeypatch):
    """Importing SciPy, which has its own, makes it no other run."""

    def pool(folder):
        return {
            "user_api": "blas", "internal_api": "openblas", "version": "0.3",
            "architecture": folder, "filepath": f"/lib/site-packages/{folder}.libs/openblas.so",
        }  # fmt: skip

    loaded = [pool("numpy"), pool("scipy"), {"user_api": "openmp", "filepath": "/lib/omp.so"}]
    monkeypatch.setattr("threadpoolctl.threadpool_info", lambda: loaded)
    identity._blas.cache_clear()
    try:
        assert identity.whereabouts(FLOAT64)["blas"] == ["openblas 0.3 numpy"]
        identity._blas.cache_clear()
        loaded[:] = [pool("system")]  # which all share
        assert identity.whereabouts(FLOAT64)["blas"] == ["openblas 0.3 system"]
    finally:
        identity._blas.cache_clear()
