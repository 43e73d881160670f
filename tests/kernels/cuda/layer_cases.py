"""Passes through the fused kernels of layers, on the CPU, and the portable code's numbers."""

from __future__ import annotations

import copy

import cupy_stand_in
import numpy as np
from kernel_options import adjoint, cast
from kernel_problems import CUDA_CELLS as CELLS
from problems import Problem
from raw_kernels import device_as as device

__all__ = [
    "BOUND",
    "KERNELS",
    "OPTIONS",
    "assert_rounding",
    "build",
    "device",
    "distance",
    "error",
    "through_kernels",
]

KERNELS = cupy_stand_in.load("cupy")

# Of the largest entry of an array, or of 1. A float32 operation rounds by 6e-8, and an h_t carries
# the rounding of all steps before it; the worst of all cases here is 2e-6.
BOUND = 1e-5

OPTIONS = {  # of the network, and of the call
    "plain": ({}, ()),
    "lengths": ({}, ("lengths",)),
    "mask": ({}, ("mask",)),
    "reset": ({}, ("reset",)),
    "state": ({}, ("state",)),
    "recurrent dropout": ({"recurrent_dropout": 0.4}, ("rng",)),
    "layer norm": ({"layer_norm": True}, ()),
    "lengths and mask": ({}, ("lengths", "mask")),
    "lengths, reset and state": ({}, ("lengths", "reset", "state")),
    "all": ({"recurrent_dropout": 0.4}, ("lengths", "mask", "reset", "state", "rng")),
    "all, layer norm": (
        {"recurrent_dropout": 0.4, "layer_norm": True},
        ("lengths", "mask", "reset", "state", "rng"),
    ),
}


def build(cell="lstm", option="all", **settings):
    """A problem in float32 with an option."""
    network, with_ = OPTIONS[option]
    if "dropout" in settings:
        with_ = (*with_, "rng")
    settings = {"rows": 9, "steps": 6, "hidden": 7, "scale": 0.5, **settings}
    return cast(Problem(with_=with_, **CELLS[cell], **network, **settings), "float32")


def through_kernels(problem, with_final=True, workspace=None, launches=2):
    """All that a pass returns, computed by one launch forward and one back of each layer.

    The weight gradients of all layers and those of the readout have ``launches`` together, each
    with one that adds up.
    """
    net, workspace = problem.net, workspace or KERNELS.Workspace("float32")
    problem.x, problem.dpred = map(cupy_stand_in.counted, (problem.x, problem.dpred))
    cupy_stand_in._noted.clear()
    made, computed = adjoint(problem, workspace, with_final)
    assert computed, "a layer was left to the portable code"
    for name in ("forward", "backward"):
        assert cupy_stand_in._noted.count(name) == net.num_layers * net.directions
    for name in ("collect", "add_up"):
        assert cupy_stand_in._noted.count(name) == launches
    assert "matmul" not in cupy_stand_in._noted, "CuPy has it computed by cuBLAS"
    return {name: np.array(array) for name, array in made.items()}


def error(problem, with_final=True):
    """The largest error of any result, relative to the largest entry or to 1; NaN if one is NaN."""
    made = through_kernels(problem, with_final)
    problem.x, problem.dpred = map(np.asarray, (problem.x, problem.dpred))
    assert {array.dtype for array in made.values()} == {np.dtype("float32")}
    return distance(made, problem, with_final)


def assert_rounding(problem, with_final=True):
    """Results are as exact as float32 allows: within `BOUND`, or within what their inputs allow.

    Layer normalisation divides by a deviation, and where that is small, rounding the inputs alone
    moves the exact results by more. They may then be off by twice as much as that.
    """
    found = error(problem, with_final)
    if not found < BOUND:
        allowed = 2.0 * _sensitivity(problem, with_final) if problem.net.layer_norm else 0.0
        assert found < min(allowed, 10.0 * BOUND)  # any planted mistake is further off


def _sensitivity(problem, with_final):
    """How far the exact results move if every input is off by up to one rounding of float32."""
    rng, moved = np.random.default_rng(0), []
    for _ in range(8):
        other = cast(copy.copy(problem), "float64")
        other.params = {name: _rounded(param, rng) for name, param in other.params.items()}
        other.x, other.dpred = _rounded(other.x, rng), _rounded(other.dpred, rng)
        moved.append(distance(adjoint(other, with_final=with_final)[0], problem, with_final))
    return max(moved)


def _rounded(array, rng):
    return array * (1.0 + 2.0**-24 * rng.uniform(-1.0, 1.0, array.shape))


def distance(made, problem, with_final):
    exact, _ = adjoint(cast(copy.copy(problem), "float64"), with_final=with_final)
    assert made.keys() <= exact.keys()
    errors = []
    for name, array in made.items():
        assert array.shape == exact[name].shape, name
        scale = max(np.abs(exact[name]).max(initial=0.0), 1.0)
        errors.append(np.abs(array - exact[name]).max(initial=0.0) / scale)
    return float(np.max(errors))
