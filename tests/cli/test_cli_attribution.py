"""``rnn-xp explain --attribution``: the forecast, divided among its input steps and the data."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

import rnn_xp as rx
from rnn_xp import cli
from rnn_xp.forecasting.attribution_plot import draw_attribution
from rnn_xp.forecasting.files import load_fitted

DAYS = (np.datetime64("2024-01-01") + np.arange(200)).astype(str)
NOISE = np.random.default_rng(0).normal(0.0, 0.3, 200)
VALUES = 5.0 + 2.0 * np.sin(np.arange(200) / 4.0) + NOISE
CUT = 160  # 0.8 of the rows
STEPS = 6


@pytest.fixture
def trained(tmp_path):
    def train(*options):
        rows = [f"{day},{value:.6f}" for day, value in zip(DAYS, VALUES, strict=True)]
        Path("wave.csv").write_text("\n".join(["date,level", *rows]) + "\n")
        words = ["--data", "wave.csv", "--hidden-size", 4, "--epochs", 5, "--seq-length", STEPS]
        assert (
            cli.main([str(w) for w in ["train", *words, "--out", "run", "--json", *options]]) == 0
        )

    return train


def explain(capsys, *words):
    capsys.readouterr()
    status = cli.main([str(w) for w in ["explain", "--run", "run", "--json", *words]])
    printed = capsys.readouterr()
    return status, printed.err if status else json.loads(printed.out)["attribution"]


def forecast_minus_that_of_means():
    """From the saved forecaster alone, in units of the series."""
    model = load_fitted(Path("run"), rx.get_backend("numpy"))
    ((params,), net) = model.predictor.networks, model.predictor.net
    scaler = model.designs[0].scaler
    window = scaler.transform(VALUES[CUT - 1 - STEPS : CUT - 1])[None, :, None].astype("float32")
    pred = net.predict(params, np.concatenate([window, 0.0 * window]))[:, 0]
    return float(pred[0] - pred[1]) * scaler.scale[0]


def test_the_parts_add_up_to_the_difference_of_two_forecasts(trained, capsys):
    trained()
    _, found = explain(capsys, "--attribution", "--out", "a")
    assert found["date"] == DAYS[CUT - 1]
    assert found["steps"] == DAYS[CUT - 1 - STEPS : CUT - 1].tolist()
    assert sum(found["attributions"]) == pytest.approx(found["difference"], rel=1e-6)
    assert found["difference"] == pytest.approx(forecast_minus_that_of_means(), rel=1e-4)


def test_a_date_chooses_the_forecast(trained, capsys):
    trained()
    _, found = explain(capsys, "--attribution", DAYS[100], "--out", "a")
    assert found["date"] == DAYS[100]
    assert found["steps"][-1] == DAYS[99]


def test_differences_are_dated_by_the_row_that_they_lead_to(trained, capsys):
    trained("--target", "diff")
    _, found = explain(capsys, "--attribution", DAYS[100], "--out", "a")
    assert found["steps"] == DAYS[100 - STEPS : 100].tolist()


@pytest.mark.parametrize(("target", "kind"), [("diff", "change"), ("logret", "log return")])
def test_what_is_not_in_values_says_so(trained, capsys, target, kind):
    trained("--target", target)
    _, found = explain(capsys, "--attribution", "--out", "a")
    assert found["kind"] == kind
    text = Path("a/explain.txt").read_text()
    assert f"ATTRIBUTION of the {kind} forecast for" in text
    assert f"d forecast / d {kind}" in text


def test_of_several_networks_it_is_the_mean(trained, capsys):
    trained("--seeds", "2", "--no-fallback")
    _, found = explain(capsys, "--attribution", "--out", "a")
    model = load_fitted(Path("run"), rx.get_backend("numpy", dtype="float64"))
    window = model.designs[0].scaler.transform(VALUES[CUT - 1 - STEPS : CUT - 1])[None, :, None]
    net, networks = model.predictor.net, model.predictor.networks
    slopes = [rx.explain.saliency(net, params, window)[0, :, 0] for params in networks]
    assert found["networks"] == 2
    assert found["saliency"] == pytest.approx(np.mean(slopes, axis=0), rel=1e-6)
    assert sum(found["attributions"]) == pytest.approx(found["difference"], rel=1e-6)
    assert "mean of 2 networks" in Path("a/explain.txt").read_text()


def test_rows_without_dates_are_called_rows(trained, capsys):
    trained()
    Path("bare.csv").write_text("\n".join(["level", *map(str, VALUES)]) + "\n")
    words = ["--data", "bare.csv", "--attribution", "101", "--out", "a"]
    _, found = explain(capsys, *words)
    assert (found["date"], found["steps"][-1]) == ("row 101", "row 100")


def test_its_table_lists_every_step_and_every_training_window(trained, capsys):
    trained()
    _, found = explain(capsys, "--attribution", "--out", "a")
    with Path("a/attribution.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    steps = [row for row in rows if row["kind"] == "input step"]
    windows = {r["date"]: float(r["influence"]) for r in rows if r["kind"] == "training window"}
    assert [float(row["attribution"]) for row in steps] == pytest.approx(found["attributions"])
    assert list(windows) == DAYS[STEPS:CUT].tolist()
    largest = sorted(windows, key=lambda date: -abs(windows[date]))[:3]
    assert list(found["influential"]) == largest
    assert windows[found["date"]] > 0.0  # a step that fits the window itself lowers its loss


def test_the_influence_is_the_inner_product_of_gradients(trained, capsys):
    trained()
    _, found = explain(capsys, "--attribution", "--out", "a")
    model = load_fitted(Path("run"), rx.get_backend("numpy"))
    net, (params,) = model.predictor.net, model.predictor.networks
    params = {name: np.asarray(p, dtype=float) for name, p in params.items()}
    scaled = model.designs[0].scaler.transform(VALUES[:CUT])
    x, y = rx.make_windows(scaled, seq_length=STEPS)
    terms = net.per_sample_grads(params, x, y, total=1)
    _, grads = net.value_and_grad(params, x[-1:], y[-1:])
    scores = sum(np.sum((terms[k] * grads[k]).reshape(len(x), -1), axis=1) for k in grads)
    for date, score in found["influential"].items():
        assert score == pytest.approx(scores[DAYS.tolist().index(date) - STEPS], rel=1e-6)


def test_quantiles_and_several_steps_ahead(trained, capsys):
    trained("--intervals", "quantile", "--horizon", "3")
    status, found = explain(capsys, "--attribution", "--out", "a")
    assert status == 0
    assert sum(found["attributions"]) == pytest.approx(found["difference"], rel=1e-4, abs=1e-6)


def test_its_text_and_picture(trained, capsys):
    trained()
    assert cli.main(["explain", "--run", "run", "--attribution", "--out", "a"]) == 0
    text = Path("a/explain.txt").read_text()
    assert f"ATTRIBUTION of the value forecast for {DAYS[CUT - 1]}, integrated gradients" in text
    pytest.importorskip("matplotlib")
    assert Path("a/attribution.png").read_bytes().startswith(b"\x89PNG")
    above = draw_attribution(
        ["2024-01-01", "2024-01-02"], np.asarray([1.0, -2.0]), DAYS[:3].tolist(),
        np.asarray([0.5, -1.0, 0.0]), named=[1], title="t", unit="m",
    )  # fmt: skip
    assert [bar.get_height() for bar in above.patches] == [1.0, -2.0]
    assert above.get_ylabel() == "attribution, m"
    below = above.figure.axes[1]
    assert [label.get_text() for label in below.texts] == ["2024-01-02"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--attribution", "2031-01-01"], "2031-01-01: no training window forecasts it; those"),
        (["--attribution", DAYS[3]], f"{DAYS[3]}: no training window forecasts it"),
    ],
)
def test_a_date_without_a_window_is_refused(trained, capsys, words, message):
    trained()
    status, error = explain(capsys, *words, "--out", "a")
    assert status == 2
    assert message in error
    assert not Path("a").exists()


@pytest.mark.parametrize(
    ("inputs", "message"),
    [(1, "run does not name its training data: give --data"), (2, "has a network of 2 inputs")],
)
def test_an_import_is_not_explained_on_a_series_that_it_never_saw(inputs, message, capsys):
    net = rx.Network(hidden_size=3, input_size=inputs)
    rx.interchange.files.save("net.safetensors", "torch", net, net.init(seed=0), {})
    words = ["import", "net.safetensors", "--seq-length", "5", "--out", "run"]
    assert cli.main(words) == 0
    status, error = explain(capsys, "--attribution", "--out", "a")
    assert status == 2
    assert message in error


def test_without_a_run_it_is_refused(capsys):
    assert cli.main(["explain", "--attribution", "--out", "a"]) == 2
    assert "--attribution needs a trained network: give --run DIR" in capsys.readouterr().err
