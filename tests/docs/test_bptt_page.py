"""The derivation in docs/bptt.md, executed: its code is run and must print what the page says."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "bptt.md"
_, *SECTIONS = PAGE.read_text(encoding="utf-8").split("\n## ")


def test_the_page_runs_from_top_to_bottom():
    failed, attempted = doctest.testfile(str(PAGE), module_relative=False, encoding="utf-8")
    assert failed == 0
    assert attempted > 100


def test_the_page_goes_from_one_neuron_to_the_proof():
    assert [section.partition(".")[0] for section in SECTIONS] == list("12345678")


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.partition(".")[0])
def test_every_section_ends_by_comparing_its_formulas_with_the_library(section):
    parts = doctest.DocTestParser().parse(section)
    examples = [part for part in parts if isinstance(part, doctest.Example)]
    assert any("rx.Network(" in example.source for example in examples)
    assert sum("True" in example.want for example in examples) >= 2
    assert not any(example.options for example in examples)  # nothing is skipped or let pass
    assert str(parts[-1]).strip() == "```"  # after the last example comes no more text
