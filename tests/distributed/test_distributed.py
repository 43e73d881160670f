"""The tree of sums over ranks, and what ranks say to each other, with threads for ranks."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rnn_xp.backend import get_backend
from rnn_xp.distributed import (
    CommError,
    Ranks,
    Serial,
    Subtree,
    agree,
    aligned,
    fingerprint,
    fold,
    join,
    share,
    simulate,
    tree_sum,
)  # fmt: skip
from rnn_xp.engines.ranks import weight_of_ranks


def add(a, b):
    return f"({a}{b})"


def leaves_of(numbers):
    return [Subtree(k, 0, f"{k}.") for k in numbers]


class TestTree:
    @given(st.integers(1, 80), st.lists(st.integers(0, 80), max_size=5))
    def test_parts_joined_in_any_way_are_the_one_tree(self, count, cuts):
        """Cut anywhere, empty parts included; joined from the left, or from the right."""
        whole = tree_sum([f"{k}." for k in range(count)], add)
        ends = [0, *sorted(min(cut, count) for cut in cuts), count]
        parts = [join(leaves_of(range(a, b)), add) for a, b in itertools.pairwise(ends)]
        left, right = [], []
        for part in parts:
            left = join([*left, *part], add)
        for part in reversed(parts):
            right = join([*part, *right], add)
        assert fold(left, add) == fold(right, add) == whole

    @given(st.integers(0, 100), st.integers(0, 100))
    def test_what_is_sent_is_known_to_the_receiver(self, a, b):
        leaves = range(min(a, b), max(a, b))
        found = join(leaves_of(leaves), add)
        assert [part[:2] for part in found] == aligned(leaves)
        assert len(found) <= 2 * max(1, len(leaves).bit_length())

    @given(st.integers(0, 300), st.integers(1, 70))
    def test_shares_are_all_leaves_in_order(self, leaves, size):
        shares = [share(leaves, size, rank) for rank in range(size)]
        assert [k for each in shares for k in each] == list(range(leaves))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


def rows(count, width=5, dtype="float32"):
    """Rows whose sums are rounded, so that another order of the sum has other bits."""
    return np.random.default_rng(count).standard_normal((count, width)).astype(dtype)


def total(ranks, data, leaves=None):
    own = ranks.shares(len(data))(ranks.comm.rank) if leaves is None else leaves
    sums = join((Subtree(k, 0, data[k]) for k in own), np.add)
    return ranks.total(ranks.shares(len(data)), sums, data.shape[1], Ranks.on_host(data.dtype))


class TestTotal:
    @settings(max_examples=60, deadline=None)
    @given(st.integers(1, 40), st.integers(1, 9), st.sampled_from(["float32", "float64"]))
    def test_exact_has_the_bits_of_one_rank(self, count, size, dtype):
        data = rows(count, dtype=dtype)
        expected = tree_sum(data, np.add)
        for found in simulate(size, lambda comm: total(Ranks(comm), data)):
            assert found.dtype == expected.dtype
            assert np.array_equal(found, expected)

    def test_another_order_would_be_noticed(self):
        """One after the other, or the ranks' sums added up, is not the tree."""
        data = rows(11, width=50)
        expected = tree_sum(data, np.add)
        assert not np.array_equal(np.add.accumulate(data)[-1], expected)
        by_rank = [tree_sum(data[share(11, 3, rank)], np.add) for rank in range(3)]
        assert not np.array_equal(by_rank[0] + by_rank[1] + by_rank[2], expected)

    @pytest.mark.parametrize(
        "wrong",
        [range(3, 8), range(5, 8), range(5, 9), range(0)],
        ids=["twice", "left-out", "moved", "none"],
    )
    def test_a_wrong_share_of_the_leaves_is_an_error(self, wrong):
        data = rows(8)
        more = np.concatenate([data, data])

        def work(comm):
            ranks = Ranks(comm)
            own = wrong if comm.rank else ranks.shares(8)(0)
            sums = join((Subtree(k, 0, more[k]) for k in own), np.add)
            return ranks.total(ranks.shares(8), sums, 5, Ranks.on_host("float32"))

        with pytest.raises(ValueError, match=r"over the leaves range\(4, 8\), and no other"):
            simulate(2, work)

    @pytest.mark.parametrize("size", [2, 3, 4, 7])
    def test_each_result_has_memory_of_its_own(self, size):
        """An optimiser keeps gradients; the next sum must not write over them."""
        first, second = rows(11), rows(11)[::-1].copy()

        def work(comm):
            ranks = Ranks(comm)
            one = total(ranks, first)
            kept = one.copy()
            two = total(ranks, second)
            one[...] += 1.0
            return kept, one - 1.0, two, np.shares_memory(one, two)

        for kept, one, two, shared in simulate(size, work):
            assert not shared
            assert np.array_equal(kept, tree_sum(first, np.add))
            assert np.allclose(kept, one)
            assert np.array_equal(two, tree_sum(second, np.add))

    def test_what_is_sent_does_not_grow_with_the_leaves(self):
        def sent(count, size):
            data = rows(count)

            def work(comm):
                total(Ranks(comm), data)
                return comm.messages, comm.bytes

            return max(simulate(size, work))

        assert sent(8, 2) == sent(8192, 2) == (1, 4 * (2 + 5))
        assert sent(8, 8) == sent(8192, 8) == (3, 3 * 4 * (2 + 5))
        messages, size = sent(9973, 6)
        assert messages <= 4
        assert size <= messages * 4 * (2 + 2 * 14 * 5)

    @pytest.mark.parametrize("reduction", ["exact", "fast"])
    def test_nan_on_one_rank_is_nan_on_all(self, reduction):
        data = rows(10)
        data[7, 2] = np.nan
        for found in simulate(4, lambda comm: total(Ranks(comm, reduction), data)):
            assert np.isnan(found).tolist() == [False, False, True, False, False]

    @pytest.mark.parametrize("size", [1, 2, 3, 5, 12])
    def test_fast_is_the_sum_up_to_rounding_and_repeats(self, size):
        data = rows(10, dtype="float64")
        found = simulate(size, lambda comm: total(Ranks(comm, "fast"), data))
        again = simulate(size, lambda comm: total(Ranks(comm, "fast"), data))
        assert all(np.array_equal(a, b) for a, b in zip(found, again, strict=True))
        assert all(np.array_equal(found[0], other) for other in found)
        assert np.allclose(found[0], data.sum(axis=0), rtol=1e-14)

    @pytest.mark.parametrize("reduction", ["exact", "fast"])
    @pytest.mark.parametrize("size", [2, 3, 4])
    def test_ranks_that_are_not_at_the_same_sum(self, size, reduction):
        def work(comm):
            ranks = Ranks(comm, reduction)
            if comm.rank == size - 1:
                ranks._number += 1
            return total(ranks, rows(6))

        with pytest.raises(CommError, match="do not do the same"):
            simulate(size, work)

    @pytest.mark.parametrize("size", [3, 5])
    def test_a_rank_that_has_handed_over_is_told_the_number_too(self, size):
        """Of ranks that are no power of two: the sum it is told is that of the others' number."""

        def work(comm):
            ranks = Ranks(comm)
            if comm.rank == 1:
                ranks._check_number = lambda found, expected: seen.append((found, expected))
            return total(ranks, rows(6))

        seen = []
        simulate(size, work)
        assert seen == [(1.0, 1)]

    def test_rows_beyond_the_whole_numbers_of_float32(self):
        """Total weights are sums in float64 where nothing is weighted."""
        backend = get_backend("numpy", dtype="float32")

        def work(comm):
            ranks = Ranks(comm)
            shares = ranks.shares(2)
            sums = [Subtree(comm.rank, 0, 2.0**24 + comm.rank)]
            return weight_of_ranks(ranks, backend, shares, sums, weighted=False)

        assert simulate(2, work) == [2.0**25 + 1.0] * 2

    def test_numbers_of_sums_repeat(self):
        def work(comm):
            ranks = Ranks(comm, "fast")
            return [total(ranks, rows(3)) for _ in range(300)][-1]

        assert len(simulate(3, work)) == 3

    def test_an_unknown_reduction(self):
        with pytest.raises(ValueError, match="'exact' or 'fast', got 'ring'"):
            Ranks(Serial(), "ring")

    def test_a_rank_alone(self):
        data = rows(7)
        assert np.array_equal(total(Ranks(Serial()), data), tree_sum(data, np.add))
        assert np.array_equal(total(Ranks(Serial(), "fast"), data), tree_sum(data, np.add))
        with pytest.raises(CommError, match="no partner 1"):
            Serial().exchange(1, None, None)


