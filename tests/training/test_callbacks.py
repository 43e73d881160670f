"""Callbacks: what they are told, how they end a training, and the three that come along."""

from __future__ import annotations

import os
import sys
import time
import warnings

import numpy as np
import pytest

import rnn_xp as rx
from rnn_xp import checkpoint
from rnn_xp.training import loop as training_loop
from rnn_xp.training.callbacks import Checkpoint, Epoch, History, Progress

NET = rx.Network(hidden_size=4)


def fit(**options):
    t = np.arange(65, dtype=float)
    x, y = rx.make_windows(np.sin(t / 3.0) + 0.3 * np.cos(t), seq_length=5)
    options = {"optimizer": rx.optim.adam(0.01), "epochs": 3, **options}
    return rx.fit(NET, x, y, **options)


class TestEpoch:
    def test_tells_all_there_is(self):
        told = []
        result = fit(
            epochs=12, validation=0.2, optimizer=rx.optim.adam(rx.optim.Cosine(0.3, 12)),
            callbacks=[told.append],
        )  # fmt: skip
        assert [e.number for e in told] == list(range(1, 13))
        assert {e.epochs for e in told} == {12}
        assert [e.loss for e in told] == result.history["loss"]
        assert [e.validation_loss for e in told] == result.history["validation_loss"]
        lowest = np.minimum.accumulate(result.history["validation_loss"])
        assert [e.improved for e in told] == [
            v == low and (k == 0 or v < lowest[k - 1])
            for k, (v, low) in enumerate(
                zip(result.history["validation_loss"], lowest, strict=True)
            )
        ]
        schedule = rx.optim.Cosine(0.3, 12)
        assert [e.learning_rate for e in told] == [schedule(k) for k in range(1, 13)]
        assert [e.final for e in told] == [False] * 11 + [True]

    def test_its_state_is_that_after_the_epoch(self):
        states = []
        result = fit(callbacks=[lambda epoch: states.append(epoch.state())])
        assert [state.epoch for state in states] == [1, 2, 3]
        assert states[2].history == result.history
        assert states[0].history["loss"] == result.history["loss"][:1]
        for state, whole in ((states[2], result), (states[1], fit(epochs=2))):
            for name, p in whole.params.items():
                assert np.array_equal(state.params[name], p)

    def test_without_validation_and_learning_rate(self):
        told = []
        fit(optimizer=rx.optim.lbfgs(), epochs=1, callbacks=[told.append])
        assert (told[0].validation_loss, told[0].improved, told[0].learning_rate) == (
            *(None, False, None),
        )

    def test_on_an_accelerator_states_exist_where_the_device_is_read(self, monkeypatch):
        monkeypatch.setattr(training_loop, "on_accelerator", lambda backend: True)
        told = []
        fit(epochs=25, callbacks=[told.append])
        assert [e.number for e in told if e.state is not None] == [10, 20, 25]
        assert [e.state().epoch for e in told if e.state is not None] == [10, 20, 25]
        told.clear()
        fit(epochs=12, validation=0.2, callbacks=[told.append])
        assert all(e.state is not None for e in told)


class TestEnding:
    def test_a_sentence_ends_training_and_those_after_it_are_told(self):
        before, after = [], []
        result = fit(
            epochs=50,
            callbacks=[
                before.append,
                lambda epoch: "enough" if epoch.number == 4 else None,
                after.append,
                lambda epoch: "too late" if epoch.stopped else "",
            ],
        )
        assert result.stopped == "enough"
        assert len(result.history["loss"]) == len(before) == len(after) == 4
        assert [e.stopped for e in after] == ["", "", "", "enough"]
        assert [e.final for e in after] == [False, False, False, True]
        assert before[-1].stopped == ""

    def test_training_can_go_on_from_there(self):
        half = fit(epochs=9, callbacks=[lambda e: "pause" if e.number == 4 else None])
        assert fit(epochs=9, resume=half.state).history == fit(epochs=9).history

    def test_within_a_chunk_of_an_accelerator_it_ends_with_the_chunk(self, monkeypatch):
        monkeypatch.setattr(training_loop, "on_accelerator", lambda backend: True)
        result = fit(epochs=50, callbacks=[lambda e: "enough" if e.number == 4 else None])
        assert len(result.history["loss"]) == 10
        assert result.state.epoch == 10

    def test_a_list_of_them_and_sentences_are_wanted(self):
        with pytest.raises(TypeError, match="callbacks must be a list"):
            fit(callbacks=History())
        with pytest.raises(TypeError, match="must return None, or a sentence .* returned True"):
            fit(callbacks=[lambda epoch: True])

    def test_a_state_is_that_of_its_epoch_whenever_it_is_asked_for(self):
        told = []
        fit(epochs=5, validation=0.2, callbacks=[told.append])
        state = told[1].state()
        assert state.epoch == len(state.history["loss"]) == 2
        assert state.best.epoch <= 2

    def test_an_exception_passes_through(self):
        def broken(epoch):
            raise RuntimeError("no more")

        with pytest.raises(RuntimeError, match="no more"):
            fit(callbacks=[broken])


