"""The page that compares classifiers says where ours is worse."""

from __future__ import annotations

import pytest

from benchmarks.compare import __main__, classification


def row(ours, rocket, lstm):
    values = dict(zip(classification.METHODS, (ours, rocket, lstm, 0.1), strict=True))
    return {m: {"accuracy": value, "s": 2.0, "MB": 300.0} for m, value in values.items()}


def test_each_shortfall_has_its_sentence():
    text = classification.page({"Good": row(0.9, 1.0, 0.9), "Bad": row(0.8, 0.9, 0.85)})
    assert "| Good | 0.900, 2.0 s, 300 MB | 1.000, 2.0 s, 300 MB |" in text
    assert "| mean | 0.850 | 0.950 | 0.875 | 0.100 |" in text
    assert "- Bad: 0.800 is below 0.9 of MiniRocket's 0.900." in text
    assert "- Bad: 0.800 is below PyTorch's LSTM, 0.850." in text
    assert "- Good" not in text


def test_a_page_without_a_shortfall_says_so():
    assert "- nowhere on these sets." in classification.page({"Good": row(0.9, 0.9, 0.8)})


def test_the_trivial_answer_is_the_most_frequent_label():
    assert list(classification.trivial(None, ["a", "b", "b"], [0, 0])) == ["b", "b"]


def test_a_comparison_that_is_not_there_is_named(capsys):
    assert __main__.main(["clasification"]) == 2
    assert "clasification is not one of classification, forecasting" in capsys.readouterr().err


def test_pytorchs_lstm_learns_ragged_sequences():
    pytest.importorskip("torch", reason="torch is not installed")
    import numpy as np

    rng = np.random.default_rng(0)
    y = np.repeat(["low", "high"], 6)
    x = [rng.standard_normal((2, 3 + i)).astype("f4") + 2.0 * (i > 5) for i in range(12)]
    x = [part.astype("f4") for part in x]
    assert (classification.torch_lstm(x, y, x) == y).all()