class TestStop:
    @pytest.mark.parametrize("reduction", ["exact", "fast"])
    @pytest.mark.parametrize(("size", "who"), [(1, 0), (2, 0), (2, 1), (3, 1), (3, 2), (7, 6)])
    def test_what_one_asks_for_all_learn_with_the_same_sum(self, size, who, reduction):
        def work(comm):
            ranks, found = Ranks(comm, reduction), []
            for number in range(4):
                if (comm.rank, number) == (who, 2):
                    ranks.ask_to_stop("it is late: à demain")
                total(ranks, rows(5))
                found.append(ranks.stopped)
            return found

        for found in simulate(size, work):
            assert found == ["", "", *["it is late: à demain"] * 2]

    def test_a_long_reason_is_cut(self):
        def work(comm):
            ranks = Ranks(comm)
            ranks.ask_to_stop("é" * 1000)
            total(ranks, rows(5))
            return ranks.stopped

        assert simulate(2, work) == ["é" * 128] * 2


class TestAgreement:
    def test_equal(self):
        simulate(3, lambda comm: agree(comm, {"seed": 1, "where": {"numpy": "2.0"}}))

    def test_differing_values_are_named_on_all_ranks(self):
        found = []

        def work(comm):
            try:
                agree(comm, {"seed": 1, "numpy": "2.0" if comm.rank < 2 else "2.1.3"})
            except CommError as error:
                found.append(str(error))

        simulate(3, work)
        assert len(found) == 3
        assert len(set(found)) == 1
        assert "ranks 0 and 2" in found[0]
        assert 'numpy: "2.0" and "2.1.3"' in found[0]
        assert "seed" not in found[0]

    def test_fingerprint_sees_names_shapes_dtypes_and_values(self):
        a = np.arange(6.0)
        same = [{"w": a, "b": a}, {"b": a.copy(), "w": a}]
        assert fingerprint(same[0]) == fingerprint(same[1])
        others = [{"w": a, "c": a}, {"w": a, "b": a[None]}, {"w": a, "b": a.astype("f4")}]
        others.append({"w": a, "b": a + 1})
        assert len({fingerprint(arrays) for arrays in [same[0], *others]}) == 5


