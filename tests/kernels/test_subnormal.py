"""Kernels take subnormal gradients for zero, and leave the thread's arithmetic as it was."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
from kernel_problems import CELLS

import rnn_xp as rx
from rnn_xp.kernels import kernels_of
from rnn_xp.kernels.course import Course
from rnn_xp.kernels.subnormal import CAN_FLUSH, without_subnormals

FLOAT32 = rx.get_backend("numpy", dtype="float32")
KINDS = list(dict.fromkeys(["numpy", kernels_of(FLOAT32).name]))
NORMAL = np.finfo(np.float32).tiny


def tenth():
    return np.float32(NORMAL) * np.float32(0.1)


def workspace(kind):
    return importlib.import_module(f"rnn_xp.kernels.{kind}").Workspace("float32")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cell", ["rnn-tanh", "gru", "gru-before", "lstm"])
def test_gradients_of_states(cell, kind):
    """A tiny gradient of the loss becomes subnormal within the sequence: there it is zero."""
    net = rx.Network(**CELLS[cell], input_size=2, hidden_size=4)
    weights = {name.partition(".")[2]: w for name, w in net.init(0, FLOAT32).items()}
    xs = np.random.default_rng(1).standard_normal((40, 3, 2), dtype=np.float32)
    space = workspace(kind)
    kernel = space.kernel(cell)
    _, _, tape = kernel.forward(weights, xs, Course(), space, "layer0.")

    def back(size):
        dhs = [None] * 39 + [np.full((3, 4), size, np.float32)]
        return kernel.backward(weights, tape, dhs, None, wrt_input=True)[1].astype(np.float64)

    right = np.abs(1e-35 * back(1.0))
    subnormal = (right > 0.0) & (right < 0.5 * NORMAL)
    assert subnormal.any()
    assert (right > 2.0 * NORMAL).any()
    found = np.abs(back(1e-35))
    assert np.all(np.abs(found - right) <= 1e-5 * right + 20.0 * NORMAL)
    if CAN_FLUSH:
        assert np.all((found == 0.0) | (found >= NORMAL))
        assert tenth() > 0.0


def test_the_setting_ends_with_the_function():
    @without_subnormals
    def fails():
        assert (tenth() == 0.0) == CAN_FLUSH
        raise KeyError

    assert fails.__name__ == "fails"
    with pytest.raises(KeyError):
        fails()
    assert tenth() > 0.0
