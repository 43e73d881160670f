"""NumPy's layers with options: pieces and stretches of steps of any size make the same numbers."""

from __future__ import annotations

import importlib

import array_api_compat.numpy as xp
import numpy as np
import pytest
from kernel_options import OPTIONS, STACKS, compare, make_workspace
from kernel_planting import plant
from kernel_problems import CELLS
from problems import TOPOLOGIES, Problem

from rnn_xp.kernels.course import Course
from rnn_xp.network import pipeline
from rnn_xp.network.call import Options

ROWS, STEPS = 40, 9
RAGGED = [option for option in OPTIONS if "length" in option or option == "all"]


def problem(cell, option, stack="two layers and directions", topology="many-to-many"):
    options, with_ = OPTIONS[option]
    if "dropout" in STACKS[stack]:
        with_ = (*with_, "rng")
    settings = {**CELLS[cell], **TOPOLOGIES[topology], **options, **STACKS[stack]}
    return Problem(with_=with_, rows=ROWS, steps=STEPS, scale=0.5, **settings)


def tape_of(course, inputs=3, size=4):
    layer = importlib.import_module("rnn_xp.kernels.numpy.layer")
    params = {"w_hh": np.ones((size, size)), "w_xh": np.ones((size, inputs)), "b_h": np.ones(size)}
    xs = np.ones((len(course.counts), ROWS, inputs))
    return layer.Tape(params, xs, course, make_workspace("numpy"), "layer0.")


@pytest.mark.cover("pairs")
@pytest.mark.parametrize("topology", ["many-to-one", "many-to-many"])
@pytest.mark.parametrize("move", [1, 16])
@pytest.mark.parametrize("columns", [1, 4, 16])
@pytest.mark.parametrize("option", RAGGED)
@pytest.mark.parametrize("cell", CELLS)
def test_pieces_of_any_width(cell, option, columns, move, topology, monkeypatch):
    pieces = importlib.import_module("rnn_xp.kernels.numpy.pieces")
    monkeypatch.setattr(pieces, "_COLUMNS", columns)
    monkeypatch.setattr(pieces, "_MOVE", move)
    assert compare("numpy", lambda: problem(cell, option, topology=topology))


@pytest.mark.cover("pairs")
@pytest.mark.parametrize("topology", ["many-to-one", "many-to-many"])
@pytest.mark.parametrize("cached", [1, 2000, 5000])
@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("cell", CELLS)
def test_stretches_of_any_length(cell, option, cached, topology, monkeypatch):
    monkeypatch.setattr(importlib.import_module("rnn_xp.kernels.numpy.back"), "_CACHED", cached)
    assert compare("numpy", lambda: problem(cell, option, topology=topology))


@pytest.mark.cover("pairs")
@pytest.mark.parametrize("topology", ["many-to-one", "many-to-many"])
@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("cell", CELLS)
def test_a_pass_of_which_nothing_goes_back_makes_the_same_states(cell, option, topology):
    made = []
    for tape in (True, False):
        mine = problem(cell, option, "two layers", topology)
        noise = mine.net.dropout_masks(np.random.default_rng(3), mine.x) if mine.noisy else None
        options = Options(
            **mine.arrays, rng=noise, **mine.steps, workspace=make_workspace("numpy"), tape=tape
        )
        forward = pipeline.run(mine.net, mine.params, mine.x, options, xp=xp)
        final = pipeline.final_state(mine.net, forward)
        made.append([pipeline.prediction(mine.net, forward).copy(), *(a.copy() for a in final)])
    for kept, brief in zip(*made, strict=True):
        assert np.array_equal(kept, brief)


def test_the_columns_of_pieces_fall_and_rise_with_the_rows():
    counts = (40, 40, 32, 17, 16, 16, 2, 0, 0)
    falling = [(40, 2), (32, 2), (16, 3), (0, 2)]
    for reverse, expected in ((False, falling), (True, falling[::-1])):
        tape = tape_of(Course(counts=counts, reverse=reverse))
        found = [(piece.columns, len(range(STEPS)[piece.steps])) for piece in tape.pieces]
        assert found == expected
        for piece, array in zip(tape.pieces, tape.entering.pieces, strict=True):
            assert array.shape[2] == piece.columns
            assert all(n <= piece.columns for n in tape.counts[piece.steps])


def test_columns_that_no_row_computes_do_not_grow():
    """A simple cell with relu has states without bound, here of rows that have ended."""

    def build():
        settings = {**CELLS["rnn-relu"], **TOPOLOGIES["many-to-many"]}
        made = Problem(with_=("lengths",), rows=4, steps=400, hidden=2, **settings)
        made.params["layer0.w_hh"] = 10.0 * np.eye(2)
        made.params["layer0.w_xh"] = np.ones_like(made.params["layer0.w_xh"])
        made.params["layer0.b_h"] = np.ones(2)
        made.x = np.full_like(made.x, -1.0)
        made.x[:, 0] = 1.0
        made.x[3:] = -9.0
        made.arrays["lengths"] = np.asarray([2, 3, 2, 400])
        return made

    assert compare("numpy", build)


@pytest.mark.parametrize("cell", ["rnn-tanh", "gru", "gru-before", "lstm"])
@pytest.mark.parametrize("topology", ["many-to-one", "many-to-many"])
def test_steps_without_a_mask_or_reset_between_others(cell, topology):
    check_few(cell, topology)


def check_few(cell, topology):
    for option in ("mask", "reset", "all"):

        def build(option=option):
            made = problem(cell, option, topology=topology)
            for name, usual in (("mask", True), ("reset", False)):
                if name in made.arrays:
                    made.arrays[name][:, ::2] = usual
            return made

        assert compare("numpy", build)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("elif self.apart:", "elif False:"),
        ("always or bits is not None for bits in self.lasting", "False for bits in self.lasting"),
    ],
)
def test_mistakes_in_such_steps_are_caught(old, new, monkeypatch):
    check_few("gru", "many-to-many")
    plant(monkeypatch, "numpy.layer", old, new)
    with np.errstate(all="ignore"), pytest.raises(AssertionError):
        check_few("gru", "many-to-many")


@pytest.mark.parametrize(
    ("where", "old"),
    [("layer", "after[:, n:] = 0.0"), ("rnn", "tape.bounded = self.tanh")],
)
def test_states_that_grow_are_noticed(where, old, monkeypatch):
    plant(monkeypatch, f"numpy.{where}", old, "pass")
    with np.errstate(all="ignore"), pytest.raises(AssertionError):
        test_columns_that_no_row_computes_do_not_grow()
