"""``rnn-xp info | evaluate | forecast | backtest | bench`` and ``--config``, as one calls them."""

from __future__ import annotations

import csv
import json
import tomllib
from pathlib import Path

import numpy as np
import pytest

import rnn_xp as rx
from rnn_xp import cli
from rnn_xp.data.dates import following_dates
from rnn_xp.optim.names import OPTIMIZERS


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A short training on a wave with dates."""
    folder = tmp_path_factory.mktemp("use")
    days = np.datetime64("2024-01-01") + np.arange(300)
    values = np.sin(np.arange(300) / 4.0) + 0.05 * np.cos(np.arange(300))
    rows = [f"{day},{value:.6f}" for day, value in zip(days, values, strict=True)]
    (folder / "wave.csv").write_text("\n".join(["date,level", *rows]) + "\n")
    out = folder / "run"
    words = [
        "train",
        "--plain",
        "--data",
        str(folder / "wave.csv"),
        "--epochs",
        "5",
        "--hidden-size",
        "4",
    ]
    assert cli.main([*words, "--horizon", "2", "--out", str(out), "--json"]) == 0
    return out


@pytest.fixture(scope="module")
def with_intervals(run, tmp_path_factory):
    """The same wave, forecast with intervals."""
    folder = tmp_path_factory.mktemp("levels") / "run"
    words = ("--hidden-size", 4, "--epochs", 5, "--horizon", 2, "--out", folder)
    assert cli.main(["train", "--data", *map(str, (run.parent / "wave.csv", *words))]) == 0
    return folder


def said(capsys, *words):
    assert cli.main(list(map(str, words))) == 0
    return capsys.readouterr().out


def refused(capsys, *words):
    assert cli.main(list(map(str, words))) == 2
    return capsys.readouterr().err


class TestInfo:
    def test_it_says_what_the_run_is(self, run, capsys):
        out = said(capsys, "info", run)
        for word in ("RNN 1x4", "10 values -> 2 ahead", "wave: 300 rows", "5 epochs", "verdict"):
            assert word in out

    def test_as_json(self, run, capsys):
        found = json.loads(said(capsys, "info", run, "--json"))
        assert found["network"]["hidden_size"] == 4
        assert found["metrics"]["epochs"] == 5

    def test_no_run(self, tmp_path, capsys):
        assert "model.safetensors" in refused(capsys, "info", tmp_path)


class TestEvaluate:
    def test_it_repeats_what_train_said(self, run, capsys):
        found = json.loads(said(capsys, "evaluate", run, "--json"))
        trained = json.loads((run / "metrics.json").read_text())["scores"]
        for a, b in zip(found["scores"], trained, strict=True):
            assert a["name"] == b["name"]
            np.testing.assert_allclose(a["rmse"], b["rmse"], rtol=1e-6)
        assert "verdict" in said(capsys, "evaluate", run)

    def test_on_other_data(self, run, tmp_path, capsys):
        path = tmp_path / "other.csv"
        path.write_text("\n".join(f"{np.cos(k / 4.0):.6f}" for k in range(100)))
        assert "from row 50 of 100" in said(
            capsys, "evaluate", run, "--data", path, "--train-fraction", 0.5
        )
        words = ("evaluate", run, "--data", path, "--train-fraction")
        assert "too short for --seq-length 10 and --horizon 2" in refused(capsys, *words, 0.95)
        for fraction in (1.5, 0, 1, -0.5):
            message = "--train-fraction must lie between 0 and 1 (both excluded)"
            assert message in refused(capsys, *words, fraction)


class TestForecast:
    def test_values_and_dates(self, run, tmp_path, capsys):
        path = tmp_path / "out.csv"
        out = said(capsys, "forecast", run, "--steps", 5, "--csv", path)
        assert "2024-10-27" in out
        assert "from step 3 on, forecasts are fed back in as inputs" in " ".join(out.split())
        with open(path) as file:
            rows = list(csv.DictReader(file))
        assert [row["date"] for row in rows][:2] == ["2024-10-27", "2024-10-28"]
        assert len(rows) == 5
        found = json.loads(said(capsys, "forecast", run, "--json"))["forecast"]
        np.testing.assert_allclose(found, [float(row["forecast"]) for row in rows][:2], rtol=1e-6)

    def test_they_are_the_networks(self, run, capsys):
        model = rx.Forecaster.load(run, rx.get_backend("numpy"))
        series = rx.datasets.read_csv(run.parent / "wave.csv")
        scaler, predictor = model.fitted.designs[0].scaler, model.predictor_
        window = scaler.transform(series.values[-10:])[None, :, None].astype("float32")
        pred = predictor.net.predict(predictor.networks[0], window)  # by the same kernels
        expected = scaler.inverse_target(pred)[0]
        found = json.loads(said(capsys, "forecast", run, "--json"))["forecast"]
        np.testing.assert_allclose(found, expected, rtol=1e-6)

    @pytest.mark.pictures
    def test_a_picture(self, run, tmp_path, capsys):
        pytest.importorskip("matplotlib")
        path = tmp_path / "out.png"
        assert "wrote" in said(capsys, "forecast", run, "--steps", 3, "--png", path)
        assert path.read_bytes().startswith(b"\x89PNG")

    def test_bad_steps_and_short_data(self, run, tmp_path, capsys):
        assert "--steps must be an integer >= 1" in refused(capsys, "forecast", run, "--steps", 0)
        path = tmp_path / "short.csv"
        path.write_text("1\n2\n3\n")
        assert "needs the last 10: 7 more" in refused(capsys, "forecast", run, "--data", path)

    def test_a_run_that_was_imported_needs_data(self, run, tmp_path, capsys):
        copy = tmp_path / "copy"
        copy.mkdir()
        (copy / "model.safetensors").write_bytes((run / "model.safetensors").read_bytes())
        assert "give --data" in refused(capsys, "forecast", copy)
        said(capsys, "forecast", copy, "--data", run.parent / "wave.csv")
        assert "no metrics.json" in said(capsys, "info", copy)


@pytest.mark.parametrize("command", ["info", "evaluate", "forecast", "export --to torch"])
def test_a_run_that_is_not_there(command, capsys):
    name, *options = command.split()
    assert "there is no file or folder nope." in refused(capsys, name, "nope", *options)
    Path("empty").mkdir()
    said_of = refused(capsys, name, "empty", *options)
    assert "empty is not a run: it has no model.safetensors." in said_of


@pytest.mark.parametrize(
    ("dates", "expected"),
    [
        (("2024-01-01", "2024-01-02", "2024-01-03"), ["2024-01-04", "2024-01-05"]),
        (("2024-01-04", "2024-01-05", "2024-01-08"), ["2024-01-09", "2024-01-10"]),
        (("2024-01-03", "2024-01-04", "2024-01-05"), ["2024-01-06", "2024-01-07"]),
        (("2024-01-01T00:00", "2024-01-01T06:00"), ["2024-01-01T12:00", "2024-01-01T18:00"]),
        (
            ("2024-01-01 23:00", "2024-01-02 00:00"),
            ["2024-01-02 01:00", "2024-01-02 02:00"],
        ),
        (
            ("2024-01-11 09:30:00", "2024-01-12 09:30:00", "2024-01-15 09:30:00"),
            ["2024-01-16 09:30:00", "2024-01-17 09:30:00"],
        ),
        (
            ("2024-01-01 00:00+01:00", "2024-01-01 12:00+01:00"),
            ["2024-01-02 00:00+01:00", "2024-01-02 12:00+01:00"],
        ),
        (("2024-01-01", "2024-01-02", "2024-01-20"), None),
        (("one", "two"), None),
        (None, None),
    ],
)
def test_dates_go_on_where_they_can(dates, expected):
    assert following_dates(dates, 2) == expected


class TestLevels:
    def test_several_levels_lie_within_each_other(self, with_intervals, tmp_path, capsys):
        found = json.loads(
            said(capsys, "forecast", with_intervals, "--level", "95", "80", "--json")
        )
        outer, inner = found["intervals"]
        assert (outer["level"], inner["level"]) == (0.95, 0.8)
        lows = (outer["low"], inner["low"], found["forecast"], inner["high"], outer["high"])
        assert all(np.all(np.diff(step) > 0.0) for step in zip(*lows, strict=True))
        table = tmp_path / "out.csv"
        lines = said(capsys, "forecast", with_intervals, "--level", "80", "95", "--csv", table)
        assert "interval 80 %, 95 %" in lines
        assert "forecast,low_80,high_80,low_95,high_95" in table.read_text().splitlines()[0]

    def test_a_level_is_a_share_or_a_percentage(self, with_intervals, capsys):
        one, other = (
            json.loads(said(capsys, "forecast", with_intervals, "--level", level, "--json"))
            for level in ("0.8", "80")
        )
        assert one == other
        assert one["level"] == 0.8
        assert "shares in (0, 1) or percentages in [2, 100), got 100" in refused(
            capsys, "forecast", with_intervals, "--level", "80", "100"
        )
        assert "is there twice: 80" in refused(
            capsys, "forecast", with_intervals, "--level", "0.8", "80"
        )


class TestBacktest:
    WORDS = ("--epochs", 5, "--hidden-size", 4, "--horizon", 2)

    def test_it_prints_the_comparison_and_writes_every_forecast(self, run, tmp_path, capsys):
        path = tmp_path / "b.csv"
        out = said(
            capsys, "backtest", "--data", run.parent / "wave.csv", *self.WORDS, "--csv", path
        )
        for word in (
            "59 forecasts of 2 steps",
            "persistence",
            "interval 90 %",
            "verdict",
            "by step",
        ):
            assert word in out
        with open(path) as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == 2 * 59
        assert rows[0]["origin"] == "2024-08-28"
        assert float(rows[0]["low"]) < float(rows[0]["forecast"]) < float(rows[0]["high"])

    def test_it_is_what_the_forecaster_says(self, run, capsys):
        found = json.loads(
            said(capsys, "backtest", "--data", run.parent / "wave.csv", *self.WORDS, "--json")
        )
        series = rx.datasets.read_csv(run.parent / "wave.csv")
        forecaster = rx.Forecaster(
            hidden_size=4, epochs=5, horizon=2, seq_length=10, target="level", verbose=False
        )  # fmt: skip
        assert found["metrics"] == forecaster.backtest(series).metrics

    def test_pictures(self, run, tmp_path, capsys):
        pytest.importorskip("matplotlib")
        folder = tmp_path / "plots"
        said(capsys, "backtest", "--data", run.parent / "wave.csv", *self.WORDS, "--plots", folder)
        drawn = {path.name: path.read_bytes() for path in folder.iterdir()}
        assert drawn.keys() == {"forecast.png", "residuals.png", "steps.png"}
        assert all(data.startswith(b"\x89PNG") for data in drawn.values())

    def test_bad_options(self, run, capsys):
        data = ("backtest", "--data", run.parent / "wave.csv")
        assert "--stride must be an integer >= 1" in refused(capsys, *data, "--stride", 0)
        assert "needs positive values" in refused(capsys, *data, "--target", "logret")
        assert "level must be a share" in refused(capsys, *data, "--level", 90)


class TestBench:
    def test_it_times_an_epoch(self, capsys):
        words = ("bench", "--rows", 40, "--epochs", 2, "--hidden-size", 4)
        assert "windows/s" in said(capsys, *words)
        found = json.loads(said(capsys, *words, "--json"))
        assert found["epochs"] == 2
        assert found["mean_ms"] > 0
        assert "--rows must be an integer >= 1" in refused(capsys, "bench", "--rows", 0)


class TestConfig:
    def config_of(self, folder):
        return tomllib.loads((folder / "config.toml").read_text())

    def test_the_command_line_is_over_the_file_and_the_file_over_the_default(
        self, run, tmp_path, capsys
    ):
        path = tmp_path / "c.toml"
        path.write_text(f'data = "{run.parent / "wave.csv"}"\nepochs = 3\nhidden_size = 6\n')
        said(capsys, "train", "--config", path, "--epochs", 2, "--out", tmp_path / "a", "--json")
        found = self.config_of(tmp_path / "a")
        assert (found["epochs"], found["hidden_size"], found["seq_length"]) == (2, 6, 10)

    def test_the_environment_is_over_the_file(self, run, tmp_path, capsys, monkeypatch):
        path = tmp_path / "c.toml"
        path.write_text(f'data = "{run.parent / "wave.csv"}"\nepochs = 1\ndtype = "float64"\n')
        said(capsys, "train", "--config", path, "--out", tmp_path / "a", "--json")
        assert self.config_of(tmp_path / "a")["dtype"] == "float64"
        monkeypatch.setenv("RNN_XP_DTYPE", "float32")
        said(capsys, "train", "--config", path, "--out", tmp_path / "b", "--json")
        assert self.config_of(tmp_path / "b")["dtype"] == "float32"
        words = ("--dtype", "float64", "--out", tmp_path / "c", "--json")
        said(capsys, "train", "--config", path, *words)
        assert self.config_of(tmp_path / "c")["dtype"] == "float64"

    @pytest.mark.parametrize("name", OPTIMIZERS)
    def test_its_optimiser_has_the_name_that_the_option_takes(self, run, name, tmp_path, capsys):
        data = ("--data", run.parent / "wave.csv", "--hidden-size", 4, "--epochs", 1, "--json")
        said(capsys, "train", *data, "--optimizer", name, "--out", tmp_path / "a")
        again = ("--config", tmp_path / "a" / "config.toml", "--json", "--out", tmp_path / "b")
        said(capsys, "train", *again)
        a, b = (json.loads((tmp_path / f / "metrics.json").read_text()) for f in "ab")
        assert a["config"]["optimizer"] == b["config"]["optimizer"] == name
        assert a["final_loss"] == b["final_loss"]

    def test_a_runs_own_file_makes_the_run_again(self, run, tmp_path, capsys):
        words = ("--config", run / "config.toml", "--out", tmp_path / "again", "--json")
        said(capsys, "train", *words)
        a, b = (json.loads((f / "metrics.json").read_text()) for f in (run, tmp_path / "again"))
        assert a["config"] == b["config"]
        assert a["final_loss"] == b["final_loss"]

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("width = 3", "'width' is not an option of rnn-xp train"),
            ("out = 'x'", "'out' is not an option"),
            ("epochs = 'many'", "epochs must be a whole number, got 'many'"),
            ("epochs = true", "epochs must be a whole number, got True"),
            ("validation = 'x'", "validation must be a number"),
            ("layer_norm = 1", "layer_norm must be true or false, got 1"),
            ("cell = 'rnm'", "cell must be one of rnn, gru, lstm, got 'rnm'"),
            ("data = 3", "data must be a string"),
            ("epochs = ", "is not valid TOML"),
        ],
    )
    def test_what_is_wrong_in_it_is_named(self, text, words, tmp_path, capsys):
        path = tmp_path / "c.toml"
        path.write_text(text)
        assert words in refused(capsys, "train", "--config", path)

    def test_a_file_that_is_not_there(self, tmp_path, capsys):
        assert "none.toml: there is no such file." in refused(
            capsys, "train", "--config", tmp_path / "none.toml"
        )
