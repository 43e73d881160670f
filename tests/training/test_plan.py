"""The plan: what is refused before any data move, and what is known from shapes alone."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from problems import windows

import rnn_xp as rx
from rnn_xp.backend import Backend
from rnn_xp.checkpoint import CheckpointError
from rnn_xp.engines.blocks import Batch
from rnn_xp.training import inputs
from rnn_xp.training.callbacks import Checkpoint
from rnn_xp.training.plan import make_plan

NET = rx.Network(input_size=1, hidden_size=8, output_size=1)
OTHER = rx.Network(input_size=1, hidden_size=9, output_size=1)
FLOAT64 = rx.get_backend("numpy", dtype="float64")


def fit(epochs=2, data=None, **options):
    x, y = windows() if data is None else data
    return rx.fit(NET, x, y, epochs=epochs, **{"optimizer": rx.optim.adam(0.02), **options})


@pytest.fixture
def moved(monkeypatch):
    """What has gone to a device, or through the door."""
    names = []
    asarray, enter = Backend.asarray, inputs.enter

    def spy_on_asarray(self, *args, **options):
        names.append("an array")
        return asarray(self, *args, **options)

    def spy_on_enter(*args, **options):
        names.append("the data")
        return enter(*args, **options)

    monkeypatch.setattr(Backend, "asarray", spy_on_asarray)
    monkeypatch.setattr(inputs, "enter", spy_on_enter)
    return names


def test_the_spies_see_a_training(moved):
    fit()
    assert {"the data", "an array"} <= set(moved)


class TestAResumeIsRefusedBeforeAnyDataMove:
    CHANGES = (
        ({"optimizer": rx.optim.adam(0.03)}, r"has optimizer 'Adam\(learning_rate=0.02"),
        ({"seed": 4}, "has seed 0, but this one has 4"),
        ({"batch_size": 30}, "has batch_size None, but this one has 30"),
        ({"loss": "mae"}, "has loss 'mse', but this one has 'mae'"),
        ({"block_rows": 11}, "has block_rows 1040, but this one has 11"),
        ({"truncate": (2, 2)}, r"has truncate None, but this one has \[2, 2\]"),
        ({"validation": 0.2}, "has rows 60, but this one has"),
        ({"validation": windows()}, "was trained without validation, unlike this one"),
        ({"params": NET.init(0)}, "resume= brings its own params and opt_state"),
    )

    @pytest.mark.parametrize(("change", "message"), CHANGES)
    @pytest.mark.parametrize("stored", [False, True], ids=["from memory", "from a file"])
    def test_other_settings(self, change, message, stored, tmp_path, moved):
        half = fit(callbacks=[Checkpoint(tmp_path)])
        moved.clear()
        with pytest.raises(ValueError, match=message):
            fit(4, resume=tmp_path if stored else half, **change)
        assert moved == []

    def test_with_validation_before_and_without_now(self, moved):
        half = fit(validation=windows())
        moved.clear()
        with pytest.raises(ValueError, match="was trained with validation, unlike this one"):
            fit(4, resume=half)
        assert moved == []

    def test_another_dtype_or_network_in_a_file(self, tmp_path, moved):
        fit(callbacks=[Checkpoint(tmp_path)])
        x, y = windows()
        moved.clear()
        with pytest.raises(CheckpointError, match="layer0.b_h is float32, but the backend"):
            fit(4, resume=tmp_path, backend=FLOAT64)
        with pytest.raises(CheckpointError, match="is of another network"):
            rx.fit(OTHER, x, y, optimizer=rx.optim.adam(0.02), epochs=4, resume=tmp_path)
        assert moved == []

    def test_only_the_digests_are_compared_after_the_data_are_in(self, moved):
        half = fit()
        x, y = windows()
        moved.clear()
        with pytest.raises(ValueError, match="has other values in its data than this one"):
            fit(4, data=(x + 1.0, y), resume=half)
        assert "the data" in moved


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"optimizer": "adam"}, "optimizer must be an object"),
        ({"epochs": 0}, "epochs must be"),
        ({"seed": -1}, "seed must be"),
        ({"batch_size": 61}, "batch_size must be"),
        ({"workers": 0}, "workers must be"),
        ({"block_rows": 0}, "block_rows must be"),
        ({"memory_budget": 1000}, "memory_budget=1000 bytes is too little"),
        ({"patience": 0}, "patience must be"),
        ({"tolerance": 1.0}, "tolerance must be"),
        ({"callbacks": print}, "callbacks must be a list"),
        ({"reduction": "sum"}, "reduction must be"),
        ({"truncate": (2, 1)}, "1 <= k1 <= k2"),
        ({"validation": 1.0}, "validation must be a share"),
        ({"validation": "last"}, "validation must be a share such as 0.2, a pair"),
        ({"validation": (np.zeros((3, 5)), np.zeros((3, 1)))}, "fit: validation: x must have"),
        (
            {"validation": {"x": windows()[0], "y": windows()[1], "lengths": np.ones(3)}},
            "fit: validation: lengths must have shape",
        ),
        ({"gap": 3}, "gap= goes with a share"),
        ({"mask": np.ones((60, 4), bool)}, "mask must have shape"),
        ({"params": OTHER.init(0)}, r"params must be those of the network: layer0.b_h .*\(9,\)"),
        ({"params": {}}, "params must be those of the network: .* got none"),
        ({"params": {**NET.init(0), "w": np.ones(2)}}, "w has the shape of no parameter"),
        ({"resume": 3}, "resume must be a path"),
    ],
)
def test_what_is_refused_moves_nothing(change, message, moved):
    moved.clear()
    with pytest.raises((ValueError, TypeError), match=message):
        fit(**change)
    assert moved == []


class TestFromShapesAlone:
    SETTINGS = (
        {"optimizer": rx.optim.adam(0.02), "loss": "mse", "batch_size": None, "truncate": None}
        | {"validation": None, "gap": None, "params": None, "opt_state": None, "resume": None}
        | {"seed": 3, "workers": 2, "memory_budget": None, "block_rows": None, "backend": FLOAT64}
        | {"comm": None, "reduction": "exact", "sharded": False}
    )

    def plan(self, rows=60, **change):
        # No value of them may be looked at.
        given = Batch(np.full((rows, 5, 1), np.nan), np.full((rows, 1), np.nan))
        return make_plan(NET, given, **{**self.SETTINGS, **change})

    def test_the_full_batch(self, moved):
        plan = self.plan()
        assert (plan.rows, plan.batch_size, plan.block_rows) == (60, None, 1040)
        assert (plan.trained, plan.held_out, plan.workers) == (range(60), None, 2)
        assert (plan.ranks, plan.shares, plan.saved) == (None, None, None)
        assert plan.settings["seed"] == 3
        assert moved == []

    def test_minibatches_and_a_share_to_validate_on(self):
        plan = self.plan(validation=0.2, gap=4, batch_size=np.int64(16))
        assert plan.trained == range(44)
        assert plan.held_out == range(48, 60)
        assert (plan.rows, plan.batch_size) == (44, 16)
        assert self.plan(batch_size=60).batch_size is None

    def test_it_cannot_be_changed(self):
        with pytest.raises(dataclasses.FrozenInstanceError):
            self.plan().rows = 3


class TestMemoryBudgetKnowsTheBatch:
    NET = rx.Network(hidden_size=50)
    BUDGET = 4 * 2**20

    def fit(self, **options):
        x, y = rx.make_windows(np.sin(np.arange(1200.0) / 9.0), seq_length=10)
        options = {"optimizer": rx.optim.adam(0.01), "memory_budget": self.BUDGET, **options}
        return rx.fit(self.NET, x, y, epochs=1, backend=FLOAT64, **options)

    def test_a_batch_of_32_trains_in_4_mib(self):
        bounded = self.fit(batch_size=32, workers=2)
        free = self.fit(batch_size=32, workers=2, memory_budget=None)
        assert bounded.history == free.history
        assert bounded.block_rows == 1040
        # A block of 32 rows takes about 0.9 MB in float64, so that both threads have room.
        assert bounded.workers == 2
        assert self.fit(batch_size=32, workers=9).workers == 4

    def test_the_full_batch_does_not(self):
        with pytest.raises(ValueError, match="is too little: one block of 1040 rows and 10 steps"):
            self.fit()

    def test_blocks_of_a_validation_count_as_well(self):
        with pytest.raises(ValueError, match="is too little: one block of 595 rows"):
            self.fit(batch_size=32, validation=0.5)
        assert self.fit(batch_size=32, validation=0.02).history["validation_loss"]
