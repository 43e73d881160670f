"""Streams: what the network predicts for the whole sequence, a step or some steps at a time."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from problems import CELLS, Problem, T

import rnn_xp as rx

TOPOLOGIES = ("many_to_one", "many_to_many")
SETTINGS = {
    "plain": {},
    "two-layers": {"num_layers": 2},
    "residual": {"num_layers": 3, "residual": True, "output_activation": "softmax"},
    "layer-norm": {"layer_norm": True, "num_layers": 2},
}
KERNELS = [
    ("portable", "float64"),
    ("numpy", "float64"),
    ("numpy", "float32"),
    ("numba", "float32"),
]


@pytest.fixture(params=KERNELS, ids="-".join)
def dtype(request, monkeypatch):
    kernels, dtype = request.param
    if kernels == "numba":
        pytest.importorskip("numba", reason="numba is not installed")
    monkeypatch.setenv("RNN_XP_KERNELS", kernels)
    return dtype


def in_precision(here, dtype):
    params = {name: p.astype(dtype) for name, p in here.params.items()}
    state = type(here.state)(*(field.astype(dtype) for field in here.state))
    return params, here.x.astype(dtype), state


class TestEqualsForward:
    @pytest.mark.parametrize("topology", TOPOLOGIES)
    @pytest.mark.parametrize("settings", SETTINGS)
    def test_in_any_pieces(self, dtype, settings, topology):
        tolerance = {"float64": 1e-12, "float32": 2e-5}[dtype]
        for cell in CELLS:
            here = Problem(topology=topology, **CELLS[cell], **SETTINGS[settings])
            params, x, state = in_precision(here, dtype)
            net = here.net
            for start in (None, state):
                stream = rx.Stream(net, params, rows=len(x), state=start)
                for cuts in ((0, T), (0, 1, T), (0, 2, 4, T)):
                    stream.state = stream._zeros if start is None else start
                    preds = [stream.run(x[:, a:b]) for a, b in itertools.pairwise(cuts)]
                    wanted, final = net.forward(params, x, start)
                    pred = preds[-1] if topology == "many_to_one" else np.concatenate(preds, 1)
                    np.testing.assert_allclose(pred, wanted, atol=tolerance, rtol=0)
                    assert pred.dtype == dtype
                    for field, one in zip(stream.state, final, strict=True):
                        np.testing.assert_allclose(field, one, atol=tolerance, rtol=0)

    def test_step_by_step_there_is_a_prediction_after_each(self, dtype):
        here = Problem(cell="lstm", topology="many_to_one", num_layers=2)
        params, x, _ = in_precision(here, dtype)
        stream = rx.Stream(here.net, params, rows=len(x))
        for t in range(T):
            wanted, _ = here.net.forward(params, x[:, : t + 1])
            np.testing.assert_allclose(stream.step(x[:, t]), wanted, atol=2e-5)

    def test_on_every_library(self, case):
        here = Problem(cell="gru", topology="many_to_many")
        there = here.on(case)
        stream = rx.Stream(there.net, there.params, rows=len(here.x))
        wanted, _ = here.net.forward(here.params, here.x)
        case.assert_close(stream.step(there.x[:, 0, :]), wanted[:, 0])
        case.assert_close(stream.run(there.x[:, 1:, :]), wanted[:, 1:])


class TestState:
    def test_reset_begins_a_new_sequence(self, dtype):
        here = Problem(cell="lstm", topology="many_to_many")
        params, x, _ = in_precision(here, dtype)
        stream = rx.Stream(here.net, params, rows=len(x))
        first = stream.run(x)
        assert not np.array_equal(stream.run(x), first)
        stream.reset()
        assert np.array_equal(stream.run(x), first)

    def test_results_are_no_part_of_the_stream(self, dtype):
        here = Problem(cell="gru", topology="many_to_many")
        params, x, _ = in_precision(here, dtype)
        stream = rx.Stream(here.net, params, rows=len(x))
        pred, state = stream.run(x), stream.state
        kept = pred.copy(), state.h.copy()
        after = stream.run(x)
        assert np.array_equal(pred, kept[0])
        assert np.array_equal(state.h, kept[1])
        for array in params.values():  # the stream has copies
            array += np.nan
        stream.state = state
        assert np.array_equal(stream.run(x), after)

    def test_any_number_of_lengths_has_room(self, dtype):
        net = rx.Network(hidden_size=3)
        params = net.init(0, rx.get_backend("numpy", device="cpu", dtype=dtype))
        stream = rx.Stream(net, params)
        x = np.random.default_rng(0).standard_normal((1, 3000, 1)).astype(dtype)
        for steps in (3000, 1, 2000, 1, 3000):
            stream.reset()
            wanted, _ = net.forward(params, x[:, :steps])
            np.testing.assert_allclose(stream.run(x[:, :steps]), wanted, atol=1e-5)


class TestErrors:
    @pytest.mark.parametrize(
        ("settings", "needed"),
        [
            ({"bidirectional": True}, "bidirectional=False: the reverse direction"),
            ({"topology": "one_to_many"}, "an input at every step"),
            ({"read": "mean"}, 'read="last": read="mean" sees all steps'),
            ({"linear_lags": 2}, "linear_lags=0, got 2"),
        ],
    )
    def test_networks_that_need_more_than_the_state(self, settings, needed):
        net = rx.Network(hidden_size=3, **settings)
        with pytest.raises(ValueError, match=rf"Stream: a stream needs {needed}.*Network\.predict"):
            rx.Stream(net, net.init())

    def test_shapes_and_types(self, dtype):
        here = Problem(cell="gru", topology="many_to_many")
        params, x, state = in_precision(here, dtype)
        stream = rx.Stream(here.net, params, rows=3)
        with pytest.raises(ValueError, match=r"x of a step must have shape \(3, 2\), got \(3,\)"):
            stream.step(x[:, 0, 0])
        with pytest.raises(ValueError, match=r"x must have shape \(3, 5, 2\), got \(2, 5, 2\)"):
            stream.run(x[:2])
        with pytest.raises(ValueError, match=r"x must have shape \(N, T, 2\)"):
            stream.run(x[:, :, :1])
        with pytest.raises(ValueError, match=r"x must have shape \(N, T, 2\) with N, T >= 1"):
            stream.run(x[:, :0])
        other = "float64" if dtype == "float32" else "float32"
        with pytest.raises(TypeError, match="float"):
            stream.run(x.astype(other))
        with pytest.raises(ValueError, match=r"state\.h must have shape \(1, 3, 4\)"):
            stream.state = type(state)(state.h[:, :2])
        with pytest.raises(ValueError, match="Stream: rows must be an integer >= 1, got 0"):
            rx.Stream(here.net, params, rows=0)
        with pytest.raises(ValueError, match="missing"):
            rx.Stream(here.net, {"layer0.w_xh": params["layer0.w_xh"]})
