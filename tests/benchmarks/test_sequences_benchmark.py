"""The benchmark of long sequences: what it measures, and that it judges."""

from __future__ import annotations

import pytest

from benchmarks import sequences

FOUND = {
    "cell": "rnn", "topology": "many_to_one", "rows": 1, "steps": 1000, "all": 10e6, "tenth": 1e6,
    "budget": 2e6, "all_s": 1.0, "tenth_s": 1.2, "same": True,
}  # fmt: skip


@pytest.mark.parametrize(
    ("worse", "failed"),
    [
        ({}, None), ({"same": False}, 0), ({"tenth_s": 1.41}, 1), ({"tenth": 2.1e6}, 2),
        ({"tenth": 201e6, "budget": 300e6}, 3),
    ],
)  # fmt: skip
def test_each_promise_is_judged_by_its_worst_row(worse, failed):
    passed = [passed for passed, _ in sequences.judge([FOUND, FOUND | worse, FOUND])]
    assert passed == [number != failed for number in range(4)]


def test_a_short_sequence_has_the_same_bits():
    everything, limited = (
        sequences.measure("gru", "many_to_many", 2, 3000, 2, few) for few in (False, True)
    )
    assert everything["bits"] == limited["bits"]
    assert limited["peak"] <= limited["budget"]


def test_the_page_names_the_command():
    page = sequences.page([FOUND], ["Good."], "python -m benchmarks.sequences --rows 2")
    assert "Written by `python -m benchmarks.sequences --rows 2`." in page
    assert "| rnn | many_to_one | 1 | 1,000 | 10.0 | 1.0 | 1.000 | 1.200 | 1.20 | same |" in page
