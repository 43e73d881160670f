"""The optimiser that is chosen for a smooth loss over the full batch."""

from __future__ import annotations

import numpy as np
import pytest

import rnn_xp as rx
from rnn_xp import optim
from rnn_xp.forecasting import training


@pytest.mark.parametrize(
    ("parameters", "rows", "small"),
    [(131, 8317, True), (1000, 1000, True), (1001, 8317, False), (131, 130, False)],
)
def test_few_parameters_and_no_more_than_rows_suit_levenberg_marquardt(parameters, rows, small):
    expected = optim.LevenbergMarquardt if small else optim.LBFGS
    assert type(optim.suited(parameters, rows)) is expected


@pytest.mark.parametrize(
    ("rows", "outputs", "subsample"),
    [(8000, 1, 1 / 8), (8000, 4, 1 / 32), (1000, 1, 1.0), (20, 1, 1.0)],
)
def test_the_curvature_is_that_of_a_thousand_rows(rows, outputs, subsample):
    assert optim.of_part(rows, outputs).subsample == subsample


@pytest.mark.parametrize("rows", [0, -5, "a", None])
def test_a_number_of_rows_is_required(rows):
    with pytest.raises((ValueError, TypeError), match="of_part: rows must be an integer >= 1"):
        optim.of_part(rows)


def test_the_rest_of_the_options_is_passed_on():
    chosen = optim.of_part(10, weight_decay=0.5)
    assert (chosen.weight_decay, chosen.damping, chosen.decrease) == (0.5, 1.0, 0.5)


@pytest.mark.parametrize(("hidden", "kind"), [(4, optim.LevenbergMarquardt), (40, optim.LBFGS)])
def test_a_forecaster_takes_it(hidden, kind, monkeypatch):
    taken = []
    fit = training.fit

    def look(*args, optimizer, **options):
        taken.append(type(optimizer))
        return fit(*args, optimizer=optimizer, **options)

    monkeypatch.setattr(training, "fit", look)
    rx.Forecaster(hidden_size=hidden, epochs=1, verbose=False).fit(np.sin(np.arange(200) / 3))
    assert set(taken) == {kind}


def test_henon_is_learned_to_a_hundredth_of_the_error_of_the_linear_autoregression():
    """Henon's map is x(t) = 1 - 1.4 x(t-1)**2 + 0.3 x(t-2): two steps say it all."""
    values = [0.1, 0.1]
    for _ in range(698):
        values.append(1.0 - 1.4 * values[-1] ** 2 + 0.3 * values[-2])
    x, y = rx.make_windows(np.asarray(values[100:]), seq_length=4)
    rows = np.concatenate([x[..., 0], np.ones((len(x), 1))], axis=1)
    linear = np.linalg.lstsq(rows[:400], y[:400], rcond=None)[0]
    model = rx.RecurrentRegressor(
        hidden_size=8, solver="levenberg_marquardt", max_iter=60, random_state=0,
        backend=rx.get_backend("numpy", dtype="float64"), n_iter_no_change=None,
    ).fit(x[:400], y[:400, 0])  # fmt: skip
    errors = model.predict(x[400:]) - y[400:, 0]
    ours, theirs = (np.sqrt(np.mean(e**2)) for e in (errors, rows[400:] @ linear - y[400:]))
    assert ours < 0.01 * theirs
