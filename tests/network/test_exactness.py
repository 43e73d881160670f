"""Exactness: the same bits for any number of workers and any memory, and one BLAS thread."""

from __future__ import annotations

import json
import operator
from pathlib import Path

import numpy as np
import pytest
import threadpoolctl
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import windows

import rnn_xp as rx
from rnn_xp.distributed import tree_sum
from rnn_xp.engines.blocks import Batch, default_block_rows
from rnn_xp.engines.portable import PortableEngine
from rnn_xp.losses import mse
from rnn_xp.network.memory import block_bytes

ROOT = Path(__file__).parents[2]
GOLDEN = json.loads((ROOT / "tests" / "golden_losses.json").read_text())
NET = rx.Network(input_size=1, hidden_size=8, output_size=1)
FLOAT64 = rx.get_backend("numpy", dtype="float64")


def engine(x, y, **options):
    data = Batch(x, y, options.pop("sample_weight", None))
    options = {"block_rows": 16, **options}
    return PortableEngine(
        net=NET, loss=mse, optimizer=rx.optim.adam(0.01), backend=FLOAT64, data=data, **options
    )


class TestTreeSum:
    @pytest.mark.parametrize(
        ("leaves", "tree"),
        [
            ("a", "a"),
            ("ab", "(ab)"),
            ("abc", "((ab)c)"),
            ("abcd", "((ab)(cd))"),
            ("abcdefg", "(((ab)(cd))((ef)g))"),
            ("abcdefghi", "((((ab)(cd))((ef)(gh)))i)"),
        ],
    )
    def test_shape_of_the_tree(self, leaves, tree):
        assert tree_sum(leaves, lambda a, b: f"({a}{b})") == tree

    @given(st.lists(st.integers(), min_size=1, max_size=200))
    def test_is_a_sum(self, numbers):
        assert tree_sum(numbers, operator.add) == sum(numbers)

    @given(st.integers(1, 64), st.integers(0, 5))
    def test_aligned_subtrees_do_not_depend_on_what_follows(self, count, height):
        """What lets ranks of a cluster each compute a part."""
        size, join = 2**height, lambda a, b: f"({a}{b})"
        if count >= size:
            first = tree_sum([f"{i}." for i in range(size)], join)
            assert first in tree_sum([f"{i}." for i in range(count)], join)

    def test_holds_few_partial_sums(self):
        alive, most = 0, 0

        def leaves():
            nonlocal alive, most
            for _ in range(1000):
                alive += 1
                most = max(most, alive)
                yield 1

        def add(a, b):
            nonlocal alive
            alive -= 1
            return a + b

        assert tree_sum(leaves(), add) == 1000
        assert most <= 11

    def test_nothing_to_sum(self):
        with pytest.raises(ValueError, match="at least one leaf"):
            tree_sum([], operator.add)


