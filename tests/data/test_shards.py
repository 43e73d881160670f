"""Data in many files, and data of which each rank has some: the result is that of one array."""

from __future__ import annotations

import functools

import numpy as np
import problems
import pytest
from hypothesis import given
from hypothesis import strategies as st
from runs import assert_same

import rnn_xp as rx
from rnn_xp.data.shards import Shards
from rnn_xp.distributed import CommError, simulate
from rnn_xp.training import inputs as training_data
from rnn_xp.training import ranks as training_ranks
from rnn_xp.training.callbacks import Checkpoint

ROWS = 90
WHOLE_BLOCKS = (14, 21, 55)  # rows of each rank; blocks have seven
UNEVEN = (10, 1, 79)
NET = rx.Network(hidden_size=8)
OPTIONS = {"epochs": 12, "block_rows": 7, "workers": 1, "optimizer": rx.optim.adam(0.02)}


def cut(array, counts):
    return np.split(np.asarray(array), np.cumsum(counts)[:-1])


class TestShards:
    PARTS = (np.arange(12.0).reshape(4, 3), np.arange(12.0, 15.0)[None], np.arange(15.0, 36.0))
    PARTS = (*PARTS[:2], PARTS[2].reshape(7, 3))
    WHOLE = np.concatenate(PARTS)

    @given(st.integers(-15, 15), st.integers(-15, 15), st.sampled_from([None, 1, 2, 5]))
    def test_slices(self, start, stop, step):
        found = Shards(self.PARTS)[start:stop:step, ...]
        assert np.array_equal(found, self.WHOLE[start:stop:step])

    @given(st.lists(st.integers(0, 11), max_size=9))
    def test_rows_by_index(self, index):
        found = Shards(self.PARTS)[np.asarray(index, dtype=int)]
        assert np.array_equal(found, self.WHOLE[index])

    @given(st.integers(0, 12), st.integers(0, 12), st.integers(0, 12), st.integers(0, 12))
    def test_some_rows_of_some_rows(self, a, b, c, d):
        found = Shards(self.PARTS).rows(a, b).rows(c, d)
        assert np.array_equal(np.asarray(found), self.WHOLE[a:b][c:d])
        assert found.shape == self.WHOLE[a:b][c:d].shape

    def test_further_axes(self):
        assert np.array_equal(Shards(self.PARTS)[2:9, 1:], self.WHOLE[2:9, 1:])
        assert np.array_equal(Shards(self.PARTS)[::4, 0], self.WHOLE[::4, 0])

    def test_another_dtype(self):
        shards = Shards(self.PARTS).astype("float32")
        assert shards.dtype == shards[3:5].dtype == np.asarray(shards).dtype == np.float32
        assert shards.rows(1, 9).dtype == shards.of_each(slice(1, 2))[:].dtype == np.float32

    def test_a_dtype_that_holds_all_values(self):
        found = Shards([np.asarray([1], "i1"), np.asarray([299])])
        assert np.asarray(found).tolist() == [1, 299]
        assert Shards([np.asarray([1]), np.asarray([0.5])]).dtype == np.float64

    def test_a_part_of_each_row(self):
        found = Shards(self.PARTS).of_each(slice(1, None)).rows(3, 7)
        assert np.array_equal(np.asarray(found), self.WHOLE[3:7, 1:])

    @pytest.mark.parametrize(
        ("key", "error"),
        [
            *((3, TypeError), (np.ones(12, bool), TypeError), (..., TypeError)),
            *(([0.0], TypeError), ([12], IndexError), ([0, -1], IndexError)),
        ],
    )
    def test_what_cannot_be_looked_up(self, key, error):
        with pytest.raises(error, match="of shards are read by|of these shards are 0..11"):
            Shards(self.PARTS)[key]

    def test_rows_are_read_where_they_are_looked_at(self, tmp_path):
        for number, part in enumerate(self.PARTS):
            np.save(tmp_path / f"{number}.npy", part)
        shards = rx.open_shards(sorted(tmp_path.glob("*.npy")))
        assert np.array_equal(np.asarray(shards), self.WHOLE)
        changed = np.lib.format.open_memmap(tmp_path / "2.npy", mode="r+")
        changed[-1] = 100.0
        changed.flush()
        assert shards[11:].tolist() == [[100.0] * 3]

    def test_files_that_hold_no_array(self, tmp_path):
        (tmp_path / "empty.npy").touch()
        (tmp_path / "text.npy").write_text("1, 2")
        np.savez(tmp_path / "two.npz", a=np.ones(3))
        for name, message in (("empty.npy", "cannot be mapped"), ("text.npy", "cannot be mapped")):
            with pytest.raises(ValueError, match=f"{name} {message}"):
                rx.open_shards([tmp_path / name])
        with pytest.raises(ValueError, match=r"two\.npz holds several arrays"):
            rx.open_shards([tmp_path / "two.npz"])
        with pytest.raises(TypeError, match="a list of paths, got 'x-0.npy'"):
            rx.open_shards("x-0.npy")

    @pytest.mark.parametrize("parts", [[], [np.zeros((2, 3)), np.zeros((2, 4))], [np.zeros(())]])
    def test_parts_that_do_not_fit(self, parts):
        with pytest.raises(ValueError, match="equal shape but for their rows"):
            Shards(parts)


