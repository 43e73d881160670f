"""docs/tutorials, executed: their code is run and must print what the pages say.

Words and whole numbers must be the same. Numbers with a point come out of trainings in float32,
which differ between CPUs and libraries: they may differ by 3 % or by two units of the last digit
shown, and percentages by three points.
"""

from __future__ import annotations

import doctest
import os
import re
import shlex
from pathlib import Path

import pytest

from rnn_xp import cli

FOLDER = Path(__file__).parents[2] / "docs" / "tutorials"
PAGES = sorted(path.stem for path in FOLDER.glob("*.md"))
NUMBER = re.compile(r"-?\d+\.\d+(?: %)?|-?\d+\. ")


class NearlyEqual(doctest.OutputChecker):
    """Compare words exactly, whatever the spaces, and numbers with a point nearly."""

    def check_output(self, want, got, optionflags):
        (words, numbers), (found_words, found) = map(self.parts, (want, got))
        return words == found_words and all(
            abs(float(a.rstrip(" %")) - float(b.rstrip(" %"))) <= self.tolerance(a)
            for a, b in zip(numbers, found, strict=True)
        )

    @staticmethod
    def parts(text):
        text = " ".join(text.split())
        return " ".join(NUMBER.sub(" # ", text).split()), NUMBER.findall(text)

    @staticmethod
    def tolerance(shown):
        number = shown.rstrip(" %")
        last = 10.0 ** -len(number.partition(".")[2])
        points = 3.0 if "%" in shown else 0.0
        return 1e-9 + max(0.03 * abs(float(number)), 2.0 * last, points)


def text_of(page):
    return (FOLDER / f"{page}.md").read_text(encoding="utf-8")


def run(text, name, globs):
    """Run the examples of a text, on top of what earlier ones left; how many there were."""
    test = doctest.DocTestParser().get_doctest(text, globs, name, name, 0)
    results = doctest.DocTestRunner(NearlyEqual()).run(test, clear_globs=False)
    assert results.failed == 0
    globs.update(test.globs)
    return results.attempted


@pytest.mark.full("multi_step", "characters")
@pytest.mark.parametrize("page", [page for page in PAGES if page != "backends"])
def test_a_page_prints_what_it_says(page):
    if page == "multi_step":
        pytest.importorskip("matplotlib")
    assert run(text_of(page), page, {}) > 8


def sections():
    first, jax, torch = text_of("backends").split("\n## ")[1:4]
    assert "jax" in jax
    assert "torch" in torch
    return first, jax, torch


@pytest.mark.full
def test_backends_on_numpy_and_jax():
    pytest.importorskip("jax")
    globs: dict[str, object] = {}
    assert all(run(section, "backends", globs) > 3 for section in sections()[:2])


@pytest.mark.torch
def test_backends_on_torch():
    pytest.importorskip("torch")
    globs: dict[str, object] = {}
    assert all(run(sections()[k], "backends", globs) > 3 for k in (0, 2))


def test_the_command_line_prints_the_table_of_the_first_page(capsys):
    text = text_of("first_model")
    (command,) = re.findall(r"^rnn-xp (backtest --data length_of_day .*)$", text, re.MULTILINE)
    (table,) = re.findall(r"^>>> print\(result\)\n(.*?)\n\n", text, re.MULTILINE | re.DOTALL)
    assert cli.main(shlex.split(command)) == 0
    printed = capsys.readouterr().out
    printed = printed[printed.index("2076 forecasts") :].partition("by step")[0]
    assert NearlyEqual().check_output(table, printed, 0), printed


@pytest.mark.parametrize("page", PAGES)
def test_commands_exist_and_examples_are_not_let_pass(page):
    text = text_of(page)
    assert "+SKIP" not in text
    assert "+ELLIPSIS" not in text
    for command in re.findall(r"^(?:\w+=\S+ )*rnn-xp ([a-z]+)", text, re.MULTILINE):
        with pytest.raises(SystemExit, match="^0$"):
            cli.main([command, "--help"])


def test_the_checker_tells_numbers_from_words():
    check = NearlyEqual().check_output
    assert check("rnn 0.2453  8.8 % of 7", "rnn   0.2460 9.9 % of 7", 0)
    assert check("a -0.0\nb 1.50", "a 0.1 b 1.52", 0)
    for other in ("rnn 0.2600 8.8 % of 7", "rnn 0.2453 8.8 % of 8", "gru 0.2453 8.8 % of 7", "rnn"):
        assert not check("rnn 0.2453 8.8 % of 7", other, 0)


def test_relative_links_of_all_pages_lead_somewhere():
    docs = FOLDER.parent
    for path in sorted(docs.rglob("*.md")):
        prose = re.sub(r"^```.*?^```|^    .*?$", "", path.read_text("utf-8"), flags=re.M | re.S)
        for target in re.findall(r"\]\(([^)#:\s]+)\)", prose):
            assert (path.parent / target).exists(), f"{path.relative_to(docs)}: {target}"


@pytest.mark.parametrize("picture", sorted(path.name for path in FOLDER.glob("*.png")))
def test_pictures_are_small_and_shown(picture):
    assert os.path.getsize(FOLDER / picture) < 60_000
    assert any(f"]({picture})" in text_of(page) for page in PAGES)
