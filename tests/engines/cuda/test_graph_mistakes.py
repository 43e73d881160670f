"""Mistakes in the engine of CUDA graphs, planted one at a time; a training must come out wrong."""

from __future__ import annotations

import importlib
import inspect
import types

import as_cupy
import capturing
import numpy as np
import pytest
import test_cuda_graph as right
import test_graph_edges as edges

from rnn_xp.engines.cuda_graph import engine

MISTAKES = {  # by module
    "engine": [
        # Numbers of the capture instead of those of the update.
        ("with fusion.reading(row.numbers):", "if True:"),
        ("before = self._state._replace(step=rule.step)", "before = self._state"),
        ("key = rows, rule.text", "key = rows, ''"),
        ("key = rows, rule.text", "key = rows, len(rule.text)"),
        ("key = rows, rule.text", "key = 0, rule.text"),
        ("self._launches.clear()", "pass"),
        # Memory that changes hands.
        ("with cupy.cuda.using_allocator(update.pool.malloc):", "if True:"),
        ("array[...] = before", "pass"),
        ("return values.copy()", "return values"),
        ("copied = iter(pointwise(lambda a, xp: (a,), arrays, xp=self.backend.xp))",
         "copied = iter(arrays)"),
        # What belongs to one update.
        ("tables.read(row)", "pass"),
        ("            self._draw(plan, update)\n            launch()", "            launch()"),
        ("self.portable.noise(plan.step, 0)", "self.portable.noise(0, 0)"),
        ("mask if order is None else xp.take(", "mask if True else xp.take("),
        ("data = data.take(row.rows, xp=xp)", "data = data.rows(0, row.rows.shape[0])"),
        ("data.sample_weight, options", "None, options"),
        ("update.masks or None", "None"),
        ("data.mask, data.reset", "None, data.reset"),
        ("data.mask, data.reset", "data.mask, None"),
        ("total=total,", "total=1.0,"),
        ("tables.record(value, update.total if isinstance(total, float) else total)",
         "tables.record(value, update.total)"),
        # From one run to the next.
        ("made = self._ordered(params, state)", "made = [params]"),
        ("given = self._ordered(params, opt_state)", "given = [params, params, params]"),
        ("(state.slots[slot] for slot in self._state.slots)", "state.slots.values()"),
        ("zip(self._state.slots, slots, strict=True)", "zip(opt_state.slots, slots, strict=True)"),
        ("tables.plan(step + k, rows)", "tables.plan(k, rows)"),
        ("step = epoch * self._per_epoch", "step = epoch"),
        ("updates = count * self._per_epoch", "updates = count"),
        ("range(opt_state.step, opt_state.step + count)", "range(count)"),
        ("self.evaluations += len(planned)", "self.evaluations += 1"),
        ("xp.sum(values * totals, axis=1)", "xp.sum(values, axis=1)"),
        ("min(self._epochs_at_once, last - first)", "last - first"),
    ],
    "tables": [
        ("self.at[...] = 0", "pass"),
        ("(-lengths.astype(\"int64\"))", "(lengths.astype(\"int64\"))"),
        ("order if rows is None else rows[order]", "rows"),
        ("order if rows is None else rows[order]", "order"),
        ("side=\"right\"", "side=\"left\""),
        ("offsets = [0, *(len(rising) - ended).cumsum().tolist()]",
         "offsets = [*(len(rising) - ended).cumsum().tolist(), 0]"),
        ("self._sorted._replace(step=step)", "self._sorted"),
        ("mode=\"clip\"", "mode=\"wrap\""),
        ("self._offsets[:count] = cupy.asarray(offsets",
         "self._offsets[:1] = cupy.asarray(offsets[:1]"),
        ("if numbers <= width:", "if numbers <= 2 * width:"),
        ("value = cupy.asarray(value, dtype=cupy.float32)", "pass"),
        ("self._numbers[:count]", "self._numbers[1 : count + 1]"),
    ],
}  # fmt: skip
HARMLESS = {'mode="clip"'}  # which rows fill up a short minibatch is of no account


def plant(monkeypatch, where, old, new):
    module = importlib.import_module(f"rnn_xp.engines.cuda_graph.{where}")
    source = inspect.getsource(module)
    assert source.count(old) == 1, f"{old!r} is not once in {where}"
    changed = types.ModuleType(module.__name__)
    exec(compile(source.replace(old, new), f"<{where}, changed>", "exec"), changed.__dict__)
    if where == "tables":
        monkeypatch.setattr(engine, "Tables", changed.Tables)
        return
    monkeypatch.setattr(right, "GraphEngine", changed.GraphEngine)


def trainings():
    """Some that use everything between them, cut into runs, by the tests of the right engine."""
    net, data, options = right.made_of("all", "lstm")
    right.assert_equal_training(net, data, **options)
    right.assert_equal_training(net, data, minibatches=False, **options)
    net, data, options = right.made_of("lengths")
    right.assert_equal_training(net, data, minibatches=False, optimizer=right.Warming(0.1))
    right.assert_equal_training(*right.made_of("plain")[:2], optimizer=edges.Turning(0.01))
    edges.TestOptimisers().test_wider_tables_between_two_runs()
    edges.TestOptimisers().test_a_state_in_another_order()
    right.TestGraphs().test_training_may_be_cut_anywhere(False)
    right.TestGraphs().test_training_may_be_cut_anywhere(True)
    right.TestGraphs().test_more_epochs_than_the_tables_have_room_for()
    edges.TestLosses().test_one_that_the_host_reads("as_number")  # leaves a graph unused


@pytest.mark.full
@pytest.mark.parametrize(
    ("where", "old", "new"),
    [(where, *pair) for where, pairs in MISTAKES.items() for pair in pairs],
    ids=lambda text: text if len(text) < 40 else text[:37] + "...",
)
def test_is_noticed(monkeypatch, where, old, new):
    as_cupy.install(monkeypatch)
    monkeypatch.setattr(capturing.Stream, "graphs", [])
    plant(monkeypatch, where, old, new)
    if old in HARMLESS:
        trainings()
        return
    noticed = (AssertionError, UserWarning, ValueError, pytest.fail.Exception)
    with np.errstate(all="ignore"), pytest.raises(noticed):
        trainings()
