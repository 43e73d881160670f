"""No door takes a masked array, whose mask would be dropped, even if nothing is masked."""

from __future__ import annotations

import numpy as np
import pytest

import rnn_xp as rx
from rnn_xp.data.scalers import fit_scaler
from rnn_xp.data.windows import time_split
from rnn_xp.estimators import RecurrentClassifier, RecurrentRegressor
from rnn_xp.forecasting import baselines, metrics

X, Y = rx.make_windows(np.sin(np.arange(60) / 5.0), 6)
X, Y = X.copy(), Y.copy()
FLAT, SERIES = X[:, :, 0], np.sin(np.arange(120) / 5.0)
NET = rx.Network(hidden_size=2)
NUMPY = rx.get_backend("numpy", dtype="float64")
PARAMS = NET.init(0, NUMPY)
ADAM = rx.optim.adam(0.01)
STEPS = np.ones(FLAT.shape, bool)
LABELS = np.arange(len(Y)) % 2


def train(**changed):
    return rx.fit(NET, **{"x": X, "y": Y, "optimizer": ADAM, "epochs": 1, **changed})


def forecaster():
    return rx.Forecaster(seq_length=6, hidden_size=2, epochs=1, verbose=False, missing="mask")


def fitted(kind):
    estimator = kind(hidden_size=2, max_iter=1, n_iter_no_change=None)
    return estimator.fit(FLAT, LABELS if kind is RecurrentClassifier else Y[:, 0])


def ahead(values):
    return forecaster().fit(SERIES, future=SERIES).predict(future=values)


DOORS = {
    "fit x": (X, lambda a: train(x=a)),
    "fit y": (Y, lambda a: train(y=a)),
    "fit list": (X, lambda a: train(x=list(a))),
    "regressor list": (FLAT, lambda a: RecurrentRegressor(max_iter=1).fit(list(a), Y[:, 0])),
    "make_windows list": (X[0], lambda a: rx.make_windows(list(a), 2)),
    "fit sample_weight": (Y[:, 0] ** 2, lambda a: train(sample_weight=a)),
    "fit lengths": (np.full(len(X), 6), lambda a: train(lengths=a)),
    "fit mask": (STEPS, lambda a: train(mask=a)),
    "fit reset": (STEPS, lambda a: train(reset=a)),
    "fit validation x": (X, lambda a: train(validation=(a, Y))),
    "fit validation y": (Y, lambda a: train(validation=(X, a))),
    "fit validation mask": (STEPS, lambda a: train(validation={"x": X, "y": Y, "mask": a})),
    "regressor X": (FLAT, lambda a: RecurrentRegressor(max_iter=1).fit(a, Y[:, 0])),
    "regressor y": (Y[:, 0], lambda a: RecurrentRegressor(max_iter=1).fit(FLAT, a)),
    "regressor weight": (
        Y[:, 0] ** 2, lambda a: RecurrentRegressor(max_iter=1).fit(FLAT, Y[:, 0], sample_weight=a),
    ),
    "regressor predict": (FLAT, lambda a: fitted(RecurrentRegressor).predict(a)),
    "regressor score y": (Y[:, 0], lambda a: fitted(RecurrentRegressor).score(FLAT, a)),
    "regressor score weight": (
        Y[:, 0] ** 2, lambda a: fitted(RecurrentRegressor).score(FLAT, Y[:, 0], a),
    ),
    "classifier score y": (LABELS, lambda a: fitted(RecurrentClassifier).score(FLAT, a)),
    "regressor partial_fit": (FLAT, lambda a: RecurrentRegressor().partial_fit(a, Y[:, 0])),
    "classifier X": (FLAT, lambda a: RecurrentClassifier(max_iter=1).fit(a, LABELS)),
    "classifier y": (LABELS, lambda a: RecurrentClassifier(max_iter=1).fit(FLAT, a)),
    "classifier predict": (FLAT, lambda a: fitted(RecurrentClassifier).predict(a)),
    "classifier predict_proba": (FLAT, lambda a: fitted(RecurrentClassifier).predict_proba(a)),
    "Network.forward": (X, lambda a: NET.forward(PARAMS, a)),
    "Network.predict": (X, lambda a: NET.predict(PARAMS, a)),
    "Network.predict mask": (STEPS, lambda a: NET.predict(PARAMS, X, mask=a)),
    "Network.value_and_grad x": (X, lambda a: NET.value_and_grad(PARAMS, a, Y)),
    "Network.value_and_grad y": (Y, lambda a: NET.value_and_grad(PARAMS, X, a)),
    "a loss": (Y, lambda a: rx.losses.mse(Y, a)),
    "Backend.asarray": (X, lambda a: NUMPY.asarray(a)),
    "to_numpy": (X, rx.backend.to_numpy),
    "make_windows": (SERIES, lambda a: rx.make_windows(a, 6)),
    "time_split": (SERIES, time_split),
    "fit_scaler": (SERIES, lambda a: fit_scaler("standard", a)),
    "Scaler.transform": (SERIES, lambda a: fit_scaler("standard", SERIES).transform(a)),
    "Scaler.inverse_target": (SERIES, lambda a: fit_scaler("minmax", SERIES).inverse_target(a)),
    "rmse truth": (SERIES, lambda a: metrics.rmse(a, SERIES)),
    "rmse forecast": (SERIES, lambda a: metrics.rmse(SERIES, a)),
    "fit_linear_ar x": (X, lambda a: baselines.fit_linear_ar(a, Y)),
    "fit_linear_ar y": (Y, lambda a: baselines.fit_linear_ar(X, a)),
    "Forecaster series": (SERIES, lambda a: forecaster().fit(a)),
    "Forecaster of several": (SERIES, lambda a: forecaster().fit({"a": SERIES, "b": a})),
    "Forecaster past": (SERIES, lambda a: forecaster().fit(SERIES, past=a)),
    "Forecaster future": (SERIES, lambda a: forecaster().fit(SERIES, future=a)),
    "Forecaster predict": (SERIES[:1], ahead),
    "Forecaster backtest": (SERIES, lambda a: forecaster().backtest(a)),
}  # fmt: skip


@pytest.mark.parametrize("nothing_masked", [False, True])
@pytest.mark.parametrize("door", DOORS)
def test_a_masked_array_is_refused(door, nothing_masked):
    values, call = DOORS[door]
    mask = np.zeros(values.shape, bool)
    mask.flat[0] = not nothing_masked
    with pytest.raises(TypeError, match=r"a masked array would lose its mask. Give values\.filled"):
        call(np.ma.masked_array(values, mask))
