"""The run folder: each file's content, and models that come back or are refused."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import re
import tomllib

import numpy as np
import pytest

import rnn_xp as rx
from rnn_xp import checkpoint
from rnn_xp.checkpoint import CheckpointError
from rnn_xp.cli.run_folder import RunFolder, new_folder_name
from rnn_xp.data.datasets import Series
from rnn_xp.data.scalers import Scaler
from rnn_xp.forecasting.backtest import judge, make_judged
from rnn_xp.forecasting.files import load_fitted, of_network, save_fitted
from rnn_xp.forecasting.panel import as_panel

BACKEND = rx.get_backend("numpy", dtype="float64")
SCALER = Scaler("standard", offset=(30.0,), scale=(7.0,))


def model(horizon=2):
    """Return a forecaster whose network was trained elsewhere."""
    net = rx.Network(hidden_size=3, output_size=horizon)
    about = {"scaler": dataclasses.asdict(SCALER), "seq_length": 4, "horizon": horizon}
    return of_network(net, net.init(0, BACKEND), BACKEND, about)


class TestModel:
    @pytest.mark.parametrize(("b_y", "expected"), [(0.0, 30.0), (1.0, 37.0), (-2.0, 16.0)])
    def test_predicts_in_original_units(self, b_y, expected):
        made = model()
        (params,) = made.predictor.networks
        params["readout.w_hy"] = np.zeros((2, 3))
        params["readout.b_y"] = np.full(2, b_y)
        found = made.apply(as_panel(np.arange(9.0)), None, None).predict(2, None)
        assert np.array_equal(found, np.full(2, expected))
        with pytest.raises(ValueError, match="has 0 values, but a forecast needs the last 4"):
            made.predict(2, None)

    @pytest.mark.parametrize("old", [False, True])
    def test_comes_back_as_it_was(self, old, tmp_path):
        """Also from a file of the kind that runs had before there was a forecaster in them."""
        made = model()
        (params,) = made.predictor.networks
        if old:
            about = {"schema": 1, "network": dataclasses.asdict(made.predictor.net)}
            about |= {"scaler": dataclasses.asdict(SCALER), "seq_length": 4, "horizon": 2}
            (tmp_path / "run").mkdir()
            checkpoint.save(tmp_path / "run" / "model.safetensors", params, about)
        else:
            with RunFolder(tmp_path / "run") as folder:
                save_fitted(folder.path / "model.safetensors", made)
        found = load_fitted(tmp_path / "run", BACKEND)
        assert found.settings.get_params() == made.settings.get_params()
        assert found.predictor.net == made.predictor.net
        assert found.designs[0].scaler == SCALER
        assert found.predictor.networks[0].keys() == params.keys()
        for name, p in params.items():
            assert np.array_equal(found.predictor.networks[0][name], p)

    @pytest.mark.parametrize(
        "damage",
        [
            lambda arrays, about: arrays.update({"readout.b_y": np.zeros(3)}),
            lambda arrays, about: arrays.update({"readout.w_hy": arrays["readout.w_hy"].T.copy()}),
            lambda arrays, about: arrays.update({"other": np.zeros(2)}),
            lambda arrays, about: arrays.pop("readout.b_y"),
            lambda arrays, about: about["network"].update(colour="red"),
            lambda arrays, about: about["network"].update(cell="transformer"),
            lambda arrays, about: about["series"][0]["scaler"].update(scale=[0.0]),
            lambda arrays, about: about["series"][0]["scaler"].pop("offset"),
            lambda arrays, about: about["settings"].update(seq_length="ten"),
            lambda arrays, about: about.pop("network"),
            lambda arrays, about: about["settings"].update(horizon=0),
            lambda arrays, about: about.update(forecaster=1),
            lambda arrays, about: arrays.pop("series0.levels"),
        ],
        ids=[
            "shape", "transposed", "name-added", "name-missing", "unknown-option", "unknown-cell",
            "scale-0", "no-offset", "no-number", "no-network", "no-horizon", "schema-before",
            "no-levels",
        ],
    )  # fmt: skip
    def test_what_does_not_fit_is_refused_by_name(self, damage, tmp_path):
        """The digest is right: the file is whole, but of another kind."""
        with RunFolder(tmp_path / "run") as folder:
            save_fitted(folder.path / "model.safetensors", model())
        path = tmp_path / "run" / "model.safetensors"
        arrays, about = checkpoint.load(path)
        damage(arrays, about)
        checkpoint.save(path, arrays, about)
        with pytest.raises(CheckpointError, match=re.escape(str(path))):
            load_fitted(tmp_path / "run", BACKEND)


class TestFolder:
    def test_an_existing_one_needs_force(self, tmp_path):
        (tmp_path / "run").mkdir()
        with pytest.raises(FileExistsError, match="run already exists.*--force"):
            RunFolder(tmp_path / "run")
        RunFolder(tmp_path / "run", force=True)

    def test_a_file_of_that_name_is_not_replaced(self, tmp_path):
        (tmp_path / "run").write_text("mine")
        for force in (False, True):
            with pytest.raises(FileExistsError, match="run is a file, and a run needs a folder"):
                RunFolder(tmp_path / "run", force=force)
        assert (tmp_path / "run").read_text() == "mine"

    def test_stays_only_with_something_in_it(self, tmp_path):
        with RunFolder(tmp_path / "deep" / "empty") as folder:
            assert folder.path.is_dir()
        assert not folder.path.exists()
        with pytest.raises(KeyboardInterrupt), RunFolder(tmp_path / "stopped"):
            raise KeyboardInterrupt
        assert not (tmp_path / "stopped").exists()
        with RunFolder(tmp_path / "used") as folder:
            folder.write_history([{"loss": [1.0]}])
        assert [f.name for f in folder.path.iterdir()] == ["history.csv"]

    def test_new_names_count_up(self, tmp_path):
        assert new_folder_name(tmp_path / "none yet", "tide") == tmp_path / "none yet" / "tide-1"
        (tmp_path / "tide-1").mkdir()
        (tmp_path / "tide-2").write_text("a file counts too")
        (tmp_path / "tide-4").mkdir()
        assert new_folder_name(tmp_path, "tide") == tmp_path / "tide-3"
        assert new_folder_name(tmp_path, "other") == tmp_path / "other-1"


@pytest.fixture
def folder(tmp_path):
    with RunFolder(tmp_path / "run") as folder:
        yield folder


def rows_of(path):
    with open(path, newline="") as file:
        return list(csv.reader(file))


class TestFiles:
    @pytest.mark.parametrize(
        ("name", "write"),
        [
            ("history.csv", lambda folder, v: folder.write_history([{"loss": [float(v)]}])),
            ("config.toml", lambda folder, v: folder.write_config({"v": v})),
            ("metrics.json", lambda folder, v: folder.write_metrics({"v": v})),
        ],
    )
    def test_whole_or_as_before(self, name, write, folder, monkeypatch):
        write(folder, 1)
        before = (folder.path / name).read_bytes()

        def fails(*args):
            raise OSError("disk full")

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", fails)
            with pytest.raises(OSError, match="disk full"):
                write(folder, 2)
        assert (folder.path / name).read_bytes() == before
        assert [f.name for f in folder.path.iterdir()] == [name]
        write(folder, 2)
        assert (folder.path / name).read_bytes() != before

    def test_history_counts_epochs_from_1(self, folder):
        losses = [0.1 + 0.2, 1e-300, 2.0]
        folder.write_history([{"loss": losses}])
        header, *rows = rows_of(folder.path / "history.csv")
        assert header == ["epoch", "loss"]
        assert [row[0] for row in rows] == ["1", "2", "3"]
        assert [float(row[1]) for row in rows] == losses

    def test_histories_of_several_networks_are_numbered(self, folder):
        folder.write_history([{"loss": [1.0, 2.0]}, {"loss": [3.0]}])
        rows = rows_of(folder.path / "history.csv")
        assert rows[0] == ["network", "epoch", "loss"]
        assert rows[1:] == [["0", "1", "1.0"], ["0", "2", "2.0"], ["1", "1", "3.0"]]

    def test_config_comes_back_through_tomllib(self, folder):
        config = {
            "quotes": "\"a\" 'b' \\ C:\\new\\table",
            "text": "Länge des Tages, 日, \t\n#[=] \x1f \x7f",
            "beyond the BMP": "\U0001f30a tide \U0001d54f.csv",
            "int": 0,
            "float": -1e-3,
            "large": 1e22,
            "yes": True,
            "no": False,
            "list": [1, 2],
            "empty": "",
        }
        folder.write_config({**config, "left_out": None})
        found = tomllib.loads((folder.path / "config.toml").read_text(encoding="utf-8"))
        assert found == config
        assert [type(v) for v in found.values()] == [type(v) for v in config.values()]

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_config_refuses_what_is_not_finite(self, value, folder):
        with pytest.raises(ValueError, match="cannot write -?(nan|inf) to config.toml"):
            folder.write_config({"lr": value})
        assert not list(folder.path.iterdir())

    def test_metrics(self, folder):
        folder.write_metrics({"scaler": SCALER, "skill": None})
        assert json.loads((folder.path / "metrics.json").read_text()) == {
            "schema": 1,
            "scaler": {**dataclasses.asdict(SCALER), "offset": [30.0], "scale": [7.0]},
            "skill": None,
        }
        with pytest.raises(TypeError, match="cannot write ndarray to metrics.json"):
            folder.write_metrics({"scores": np.ones(2)})

    @pytest.mark.parametrize("horizon", [1, 3])
    def test_predictions_row_by_row(self, horizon, folder):
        rng = np.random.default_rng(0)
        values = 1000.0 + rng.standard_normal(40)  # more than five digits matter
        dates = tuple(f"day {i}" for i in range(40))
        series = Series("made", values, dates, "", "v", "", "")
        origins = np.arange(32, 40 - horizon + 1)
        forecast = 1000.0 + rng.standard_normal((len(origins), horizon))
        bounds = (forecast - 1.0, forecast + 1.0) if horizon == 3 else None
        part = make_judged("made", values, 28, origins, forecast, bounds, 4)
        folder.write_predictions(
            {series.name: series}, judge((part,), "m", None if bounds is None else 0.9)
        )
        forecasts = {**part.baselines, "m": forecast}
        if bounds is not None:
            forecasts |= {"low": forecast - 1.0, "high": forecast + 1.0}
        header, *rows = rows_of(folder.path / "predictions.csv")
        date = "date" if horizon == 1 else "date_of_step_1"
        assert header == [date, "step", "truth", *forecasts]
        assert header[3] == "persistence"
        found = iter(rows)
        for i in range(40 - 28 - 4 - horizon + 1):
            for step in range(horizon):
                row = next(found)
                assert row[:2] == [f"day {32 + i}", str(step + 1)]
                expected = [values[32 + i + step], *(f[i, step] for f in forecasts.values())]
                assert [float(v) for v in row[2:]] == pytest.approx(expected, rel=1e-8)
        assert not list(found)
