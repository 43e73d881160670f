"""docs/guide/importing.md: its code runs, and its tables name what there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rnn_xp import cli

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "guide" / "importing.md").read_text(encoding="utf-8")


def test_the_page_runs_from_top_to_bottom():
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 2
    exec(compile("\n".join(blocks), "importing.md", "exec"), {})


def test_every_option_that_it_names_is_one_of_the_command(capsys):
    with pytest.raises(SystemExit, match="^0$"):
        cli.main(["import", "--help"])
    known = re.findall(r"--[a-z-]+", capsys.readouterr().out)
    named = re.findall(r"`(--[a-z-]+)", PAGE)
    assert len(named) >= 3
    assert {*named} <= {*known}


def test_the_documentation_lists_the_page_and_its_results():
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    assert "guide/importing\n" in index
    assert "results/imports\n" in index
