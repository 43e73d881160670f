"""The linear path beside the cells: what it computes, where it starts, what it refuses.

Its gradients are under the contract: tests/network/test_contract.py, the options *linear-path*.
"""

from __future__ import annotations

import numpy as np
import pytest
from problems import CELLS, Problem, windows

import rnn_xp as rx
from rnn_xp.forecasting.baselines import fit_linear_ar


@pytest.mark.parametrize("cell", CELLS)
def test_it_adds_the_last_steps_oldest_first(cell):
    with_path = Problem(linear_lags=3, **CELLS[cell])
    without = rx.Network(input_size=2, hidden_size=4, output_size=2, **CELLS[cell])
    params = dict(with_path.params)
    w_xy = params.pop("readout.w_xy")
    expected, _ = without.forward(params, with_path.x)
    for lag, step in enumerate((2, 3, 4)):
        expected = expected + with_path.x[:, step] @ w_xy[:, 2 * lag : 2 * lag + 2].T
    pred, _ = with_path.net.forward(with_path.params, with_path.x)
    np.testing.assert_allclose(pred, expected, rtol=1e-13)


def test_with_a_silent_readout_it_is_a_linear_autoregression():
    x, y = windows(rows=80, seq_length=6)
    model = fit_linear_ar(x, y)
    net = rx.Network(hidden_size=3, linear_lags=6)
    params = net.init(0, rx.get_backend("numpy", dtype="float64"))
    params["readout.w_hy"] = np.zeros_like(params["readout.w_hy"])
    params["readout.w_xy"] = np.moveaxis(model.coef, -1, 0).reshape(1, -1)
    params["readout.b_y"] = model.intercept
    np.testing.assert_allclose(net.forward(params, x)[0], model.predict(x), atol=1e-12)


def test_it_starts_at_zero_and_changes_no_other_weight():
    backend = rx.get_backend("numpy")
    plain = rx.Network(cell="gru", hidden_size=5).init(3, backend)
    params = rx.Network(cell="gru", hidden_size=5, linear_lags=4).init(3, backend)
    assert not params.pop("readout.w_xy").any()
    assert params.keys() == plain.keys()
    assert all(np.array_equal(params[name], plain[name]) for name in plain)


def test_a_masked_step_enters_as_zero():
    problem = Problem(linear_lags=2)
    mask = np.ones((3, 5), bool)
    mask[:, 4] = False
    x = problem.x.copy()
    x[:, 4] = np.nan
    pred, _ = problem.net.forward(problem.params, x, mask=mask)
    without = dict(problem.params)
    without["readout.w_xy"] = problem.params["readout.w_xy"] * [[1, 1, 0, 0]]
    expected, _ = problem.net.forward(without, np.nan_to_num(x), mask=mask)
    np.testing.assert_allclose(pred, expected, rtol=1e-13)


def test_training_uses_it():
    """A linear series that a cell of one unit could not follow."""
    rng = np.random.default_rng(0)
    series = np.zeros(300)
    for t in range(3, 300):
        series[t] = 0.6 * series[t - 1] - 0.5 * series[t - 3] + rng.normal()
    x, y = rx.make_windows(series, 3)
    backend = rx.get_backend("numpy", dtype="float64")
    net = rx.Network(hidden_size=1, linear_lags=3)
    result = rx.fit(net, x, y, optimizer=rx.optim.lbfgs(), epochs=60, backend=backend)
    residual = np.mean((fit_linear_ar(x, y).predict(x) - y) ** 2)
    assert result.history["loss"][-1] <= residual


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"linear_lags": -1}, "linear_lags must be an integer >= 0, got -1"),
        ({"linear_lags": True}, "linear_lags must be an integer >= 0, got True"),
        ({"linear_lags": 2, "topology": "many_to_many"}, "needs topology='many_to_one'"),
    ],
)
def test_what_it_cannot_be_is_an_error(options, words):
    with pytest.raises(ValueError, match=words):
        rx.Network(hidden_size=2, **options)


def test_too_few_steps_lengths_and_resets_are_refused():
    problem = Problem(linear_lags=4)
    net, params, x = problem.net, problem.params, problem.x
    with pytest.raises(ValueError, match="linear_lags=4 needs as many steps, got x with 3"):
        net.forward(params, x[:, :3])
    with pytest.raises(ValueError, match="lengths= is not supported with it"):
        net.forward(params, x, lengths=np.asarray([5, 5, 5]))
    with pytest.raises(ValueError, match="reset= is not supported with it"):
        net.forward(params, x, reset=np.zeros((3, 5), bool))


def test_the_terms_of_its_gradient_stand_at_their_steps():
    problem = Problem(linear_lags=2)
    terms = problem.net.grad_per_step(problem.params, problem.x, problem.y)["readout.w_xy"]
    assert terms.shape == (5, 2, 4)
    assert not terms[:3].any()
    assert not terms[3, :, 2:].any()
    assert not terms[4, :, :2].any()
    assert terms[3, :, :2].all()
    assert terms[4, :, 2:].all()
