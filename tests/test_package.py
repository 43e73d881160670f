"""What one sees of the package at a prompt: names to complete, and results in a line."""

from __future__ import annotations

import numpy as np
import pytest

import rnn_xp as rx


def test_dir_shows_what_there_is_and_nothing_else():
    names = [name for name in dir(rx) if not name.startswith("_")]
    assert {"RecurrentClassifier", "metrics", "plotting", "explain", "fit", "Network"} <= {*names}
    assert not {"Any", "TYPE_CHECKING", "importlib"} & {*names}
    for name in names:
        assert getattr(rx, name) is not None


def test_a_name_that_is_not_there():
    with pytest.raises(AttributeError, match="module 'rnn_xp' has no attribute 'fitt'"):
        rx.fitt  # noqa: B018


def test_results_are_a_line_at_the_prompt():
    wti = rx.datasets.load("wti")
    assert repr(wti) == "<Series wti: 8321 values in USD/barrel, 1986-01-02 .. 2019-01-03>"
    x, y = rx.make_windows(np.sin(np.arange(60.0)), seq_length=5)
    result = rx.fit(rx.Network(hidden_size=2), x, y, optimizer=rx.optim.adam(0.01), epochs=2)
    assert repr(result) == f"<FitResult after 2 epochs: loss {result.history['loss'][-1]:.4g}>"
    forecaster = rx.Forecaster(seq_length=5, hidden_size=2, epochs=2, verbose=False)
    report = forecaster.fit(np.sin(np.arange(90.0))).backtest(np.sin(np.arange(90.0)), start=0.8)
    assert repr(report) == f"<Backtest of 1 series: {report.verdict}>"
