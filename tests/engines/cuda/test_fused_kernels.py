"""The kernels themselves, on the CPU, against the portable engine in float64."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from cases import (
    BOUND,
    CHOICES,
    Case,
    all_pairs,
    distance,
    doubled,
    error,
    gradient,
    make_engine,
    portable64,
)
from standin import SHARED_LIMIT, FakeCupy

from rnn_xp.engines.cuda_fused import layout

CASES, IMPOSSIBLE = all_pairs()
# More rows than the blocks take at once, 132 * 64; and dM in one pass, and in two.
SEVERAL_TILES = [
    Case("tanh", "many-mse", "adam", 8513, 2, 7, 3, 2),
    Case("gru", "one-mse", "adam", 8513, 1, 64, 1, 1),
]


def opt_state(optimizer, params):
    """A state in the middle of a training, as positive as v has to be."""
    rng = np.random.default_rng(1)
    state = optimizer.init(params)
    slots = {
        slot: {name: rng.uniform(0.1, 1.0, p.shape).astype("f4") for name, p in memory.items()}
        for slot, memory in state.slots.items()
    }
    return state._replace(step=3, slots=slots)


def test_every_pair_of_choices_occurs():
    wanted = {
        frozenset({(a, u), (b, v)})
        for a, b in itertools.combinations(CHOICES, 2)
        for u, v in itertools.product(CHOICES[a], CHOICES[b])
    }
    for case in CASES:
        choices = dataclasses.asdict(case).items()
        wanted -= {frozenset(pair) for pair in itertools.combinations(choices, 2)}
    assert wanted == {
        frozenset({("task", f"{topology}-cross_entropy"), ("outputs", 1)})
        for topology in ("one", "many")
    }
    assert {frozenset(pair) for pair in IMPOSSIBLE} == wanted


@pytest.mark.full("-8317-", "-4290-")
@pytest.mark.cover("values")
@pytest.mark.parametrize("case", [*CASES, *SEVERAL_TILES], ids=str)
def test_loss_gradient_and_update(case):
    params, batch = case.problem()
    engine = make_engine(case, FakeCupy(SHARED_LIMIT[case.device]), batch)
    optimizer, state = engine.optimizer, opt_state(engine.optimizer, params)
    given = {name: p.copy() for name, p in params.items()}
    after, new_state, losses = engine.run(params, state, 1)
    assert all(np.array_equal(given[name], p) for name, p in params.items())

    value, grads = portable64(case, batch).value_and_grad(doubled(params))
    found = gradient(engine)
    assert losses.shape == (1,)
    assert abs(losses[0] / value - 1.0) < BOUND
    assert distance(found, grads) < BOUND

    # The optimiser alone: what it makes of the gradient that was found.
    slots = {slot: doubled(memory) for slot, memory in state.slots.items()}
    right, right_state = optimizer.update(found, state._replace(slots=slots), doubled(params))
    assert distance(after, right) < BOUND
    assert (new_state.step, new_state.plateau) == (right_state.step, right_state.plateau)
    assert new_state.slots.keys() == right_state.slots.keys()
    for slot, memory in new_state.slots.items():
        assert distance(memory, right_state.slots[slot]) < BOUND
    # Where M has no parameter it stays zero.
    assert np.array_equal(layout.pack(case.net, after, xp=np).ravel(), engine.matrix)
    for array in (*after.values(), *(a for m in new_state.slots.values() for a in m.values())):
        assert array.dtype == np.float32
        assert array.flags.c_contiguous
        assert not any(np.shares_memory(array, a) for a in (engine.matrix, *engine.slots.values()))


@pytest.mark.cover("values", "case.cell")
@pytest.mark.full("-4290-", "-266-")
@pytest.mark.parametrize(
    ("case", "different_places"),
    [
        (Case("tanh", "one-mse", "adam", 4290, 4, 50, 1, 1), 3),
        (Case("lstm", "many-cross_entropy", "adam", 4290, 2, 64, 2, 3), 2),  # dM in two passes
        # Blocks of few rows, with all and with a part of the weights in shared memory.
        (Case("gru", "one-mse", "adam", 266, 4, 64, 1, 1), 3),
        (Case("lstm", "many-cross_entropy", "adam", 33, 2, 64, 2, 3), 2),
    ],
    ids=str,
)
def test_same_bits_in_every_order_of_threads_and_wherever_things_lie(case, different_places):
    params, batch = case.problem()
    found, places = [], set()
    for limit, shuffled in ((232448, False), (232448, True), (101376, True), (66048, True)):
        engine = make_engine(case, FakeCupy(limit, shuffled=shuffled), batch)
        places.add((engine.plan.macros["HISTORY_SHARED"], engine.plan.macros["WEIGHTS_SHARED"]))
        after, state, _ = engine.run(params, engine.optimizer.init(params), 2)
        arrays = [*after.values(), *(a for memory in state.slots.values() for a in memory.values())]
        found.append(np.concatenate([np.ravel(array) for array in arrays]))
    assert all(np.array_equal(found[0], other) for other in found)
    assert len(places) == different_places


class TestWhatMustBeNoticed:
    # Small T: at large ones a missing barrier may be made up for by the others.
    CASE = Case("tanh", "many-mse", "adam", 8513, 2, 7, 3, 2)
    SLICED = Case("lstm", "many-mse", "adam", 9, 2, 64, 3, 2)  # blocks of 2 rows, dM in two passes

    # The sixth is for blocks that have further rows, which these do not.
    @pytest.mark.full
    @pytest.mark.parametrize(
        ("case", "number"),
        [
            *itertools.product([CASE], range(1, 8)),
            *itertools.product([SLICED], (1, 2, 3, 4, 5, 7, 8, 9)),
        ],
        ids=str,
    )
    def test_a_barrier_removed(self, case, number):
        cupy = FakeCupy(options=(f"-DDROP_BARRIER={number}",))
        if number == 7:  # of the optimiser
            params, batch = case.problem()
            engine = make_engine(case, cupy, batch)
            after, *_ = engine.run(params, engine.optimizer.init(params), 1)
            optimizer = engine.optimizer
            right, _ = optimizer.update(gradient(engine), optimizer.init(params), params)
            assert not distance(after, right) < 10 * BOUND
        else:
            with np.errstate(all="ignore"):  # what is read too early may be anything
                assert not error(case, cupy) < 10 * BOUND

    def test_the_kernels_have_no_other_barrier(self):
        make_engine(self.CASE, cupy := FakeCupy(), self.CASE.problem()[1])
        assert cupy.source.count("__syncthreads") == 1
        assert {f"BARRIER({number})" in cupy.source for number in range(1, 10)} == {True}
        assert cupy.source.count("BARRIER(") == 9 + 2  # the fourth twice, and the definition

    @pytest.mark.cover("values", "cell", "task")
    @pytest.mark.parametrize(
        ("cell", "task", "right", "wrong"),
        [
            ("tanh", "one-mse", "dz[0] = dh * (1.f - h * h);", "dz[0] = dh * (1.f - h);"),
            ("tanh", "many-mse", "EVERY_STEP && t > 0", "EVERY_STEP && t > 1"),
            ("tanh", "one-mse", "2.f * error * inv_total", "error * inv_total"),
            ("tanh", "one-mse", "k == H + I ? 1.f : 0.f", "0.f"),
            ("tanh", "one-mse", "readout = 4 * jq[1] >= GP", "readout = false"),
            ("tanh", "one-mse", "inputs = 4 * kq[1] + 3 >= H", "inputs = false"),
            ("tanh", "one-mse", "t == T ? GP : 0, read ? JP : GP", "0, GP"),
            ("tanh", "one-mse", "row0 + r < N", "row0 + r < N - 1"),
            ("tanh", "one-mse", "read && row0 + tid < N", "read"),
            ("tanh", "one-mse", "first ? total : out[j * K + k] + total", "total"),
            ("tanh", "many-mse", "(long long)(row0 + tid) * T + t - 1", "(row0 + tid) * T"),
            ("relu", "one-mse", "dz[0] = h <= 0.f ? 0.f : dh;", "dz[0] = dh;"),
            ("gru", "one-mse", "dz[3] = dz[2] * r;", "dz[3] = dz[2];"),
            ("gru", "one-mse", "dh = dh * u;", "dh = 0.f;"),
            ("gru", "one-mse", "du = dh * (h_prev - n)", "du = dh * (n - h_prev)"),
            ("gru", "one-mse", "j == 2 * HP) j = 3 * HP", "j == 1 * HP) j = 2 * HP"),
            ("gru", "one-mse", "CELL == GRU && g == 2", "CELL == GRU && g == 3"),
            ("lstm", "one-mse", "dc = dc * f;", ""),
            ("lstm", "one-mse", "dc += dh * o *", "dc = dh * o *"),
            ("lstm", "one-mse", "dz[1] = dc * c_prev", "dz[1] = dc * kept[4]"),
            ("lstm", "one-mse", "dz[2] = dc * i *", "dz[2] = dc * g *"),
            ("lstm", "many-cross_entropy", "(o == chosen ? 1.f : 0.f)", "1.f"),
            ("lstm", "many-cross_entropy", "logf(norm) - at_target", "logf(norm) + at_target"),
        ],
    )
    def test_a_mistake(self, cell, task, right, wrong):
        self.notice(cell, task, right, wrong, 8513)
        if right not in self.OF_MANY_ROWS:
            self.notice(cell, task, right, wrong, 65)

    OF_MANY_ROWS = (
        "t == T ? GP : 0, read ? JP : GP",
        "first ? total : out[j * K + k] + total",
        "j == 2 * HP) j = 3 * HP",
    )

    @pytest.mark.cover("values", "cell", "task")
    @pytest.mark.parametrize(
        ("cell", "task", "right", "wrong"),
        [
            ("tanh", "one-mse", "next.load(A + (t + 1) * A_STEP)", "next.load(A + t * A_STEP)"),
            ("tanh", "one-mse", "next.load(A + (t - 1) * A_STEP)", "next.load(A + t * A_STEP)"),
            ("tanh", "one-mse", "again ? near : A + t * A_STEP", "A + t * A_STEP"),
            ("tanh", "one-mse", "copy(shared, weights + KP * GP", "copy(shared, weights"),
            ("tanh", "one-mse", "if (SLICED) A[(t + 1) * A_STEP", "if (false) A[(t + 1) * A_STEP"),
            ("tanh", "many-mse", "y[o] += y_sums", "y[o] = y_sums"),
            ("tanh", "many-mse", "readout, 4 * (i / R)", "readout, 4 * (i / R) + 4"),
            ("gru", "one-mse", "N_TO + 4 * slice", "N_TO + 4 + 4 * slice"),
            ("gru", "one-mse", "4 * slice, N_FROM", "4 * slice, N_FROM - 4"),
            ("lstm", "one-mse", "k < HELD_A ? w : all", "k <= HELD_A ? w : all"),
            ("lstm", "one-mse", "j < HELD_D ? w : all", "j <= HELD_D ? w : all"),
        ],
    )
    def test_a_mistake_in_blocks_of_few_rows(self, cell, task, right, wrong):
        self.notice(cell, task, right, wrong, 65, *((64, 66048) if "HELD" in right else ()))

    @staticmethod
    def notice(cell, task, right, wrong, rows, hidden=7, limit=SHARED_LIMIT["sm_90"]):
        def edit(source):
            assert source.count(right) == 1
            return source.replace(right, wrong)

        case = Case(cell, task, "adam", rows, 3, hidden, 2, 3)
        with np.errstate(all="ignore"):  # a mistake may leave memory as it was found
            assert not error(case, FakeCupy(limit, edit=edit)) < 10 * BOUND
