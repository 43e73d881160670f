"""Forecasters and estimators as ONNX graphs: raw values in, forecasts out."""

from __future__ import annotations

import numpy as np
import pytest

import rnn_xp as rx
from rnn_xp.interchange import example

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
pytestmark = pytest.mark.interchange

SETTINGS = {
    "seq_length": 6, "hidden_size": 4, "epochs": 3, "target": "level", "fallback": False,
    "verbose": False,
}  # fmt: skip
TIMES = np.arange(90)
# Far from zero, which float32 would round. Without noise the least-squares lags would be large, and
# rounding would grow from step to step.
NOISE = np.random.default_rng(0).standard_normal(90)
SERIES = 1e4 + 5.0 * TIMES + 40.0 * np.sin(TIMES / 5.0) + 8.0 * NOISE
FEATURES = np.stack([np.cos(TIMES / 5.0), TIMES % 7], axis=1)

CASES = {
    "level": {"horizon": 3},
    "no linear path": {"linear": False, "cell": "lstm", "validation": None, "intervals": None},
    "differences": {"horizon": 3, "target": "diff", "cell": "gru", "reset_after": False},
    "logarithms": {"horizon": 2, "target": "log"},
    "logarithmic changes": {"horizon": 2, "target": "logret", "activation": "relu"},
    "recursive": {"horizon": 4, "strategy": "recursive", "num_layers": 2, "bidirectional": True},
    "three networks": {"n_seeds": 3, "scaler": "minmax"},
    "quantiles": {"horizon": 3, "intervals": "quantile", "level": 0.5},
    "layer normalisation": {"layer_norm": True, "read": "mean"},
}


def fitted(**settings):
    return rx.Forecaster(**{**SETTINGS, **settings})


def run(model, feed):
    session = onnxruntime.InferenceSession(model.SerializeToString())
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, feed), strict=True))


def window(series, size):
    return np.asarray(series[-size:], dtype=np.float64)[None]


@pytest.mark.parametrize("name", CASES)
def test_raw_values_go_in_and_forecasts_come_out(name):
    f = fitted(**CASES[name]).fit(SERIES)
    spelling = "portable" if CASES[name].get("layer_norm") else "native"
    feed = {"values": window(SERIES, 6 + (f.target in ("diff", "logret")))}
    for steps in (None, 1, 7):
        model = f.to_onnx(steps=steps, spelling=spelling)
        outputs = run(model, feed)
        np.testing.assert_allclose(outputs["forecast"][0], f.predict(steps), rtol=1e-6)
    if f.intervals == "quantile":
        low, high = f.predict_interval()
        outputs = run(f.to_onnx(), feed)
        np.testing.assert_allclose(outputs["lower"][0], low, rtol=1e-6)
        np.testing.assert_allclose(outputs["upper"][0], high, rtol=1e-6)


@pytest.mark.parametrize("spelling", ["portable", "loop"])
def test_every_row_of_a_batch_is_forecast_from_its_own_window(spelling):
    f = fitted(horizon=2, target="diff").fit(SERIES)
    rows = [f.apply(SERIES[:end]).predict() for end in (40, 60, 90)]
    windows = np.stack([SERIES[end - 7 : end] for end in (40, 60, 90)])
    for options in ({}, {"rows": 3}):
        outputs = run(f.to_onnx(spelling=spelling, **options), {"values": windows})
        np.testing.assert_allclose(outputs["forecast"], rows, rtol=1e-6)


def test_past_and_future_features_are_inputs():
    f = fitted(horizon=3).fit(SERIES, past=FEATURES[:, :1], future=FEATURES[:, 1:])
    ahead = (np.arange(90, 93) % 7.0)[:, None]
    feed = {
        "values": window(SERIES, 6),
        "past": window(FEATURES[:, :1], 6),
        "future": np.concatenate([FEATURES[-3:, 1:], ahead])[None],
    }
    outputs = run(f.to_onnx(), feed)
    np.testing.assert_allclose(outputs["forecast"][0], f.predict(future=ahead), rtol=1e-6)
    with pytest.raises(ValueError, match="steps must be at most horizon=3, got 4"):
        f.to_onnx(steps=4)


def test_forecasts_are_fed_back_with_the_features_of_their_steps():
    f = fitted(horizon=3, strategy="recursive").fit(SERIES, future=FEATURES[:, 1:])
    ahead = (np.arange(90, 95) % 7.0)[:, None]
    feed = {
        "values": window(SERIES, 6), "future": np.concatenate([FEATURES[-5:, 1:], ahead])[None],
    }  # fmt: skip
    outputs = run(f.to_onnx(steps=5), feed)
    np.testing.assert_allclose(outputs["forecast"][0], f.predict(5, future=ahead), rtol=1e-6)


def test_one_of_several_series_is_chosen_by_its_name():
    f = fitted(horizon=2).fit({"a": SERIES, "b": 0.01 * SERIES[::-1]})
    with pytest.raises(ValueError, match="has 2 series, each with its scaler: give series=, one"):
        f.to_onnx()
    outputs = run(f.to_onnx(series="b"), {"values": window(0.01 * SERIES[::-1], 6)})
    np.testing.assert_allclose(outputs["forecast"][0], f.predict()["b"], rtol=1e-6)


@pytest.mark.parametrize("name", ["differences", "quantiles", "recursive"])
def test_the_example_in_the_file_is_what_the_library_forecasts(name, tmp_path):
    f = fitted(**CASES[name]).fit(SERIES)
    model = f.to_onnx()
    (tmp_path / "f.onnx").write_bytes(model.SerializeToString())
    for runtime in ("onnxruntime", "onnx"):
        checked = example.check(tmp_path / "f.onnx", runtime)
        assert checked.ok, checked
    made = example.example_of(model)
    made.outputs["forecast"][0, 0] *= 1.0001
    example.write(model, made)
    (tmp_path / "f.onnx").write_bytes(model.SerializeToString())
    checked = example.check(tmp_path / "f.onnx", "onnxruntime")
    assert not checked.ok
    assert checked.error > 1e-5
