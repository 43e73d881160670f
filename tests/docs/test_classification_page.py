"""docs/guide/classification.md, executed: its code, its commands, and what they print."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from rnn_xp import cli

pytest.importorskip("sklearn", reason="scikit-learn is not installed")

TEXT = (Path(__file__).parents[2] / "docs" / "guide" / "classification.md").read_text("utf-8")
COMMANDS = re.findall(r"^    rnn-xp (.*runs/moves.*)$", TEXT, re.MULTILINE)
SHOWN = re.findall(r"^```\n((?:backend|data) .*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


@pytest.mark.full
def test_the_run_on_the_page(tmp_path, monkeypatch, capsys):
    """Trainings in float32 differ between CPUs by a few sequences; nothing else may differ."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    exec(re.search(r"```python\n(.*?)```", TEXT, re.DOTALL)[1], {})
    told = []
    for words in COMMANDS:
        assert cli.main(shlex.split(words)) == 0
        told.append(capsys.readouterr().out)
    assert len(SHOWN) == 2
    for shown, found in zip(SHOWN, (told[0], told[2]), strict=True):
        right, given = (
            [int(n) for n in re.search(r"right for (\d+) of (\d+)", text).groups()]
            for text in (shown, found)
        )
        assert given[1] == right[1]
        assert abs(given[0] - right[0]) <= 0.05 * right[1]
        assert _words(found) == _words(shown)
    assert Path("later.html").exists()
    assert len(Path("classes.csv").read_text().splitlines()) == 91


def _words(text):
    """The words of a text; the library and all counts may differ."""
    text = re.sub(r"backend .*", "", text)
    return re.sub(r"[-\d.]+|\s+", " ", text).split()


def test_the_page_has_what_the_test_looks_for():
    assert len(COMMANDS) == 3
    assert [text.split()[0] for text in SHOWN] == ["backend", "data"]