class TestHistory:
    def test_survives_what_ends_the_training(self):
        history = History()

        def interrupt(epoch):
            if epoch.number == 3:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            fit(epochs=9, callbacks=[history, interrupt])
        assert [e.loss for e in history.epochs] == fit(epochs=3).history["loss"]
        assert {e.state for e in history.epochs} == {None}


class TestCheckpoint:
    @staticmethod
    def epochs_in(folder):
        arrays, about = checkpoint.load(folder / "last.safetensors")
        return about["training"]["epoch"], len(arrays["history.loss"])

    def test_the_folder_is_made(self, tmp_path):
        fit(epochs=2, callbacks=[Checkpoint(tmp_path / "runs" / "first")])
        assert self.epochs_in(tmp_path / "runs" / "first") == (2, 2)

    def test_a_folder_that_cannot_be_used_costs_no_training(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(
            FileExistsError, match=r"Checkpoint: cannot write into the folder .*file"
        ):
            Checkpoint(tmp_path / "file")

    @pytest.mark.parametrize("every", [2, None])
    def test_a_second_training_is_written_like_the_first(self, tmp_path, every):
        keep, seen = Checkpoint(tmp_path, every=every, seconds=0.0), []
        fit(epochs=9, callbacks=[keep])
        fit(
            epochs=4,
            seed=1,
            validation=0.2,
            callbacks=[keep, lambda epoch: seen.append(self.epochs_in(tmp_path)[0])],
        )
        assert seen == ([9, 2, 2, 4] if every else [1, 2, 3, 4])
        _, about = checkpoint.load(tmp_path / "best.safetensors")
        assert 1 <= about["best"]["epoch"] <= 4

    def test_every_so_many_epochs_and_at_the_end(self, tmp_path):
        keep, found = Checkpoint(tmp_path, every=3), []

        def look(epoch):
            there = keep.last.exists()
            found.append(self.epochs_in(tmp_path)[0] if there else 0)

        fit(epochs=8, callbacks=[keep, look])
        assert found == [0, 0, 3, 3, 3, 6, 6, 8]

    @pytest.mark.parametrize("every", [7, 10, 25])
    def test_on_an_accelerator_at_the_next_read(self, every, tmp_path, monkeypatch):
        monkeypatch.setattr(training_loop, "on_accelerator", lambda backend: True)
        keep, found = Checkpoint(tmp_path, every=every), []

        def look(epoch):
            if epoch.state is not None and keep.last.exists():
                found.append(self.epochs_in(tmp_path)[0])

        half = fit(epochs=13)
        fit(epochs=53, resume=half, callbacks=[keep, look])
        expected = {7: [23, 33, 43, 53], 10: [23, 33, 43, 53], 25: [33, 33, 53]}
        assert found == expected[every]

    def test_every_so_many_seconds(self, tmp_path, monkeypatch):
        clock = iter(range(0, 1000, 5))
        monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
        keep, found = Checkpoint(tmp_path), []
        # It asks the clock once per epoch, and once after each write: 20 s are four epochs.
        fit(
            epochs=12,
            callbacks=[
                keep,
                lambda e: found.append(keep.last.exists() and self.epochs_in(tmp_path)[0]),
            ],
        )
        assert found == [False, False, False, 4, 4, 4, 4, 8, 8, 8, 8, 12]

    def test_when_training_is_ended(self, tmp_path):
        keep = Checkpoint(tmp_path)
        fit(epochs=50, callbacks=[lambda e: "enough" if e.number == 7 else None, keep])
        assert self.epochs_in(tmp_path) == (7, 7)

    def test_best_is_the_model_of_the_lowest_validation_loss(self, tmp_path):
        keep = Checkpoint(tmp_path, every=1, about={"more": 1})
        writes = []
        result = fit(
            epochs=30, validation=0.2, optimizer=rx.optim.adam(0.3),
            callbacks=[keep, lambda e: writes.append(os.stat(keep.best).st_mtime_ns)],
        )  # fmt: skip
        arrays, about = checkpoint.load(keep.best)
        assert about["best"] == {
            "epoch": result.best_epoch,
            "validation_loss": min(result.history["validation_loss"]),
        }
        assert about["more"] == 1
        assert arrays.keys() == NET.shapes.keys()
        for name, p in result.best_params.items():
            assert np.array_equal(arrays[name], p)
        assert len(set(writes)) < 30, "written when there is a better one, and only then"

    def test_no_best_without_validation(self, tmp_path):
        fit(callbacks=[Checkpoint(tmp_path)])
        assert [p.name for p in tmp_path.iterdir()] == ["last.safetensors"]

    def test_parameters_that_are_broken_are_not_kept(self, tmp_path):
        """The file before them is worth more; the next loss ends the training."""

        def poisoned(pred, target, weight=None, total=None):
            value, dpred = rx.losses.mse(pred, target, weight, total)
            calls.append(None)
            return value, dpred * (np.nan if len(calls) == 4 else 1.0)

        calls: list = []
        with pytest.raises(rx.DivergenceError) as caught:
            fit(epochs=9, loss=poisoned, workers=1, callbacks=[Checkpoint(tmp_path, every=1)])
        assert caught.value.epoch == 5
        assert self.epochs_in(tmp_path) == (3, 3)

    def test_an_optimiser_of_your_own_is_kept_if_its_state_can_be(self, tmp_path):
        class Plain(rx.optim.Optimizer):
            start = ()

            def init(self, params):
                return self.start

            def update(self, grads, state, params, **more):
                return {k: p - 0.1 * grads[k] for k, p in params.items()}, state

            def __repr__(self):
                return "Plain()"

        class Strange(Plain):
            start = object()

        assert fit(optimizer=Strange()).history["loss"]
        with pytest.raises(TypeError, match="Strange cannot be kept in a file: .* has a object at"):
            fit(optimizer=Strange(), callbacks=[Checkpoint(tmp_path)])
        fit(optimizer=Plain(), callbacks=[Checkpoint(tmp_path)])
        resumed = fit(optimizer=Plain(), epochs=6, resume=tmp_path)
        assert resumed.history == fit(optimizer=Plain(), epochs=6).history

    def test_an_optimiser_without_the_base_class_is_refused(self):
        class Duck:
            init = update = staticmethod(lambda *args, **options: ())

        with pytest.raises(TypeError, match=r"derived from rnn_xp\.optim\.Optimizer; got .*Duck"):
            fit(optimizer=Duck())

    def test_bad_intervals(self, tmp_path):
        with pytest.raises(ValueError, match="every must be >= 1, got 0"):
            Checkpoint(tmp_path, every=0)
        with pytest.raises(ValueError, match="seconds must be >= 0, got nan"):
            Checkpoint(tmp_path, seconds=float("nan"))


class TestProgress:
    def test_prints_a_line_now_and_then(self, capsys):
        with Progress(lines=3) as progress:
            for number in range(1, 10):
                progress(Epoch(number, 9, 0.5))
        lines = capsys.readouterr().err.splitlines()
        assert [line.split()[1] for line in lines] == ["3/9", "6/9", "9/9"]

    def test_and_where_training_ends_early(self, capsys):
        with Progress(lines=1) as progress:
            progress(Epoch(1, 9, 0.5, validation_loss=0.25))
            progress(Epoch(2, 9, 0.5, validation_loss=0.25, stopped="enough"))
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("epoch 2/9  loss 0.5  validation 0.25  ")

    def test_goes_silent_if_nobody_reads(self):
        class Gone:
            def isatty(self):
                return False

            def write(self, text):
                raise BrokenPipeError

        with Progress(lines=9, file=Gone()) as progress:
            progress(Epoch(9, 9, 0.5))

    def test_a_bar_on_a_terminal(self, capsys, monkeypatch):
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
        with warnings.catch_warnings(), Progress() as progress:
            for number in range(5, 8):  # a resumed run
                progress(Epoch(number, 7, 0.5, validation_loss=0.25))
        err = capsys.readouterr().err
        assert "7/7" in err
        assert "loss 0.5" in err
        assert "validation 0.25" in err
        assert " 4/7" in err or " 5/7" in err
