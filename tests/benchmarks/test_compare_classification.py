"""The page that compares classifiers says where ours is worse."""

from __future__ import annotations

import subprocess

import pytest

from benchmarks.compare import __main__, classification


def row(ours, rocket, lstm):
    values = dict(zip(classification.METHODS, (ours, ours, rocket, lstm, 0.1), strict=True))
    return {
        m: {
            "accuracy": value,
            "seconds": 2.0,
            "cpu": 3.0,
            "mib": 300.0,
            "tested": 40,
            "by_heart": 0.975,
            "trained": 40,
        }
        for m, value in values.items()
    }


def page(results):
    return classification.page(results, list(classification.METHODS), "")


def test_each_shortfall_has_its_sentence():
    text = page({"Good": row(0.9, 1.0, 0.9), "Bad": row(0.8, 0.9, 0.85)})
    assert "| Good | 0.900 | 0.900 | 1.000 | 0.900 | 0.100 |" in text
    assert "| Good | 2.0 s (3.0 s), 300 MiB | 2.0 s (3.0 s), 300 MiB |" in text
    assert "| **mean** | 0.850 | 0.850 | 0.950 | 0.875 | 0.100 |" in text
    assert "- Bad: 0.800 is below 0.9 of MiniRocket's 0.900. Of the 40 training sequences" in text
    assert "the network knows 0.975: it has learned them" in text
    assert "- Bad: 0.800 is below PyTorch's LSTM, 0.850, a difference of 2 of 40 seq" in text
    assert "- Good" not in text


def test_a_page_without_a_shortfall_says_so():
    assert "- nowhere on these sets." in page({"Good": row(0.9, 0.9, 0.8)})


def test_one_that_fails_has_a_cell_that_says_so():
    failed = row(0.9, 0.9, 0.8) | {"MiniRocket": {"failed": "the process was ended by signal 11"}}
    text = page({"Good": row(0.9, 0.9, 0.8), "Bad": failed})
    assert "| Bad | 0.900 | 0.900 | the process was ended by signal 11 | 0.800 | 0.100 |" in text
    assert "| **mean** | 0.900 | 0.900 | - | 0.800 | 0.100 |" in text


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "ended by signal 11"),
        ("raise ImportError('no such thing')", "ImportError: no such thing"),
        ("import time; time.sleep(60)", "not done after 0 minutes"),
        ("print('{\"accuracy\": 1.0}')", None),
    ],
)
def test_each_method_has_a_process_of_its_own(command, message, monkeypatch, tmp_path):
    """In place of the command that measures there is a program that ends in another way."""
    original = subprocess.run

    def instead(call, **named):
        assert call[1:] == ["-m", "benchmarks.compare.classification", "UnitTest", "trivial"]
        return original([call[0], "-c", command], **named)

    monkeypatch.setattr(subprocess, "run", instead)
    monkeypatch.setattr(classification, "SECONDS", 10.0 if message != "not done after 0 minutes"
                        else 0.5)  # fmt: skip
    found = classification.results_of("UnitTest", ["trivial"], tmp_path)["trivial"]
    assert (message in found["failed"]) if message else (found == {"accuracy": 1.0})
    monkeypatch.setattr(subprocess, "run", None)  # what was kept is not measured again
    assert classification.results_of("UnitTest", ["trivial"], tmp_path)["trivial"] == found


def test_the_trivial_answer_is_the_most_frequent_label():
    assert list(classification.trivial(None, ["a", "b", "b"], [0, 0])) == ["b", "b"]


def test_words_after_the_first_option_are_those_of_the_comparison(monkeypatch):
    seen = []
    monkeypatch.setattr(classification, "main", lambda words: seen.append(words) or 0)
    assert __main__.main(["classification", "--sets", "UnitTest", "--only", "trivial"]) == 0
    assert seen == [["--sets", "UnitTest", "--only", "trivial"]]


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
    assert (classification.torch_lstm(x, y, x, epochs=30) == y).all()
