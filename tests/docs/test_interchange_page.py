"""docs/guide/interchange.md, executed: its code is run and must print what the page says."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "guide" / "interchange.md"
FIRST, *SECTIONS = PAGE.read_text(encoding="utf-8").split("\n## ")
NEEDS = {"5": ("onnx", "onnxruntime"), "6": ("onnx", "onnxruntime", "ndonnx")}


def run(text, name, globs):
    """Run the examples of a text, on top of what earlier ones left; how many there were."""
    test = doctest.DocTestParser().get_doctest(text, globs, name, str(PAGE), 0)
    results = doctest.DocTestRunner().run(test, clear_globs=False)
    assert results.failed == 0
    globs.update(test.globs)
    return results.attempted


def test_what_needs_no_other_library():
    globs: dict[str, object] = {}
    assert run(FIRST, "first", globs) > 5
    for section in SECTIONS:
        if section[0] not in NEEDS:
            assert run(section, section[0], globs) >= 2


@pytest.mark.interchange
def test_what_needs_onnx():
    for module in NEEDS["6"]:
        pytest.importorskip(module, reason=f"{module} is not installed")
    globs: dict[str, object] = {}
    run(FIRST, "first", globs)
    for section in SECTIONS:
        if section[0] in NEEDS:
            assert run(section, section[0], globs) > 4


def test_the_sections_are_numbered_and_examples_are_not_let_pass():
    assert [section.partition(".")[0] for section in SECTIONS] == list("123456")
    assert "+SKIP" not in PAGE.read_text(encoding="utf-8")
    assert "+ELLIPSIS" not in PAGE.read_text(encoding="utf-8")
