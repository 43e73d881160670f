"""Doors of the host take torch tensors that require grad, and give what NumPy arrays give."""

from __future__ import annotations

import numpy as np
import pytest

import rnn_xp as rx
from rnn_xp.data.scalers import fit_scaler
from rnn_xp.data.windows import time_split
from rnn_xp.forecasting import baselines, metrics

torch = pytest.importorskip("torch")

SERIES = np.sin(np.arange(120) / 5.0) + np.cos(np.arange(120) / 3.0)
X, Y = (part.copy() for part in rx.make_windows(SERIES, 6))
LABELS = np.arange(len(Y)) % 2
WEIGHTS = Y[:, 0] ** 2


def forecaster():
    return rx.Forecaster(seq_length=6, hidden_size=2, epochs=1, verbose=False)


def regressor():
    return rx.RecurrentRegressor(hidden_size=2, max_iter=1, n_iter_no_change=None, random_state=0)


def trained():
    return regressor().fit(X, Y[:, 0])


def ahead(values):
    return forecaster().fit(SERIES, future=SERIES).predict(future=values)


def train(**changed):
    options = {"x": X, "y": Y, "optimizer": rx.optim.adam(0.01), "epochs": 2, **changed}
    return rx.fit(rx.Network(hidden_size=2), **options)


DOORS = {
    "fit list": (Y, lambda a: train(y=list(a)).history["loss"]),
    "fit validation list": (
        X, lambda a: train(validation=(list(a), Y)).history["validation_loss"],
    ),
    "Forecaster series": (SERIES, lambda a: forecaster().fit(a).predict()),
    "Forecaster of several": (
        SERIES, lambda a: list(forecaster().fit({"a": SERIES, "b": a}).predict().values()),
    ),
    "Forecaster past": (SERIES, lambda a: forecaster().fit(SERIES, past=a).predict()),
    "Forecaster future": (SERIES[:1], ahead),
    "Forecaster evaluate": (
        SERIES, lambda a: forecaster().fit(SERIES[:90]).evaluate(a).scores[0].rmse,
    ),
    "make_windows": (SERIES, lambda a: rx.make_windows(a, 6)[0]),
    "time_split": (SERIES, lambda a: time_split(a)[1]),
    "fit_scaler": (SERIES, lambda a: fit_scaler("standard", a).transform(SERIES)),
    "Scaler.transform": (SERIES, lambda a: fit_scaler("standard", SERIES).transform(a)),
    "rmse": (SERIES, lambda a: metrics.rmse(a, SERIES + 1)),
    "mase": (SERIES, lambda a: metrics.mase(SERIES, SERIES + 1, a)),
    "persistence": (X, baselines.persistence),
    "fit_linear_ar": (Y, lambda a: baselines.fit_linear_ar(X, a).coef),
    "suggest_period": (SERIES, baselines.suggest_period),
    "estimator weight": (WEIGHTS, lambda a: regressor().fit(X, Y[:, 0], a).predict(X)),
    "estimator y": (Y[:, 0], lambda a: regressor().fit(X, a).predict(X)),
    "estimator score": (Y[:, 0], lambda a: trained().score(X, a)),
    "estimator score weight": (WEIGHTS, lambda a: trained().score(X, Y[:, 0], a)),
}  # fmt: skip


@pytest.mark.parametrize("door", DOORS)
def test_a_tensor_that_requires_grad_gives_what_its_values_give(door):
    values, call = DOORS[door]
    tensor = torch.tensor(values, requires_grad=True)
    np.testing.assert_array_equal(call(tensor), call(values))
    assert tensor.requires_grad


@pytest.mark.parametrize("door", DOORS)
def test_a_tensor_without_values_is_refused(door):
    values, call = DOORS[door]
    with pytest.raises(TypeError, match="a tensor on torch's device meta has a shape and no"):
        call(torch.tensor(values, device="meta"))


def test_a_list_of_tensors_that_require_grad_is_a_list_of_rows():
    rows = [torch.tensor(row, requires_grad=True) for row in np.stack([SERIES, SERIES + 1], 1)]
    windows, _ = rx.make_windows(rows, 6)
    assert windows.shape == (114, 6, 2)
    assert windows[0, :, 0].tolist() == SERIES[:6].tolist()


def test_an_estimator_scores_windows_and_targets_that_require_grad():
    tensors = torch.tensor(X), torch.tensor(Y[:, 0])
    model = regressor().fit(*tensors)
    score = model.score(*tensors)
    assert model.score(*(t.clone().requires_grad_() for t in tensors)) == score
