"""Past and future features by the names of columns: train, evaluate, backtest, forecast."""

from __future__ import annotations

import csv
import json
from datetime import date, timedelta

import numpy as np
import pytest

import rnn_xp as rx
from rnn_xp.cli import main

ROWS, AHEAD = 200, 10


@pytest.fixture
def table(tmp_path, monkeypatch):
    """Sales that follow yesterday's rain and today's holidays; the calendar goes on."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    rain, rest = rng.random(ROWS), (np.arange(ROWS + AHEAD) % 7 == 0).astype(float)
    sold = 5.0 + 3.0 * np.roll(rain, 1) + 4.0 * rest[:ROWS] + 0.1 * rng.standard_normal(ROWS)
    days = [(date(2024, 1, 1) + timedelta(days=k)).isoformat() for k in range(ROWS + AHEAD)]
    rows = zip(days, sold.round(4), rain.round(4), rest, strict=False)
    write("sales.csv", ["day", "sold", "rain", "rest"], rows)
    write("next.csv", ["day", "rest"], list(zip(days, rest, strict=True))[ROWS - 5 :])
    return tmp_path


def write(name, header, rows):
    with open(name, "w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


DATA = ["--data", "sales.csv", "--column", "sold", "--seq-length", "8"]
FEATURES = ["--past-features", "rain", "--future-features", "rest"]
SMALL = ["--hidden-size", "4", "--epochs", "6"]


def run(*words):
    return main([str(word) for word in words])


def refused(capsys, *words):
    capsys.readouterr()
    assert run(*words) == 2
    return capsys.readouterr().err


def trained(*words):
    assert run("train", *DATA, *FEATURES, *SMALL, "--horizon", 2, "--out", "run", *words) == 0


class TestRun:
    def test_it_is_the_forecaster_that_was_given_the_same_arrays(self, table, capsys):
        trained()
        assert "features past: rain | future: rest" in capsys.readouterr().out
        columns = np.genfromtxt("sales.csv", delimiter=",", skip_header=1)[:, 1:]
        cut = int(0.8 * ROWS)
        f = rx.Forecaster(
            seq_length=8, horizon=2, target="level", hidden_size=4, epochs=6, verbose=False
        )
        f.fit(columns[:cut, 0], past=columns[:cut, 1:2], future=columns[:cut, 2:])
        again = rx.Forecaster.load("run")
        expected = f.evaluate(columns[:, 0], past=columns[:, 1:2], future=columns[:, 2:])
        metrics = json.loads((table / "run" / "metrics.json").read_text())["metrics"]
        assert metrics["rmse"] == pytest.approx(expected.metrics["rmse"], rel=1e-3)
        assert again.predictor_.net.input_size == 3
        assert run("evaluate", "run", "--json") == 0
        judged = json.loads(capsys.readouterr().out.splitlines()[-1])["metrics"]
        assert judged["rmse"] == pytest.approx(metrics["rmse"], rel=1e-6)

    def test_features_are_worth_what_they_say(self, table, capsys):
        trained()
        with_them = json.loads((table / "run" / "metrics.json").read_text())["metrics"]["rmse"]
        assert run("train", *DATA, *SMALL, "--horizon", 2, "--out", "plain") == 0
        without = json.loads((table / "plain" / "metrics.json").read_text())["metrics"]["rmse"]
        assert with_them < 0.7 * without

    def test_forecasts_take_the_rows_of_their_dates(self, table, capsys):
        trained()
        capsys.readouterr()
        assert run("forecast", "run", "--future", "next.csv", "--level", 80, 95, "--json") == 0
        found = json.loads(capsys.readouterr().out)
        assert found["dates"] == ["2024-07-19", "2024-07-20"]
        assert [each["level"] for each in found["intervals"]] == [0.8, 0.95]
        columns = np.genfromtxt("sales.csv", delimiter=",", skip_header=1)[:, 1:]
        rest = np.genfromtxt("next.csv", delimiter=",", skip_header=1)[5:7, 1:]
        f = rx.Forecaster.load("run").apply(
            columns[:, 0], past=columns[:, 1:2], future=columns[:, 2:]
        )
        np.testing.assert_allclose(found["forecast"], f.predict(future=rest), rtol=1e-5)
        write("plain.csv", ["rest"], [[each] for each in rest[:, 0]])
        assert run("forecast", "run", "--future", "plain.csv", "--json") == 0
        assert json.loads(capsys.readouterr().out)["forecast"] == found["forecast"]

    def test_steps_beyond_the_horizon_need_their_features_only(self, table, capsys):
        words = ["--future-features", "rest", *SMALL, "--horizon", 2, "--out", "run"]
        assert run("train", *DATA, *words) == 0
        capsys.readouterr()
        assert run("forecast", "run", "--future", "next.csv", "--steps", 6, "--json") == 0
        found = json.loads(capsys.readouterr().out)
        assert len(found["forecast"]) == 6
        assert len(found["low"]) == 2

    def test_backtest_and_a_file_of_options(self, table, capsys):
        (table / "options.toml").write_text(
            'past_features = ["rain"]\nfuture_features = ["rest"]\n'
        )
        assert run("backtest", *DATA, *SMALL, "--config", "options.toml", "--json") == 0
        by_file = json.loads(capsys.readouterr().out)["metrics"]
        assert run("backtest", *DATA, *SMALL, *FEATURES, "--json") == 0
        assert json.loads(capsys.readouterr().out)["metrics"] == by_file

    def test_a_run_is_resumed_with_its_features(self, table, capsys):
        trained("--checkpoint-every", 1, "--no-fallback")
        assert run("train", "--resume", "run", "--epochs", 9) == 0
        metrics = json.loads((table / "run" / "metrics.json").read_text())
        assert metrics["config"]["past_features"] == ["rain"]
        said = refused(capsys, "train", "--resume", "run", "--past-features", "rest")
        assert "--past-features ['rest'] contradicts --resume run" in said


class TestRefusals:
    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["--past-features", "snow"], "snow"),
            (["--past-features", "sold"], "this column would be that of the series"),
            (["--past-features", "rain", "--future-features", "rain"], "that of two features"),
            (["--past-features", "rain", "--missing", "drop"], "--missing drop leaves rows out"),
            (["--future-features", "rest", "--horizon", "9"], "--seq-length"),
        ],
    )
    def test_of_columns(self, table, capsys, words, said):
        assert said in refused(capsys, "train", *DATA, *SMALL, *words)

    def test_of_bundled_series(self, capsys):
        said = refused(capsys, "train", "--data", "wti", "--past-features", "rain")
        assert "wti is a bundled series, which has one column" in said

    @pytest.mark.parametrize(
        ("rows", "said"),
        [
            (None, "give their values for 2 steps ahead"),
            ([["2024-07-20", 1.0], ["2024-07-21", 0.0]], "has no row for 2024-07-19"),
            ([[1.0], [0.0], [1.0]], "must have a row for each of 2 steps, and has 3"),
        ],
    )
    def test_of_what_lies_ahead(self, table, capsys, rows, said):
        trained()
        words = ["forecast", "run"]
        if rows is not None:
            write("bad.csv", ["day", "rest"][-len(rows[0]) :], rows)
            words += ["--future", "bad.csv"]
        assert said in refused(capsys, *words)

    def test_of_features_that_no_training_knew(self, table, capsys):
        assert run("train", *DATA, *SMALL, "--out", "plain") == 0
        said = refused(capsys, "forecast", "plain", "--future", "next.csv")
        assert "plain was trained without --future-features" in said