class TestBlocks:
    @settings(max_examples=25, deadline=None, derandomize=True)
    @given(st.integers(1, 70), st.integers(1, 80))
    def test_any_block_size_gives_the_gradient_of_the_whole(self, rows, block_rows):
        x, y = windows(rows)
        weight = np.random.default_rng(rows).uniform(0.0, 2.0, rows) + 0.01
        params = NET.init(0, FLOAT64)
        value, grads = engine(x, y, block_rows=block_rows, sample_weight=weight).value_and_grad(
            params
        )
        whole, expected = NET.value_and_grad(params, x, y, "mse", weight)
        assert float(value) == pytest.approx(float(whole), rel=1e-13)
        for name, grad in expected.items():
            np.testing.assert_allclose(grads[name], grad, atol=1e-13 * np.abs(grad).max())

    @settings(max_examples=10, deadline=None, derandomize=True)
    @given(st.integers(1, 5000), st.integers(0, 99))
    def test_any_number_of_workers_gives_the_same_bits(self, rows, seed):
        x, y = windows(rows)
        runs = [
            rx.fit(NET, x, y, optimizer=rx.optim.adam(0.01), epochs=2, seed=seed, workers=workers)
            for workers in (1, 2, 4, 8)
        ]
        for run in runs[1:]:
            assert run.history == runs[0].history
            for name, p in runs[0].params.items():
                assert np.array_equal(run.params[name], p)

    def test_reference_workload_has_eight_blocks(self):
        assert -(-8317 // default_block_rows(FLOAT64, 8317, 50)) == 8

    def test_line_search_evaluations_are_reused(self):
        """L-BFGS ends on a point it has evaluated: only the first gradient is extra."""
        x, y = windows()
        result = rx.fit(NET, x, y, optimizer=rx.optim.lbfgs(), epochs=20)
        assert 20 < result.evaluations <= 35
        calls = engine(x, y)
        params = NET.init(0, FLOAT64)
        calls.value_and_grad(params)
        calls.value_and_grad(params)
        assert calls.evaluations == 1
        calls.value_and_grad(dict(params))
        assert calls.evaluations == 2

    def test_the_series_is_not_copied(self):
        """A window view of the series feeds the blocks: T times less memory."""
        x, y = windows(1000)
        x = x.astype("float64", copy=False)
        seen = []

        def spy(pred, target, weight=None, total=None):
            return mse(pred, target, weight, total)

        original = rx.Network.value_and_grad

        def value_and_grad(self, params, x, y, *args, **options):
            seen.append(x)
            return original(self, params, x, y, *args, **options)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(rx.Network, "value_and_grad", value_and_grad)
            rx.fit(NET, x, y, optimizer=rx.optim.sgd(), epochs=1, loss=spy, backend=FLOAT64)
        assert all(np.shares_memory(block, x) for block in seen)


class TestMemoryBudget:
    """How many blocks are alive is no part of the result."""

    @pytest.mark.full  # tests/engines/test_engine.py does it on fewer rows
    def test_parameters_are_the_same_to_the_bit(self):
        """On the reference workload, over 20 epochs; the blocks of a budget are its threads."""
        series = rx.datasets.load("length_of_day").values[:8327]
        x, y = rx.make_windows(((series - series.mean()) / series.std()).astype("f4"), 10)
        net = rx.Network(hidden_size=50)
        one = block_bytes(net, 10, 1040, 4)
        runs = {
            (workers, blocks): rx.fit(
                net, x, y, optimizer=rx.optim.adam(0.01), epochs=20, workers=workers,
                memory_budget=blocks * one,
            )
            for workers in (1, 2, 4)
            for blocks in (1, 3, 8)
        }  # fmt: skip
        assert {key: run.workers for key, run in runs.items()} == {
            (workers, blocks): min(workers, blocks) for workers, blocks in runs
        }
        first = runs[1, 1]
        for run in runs.values():
            assert run.history == first.history
            for name, p in first.params.items():
                assert np.array_equal(run.params[name], p)

    def test_too_small_for_one_block(self):
        x, y = windows(3000)
        with pytest.raises(ValueError, match=r"memory_budget.*block_rows"):
            rx.fit(NET, x, y, optimizer=rx.optim.adam(), epochs=1, memory_budget=1000)
        one = block_bytes(NET, 5, 10, 4)
        found = rx.fit(
            NET, x, y, optimizer=rx.optim.adam(), epochs=1, memory_budget=one, block_rows=10
        )
        assert (found.block_rows, found.workers) == (10, 1)

    def test_block_rows_are_part_of_the_result(self):
        x, y = windows(3000)
        options = {"optimizer": rx.optim.adam(), "epochs": 5}
        whole = rx.fit(NET, x, y, **options)
        smaller = rx.fit(NET, x, y, block_rows=77, **options)
        # Of a few losses all may round alike; of these many numbers not.
        assert any((whole.params[name] != p).any() for name, p in smaller.params.items())
        np.testing.assert_allclose(whole.history["loss"], smaller.history["loss"], rtol=1e-5)


class TestBLASThreads:
    def test_one_throughout_and_restored_even_after_an_error(self):
        def threads():
            return [
                pool["num_threads"]
                for pool in threadpoolctl.threadpool_info()
                if pool["user_api"] == "blas"
            ]

        inside = []

        def look(epoch):
            inside.append(threads())
            if epoch.number == 2:
                raise RuntimeError("stop here")

        with threadpoolctl.threadpool_limits(2, user_api="blas"):
            before = threads()
            with pytest.raises(RuntimeError, match="stop here"):
                rx.fit(NET, *windows(), optimizer=rx.optim.sgd(), epochs=5, callbacks=[look])
            assert threads() == before
        assert len(inside) == 2
        assert all(set(found) == {1} for found in inside)
