"""The one reason, beside a library that is not installed, for which a test may be skipped."""

from __future__ import annotations

import importlib

import pytest

from rnn_xp.backend.libraries import probe


def require_device() -> None:
    """Skip a test where CuPy is not installed or finds no GPU; it carries the marker `device`."""
    try:
        importlib.import_module("cupy")
    except ModuleNotFoundError:
        pytest.skip("cupy is not installed")
    status = probe("cupy")
    if not status.usable:
        pytest.skip(f"no usable CUDA device: {status.reason}")
