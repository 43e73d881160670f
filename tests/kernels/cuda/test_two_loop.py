"""The direction of L-BFGS in one launch, on the CPU."""

from __future__ import annotations

import re
import shutil
import subprocess

import cupy_stand_in
import numpy as np
import pytest
from layer_cases import device

from rnn_xp.optim.quasi_newton import LBFGSState, _direction

KERNEL = cupy_stand_in.load("cuda/two_loop")
SOURCE = KERNEL.source()


def problem(pairs, size):
    """A gradient, and pairs of a convex quadratic, which curve as L-BFGS asks."""
    rng = np.random.default_rng(pairs + size)
    curvature = rng.uniform(0.5, 2.0, size)
    steps = [rng.standard_normal(size).astype("f4") for _ in range(pairs)]
    changes = [(curvature * s).astype("f4") for s in steps]
    return rng.standard_normal(size).astype("f4"), steps, changes


def error(pairs, size):
    """The largest error of the kernel against float64, relative to the largest entry."""
    gradient, steps, changes = problem(pairs, size)
    exact = _direction(
        gradient.astype("f8"),
        LBFGSState(
            tuple(s.astype("f8") for s in steps), tuple(y.astype("f8") for y in changes), ""
        ),
        xp=np,
    )
    made = KERNEL.two_loop(
        cupy_stand_in.counted(gradient),
        *(list(map(cupy_stand_in.counted, a)) for a in (steps, changes)),
    )
    return np.abs(np.asarray(made) - exact).max() / np.abs(exact).max()


@pytest.mark.parametrize("pairs", [1, 2, 20])
@pytest.mark.parametrize("size", [1, 31, 511, 512, 513, 2651])
def test_agrees_with_the_portable_code_in_float64(pairs, size):
    assert error(min(pairs, size), size) < 1e-5


def test_the_same_bits_in_every_order_of_threads():
    gradient, steps, changes = problem(5, 700)
    made = []
    for shuffled in (False, True, True):
        with device(shuffled=shuffled):
            made.append(np.asarray(KERNEL.two_loop(gradient, steps, changes)))
    assert np.array_equal(made[0], made[1])
    assert np.array_equal(made[0], made[2])


def test_is_one_launch_beside_the_stacking_of_the_pairs():
    gradient, steps, changes = problem(20, 50)
    with cupy_stand_in.launches() as noted:
        KERNEL.two_loop(gradient, steps, changes)
    assert noted == ["stack", "stack", "two_loop"]


def test_leaves_float64_and_large_vectors_to_the_portable_code():
    gradient, steps, changes = problem(1, 8)
    assert KERNEL.two_loop(gradient.astype("f8"), steps, changes) is None
    assert KERNEL.two_loop(np.zeros(KERNEL.MAX_SIZE + 1, "f4"), steps, changes) is None


@pytest.mark.parametrize("number", [1, 2])
def test_a_barrier_removed(number):
    with device(options=(f"-DDROP_BARRIER={number}",)), np.errstate(all="ignore"):
        assert not error(4, 700) < 1e-4
    assert SOURCE.count("__syncthreads") == 1
    assert sorted(re.findall(r"BARRIER\((\d)\)", SOURCE)) == ["1", "2"]


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("fmaf(-alpha, y[i], q[i])", "fmaf(alpha, y[i], q[i])"),
        ("q[i] *= scale", "q[i] /= scale"),
        ("k = pairs - 1; k >= 0; --k", "k = 0; k < pairs; ++k"),
        ("alphas[k] - dot", "dot"),
        ("k < GROUP; ++k", "k < GROUP - 1; ++k"),
        ("q[i] = -gradient[i]", "q[i] = gradient[i]"),
        ("i += THREADS) own", "i += 2 * THREADS) own"),
    ],
)
def test_a_mistake(right, wrong):
    assert SOURCE.count(right) == 1
    edit = staticmethod(lambda source: source.replace(right, wrong))
    with device(edit=edit), np.errstate(all="ignore"):
        assert not error(4, 700) < 1e-4


@pytest.mark.full
@pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is not installed")
@pytest.mark.parametrize("architecture", ["sm_80", "sm_90", "sm_100"])
def test_compiles_without_spills(architecture, tmp_path):
    (tmp_path / "two_loop.cu").write_text(SOURCE)
    command = ["nvcc", "-std=c++17", f"-arch={architecture}", "-Xptxas", "-v", "-cubin"]
    done = subprocess.run(
        [*command, "two_loop.cu"], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "0 bytes spill stores, 0 bytes spill loads" in done.stderr
