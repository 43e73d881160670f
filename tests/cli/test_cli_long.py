"""Long files, which hold one series below the other: train, evaluate, backtest, forecast."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

import rnn_xp as rx
from rnn_xp.cli import main

SMALL = ["--hidden-size", "4", "--epochs", "5", "--seq-length", "8", "--horizon", "2"]
SERIES = {
    name: level + np.sin(np.arange(rows) / 3.0) + 0.01 * np.arange(rows) % 0.07
    for name, level, rows in (("north", 5.0, 120), ("south", 50.0, 120), ("3", 0.0, 90))
}


def run(*words):
    return main([str(word) for word in words])


def refused(capsys, *words):
    capsys.readouterr()
    assert run(*words) == 2
    return capsys.readouterr().err


@pytest.fixture
def long_file(tmp_path):
    days = np.datetime64("2024-01-01") + np.arange(120)
    rows = [
        [name, str(day), f"{value:.6f}", 7]
        for name, values in SERIES.items()
        for day, value in zip(days, values, strict=False)
    ]
    with open("sales.csv", "w", newline="") as file:
        csv.writer(file).writerows([["shop", "day", "sold", "staff"], *rows])
    return tmp_path


DATA = ["--data", "sales.csv", "--id", "shop", "--column", "sold"]


def train(*options, out="run"):
    assert run("train", *DATA, *SMALL, *options, "--out", out) == 0


def rows_of(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_is_the_forecaster_of_the_panel(long_file, capsys):
    train()
    out = capsys.readouterr().out
    assert "3 series, by shop: sales (sold): 330 rows" in out
    series = {name: values.round(6) for name, values in SERIES.items()}
    seen = {name: values[: int(0.8 * len(values))] for name, values in series.items()}
    f = rx.Forecaster(
        seq_length=8, horizon=2, hidden_size=4, epochs=5, target="level", verbose=False
    ).fit(seen)
    expected = f.evaluate(series)
    metrics = json.loads((long_file / "run" / "metrics.json").read_text())
    assert metrics["metrics"]["rmse"] == pytest.approx(expected.metrics["rmse"], rel=1e-3)
    forecasts = sum(len(part.origins) for part in expected.series)
    assert metrics["split"]["test_windows"] == forecasts
    assert f"-> {forecasts} forecasts" in out
    written = rows_of("run/predictions.csv")
    assert len(written) == 2 * forecasts
    assert {row["series"] for row in written} == set(series)
    first = next(row for row in written if row["series"] == "south")
    assert first["date_of_step_1"] == "2024-04-06"
    assert float(first["truth"]) == pytest.approx(series["south"][96])
    assert run("evaluate", "run", "--json") == 0
    judged = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert judged["metrics"]["rmse"] == pytest.approx(metrics["metrics"]["rmse"], rel=1e-6)
    assert run("evaluate", "run") == 0
    assert "the test parts of 3 series" in capsys.readouterr().out
    assert run("info", "run") == 0


def test_forecasts_of_every_series(long_file, capsys):
    train()
    capsys.readouterr()
    words = ["forecast", "run", "--level", 80, 95]
    assert run(*words, "--csv", "out.csv", "--json") == 0
    found = json.loads(capsys.readouterr().out)["series"]
    again = rx.Forecaster.load("run").apply(
        {name: values.round(6) for name, values in SERIES.items()}
    )
    for name, values in again.predict().items():
        np.testing.assert_allclose(found[name]["forecast"], values, rtol=1e-5)
    low, _ = again.predict_interval(level=[80, 95])
    np.testing.assert_allclose(found["south"]["intervals"][1]["low"], low[95]["south"], rtol=1e-5)
    assert found["3"]["dates"] == ["2024-03-31", "2024-04-01"]
    written = rows_of("out.csv")
    assert [row["series"] for row in written] == ["north"] * 2 + ["south"] * 2 + ["3"] * 2
    assert float(written[2]["low_80"]) == pytest.approx(low[80]["south"][0], rel=1e-5)
    assert run(*words) == 0
    out = capsys.readouterr().out
    assert "data     south: 120 rows" in out


def test_a_backtest_of_every_series(long_file, capsys):
    assert run("backtest", *DATA, *SMALL, "--stride", 5, "--csv", "all.csv", "--json") == 0
    assert json.loads(capsys.readouterr().out)["metrics"]["rmse"] < 0.5
    written = rows_of("all.csv")
    assert {row["series"] for row in written} == set(SERIES)
    assert written[0]["origin"] == "2024-04-06"


def test_a_run_is_resumed(long_file, capsys):
    train("--no-fallback")
    assert run("train", "--resume", "run", "--epochs", 7) == 0
    assert json.loads((long_file / "run" / "metrics.json").read_text())["config"]["id"] == "shop"


def test_what_cannot_be_done_is_said(long_file, capsys):
    for words, said in (
        (["train", *DATA, "--past-features", "staff"], "there are several. In Python"),
        (["train", "--data", "wti", "--id", "shop"], "wti is a bundled series"),
        (["train", "--data", "sales.csv", "--id", "store"], "has no column 'store'"),
        (
            ["train", "--data", "sales.csv", "--id", "shop"],
            "several columns of numbers: 'sold', 'staff'",
        ),
        (["train", *DATA[:-1], "shop"], "cannot be both names and values"),
        (["train", *DATA, *SMALL[:-1], 20], "the test part of 18 values is too short"),
        (["backtest", *DATA, "--plots", "out"], "--plots out draws one series"),
    ):
        message = refused(capsys, *words)
        assert said in message, message
    train()
    for words in (["forecast", "run", "--png", "a.png"], ["evaluate", "run", "--html", "a.html"]):
        assert "draws one series, and --id shop says" in refused(capsys, *words)
    text = (long_file / "sales.csv").read_text().replace("\nsouth,2024-01-03", "\n,2024-01-03")
    (long_file / "sales.csv").write_text(text)
    assert "the series has no name" in refused(capsys, "train", *DATA, *SMALL)
