"""Layers step by step: products by cuBLAS, or by kernels that a CUDA graph can record."""

from __future__ import annotations

import cupy_stand_in
import numpy as np
import pytest
from kernel_options import STACKS, adjoint
from kernel_problems import CUDA_CELLS as CELLS
from layer_cases import BOUND, KERNELS, build, distance
from problems import TOPOLOGIES


def by_steps(problem, own, dtype="float32"):
    """All that a pass returns, and the launches; layers as wide as these go step by step."""
    workspace = KERNELS.Workspace(dtype)
    workspace.own_products = own
    problem.x, problem.dpred = map(cupy_stand_in.counted, (problem.x, problem.dpred))
    with cupy_stand_in.launches() as noted, pytest.MonkeyPatch.context() as patch:
        patch.setattr(KERNELS.layer, "plan_of", lambda *args, norm: None)
        made, computed = adjoint(problem, workspace)
    assert computed
    assert "forward" not in noted
    problem.x, problem.dpred = map(np.asarray, (problem.x, problem.dpred))
    return {name: np.array(array) for name, array in made.items()}, list(noted)


@pytest.mark.cover("pairs")
@pytest.mark.parametrize("topology", ["many-to-one", "many-to-one-mean", "many-to-many"])
@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_agrees_with_the_portable_code_in_float64(cell, own, stack, topology):
    problem = build(cell, "plain", **STACKS[stack], **TOPOLOGIES[topology])
    made, noted = by_steps(problem, own)
    assert distance(made, problem, True) < BOUND
    assert ("matmul" in noted) == (not own)
    assert {array.dtype for array in made.values()} == {np.dtype("float32")}


@pytest.mark.parametrize("topology", ["many-to-one", "many-to-one-mean", "many-to-many"])
@pytest.mark.parametrize("stack", STACKS)
def test_at_most_eight_arrays_are_put_together(monkeypatch, stack, topology):
    """For more CuPy brings a table of their addresses from the host."""
    counts, original = [0], cupy_stand_in.Counted.__array_function__

    def spy(self, function, types, args, options):
        if function.__name__ in ("concatenate", "concat", "stack"):
            counts.append(len(args[0]))
        return original(self, function, types, args, options)

    monkeypatch.setattr(cupy_stand_in.Counted, "__array_function__", spy)
    by_steps(build("gru", "plain", steps=12, **STACKS[stack], **TOPOLOGIES[topology]), own=True)
    assert max(counts) <= 8


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_of_layers_that_are_too_wide_for_a_launch(cell, own):
    problem = build(cell, "plain", hidden=260, rows=20, steps=3, scale=0.03)
    assert distance(by_steps(problem, own)[0], problem, True) < BOUND


@pytest.mark.parametrize("cell", CELLS)
def test_a_step_has_as_many_launches_by_own_products(cell):
    """One more for the weight gradients of a layer, or of each product of the GRU, at most."""
    counts = {}
    for own in (False, True):
        for steps in (4, 9):
            counts[own, steps] = len(by_steps(build(cell, "plain", steps=steps), own)[1])
    assert counts[True, 9] - counts[True, 4] == counts[False, 9] - counts[False, 4]
    assert counts[True, 4] <= counts[False, 4]


@pytest.mark.parametrize("cell", CELLS)
def test_the_same_bits_again_and_whatever_the_buffers_held(cell):
    first, _ = by_steps(build(cell, "plain", rows=40, hidden=20), own=True)
    again, _ = by_steps(build(cell, "plain", rows=40, hidden=20), own=True)
    for name, array in first.items():
        assert np.array_equal(again[name], array), name


def test_in_float64_products_are_always_those_of_cublas():
    problem = build("gru", "plain")
    for name in ("x", "dpred"):
        setattr(problem, name, getattr(problem, name).astype("f8"))
    problem.params = {name: p.astype("f8") for name, p in problem.params.items()}
    problem.dstate = type(problem.dstate)(*(a.astype("f8") for a in problem.dstate))
    _, noted = by_steps(problem, own=True, dtype="float64")
    assert "matmul" in noted
    assert "product_tiles" not in noted
