"""Reads of a sequence: what is not a number is not lost, and calls do not grow with the steps."""

from __future__ import annotations

import types

import array_api_compat.numpy as xp
import cupy_stand_in
import numpy as np
import pytest
from problems import H, Problem

import rnn_xp as rx
from rnn_xp.network import topology
from rnn_xp.network.topology import READ_MAX, READ_MEAN

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


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("read", [READ_MEAN, READ_MAX], ids=["mean", "max"])
def test_reads_in_as_many_calls_for_any_number_of_steps(read, masked, monkeypatch):
    """Where calls are what costs: the same numbers, and gradients that are parts of one array."""
    rng = np.random.default_rng(0)
    hs, dh = rng.standard_normal((7, 3, H)), rng.standard_normal((3, H))
    mask = rng.random((7, 3, 1)) < 0.5 if masked else None
    monkeypatch.setattr(topology, "_CACHED", 0)
    found = []
    for at_once in (False, True):
        monkeypatch.setattr(topology, "_each_call_counts", lambda hs, xp, yes=at_once: yes)
        h, cache = read.forward(hs, mask, False, xp=xp)
        found.append((h, read.backward(dh, 7, cache, xp=xp)))
    (h, dhs), (again, others) = found
    np.testing.assert_allclose(again, h, rtol=0, atol=1e-15)
    assert all(map(np.array_equal, dhs, others))
    apart = np.diff([dh.ctypes.data for dh in others])
    assert len(set(apart.tolist())) == 1


def test_calls_are_what_costs_with_one_array_on_a_gpu():
    """Not with a list of arrays, which would have to be put together first."""
    cupy = types.SimpleNamespace(__name__="array_api_compat.cupy")
    states = np.zeros((4, 3, H))
    assert topology._each_call_counts(states, cupy)
    assert not topology._each_call_counts(list(states), cupy)
    assert not topology._each_call_counts(states, xp)


@pytest.mark.parametrize("feed", [topology.ZEROS, topology.REPEAT], ids=["zeros", "repeat"])
def test_a_feed_has_a_call_for_any_number_of_steps(feed):
    """CuPy puts more than eight arrays together by a table of addresses from the host."""
    x = cupy_stand_in.counted(np.asarray([[[1.0, np.nan], [-0.0, 4.0]]]))
    counts = []
    for steps in (1, 3, 12):
        with cupy_stand_in.launches() as noted:
            made = feed.forward(x, steps, xp=xp)
        counts.append(len(noted))
        first, *others = np.asarray(made)
        assert np.array_equal(first, x[0], equal_nan=True)
        assert np.array_equal(np.signbit(first), np.signbit(x[0]))
        after = first if feed is topology.REPEAT else np.zeros((2, 2))
        assert all(np.array_equal(other, after, equal_nan=True) for other in others)
    assert len(set(counts)) == 1


def test_mean_of_a_nan_is_a_nan_as_well():
    p = Problem(read="mean")
    x = p.x.copy()
    x[0, 1] = np.nan
    reset = np.zeros(x.shape[:2], dtype=bool)
    reset[:, 2] = True
    pred, _ = rx.Network.forward(p.net, p.params, x, reset=reset)
    assert np.isnan(pred).any(axis=1).tolist() == [True, False, False]
