"""Compiled layers give a row the same bits alone, in any batch, at any place, on any threads."""

from __future__ import annotations

import concurrent.futures
import importlib.util

import numpy as np
import pytest
from kernel_options import cast
from problems import CELLS, OPTIONS, TOPOLOGIES, Problem, excluded
from threadpoolctl import threadpool_limits

from rnn_xp.network.sequence import map_state

pytestmark = pytest.mark.skipif(
    not importlib.util.find_spec("numba"), reason="numba is not installed"
)

CALLS = [option for option in OPTIONS if option != "dropout"]
ROWS = 150


def left_out(topology, option):
    """Combinations that do not exist or, as feedback through layers, are left to portable code."""
    fed_back = "feedback" in topology
    return excluded(topology, option) or (fed_back and "num_layers" in OPTIONS[option][0])


def build(cell, topology, option, dtype="float32", rows=ROWS, **sizes):
    settings, given = OPTIONS[option]
    given = [name for name in given if name != "rng"]
    settings = {name: value for name, value in settings.items() if "dropout" not in name}
    sizes = {"steps": 6, "inputs": 3, "hidden": 20, "scale": 0.4} | sizes
    settings |= CELLS[cell] | TOPOLOGIES[topology]
    if "feedback" in topology:
        sizes |= {"outputs": sizes["inputs"]}
    return cast(Problem(rows=rows, with_=given, **sizes, **settings), dtype)


def predict(problem, rows=None, **how):
    """Predict some rows, in the given order."""
    if rows is None:
        rows = np.arange(len(problem.x))
    arrays = {
        name: map_state(lambda field: field[:, rows], a) if name == "state" else a[rows]
        for name, a in problem.arrays.items()
    }
    return problem.net.predict(problem.params, problem.x[rows], **arrays, **problem.steps, **how)


def batches(rows, count, seed=0):
    """Permutations, single rows, and random rows in random order, some of them twice."""
    rng = np.random.default_rng(seed)
    yield rng.permutation(rows)
    yield np.asarray([rng.integers(rows)])
    for _ in range(count - 2):
        yield rng.integers(rows, size=rng.integers(1, rows))


def differing(problem, count=4):
    """The number of rows with other bits than in the whole batch."""
    whole = predict(problem)
    assert np.isfinite(whole).all()
    return sum(
        int((predict(problem, rows) != whole[rows]).reshape(len(rows), -1).any(axis=1).sum())
        for rows in batches(len(problem.x), count)
    )


@pytest.mark.full
@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("cell", CELLS)
def test_every_option(cell, topology):
    """1,000 rows in 200 batches for each option."""
    for option in CALLS:
        if not left_out(topology, option):
            assert differing(build(cell, topology, option, rows=1000), 200) == 0, option


@pytest.mark.parametrize("option", CALLS)
def test_options(option):
    """A part of the full product, in which each option comes with each cell."""
    for cell, topology in zip([*CELLS] * 2, (list(TOPOLOGIES) * 2)[:10], strict=True):
        if not left_out(topology, option):
            assert differing(build(cell, topology, option)) == 0, (cell, topology)


@pytest.mark.parametrize("hidden", [1, 7, 33, 50, 64, 130, 256])
def test_sizes(hidden):
    for cell, outputs in (("rnn-tanh", 1), ("gru", 9), ("gru-reset-before", 9), ("lstm", 33)):
        problem = build(cell, "many-to-many", "lengths", hidden=hidden, outputs=outputs, scale=0.1)
        assert differing(problem) == 0, cell


@pytest.mark.parametrize("output", ["identity", "tanh", "sigmoid", "softmax"])
def test_outputs_that_are_fed_back(output):
    sizes = {"inputs": 19, "output_activation": output}
    assert differing(build("lstm", "one-to-many-feedback", "mask", **sizes)) == 0


@pytest.mark.parametrize("block_rows", [1, 5, 37, 1000])
def test_blocks_of_any_size(block_rows):
    problem = build("lstm", "many-to-many", "everything")
    assert np.array_equal(predict(problem, block_rows=block_rows), predict(problem))


def test_threads():
    """Neither the threads of BLAS nor those of the caller change a bit."""
    problem = build("lstm", "many-to-many", "plain", hidden=256, scale=0.1)
    with threadpool_limits(1, user_api="blas"):
        alone = predict(problem)
    with threadpool_limits(2, user_api="blas"):
        assert np.array_equal(predict(problem), alone)
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            parts = pool.map(lambda row: predict(problem, np.asarray([row])), range(8))
            assert np.array_equal(np.concatenate(list(parts)), alone[:8])


def test_long_sequences_in_pieces():
    assert differing(build("gru", "many-to-many", "mask", steps=230, rows=60)) == 0


def test_the_linear_path():
    assert differing(build("rnn-tanh", "many-to-one", "linear-path", inputs=5, outputs=3)) == 0


def test_what_stands_beside_a_row_cannot_reach_it():
    """Not even a NaN."""
    problem = build("gru", "many-to-many", "lengths")
    whole = predict(problem)
    problem.x[1] = np.nan
    rows = np.arange(len(problem.x)) != 1
    assert np.array_equal(predict(problem)[rows], whole[rows])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kernels", ["numpy", "portable"])
def test_without_compiled_layers_one_row_at_a_time(monkeypatch, kernels, dtype):
    monkeypatch.setenv("RNN_XP_KERNELS", kernels)
    for cell, topology in zip(CELLS, list(TOPOLOGIES)[:5], strict=True):
        problem = build(cell, topology, "plain", dtype, rows=30)
        whole = predict(problem, block_rows=1)
        for rows in batches(30, 4):
            assert np.array_equal(predict(problem, rows, block_rows=1), whole[rows])
