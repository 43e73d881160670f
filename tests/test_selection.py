"""Tests that run without `--full`: every pair occurs, and a new choice joins by itself."""

from __future__ import annotations

import itertools

import pytest
import selection
from covering import covering, parts
from hypothesis import given
from hypothesis import strategies as st

pytest_plugins = ["pytester"]
factors = st.dictionaries(st.sampled_from("abcd"), st.integers(0, 3), max_size=4)


def product(**choices):
    return [dict(zip(choices, row, strict=True)) for row in itertools.product(*choices.values())]


@given(st.lists(factors, max_size=30), st.sampled_from(["pairs", "values"]))
def test_all_that_occurs_occurs_among_the_chosen(rows, what):
    chosen = covering(rows, what)
    assert chosen == sorted(set(chosen))
    wanted = set().union(*(parts(row, what) for row in rows))
    assert set().union(*(parts(rows[k], what) for k in chosen)) == wanted


def test_every_pair_and_every_value_in_few_rows():
    rows = product(cell="abcde", topology="klmnopq", option="rstuvwxyz")
    pairs, values = covering(rows), covering(rows, "values")
    assert 63 <= len(pairs) <= 80  # of 315; seven times nine is the least there can be
    assert len(values) == 9
    found = {(rows[k]["topology"], rows[k]["option"]) for k in pairs}
    assert len(found) == 63


def test_dear_rows_are_avoided():
    rows = product(library=["numpy", "jax"], cell="abc", option="rst")
    costs = [10.0 if row["library"] == "jax" else 1.0 for row in rows]
    chosen = [rows[k] for k in covering(rows, costs=costs)]
    assert sum(row["library"] == "jax" for row in chosen) == 3
    assert len(chosen) <= 12


def test_an_unknown_kind():
    with pytest.raises(ValueError, match="'pairs' or of 'values', got 'triples'"):
        covering([{"a": 1}], "triples")


TESTS = """
import pytest

@pytest.mark.cover("values")
@pytest.mark.parametrize("a", range(4))
@pytest.mark.parametrize("b", range(3))
def test_values(a, b): pass

@pytest.mark.cover("values", "b")
@pytest.mark.parametrize("a", range(4))
@pytest.mark.parametrize("b", range(3))
def test_one(a, b): pass

@pytest.mark.cover("pairs")
class TestPairs:
    @pytest.mark.parametrize("a", range(4))
    @pytest.mark.parametrize("b", range(3))
    def test_first(self, a, b): pass

    @pytest.mark.parametrize("a", range(4))
    @pytest.mark.parametrize("b", range(3))
    def test_second(self, a, b): pass

    def test_plain(self): pass

@pytest.mark.full
def test_long(): pass

@pytest.mark.torch
@pytest.mark.parametrize("a", range(4))
def test_torch(a): pass
"""
CONFTEST = """
import pytest, selection

def pytest_addoption(parser):
    parser.addoption("--full", action="store_true")

@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    selection.select(config, items, {})

def pytest_terminal_summary(terminalreporter):
    terminalreporter.line(selection.left_out(terminalreporter.config))
"""


class TestSelect:
    @pytest.fixture
    def run(self, pytester, monkeypatch):
        monkeypatch.setitem(selection.LIBRARY, "torch", "no_such_library")
        pytester.makeconftest(CONFTEST)
        pytester.makepyfile(test_a=TESTS)
        pytester.makeini("[pytest]\nmarkers =\n    full\n    cover\n    torch\n")

        def run(*words):
            result = pytester.runpytest("-v", "-p", "no:cacheprovider", *words)
            passed = [line.split()[0] for line in result.outlines if "PASSED" in line]
            (last,) = (line for line in result.outlines if line.startswith("left out"))
            return [name.partition("::")[2] for name in passed], last

        return run

    def test_a_part_of_each(self, run):
        ran, last = run()
        names = [name.partition("[")[0] for name in ran]
        assert names.count("test_values") == 4  # the larger number of values
        assert names.count("test_one") == 3
        assert names.count("TestPairs::test_plain") == 1
        assert "test_long" not in names
        pairs = [name for name in ran if name.startswith("TestPairs") and "[" in name]
        assert 12 <= len(pairs) < 18
        assert {name[-5:] for name in pairs} == {f"[{b}-{a}]" for a in range(4) for b in range(3)}
        assert {name[:21] for name in pairs} == {"TestPairs::test_first", "TestPairs::test_secon"}
        rest = 12 + 12 + 24 + 2 - len(ran)
        assert last == (
            f"left out: {rest} of the full products (make test-all), "
            "4 as no_such_library is not installed (pip install no_such_library)"
        )

    def test_all(self, run):
        ran, last = run("--full")
        assert len(ran) == 12 + 12 + 24 + 2
        assert "full products" not in last

    def test_the_rest_alone(self, run):
        some, _ = run()
        rest, _ = run("--full", "-m", "full")
        everything, _ = run("--full")
        assert sorted(some + rest) == sorted(everything)
