"""``rnn-xp explain``: what it prints, writes and refuses."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from broken import broken_step_back

import rnn_xp as rx
from rnn_xp import cells, cli
from rnn_xp.explain import measure_flow

FILES = {"explain.txt", "gradient_flow.csv", "gradient_flow.png"}


class TestCommand:
    @pytest.fixture(autouse=True)
    def elsewhere(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("COLUMNS", "500")  # no line is broken

    @pytest.mark.pictures
    def test_the_reference_series(self, capsys):
        assert cli.main(["explain"]) == 0
        folder = Path("runs/explain-length_of_day-rnn-1")
        assert {path.name for path in folder.iterdir()} == FILES
        out = capsys.readouterr().out
        for words in (
            "RNN 1x50 (tanh) + readout 1: 2651 parameters",
            "N=256 of 8317 windows, T=10, I=1, H=50, O=1",
            "SHAPES, samples in rows",
            "SHAPES, samples in columns, as in books",
            "(50,[2560]) @ ([2560],50) -> (50,50)",
            "verdict  layer0: gradients stay within a factor of ten: from step 10 back to 1",
            "wrote    runs/explain-length_of_day-rnn-1/",
        ):
            assert words in out
        assert "GRADIENT CHECK" not in out
        text = (folder / "explain.txt").read_text()
        assert out == text + "wrote    runs/explain-length_of_day-rnn-1/\n"
        data = (folder / "gradient_flow.png").read_bytes()
        assert data.startswith(b"\x89PNG")
        assert len(data) > 10_000

    def test_far_steps_vanish(self, capsys):
        assert cli.main(["explain", "--seq-length", "60", "--rows", "20"]) == 0
        out = capsys.readouterr().out
        assert "verdict  layer0: gradients vanish: from step 60 back to 1" in out
        assert "layer0, 20 of 60 steps" in out
        rows = Path("runs/explain-length_of_day-rnn-1/gradient_flow.csv").read_text().splitlines()
        assert len(rows) == 61

    def test_files_and_json_agree(self, capsys):
        options = ["--cell", "gru", "--layers", "2", "--hidden-size", "6", "--rows", "30"]
        assert cli.main(["explain", *options, "--check", "--out", "it", "--json"]) == 0
        printed = json.loads(capsys.readouterr().out)
        assert (printed["out"], printed["rows"]) == ("it", 30)
        assert (printed["network"]["cell"], printed["network"]["num_layers"]) == ("gru", 2)
        with open("it/gradient_flow.csv", newline="") as file:
            for row in csv.DictReader(file):
                at = printed["flow"][row["layer"]][int(row["t"]) - 1]
                for key in ("norm", "relative", "dw_hh_term", "share"):
                    assert float(row[key]) == pytest.approx(at[key], rel=1e-6)
        assert sum(step["share"] for step in printed["flow"]["layer1"]) == pytest.approx(1.0)
        assert printed["check"]["ok"]
        assert max(printed["check"]["errors"].values()) < 1e-12
        assert printed["verdict"]["layer0"] in " ".join(Path("it/explain.txt").read_text().split())
        assert sum(op["times"] for op in printed["shapes"] if "dw_hh" in op["equation"]) == 2
        # The numbers are those of the library on the same windows.
        series = rx.datasets.load("length_of_day").values[:8327]
        x, y = rx.make_windows((series - series.mean()) / series.std(), seq_length=10)
        index = np.round(np.linspace(0, 8316, 30)).astype(int)
        net = rx.Network(cell="gru", num_layers=2, hidden_size=6)
        params = net.init(seed=0, backend=rx.get_backend(dtype="float64"))
        flow = measure_flow(net, params, x[index], y[index])
        found = [step["norm"] for step in printed["flow"]["layer0"]]
        np.testing.assert_allclose(found, flow.dh["layer0"], rtol=1e-4)
        assert printed["loss"] == pytest.approx(flow.loss, rel=1e-5)

    def test_a_trained_run(self, capsys):
        train = ["train", "--plain", "--cell", "lstm", "--hidden-size", "5", "--seq-length", "6"]
        assert cli.main([*train, "--data", "wti", "--epochs", "2", "--out", "run"]) == 0
        assert cli.main(["explain", "--run", "run", "--rows", "9", "--check", "--json"]) == 0
        printed = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert printed["out"] == "runs/explain-wti-lstm-1"
        assert printed["network"]["hidden_size"] == 5
        assert len(printed["flow"]["layer0"]) == 6
        model = rx.Forecaster.load("run", rx.get_backend(dtype="float64"))
        series = rx.datasets.load("wti")
        train_part = series.values[: int(0.8 * len(series.values))]
        x, y = rx.make_windows(model.fitted.designs[0].scaler.transform(train_part), 6)
        index = np.round(np.linspace(0, len(x) - 1, 9)).astype(int)
        flow = measure_flow(model.predictor_.net, model.predictor_.networks[0], x[index], y[index])
        found = [step["norm"] for step in printed["flow"]["layer0"]]
        np.testing.assert_allclose(found, flow.dh["layer0"], rtol=1e-3)

    def test_what_contradicts_a_run_is_refused(self, capsys):
        assert cli.main(["train", "--hidden-size", "5", "--epochs", "1", "--out", "run"]) == 0
        same = ["explain", "--run", "run", "--hidden-size", "5", "--out", "same"]
        assert cli.main(same) == 0
        capsys.readouterr()
        for option, value, trained in (
            ("--hidden-size", "50", "5"),
            ("--cell", "gru", "rnn"),
            ("--seq-length", "20", "10"),
            ("--scaler", "minmax", "standard"),
            ("--seed", "1", "0"),
        ):
            assert cli.main(["explain", "--run", "run", option, value, "--out", "other"]) == 2
            assert capsys.readouterr().err == (
                f"rnn-xp: error: {option} {value} contradicts --run run, which was trained with "
                f"{trained}. Leave it out.\n"
            )
        assert not Path("other").exists()

    @pytest.mark.parametrize(
        "options",
        [
            ["--topology", "many_to_many", "--horizon", "2"],
            ["--topology", "one_to_many", "--feed", "repeat"],
            ["--topology", "one_to_many", "--feed", "feedback"],
            ["--cell", "gru", "--reset-before", "--bidirectional", "--read", "mean"],
            ["--cell", "lstm", "--layers", "2", "--residual", "--layer-norm"],
            ["--layers", "2", "--dropout", "0.5", "--recurrent-dropout", "0.5"],
            ["--activation", "relu", "--read", "max"],
        ],
    )
    def test_every_kind_of_network(self, options, capsys):
        small = ["--hidden-size", "4", "--rows", "8", "--seq-length", "4", "--check"]
        assert cli.main(["explain", *small, *options]) == 0
        out = capsys.readouterr().out
        assert "check    passed" in out
        assert ("scaled), dropout off" in out) == ("--dropout" in options)
        assert ("windows, dropout on" in out) == ("--dropout" in options)

    def test_targets_of_every_step_are_the_values_that_follow(self, capsys):
        options = ["--topology", "many_to_many", "--horizon", "2", "--rows", "8"]
        assert cli.main(["explain", *options, "--hidden-size", "4", "--json"]) == 0
        loss = json.loads(capsys.readouterr().out)["loss"]
        series = rx.datasets.load("length_of_day").values[:8327]
        series = (series - series.mean()) / series.std()
        starts = np.round(np.linspace(0, 8315, 8)).astype(int)
        x = np.stack([series[s : s + 10, None] for s in starts])
        y = np.stack([[series[s + t + 1 : s + t + 3] for t in range(10)] for s in starts])
        net = rx.Network(hidden_size=4, output_size=2, topology="many_to_many")
        params = net.init(seed=0, backend=rx.get_backend(dtype="float64"))
        assert loss == pytest.approx(float(net.value_and_grad(params, x, y)[0]), rel=1e-5)

    @pytest.mark.full
    @pytest.mark.parametrize(
        "name", ["array_api_strict", "jax", pytest.param("torch", marks=pytest.mark.torch)]
    )
    def test_other_backends(self, name, capsys):
        pytest.importorskip(name, reason=f"{name} is not installed")
        for backend in ("numpy", name):
            options = ["--backend", backend, "--hidden-size", "4", "--rows", "8", "--check"]
            assert cli.main(["explain", *options, "--json", "--out", backend]) == 0
        found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        norms = [[step["norm"] for step in each["flow"]["layer0"]] for each in found]
        np.testing.assert_allclose(norms[1], norms[0], rtol=1e-4)

    def test_a_wrong_gradient_is_exit_status_1(self, monkeypatch, capsys):
        wrong = broken_step_back(cells.RNNCell, lambda dh: dh * 1.001)
        monkeypatch.setattr(cells.RNNCell, "step_back", wrong)
        assert cli.main(["explain", "--hidden-size", "4", "--check"]) == 1
        out = capsys.readouterr().out
        assert "check    FAILED: complex step, tolerance 1e-12" in out
        assert "worst    " in out
        assert cli.main(["explain", "--hidden-size", "4"]) == 0, "which only --check can tell"

    def test_an_existing_folder_is_refused_without_force(self, capsys):
        assert cli.main(["explain", "--hidden-size", "4", "--out", "it"]) == 0
        before = Path("it/explain.txt").read_text()
        assert cli.main(["explain", "--hidden-size", "5", "--out", "it"]) == 2
        assert "it already exists. Give another folder with --out" in capsys.readouterr().err
        assert Path("it/explain.txt").read_text() == before
        assert cli.main(["explain", "--hidden-size", "5", "--out", "it", "--force"]) == 0
        assert Path("it/explain.txt").read_text() != before

    def test_without_matplotlib_all_but_the_picture(self, monkeypatch, capsys):
        monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
        assert cli.main(["explain", "--hidden-size", "4", "--out", "it"]) == 0
        assert "no plots: Plots need matplotlib: pip install" in capsys.readouterr().out
        assert {path.name for path in Path("it").iterdir()} == FILES - {"gradient_flow.png"}

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--rows", "0"], "--rows must be in 1..8317, the number of windows, got 0"),
            (["--rows", "9000"], "--rows must be in 1..8317, the number of windows, got 9000"),
            (["--run", "nosuch"], "--run nosuch is not a run: it has no model.safetensors"),
            (["--data", "nosuch"], "neither a bundled series (length_of_day, wti) nor a file"),
            (["--hidden-size", "0"], "--hidden-size must be an integer >= 1, got 0"),
            (["--seed", "-1"], "--seed must be an integer >= 0, got -1"),
            (["--layers", "0"], "--layers must be an integer >= 1, got 0"),
            (["--dropout", "0.5"], "error: --dropout 0.5 needs --layers >= 2"),
            (["--reset-before"], "error: --reset-before needs --cell gru."),
            (
                ["--cell", "lstm", "--activation", "relu"],
                "error: --activation relu needs --cell rnn.",
            ),
            (["--feed", "repeat"], "error: --feed repeat needs --topology one_to_many"),
            (
                ["--topology", "one_to_many", "--feed", "feedback", "--horizon", "2"],
                "--feed feedback needs --horizon 1, got 2",
            ),
            (["--backend", "tensorflow"], "Choose one of: numpy, cupy, torch, jax"),
        ],
    )
    def test_bad_input_is_one_clear_line_and_leaves_nothing(self, options, message, capsys):
        assert cli.main(["explain", *options]) == 2
        err = capsys.readouterr().err
        assert message in err
        assert err.startswith("rnn-xp: error: ")
        assert "Traceback" not in err
        assert not any(Path().iterdir())
