"""Every command in the README and the pages exists, with its options."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from rnn_xp import cli

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```\w*$.*?^```$|^    .*?$", re.MULTILINE | re.DOTALL)
LINE = re.compile(
    r"^ *(?:mpiexec -n \d+ |exec |srun --mpi=pmi2 |\w+=\S+ )*rnn-xp (.*)$", re.MULTILINE
)


def filled(text):
    """Put a value in place of each variable of a script."""
    return re.sub(r"\$\w+", lambda name: {"$cell": "gru"}.get(name[0], "1"), text)


def commands():
    return [
        pytest.param(shlex.split(filled(text), comments=True), id=f"{page.stem}: {text}")
        for page in PAGES
        for text in LINE.findall("\n".join(BLOCK.findall(page.read_text("utf-8"))))
    ]


@pytest.mark.parametrize("words", commands())
def test_a_command_of_the_documentation_parses(words):
    parser = cli._parser(words[0])
    if "--help" in words:
        with pytest.raises(SystemExit, match="^0$"):
            parser.parse_args(words)
    else:
        assert parser.parse_args(words).run


def test_there_are_commands():
    assert len(commands()) > 20
