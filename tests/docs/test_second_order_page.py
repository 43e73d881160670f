"""docs/guide/second_order.md: its code runs, and its claims are those of the library."""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "guide" / "second_order.md").read_text(encoding="utf-8")


def test_the_page_runs_from_top_to_bottom():
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 9
    exec(compile("\n".join(blocks), "second_order.md", "exec"), {})


def test_the_documentation_lists_the_page():
    assert "guide/second_order\n" in (DOCS / "index.md").read_text(encoding="utf-8")
    assert "results/second_order\n" in (DOCS / "index.md").read_text(encoding="utf-8")
