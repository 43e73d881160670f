"""NumPy's layers on the way back: stretches of steps of any length give the same gradients."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
from kernel_planting import plant
from kernel_problems import CELLS

import rnn_xp as rx

STEPS = 7
# Few rows take one product over a stretch, and many a product for each step, as without any.
FEW, MANY = 2, 40


def check(cell, rows, steps, monkeypatch):
    """Compare stretches of so many steps with the portable code, and with a step at a time."""
    kernels = importlib.import_module("rnn_xp.kernels.numpy")
    back = importlib.import_module("rnn_xp.kernels.numpy.back")
    net = rx.Network(**CELLS[cell], input_size=3, hidden_size=5, topology="many_to_many")
    rng = np.random.default_rng(1)
    data = rng.standard_normal((rows, STEPS, 3)), rng.standard_normal((rows, STEPS, 1))
    params = net.init(0, rx.get_backend("numpy", dtype="float64"))

    def gradient(cached):
        monkeypatch.setattr(back, "_CACHED", cached)
        return net.value_and_grad(params, *data, workspace=kernels.Workspace("float64"))[1]

    numbers = (10 if cell == "rnn-tanh" else 50) * rows
    found, alone = gradient(steps * numbers), gradient(1)
    for name, right in net.value_and_grad(params, *data)[1].items():
        np.testing.assert_allclose(found[name], right, rtol=1e-9, atol=1e-12)
        if rows == MANY:
            assert np.array_equal(found[name], alone[name])


@pytest.mark.parametrize("cell", ["rnn-tanh", "gru", "gru-before", "lstm"])
@pytest.mark.parametrize("rows", [FEW, MANY])
@pytest.mark.parametrize("steps", [1, 2, 4, STEPS])
def test_any_length(cell, rows, steps, monkeypatch):
    check(cell, rows, steps, monkeypatch)


@pytest.mark.parametrize(
    ("rows", "old", "new"),
    [
        (FEW, "dw += np.matmul(left, right.T,", "dw[...] = np.matmul(left, right.T,"),
        (FEW, "slice(max(start, stop - length), stop)", "slice(start, stop)"),
        (FEW, "joined[...] = a.transpose(1, 0, 2)", "joined[...] = a.reshape(joined.shape)"),
        (MANY, "terms[0] = dw", "terms[0] = 0.0"),
        (MANY, "np.matmul(d[::-1],", "np.matmul(d,"),
        (MANY, "range(part.stop - 1,", "range(part.stop - 2,"),
    ],
)
def test_mistakes_are_caught(rows, old, new, monkeypatch):
    check("lstm", rows, 2, monkeypatch)
    plant(monkeypatch, "numpy.back", old, new)
    with pytest.raises(AssertionError):
        check("lstm", rows, 2, monkeypatch)
