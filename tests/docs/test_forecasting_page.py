"""docs/guide/forecasting.md is true: its examples are run."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "guide" / "forecasting.md"


def test_its_examples_print_what_they_say():
    pytest.importorskip("pandas")
    result = doctest.testfile(str(PAGE), module_relative=False, optionflags=doctest.ELLIPSIS)
    assert result.failed == 0
    assert result.attempted >= 20
