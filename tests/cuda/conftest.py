"""CuPy is absent here, whether installed or not, until a test puts its stand-in there."""

from __future__ import annotations

import sys

import pytest


@pytest.fixture(autouse=True)
def no_cupy(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
