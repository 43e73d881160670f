"""Training on several ranks is the training of one, to the bit; threads are the ranks here."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import problems
import pytest
import runs
from rank_runs import EPOCHS, KINDS, NET, SMALL_BLOCKS, alone, fit
from runs import RUNS, assert_same

import rnn_xp as rx
from rnn_xp import losses
from rnn_xp.distributed import CommError, Serial, share, simulate
from rnn_xp.engines.portable import PortableEngine
from rnn_xp.training import ranks as training_ranks
from rnn_xp.training.callbacks import Checkpoint, History

pytestmark = pytest.mark.full("hessian")


class TestBits:
    @pytest.mark.cover("values")
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("size", [1, 2, 3, 4, 11])
    def test_after_thirty_epochs(self, size, kind):
        found = simulate(size, functools.partial(fit, kind))
        assert [each.ranks for each in found] == [size] * size
        for each in found:
            assert len(each.history["loss"]) == EPOCHS
            assert each.evaluations == alone(kind).evaluations
            assert_same(each, alone(kind))

    def test_of_the_reference_workload(self):
        x, y = rx.make_windows(np.sin(np.arange(8327.0) / 9), seq_length=10)
        net, options = rx.Network(hidden_size=50), {"optimizer": rx.optim.adam(0.01), "epochs": 2}
        expected = rx.fit(net, x, y, **options)
        assert expected.block_rows == 1040
        for found in simulate(3, lambda comm: rx.fit(net, x, y, comm=comm, **options)):
            assert_same(found, expected)

    @pytest.mark.parametrize("name", RUNS)
    def test_of_every_kind_of_run(self, name):
        """Dropout, validation, truncation and whatever else a run may have."""
        options = {"block_rows": 5, "workers": 1}
        expected = runs.fit(name, 5, **options)
        for found in simulate(3, lambda comm: runs.fit(name, 5, comm=comm, **options)):
            assert_same(found, expected)

    @pytest.mark.full("jax")
    @pytest.mark.parametrize("name", ["array_api_strict", "jax"])
    def test_on_other_backends(self, name):
        backend = rx.get_backend(name, dtype="float32")
        options = {"backend": backend, "epochs": 3}
        for found in simulate(2, lambda comm: fit("adam", comm, **options)):
            assert found.backend is backend
            assert_same(found, fit("adam", **options))

    def test_with_threads_on_each_rank(self):
        for found in simulate(2, lambda comm: fit("adam", comm, workers=3)):
            assert found.workers == 3
            assert_same(found, alone("adam"))

    def test_more_ranks_than_blocks(self):
        for found in simulate(4, lambda comm: fit("adam", comm, block_rows=50)):
            assert_same(found, fit("adam", block_rows=50))

    @pytest.mark.cover("values")
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize(("before", "after"), [(4, 2), (2, 3), (1, 4), (3, 1)])
    def test_going_on_with_another_number_of_ranks(self, before, after, kind, tmp_path):
        keep = Checkpoint(tmp_path, every=1)

        def begin(comm):
            return fit(kind, comm, EPOCHS // 2, callbacks=[] if comm.rank else [keep])

        simulate(before, begin)
        for found in simulate(after, lambda comm: fit(kind, comm, resume=keep.last)):
            assert_same(found, alone(kind))

    def test_fast_is_right_up_to_rounding_and_is_recorded(self, tmp_path):
        keep = Checkpoint(tmp_path, every=1)

        def work(comm, **options):
            callbacks = [] if comm.rank else [keep]
            return fit("adam", comm, reduction="fast", callbacks=callbacks, **options)

        first, second = simulate(3, work), simulate(3, work)
        for found in first[1:] + second:
            assert_same(found, first[0])
        assert first[0].history["loss"] == pytest.approx(alone("adam").history["loss"], rel=1e-3)
        assert first[0].state.run["where"]["reduction"] == "fast on 3 ranks"
        with pytest.warns(UserWarning, match="bits may differ"):
            fit("adam", epochs=31, resume=keep.last)

    def test_a_rank_alone_is_no_rank(self):
        assert_same(fit("adam", Serial()), alone("adam"))
        assert fit("adam", Serial()).ranks == alone("adam").ranks == 1


def planted(monkeypatch, shares):
    """Let rank 0 and rank 1 compute other blocks of minibatches, of five each, than are theirs."""
    original = PortableEngine.cut

    def cut(self, batch):
        return dataclasses.replace(original(self, batch), own=shares[self.ranks.comm.rank])

    monkeypatch.setattr(PortableEngine, "cut", cut)


class TestShares:
    """What each rank computes."""

    def blocks(self, size, rows, monkeypatch):
        found, original = [], PortableEngine._map

        def spy(self, block, numbers):
            found.extend((self.ranks.comm.rank, number) for number in numbers)
            return original(self, block, numbers)

        monkeypatch.setattr(PortableEngine, "_map", spy)
        simulate(size, lambda comm: fit("adam", comm, 1, rows))
        return found

    @pytest.mark.parametrize("size", [2, 3, 4])
    def test_each_block_is_computed_once(self, size, monkeypatch):
        found = self.blocks(size, 90, monkeypatch)
        rows = problems.windows(90)[0].shape[0]
        assert sorted(number for _, number in found) == list(range(-(-rows // 7)))
        assert {rank for rank, _ in found} == set(range(size))

    def test_a_block_twice_is_noticed(self, monkeypatch):
        planted(monkeypatch, [range(2), range(1, 5)])
        with pytest.raises(ValueError, match="and no other"):
            simulate(2, functools.partial(fit, "minibatches", epochs=1))

    def test_a_block_left_out_is_noticed(self, monkeypatch):
        planted(monkeypatch, [range(2), range(3, 5)])
        with pytest.raises(ValueError, match="and no other"):
            simulate(2, functools.partial(fit, "minibatches", epochs=1))


class TestTogether:
    @pytest.mark.parametrize(("size", "who"), [(2, 0), (2, 1), (3, 2)])
    @pytest.mark.parametrize("kind", KINDS)
    def test_one_callback_stops_all_after_the_next_epoch(self, kind, size, who):
        def work(comm):
            told = History()
            reason = [lambda epoch: "enough" if epoch.number >= 4 else None]
            result = fit(kind, comm, callbacks=[*(reason if comm.rank == who else []), told])
            return result, told.epochs[-1]

        for result, last in simulate(size, work):
            assert result.stopped == "enough"
            assert (last.number, last.stopped, last.final) == (5, "enough", True)
            assert_same(result, fit(kind, epochs=5))

    def test_a_checkpoint_of_the_stop_is_whole(self, tmp_path):
        keep = Checkpoint(tmp_path, every=1000)

        def work(comm):
            stop = [lambda epoch: "enough" if epoch.number == 3 else None]
            return fit("adam", comm, callbacks=stop if comm.rank else [keep])

        simulate(2, work)
        assert_same(fit("adam", resume=keep.last), alone("adam"))

    def test_patience_needs_no_word(self):
        options = {"patience": 2, "optimizer": rx.optim.sgd(10.0), "epochs": 50}
        expected = fit("adam", **options)
        assert 0 < len(expected.history["loss"]) < 50
        for found in simulate(3, lambda comm: fit("adam", comm, **options)):
            assert found.stopped == expected.stopped
            assert_same(found, expected)

    @pytest.mark.parametrize("kind", KINDS)
    def test_nan_on_one_rank_ends_all_with_the_same_parameters(self, kind):
        def work(comm):
            calls = []

            def loss(pred, target, weight=None, total=None):
                calls.append(1)
                value, dpred = losses.mse(pred, target, weight, total)
                broken = comm.rank == 1 and len(calls) > 60
                return (value * np.float32(np.nan), dpred) if broken else (value, dpred)

            loss.__qualname__ = "loss"
            loss.curvature_rows = losses.curvature_rows(losses.mse)
            try:
                found = fit(kind, comm, loss=loss)
            except rx.DivergenceError as error:
                return error.epoch, str(error), error.params
            # To those that look for a lower loss, NaN is none.
            return len(found.history["loss"]), found.stopped, found.params

        (epoch, why, params), *others = simulate(3, work)
        assert 1 < epoch < EPOCHS
        searching = {
            "lbfgs": "line search",
            "levenberg-marquardt": "no step lowers the loss",
            "hessian-free": "no step along the Gauss-Newton direction",
        }
        assert searching.get(kind, "the loss is not finite") in why
        for other in others:
            assert other[:2] == (epoch, why)
            assert all(np.array_equal(params[k], p) for k, p in other[2].items())

    def test_an_error_on_one_rank_is_that_of_all(self):
        def work(comm):
            def full(epoch):
                if epoch.number == 3:
                    raise OSError("no space left")

            return fit("adam", comm, callbacks=[] if comm.rank else [full])

        with pytest.raises(OSError, match="no space left"):
            simulate(3, work)


class TestAgreement:
    @pytest.mark.parametrize(
        ("options", "named"),
        [
            (lambda rank: {"seed": rank}, "seed: 0 and 1"),
            (lambda rank: {"epochs": 5 + rank}, "epochs: 5 and 6"),
            (lambda rank: {"optimizer": rx.optim.adam(0.1 + rank)}, "optimizer"),
            (lambda rank: {"block_rows": 7 + rank}, "block_rows: 7 and 8"),
            (lambda rank: {"rows": 90 + rank}, "shape of x"),
            (lambda rank: {"batch_size": [32, None][rank]}, "full batch: false and true"),
            (lambda rank: {"validation": [None, 0.2][rank]}, "validation: false and true"),
            (lambda rank: {"reduction": ["exact", "fast"][rank]}, 'reduction: "exact" and "fast"'),
            (lambda rank: {"params": NET.init(rank)}, "arrays of the start"),
        ],
    )
    def test_ranks_that_are_to_do_something_else_do_not_begin(self, options, named):
        with pytest.raises(CommError, match=named):
            simulate(2, lambda comm: fit("adam", comm, **{"epochs": 2, **options(comm.rank)}))

    @pytest.mark.parametrize("row", [0, 60, 89])
    @pytest.mark.parametrize("batch_size", [None, 32])
    @pytest.mark.parametrize("name", ["x", "y", "sample_weight", "mask", "reset", "lengths"])
    def test_one_other_value(self, name, batch_size, row, monkeypatch):
        """In one of the rows that are looked at."""
        monkeypatch.setattr(training_ranks, "_ROWS", 90 if row == 89 else 3)

        def work(comm):
            x, y = (np.array(array) for array in problems.windows(90))
            arrays = {"x": x, "y": y, "sample_weight": np.ones(90, "f4")}
            arrays |= {"mask": np.ones((90, 5), bool), "reset": np.zeros((90, 5), bool)}
            if name == "lengths":
                arrays = {"x": x, "y": y, "lengths": np.full(90, 5)}
            if comm.rank:
                changed = arrays[name][row : row + 1]
                changed[...] = ~changed if changed.dtype == bool else changed - 1
            options = {**SMALL_BLOCKS, **KINDS["adam"], "epochs": 1, "batch_size": batch_size}
            return rx.fit(NET, **arrays, comm=comm, **options)

        with pytest.raises(CommError, match=f"sample of {name}"):
            simulate(2, work)

    def test_minibatches_are_of_the_same_rows_on_all_ranks(self, monkeypatch):
        """Each has all of them, and they are compared beyond the rows that are looked at."""
        monkeypatch.setattr(training_ranks, "_ROWS", 3)

        def work(comm):
            x, y = (np.array(array) for array in problems.windows(90))
            y[7] += comm.rank
            return rx.fit(NET, x, y, comm=comm, epochs=1, **SMALL_BLOCKS, **KINDS["minibatches"])

        with pytest.raises(CommError, match="data: "):
            simulate(2, work)

    def test_other_versions(self, monkeypatch):
        from rnn_xp.training import identity

        original, versions = identity.whereabouts, iter(["2.1", "2.2"])
        monkeypatch.setattr(
            identity,
            "whereabouts",
            lambda backend: {**original(backend), "backend": f"numpy {next(versions)}"},
        )
        with pytest.raises(CommError, match=r"numpy 2\.[12].*numpy 2\.[12]"):
            simulate(2, functools.partial(fit, "adam"))

    def test_a_state_of_another_epoch(self):
        states = [fit("adam", epochs=k).state for k in (3, 4)]
        with pytest.raises(CommError, match="epochs done: 3 and 4"):
            simulate(2, lambda comm: fit("adam", comm, resume=states[comm.rank]))


class TestData:
    def test_a_rank_looks_at_its_own_part(self, monkeypatch):
        """Besides some rows by which all know that they have the same data: the rest is NaN."""
        monkeypatch.setattr(training_ranks, "_ROWS", 3)
        x, y = problems.windows(90)

        def work(comm):
            blocks = share(13, comm.size, comm.rank)
            rows = set(range(7 * blocks.start, 7 * blocks.stop))
            others = sorted(set(range(90)) - rows - {0, 30, 60})
            mine = [np.array(array) for array in (x, y)]
            for array in mine:
                array[others] = np.nan
            options = {**SMALL_BLOCKS, **KINDS["adam"], "epochs": 3, "workers": 1}
            return rx.fit(NET, *mine, comm=comm, **options)

        for found in simulate(3, work):
            assert_same(found, fit("adam", epochs=3))

    @pytest.mark.parametrize("row", [3, 80])
    def test_a_value_that_is_not_finite_is_found_by_its_rank(self, row):
        x, y = problems.windows(90)
        x = np.array(x)
        x[row] = np.inf
        with pytest.raises(ValueError, match="x has values that are not finite"):
            simulate(2, lambda comm: rx.fit(NET, x, y, comm=comm, epochs=1, **KINDS["adam"]))

    def test_an_index_in_a_message_is_that_of_the_row(self):
        x, _ = problems.windows(90)
        classes = np.zeros(90, int)
        classes[80] = 5
        net, options = rx.Network(hidden_size=4, output_size=3), {**SMALL_BLOCKS, **KINDS["adam"]}
        with pytest.raises(ValueError, match=r"y\[80\] is 5"):
            simulate(
                3,
                lambda comm: rx.fit(
                    net, x, classes, loss="cross_entropy", comm=comm, epochs=1, **options
                ),
            )
        y, lengths = problems.windows(90)[1], np.full(90, 5)
        lengths[80] = 6
        options |= {"lengths": lengths, "epochs": 1}
        with pytest.raises(ValueError, match=r"lengths\[80\] is 6"):
            simulate(3, lambda comm: rx.fit(NET, x, y, comm=comm, **options))
