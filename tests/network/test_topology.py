"""Reads of a sequence: what is not a number is not lost."""

from __future__ import annotations

import numpy as np
import pytest
from problems import H, Problem

import rnn_xp as rx
from rnn_xp.network import topology
from rnn_xp.network.topology import READ_MAX

STEPS = np.asarray([[1.0, 5.0], [np.nan, -2.0], [0.25, 7.0], [np.nan, 6.0]])  # (T, H)


@pytest.fixture(params=["at once", "step by step"])
def way(request, monkeypatch):
    """The two ways in which the maximum is found, by the number of entries."""
    if request.param == "step by step":
        monkeypatch.setattr(topology, "_CACHED", 0)


@pytest.mark.parametrize(
    ("mask", "best", "at"),
    [
        (None, [np.nan, 7.0], [1, 2]),
        ([True, True, True, False], [np.nan, 7.0], [1, 2]),
        ([True, False, False, True], [np.nan, 6.0], [3, 3]),
        ([True, False, True, False], [1.0, 7.0], [0, 2]),
        ([False, False, False, False], [0.0, 0.0], [-1, -1]),
        ([False, True, False, False], [np.nan, -2.0], [1, 1]),
    ],
)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.usefixtures("way")
@pytest.mark.cover("values")
def test_max_keeps_the_first_nan_of_an_unmasked_step(mask, best, at, reverse, case):
    hs = [case.array(row[None, :]) for row in STEPS]
    steps = None if mask is None else case.array(np.asarray(mask)[:, None, None])

    def read(hs, steps):
        h, chosen = READ_MAX.forward(hs, steps, reverse, xp=case.xp)
        return h, READ_MAX.backward(case.xp.ones_like(h), len(hs), chosen, xp=case.xp)

    with case.guard():
        h, dhs = case.jit(read)(hs, steps)
    assert np.array_equal(case.to_numpy(h), [best], equal_nan=True)
    expected = np.asarray(at) == np.arange(len(STEPS))[:, None]
    assert np.array_equal(np.concatenate([case.to_numpy(dh) for dh in dhs]), expected)


def test_a_nan_before_a_reset_shows_in_the_prediction(case):
    """After the reset the states are numbers again, so that the maximum alone can show it."""
    p = Problem(read="max").on(case)
    x = np.array(case.to_numpy(p.x))
    x[0, 1] = np.nan
    reset = np.zeros(x.shape[:2], dtype=bool)
    reset[:, 2] = True
    pred, state = p.net.forward(p.params, case.array(x), reset=case.array(reset))
    assert np.isfinite(case.to_numpy(state.h)).all()
    assert np.isnan(case.to_numpy(pred)).any(axis=1).tolist() == [True, False, False]


@pytest.mark.usefixtures("way")
def test_max_is_that_of_numpy_and_its_gradient_goes_to_the_first_of_equals(case):
    values = np.random.default_rng(0).integers(0, 3, (5, 3, H)).astype(float)
    h, chosen = READ_MAX.forward([case.array(v) for v in values], None, False, xp=case.xp)
    assert np.array_equal(case.to_numpy(h), values.max(axis=0))
    assert np.array_equal(case.to_numpy(chosen), values.argmax(axis=0))


@pytest.mark.parametrize("masked", [False, True])
def test_gradients_through_the_maximum_are_the_same_in_both_ways(masked, monkeypatch):
    p = Problem(read="max", bidirectional=True, with_=("mask",) if masked else ())
    wanted = p.net.value_and_grad(p.params, p.x, p.y, **p.arrays)
    monkeypatch.setattr(topology, "_CACHED", 0)
    loss, grads = p.net.value_and_grad(p.params, p.x, p.y, **p.arrays)
    assert loss == wanted[0]
    for name, grad in grads.items():
        assert np.array_equal(grad, wanted[1][name]), name


def test_mean_of_a_nan_is_a_nan_as_well():
    p = Problem(read="mean")
    x = p.x.copy()
    x[0, 1] = np.nan
    reset = np.zeros(x.shape[:2], dtype=bool)
    reset[:, 2] = True
    pred, _ = rx.Network.forward(p.net, p.params, x, reset=reset)
    assert np.isnan(pred).any(axis=1).tolist() == [True, False, False]