def fit(comm=None, net=NET, data=None, **options):
    data = dict(zip("xy", problems.windows(ROWS), strict=True)) if data is None else data
    return rx.fit(net, **data, **{**OPTIONS, **options}, comm=comm)


class TestFiles:
    """`rnn_xp.open_shards` where an array would do."""

    @pytest.fixture
    def files(self, tmp_path):
        found = {}
        for name, array in zip("xy", problems.windows(ROWS), strict=True):
            for number, part in enumerate(cut(array, UNEVEN)):
                np.save(tmp_path / f"{name}-{number}.npy", part)
            found[name] = rx.open_shards(sorted(tmp_path.glob(f"{name}-*.npy")))
        return found

    OTHERS = (
        {},
        {"batch_size": 32},
        {"truncate": (2, 3)},
        {"validation": 0.2},
        {"optimizer": rx.optim.lbfgs()},
    )

    @pytest.mark.parametrize("options", OTHERS, ids=str)
    @pytest.mark.parametrize("size", [1, 3])
    def test_on_ranks_and_off(self, options, size, files):
        for found in simulate(size, lambda comm: fit(comm, data=files, **options)):
            assert_same(found, fit(**options))

    @pytest.mark.full("jax")
    @pytest.mark.cover("values")
    @pytest.mark.parametrize("name", ["array_api_strict", "jax", "numpy"])
    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_on_every_backend(self, name, dtype, files):
        if (name, dtype) == ("jax", "float64"):
            dtype = "float32"  # needs JAX_ENABLE_X64
        options = {"backend": rx.get_backend(name, dtype=dtype), "epochs": 3}
        assert_same(fit(data=files, **options), fit(**options))

    def test_all_is_never_read_at_once(self, files, monkeypatch):
        """By NumPy: a block in the full batch, a minibatch, a segment of truncated sequences."""
        most, original = [], Shards.__getitem__

        def spy(self, key):
            found = original(self, key)
            most.append(found.shape[0])
            return found

        monkeypatch.setattr(Shards, "__getitem__", spy)
        monkeypatch.setattr(training_data, "_PIECE", 60)  # values that are looked at together
        for options, limit in (({}, 60), ({"batch_size": 32}, 60), ({"truncate": (2, 3)}, 60)):
            most.clear()
            fit(data=files, epochs=2, **options)
            assert max(most) <= limit

    def test_weights_masks_and_lengths(self):
        data, net = many_to_many(), SEQUENCES
        found = fit(net=net, data={name: Shards(cut(a, UNEVEN)) for name, a in data.items()})
        assert_same(found, fit(net=net, data=data))

    def test_numbers_that_are_none(self):
        x, y = (np.asarray(array) for array in problems.windows(ROWS))
        with pytest.raises(TypeError, match="real numbers"):
            fit(data={"x": Shards([x + 1j]), "y": y})

    def test_a_value_that_is_not_finite(self, files):
        broken = np.lib.format.open_memmap(files["x"]._parts[1].filename, mode="r+")
        broken[0] = np.nan
        broken.flush()
        with pytest.raises(ValueError, match="x has values that are not finite"):
            fit(data=files)


def many_to_many():
    rng = np.random.default_rng(3)
    x, y = rng.standard_normal((2, ROWS, 6, 1)).astype("float32")
    return {
        "x": x, "y": y, "mask": rng.random((ROWS, 6)) < 0.8,
        "sample_weight": rng.random(ROWS).astype("float32"),
    }  # fmt: skip


