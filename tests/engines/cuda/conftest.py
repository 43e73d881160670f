"""CuPy is absent here, whether installed or not, until a test puts its stand-in there."""

from __future__ import annotations

import sys

import cupy_stand_in
import pytest


@pytest.fixture(autouse=True)
def no_cupy(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    kernels = cupy_stand_in.load("cupy")  # for what is left to the portable engine
    monkeypatch.setitem(sys.modules, "rnn_xp.kernels.cupy", kernels)
    monkeypatch.setattr("rnn_xp.kernels.cupy", kernels, raising=False)