class TestSimulated:
    def test_a_rank_that_fails_ends_the_others_at_once(self):
        def work(comm):
            if comm.rank == 1:
                raise OSError("no space left")
            comm.gather(np.ones(1))

        begun = time.monotonic()
        with pytest.raises(OSError, match="no space left"):
            simulate(4, work, deadline=60.0)
        assert time.monotonic() - begun < 10.0

    def test_a_rank_that_stalls(self):
        def work(comm):
            if comm.rank:
                comm.gather(np.ones(1))

        with pytest.raises(CommError, match=r"no answer of rank 0 in 0.1 s"):
            simulate(2, work, deadline=0.1)

    def test_what_is_sent_may_be_changed_afterwards(self):
        def work(comm):
            row, found = np.full(3, float(comm.rank)), np.empty(3)
            comm.exchange(1 - comm.rank, row, None)
            row[...] = 9.0
            comm.exchange(1 - comm.rank, None, found)
            return found.tolist()

        assert simulate(2, work) == [[1.0] * 3, [0.0] * 3]

    def test_messages_of_another_length(self):
        def work(comm):
            comm.exchange(1 - comm.rank, np.ones(3 + comm.rank), np.empty(3))

        with pytest.raises(CommError, match=r"awaits float64 \(3,\) of rank 1, which sent"):
            simulate(2, work)
