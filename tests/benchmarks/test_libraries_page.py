"""docs/guide/libraries.md is what benchmarks/libraries.py writes, and has what it promises."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import rnn_xp
from benchmarks import libraries
from benchmarks.foreign_arrays import FOREIGN

ROOT = Path(rnn_xp.__file__).parents[1]
PAGE = (ROOT / "docs" / "guide" / "libraries.md").read_text(encoding="utf-8")


def rows(text):
    return [line.split(" | ") for line in text.splitlines() if re.match(r"\| [A-Za-z]", line)]


def test_every_row_that_is_measured_is_on_the_page():
    names = [row[0].removeprefix("| ") for row in rows(PAGE)]
    first = names.index("library") + 1
    assert names[first : first + len(libraries.ROWS)] == [*libraries.ROWS]


def test_at_least_twelve_libraries_or_devices_work_and_each_has_an_error_bound():
    measured = [row for row in rows(PAGE) if len(row) == 10]
    works = [row for row in measured if re.fullmatch(r"(- / )?\de[-+]\d\d( / \de-\d\d)?", row[6])]
    assert len(works) >= 12
    for row in works:
        double, _, single = row[6].rpartition(" / ")
        assert float(single) <= 2e-5
        assert double in ("", "-") or float(double) <= 1e-12


def test_what_is_no_array_has_its_answer_and_its_remedy():
    for kind, foreign in FOREIGN.items():
        if foreign.library not in {row.module for row in libraries.ROWS.values()} - {
            "numpy",
            "torch",
        }:
            assert f"| {kind} |" in PAGE
            assert f"| {foreign.remedy} |" in PAGE


def test_no_path_of_a_machine_is_on_the_page():
    assert not re.search(r"/(home|root|tmp|usr|work|opt)/", PAGE)
    assert sys.prefix not in PAGE


def test_a_row_is_measured_and_shown():
    found = libraries.measure(libraries.ROWS["NumPy"])
    (row,) = list(libraries.table({"NumPy": found}))[2:]
    assert row.startswith("| NumPy | ")
    assert " | 54 of 54 | none | cpu |" in row
    assert list(libraries.notes({"NumPy": found})) == []


def test_what_fails_is_noted_once_with_all_its_places():
    probe = {"works": dict.fromkeys(libraries.STEPS, 0.0), "functions": 2, "missing": {"cos": "E"}}
    probe["reasons"] = {**dict.fromkeys(libraries.STEPS, ""), "fit": "E"}
    single = {**probe, "missing": {"cos": "E", "sin": "F"}}
    found = {"version": "1", "devices": [], "device": "cpu", "jit": "none"}
    results = {
        "A": {**found, "probes": {"float64": probe, "float32": single}},
        "B": {"failed": "no"},
    }
    assert list(libraries.notes(results)) == [
        "- **A**: fit, `cos`: E",
        "- **A**: `sin` (float32): F",
        "- **B**: no",
    ]
    assert list(libraries.table(results))[2:] == [
        "| A | 1 | 0e+00 | 0e+00 | 0e+00 | no | 0e+00 | 1 of 2 | none | cpu |",
        "| B | not usable here | | | | | | | | |",
    ]
