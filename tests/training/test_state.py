"""The state of a training: what belongs to the run, and what is kept of it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import small_fits
from problems import windows
from small_fits import FLOAT64, NET, assert_equal, fit

import rnn_xp as rx
from rnn_xp import checkpoint
from rnn_xp.checkpoint import CheckpointError
from rnn_xp.engines.blocks import Batch, Blocks
from rnn_xp.training import files, identity
from rnn_xp.training.callbacks import Checkpoint
from rnn_xp.training.ranks import digest


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
        assert caught[0].filename == small_fits.__file__  # the line that called fit

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
