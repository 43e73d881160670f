"""README says what the packages say of themselves, and which extras there are."""

from __future__ import annotations

import importlib
import re
import tomllib
from pathlib import Path

import pytest
from levels import LEVELS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def rows(heading):
    """First and second cell of each row of the table below a heading, without the marks of code."""
    part = README.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(r"^\| (`[^|]+`) \| ([^|]+) \|$", part, re.M)


def test_every_package_has_its_own_words():
    table = [(name.strip("`"), meaning) for name, meaning in rows("What is there")]
    assert {name for name, _ in table} == set(LEVELS)
    for name, meaning in table:
        assert importlib.import_module(f"rnn_xp.{name}").__doc__.splitlines()[0] == meaning


def test_the_table_goes_down_the_levels():
    levels = [LEVELS[name.strip("`")] for name, _ in rows("What is there")]
    assert levels == sorted(levels)


def test_every_extra_is_there():
    listed = {name for names, _ in rows("Extras") for name in re.findall(r"`([\w-]+)`", names)}
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    assert listed == set(extras) - {"docs", "lint", "test"}


@pytest.mark.parametrize("path", sorted({*re.findall(r"\]\(((?!http|#)[^)#]+)", README)}))
def test_every_link_leads_somewhere(path):
    assert (ROOT / path).exists()