SEQUENCES = rx.Network(hidden_size=8, topology="many_to_many")
CASES = {
    "adam": {},
    "lbfgs": {"optimizer": rx.optim.lbfgs(history=5)},
    "dropout": {"net": rx.Network(hidden_size=8, num_layers=2, dropout=0.3)},
    "validation": {"validation": problems.windows(30), "patience": 3},
    "weights and masks": {"net": SEQUENCES, "data": many_to_many()},
    "truncated": {"net": SEQUENCES, "data": many_to_many(), "truncate": (2, 3)},
}


def fit_sharded(comm, counts, net=NET, data=None, **options):
    data = dict(zip("xy", problems.windows(ROWS), strict=True)) if data is None else data
    mine = {name: cut(array, counts)[comm.rank] for name, array in data.items()}
    return fit(comm, net, mine, sharded=True, **options)


class TestRowsOfEachRank:
    @pytest.mark.full("84", "7, 7")
    @pytest.mark.cover("values")
    @pytest.mark.parametrize("case", CASES)
    @pytest.mark.parametrize("counts", [WHOLE_BLOCKS, (84, 6), (7,) * 12 + (6,)], ids=str)
    def test_whole_blocks_have_the_bits_of_one_rank(self, counts, case):
        work = functools.partial(fit_sharded, counts=counts, **CASES[case])
        for found in simulate(len(counts), work):
            assert_same(found, fit(**CASES[case]))
            assert found.state.run["data"] == fit(**CASES[case]).state.run["data"]

    @pytest.mark.parametrize("case", [case for case in CASES if case != "dropout"])
    def test_others_are_right_up_to_rounding(self, case):
        """Blocks end with a rank's rows, so that the sum is rounded elsewhere."""
        options = {**CASES[case], "backend": rx.get_backend("numpy", dtype="float64"), "epochs": 5}
        expected = fit(**options)
        first, *others = simulate(3, lambda comm: fit_sharded(comm, UNEVEN, **options))
        assert first.state.run["rows of each shard"] == list(UNEVEN)
        for name, param in expected.params.items():
            assert np.allclose(first.params[name], param, rtol=1e-9, atol=1e-12), name
        for other in others:
            assert_same(other, first)

    @pytest.mark.parametrize("size", [1, 2])
    def test_going_on_with_all_rows_on_one_rank_or_more(self, size, tmp_path):
        keep = Checkpoint(tmp_path, every=1)

        def begin(comm):
            return fit_sharded(comm, WHOLE_BLOCKS, epochs=6, callbacks=[] if comm.rank else [keep])

        simulate(3, begin)
        for found in simulate(size, lambda comm: fit(comm, resume=keep.last)):
            assert_same(found, fit())

    def test_going_on_where_blocks_end_elsewhere_is_an_error(self, tmp_path):
        keep = Checkpoint(tmp_path, every=1)

        def work(comm, counts, **options):
            callbacks = [] if comm.rank else [keep]
            return fit_sharded(comm, counts, callbacks=callbacks, **options)

        simulate(3, lambda comm: work(comm, UNEVEN, epochs=6))
        with pytest.raises(ValueError, match="rows of each shard"):
            fit(resume=keep.last)
        for found in simulate(3, lambda comm: work(comm, UNEVEN, resume=keep.last)):
            assert_same(found, simulate(3, lambda comm: fit_sharded(comm, UNEVEN))[0])

    def test_one_rank_has_all(self):
        assert_same(fit(sharded=True), fit())

    @pytest.mark.parametrize(("case", "sums"), [("weights and masks", 1), ("truncated", 3)])
    def test_an_epoch_is_a_sum_for_each_update(self, case, sums):
        """What the rows count is the same in every epoch, and is not exchanged again."""

        def messages(epochs):
            def work(comm):
                fit_sharded(comm, (42, 48), **{**CASES[case], "epochs": epochs})
                return comm.messages

            return simulate(2, work)

        longer, shorter = messages(5), messages(4)
        assert [a - b for a, b in zip(longer, shorter, strict=True)] == [sums, sums]

    def test_what_counts_is_added_up(self):
        data = dict(zip("xy", problems.windows(ROWS), strict=True))
        data["sample_weight"] = np.zeros(ROWS, "float32")
        data["sample_weight"][60:] = 1.0  # nothing of the first ranks' rows counts
        for found in simulate(3, lambda comm: fit_sharded(comm, WHOLE_BLOCKS, data=data)):
            assert_same(found, fit(data=data))
        data["sample_weight"] *= 0.0
        with pytest.raises(ValueError, match="nothing counts in the training rows"):
            simulate(3, lambda comm: fit_sharded(comm, WHOLE_BLOCKS, data=data))

    def test_more_ranks_than_blocks_count_alike(self):
        """A rank without blocks has no weight to tell whether there are any."""
        options = {"net": SEQUENCES, "block_rows": 50, "epochs": 3}
        plain = {name: many_to_many()[name] for name in "xy"}
        for more in ({"data": many_to_many()}, {"data": plain, "truncate": (2, 3)}):
            for found in simulate(4, lambda comm, more=more: fit(comm, **options, **more)):
                assert_same(found, fit(**options, **more))

    def test_rows_of_all_ranks_say_how_large_a_block_is(self):
        net = rx.Network(hidden_size=256)  # of 64 rows the default is two blocks
        options = {"net": net, "block_rows": None, "epochs": 1}
        data = dict(zip("xy", problems.windows(64), strict=True))
        for found in simulate(2, lambda comm: fit_sharded(comm, (32, 32), data=data, **options)):
            assert found.block_rows == 32 == fit(data=data, **options).block_rows
            assert_same(found, fit(data=data, **options))

    def test_the_digest_samples_as_many_rows(self, monkeypatch):
        monkeypatch.setattr(training_ranks, "_ROWS", 3)
        expected = fit(epochs=1).state.run["data"]
        for found in simulate(3, lambda comm: fit_sharded(comm, WHOLE_BLOCKS, epochs=1)):
            assert found.state.run["data"] == expected

    def test_a_rank_without_rows(self):
        with pytest.raises(ValueError, match="each rank needs a row"):
            simulate(2, lambda comm: fit_sharded(comm, (90, 0)))

    @pytest.mark.parametrize(
        ("change", "named"),
        [
            (lambda data: data.pop("mask"), "shape of mask"),
            (lambda data: data.pop("sample_weight"), "shape of sample_weight"),
            (
                lambda data: data.update(sample_weight=np.ones((40, 6), "f4")),
                "shape of sample_weight",
            ),
            (lambda data: data.update({k: data[k][:, :4] for k in ("x", "y", "mask")}), "shape of"),
        ],
    )
    def test_arrays_that_do_not_fit_together(self, change, named):
        def work(comm):
            data = {name: array[:40] for name, array in many_to_many().items()}
            if comm.rank:
                change(data)
            return fit(comm, SEQUENCES, data, sharded=True)

        with pytest.raises(CommError, match=named):
            simulate(2, work)

    @pytest.mark.parametrize("sharded", [False, True])
    @pytest.mark.parametrize("rows", [31, 30])
    def test_all_validate_on_the_same(self, rows, sharded):
        x, y = problems.windows(rows)
        given = [problems.windows(30), (x + 1.0, y)]
        with pytest.raises(CommError, match="validation: "):
            simulate(2, lambda comm: fit(comm, validation=given[comm.rank], sharded=sharded))

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"batch_size": 7}, "sharded=True needs the full batch"),
            ({"validation": 0.2}, "no last rows that all ranks could validate on"),
        ],
    )
    def test_what_it_is_not_for(self, options, message):
        with pytest.raises(ValueError, match=message):
            simulate(2, lambda comm: fit_sharded(comm, (84, 6), **options))

    def test_all_ranks_or_none(self):
        with pytest.raises(CommError, match="sharded: false and true"):
            simulate(2, lambda comm: fit(comm, sharded=bool(comm.rank)))

    def test_another_order_of_the_ranks_is_other_data(self):
        def work(comm, order):
            data = dict(zip("xy", problems.windows(28), strict=True))
            mine = {name: cut(array, (14, 14))[order[comm.rank]] for name, array in data.items()}
            return fit(comm, data=mine, sharded=True, epochs=2)

        runs = [simulate(2, functools.partial(work, order=o))[0] for o in ((0, 1), (1, 0))]
        assert len({run.state.run["data"] for run in runs}) == 2
