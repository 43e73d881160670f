"""Long sequences in pieces: the gradient of the whole, and the same bits however little is kept."""

from __future__ import annotations

import functools
import itertools
import math
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
from problems import CELLS, OPTIONS, Problem, excluded

import rnn_xp as rx
from rnn_xp.engines.memory import workers_within
from rnn_xp.kernels import make_workspace
from rnn_xp.network import memory, pieces, pipeline
from rnn_xp.network.call import Options
from rnn_xp.network.gradients import loss_back
from rnn_xp.network.memory import block_bytes, fewest_bytes, keep_within, relative_time
from rnn_xp.network.pieces import Keep, advance, cut, order

STEPS = 8  # in pieces of 2, 3 and 3 steps
TOPOLOGIES = {
    name: {"topology": name.replace("-", "_")} for name in ("many-to-one", "many-to-many")
}
ONE_WAY = [name for name in OPTIONS if "bidirectional" not in name and name != "linear-path-mask"]
KEPT = [Keep(1, 0), Keep(1, 1), Keep(1, 2), Keep(2, 0), Keep(2, 1), Keep(3, 0)]


@pytest.fixture
def short(monkeypatch):
    """Pieces of three steps."""
    for module in (pieces, memory):
        monkeypatch.setattr(module, "PIECE", 3)


def problem(cell, topology, option):
    settings, given = OPTIONS[option]
    return Problem(steps=STEPS, with_=given, **CELLS[cell], **TOPOLOGIES[topology], **settings)


def gradient(there, keep=None, *, workspace=None):
    """The loss and its gradient, with what may be kept said outright."""
    net, options = there.net, Options(workspace=workspace, **there.options())
    weight = pipeline.loss_weight(net, there.x, there.y, there.weight, options)

    def score(pred):
        return rx.losses.mse(pred, there.y, weight, 10.0)

    xp = rx.backend.array_namespace(there.x)
    return pieces.value_and_grad(net, there.params, there.x, options, score, keep, xp=xp)


def in_precision(dtype, host):
    """Copy an array; only floats change their precision."""
    return np.array(host, dtype=dtype if np.asarray(host).dtype.kind == "f" else None)


def whole(there):
    """The same in one piece."""
    value, result, _ = loss_back(
        there.net, there.params, there.x, there.y, "mse", there.weight,
        Options(**there.options()), total=10.0,
    )  # fmt: skip
    return value, result.grads


def assert_same_bits(a, b):
    assert a[1].keys() == b[1].keys()
    assert np.array_equal(a[0], b[0])
    for name, grad in a[1].items():
        assert np.array_equal(grad, b[1][name]), name


@functools.cache
def fewest_advances(count, states):
    """Pieces to advance over, by trying everything."""
    if count == 1:
        return 0
    if not states:
        return count * (count - 1) // 2
    return min(
        k + fewest_advances(count - k, states - 1) + fewest_advances(k, states)
        for k in range(1, count)
    )


class TestSchedule:
    @pytest.mark.parametrize("states", range(7))
    def test_no_order_advances_over_fewer_pieces(self, states):
        for count in range(1, 40):
            advanced = sum(first - start for start, first, _, _ in order(count, Keep(1, states)))
            assert advanced == fewest_advances(count, states), count

    @pytest.mark.parametrize("tapes", [1, 2, 5])
    @pytest.mark.parametrize("states", [0, 1, 3, 100])
    def test_every_piece_goes_back_once_from_the_last_to_the_first(self, states, tapes):
        for count in (1, 2, 3, 10, 37, 2000 if states == 100 else 38):
            kept, back = {0}, []
            for start, first, stop, last in order(count, Keep(tapes, states)):
                assert start in kept
                kept.add(first)
                # The initial state, those that may be kept, and the one at hand.
                assert len(kept) <= states + 2
                assert stop == (back[-1] if back else count)
                if last:
                    assert 1 <= stop - first <= tapes
                    back.extend(range(stop - 1, first - 1, -1))
                    kept.remove(first)
            assert back == list(range(count - 1, -1, -1))

    def test_all_states_mean_that_no_piece_is_computed_more_than_twice(self):
        for count in (2, 5, 1000):
            advanced = sum(f - s for s, f, _, _ in order(count, Keep(1, count)))
            assert advanced == count - 1

    @pytest.mark.parametrize(
        ("steps", "lengths"),
        [(1, [1]), (100, [100]), (101, [1, 100]), (200, [100, 100]), (250, [50, 100, 100])],
    )
    def test_pieces_cover_the_sequence_and_only_the_first_is_shorter(self, steps, lengths):
        ranges = cut(rx.Network(hidden_size=4), steps)
        assert [len(piece) for piece in ranges] == lengths
        assert list(itertools.chain(*ranges)) == list(range(steps))

    @pytest.mark.parametrize(
        "options",
        [
            {"bidirectional": True}, {"read": "mean"}, {"read": "max"},
            {"topology": "one_to_many"}, {"linear_lags": 101},
        ],
    )  # fmt: skip
    def test_what_needs_all_steps_stays_whole(self, options):
        assert cut(rx.Network(hidden_size=4, **options), 1000) == [range(1000)]


@pytest.mark.usefixtures("short")
class TestGradient:
    @pytest.mark.full("jax")
    @pytest.mark.cover("values")
    @pytest.mark.parametrize("topology", TOPOLOGIES)
    def test_is_that_of_the_whole_for_every_cell_and_option(self, topology, case):
        options = [option for option in ONE_WAY if not excluded(topology, option)]
        product = list(itertools.product(CELLS, options))
        if case.backend.name != "numpy":  # what is compiled for every shape takes longest
            step = {"jax": 11, "dpnp": 7}.get(case.backend.name, 2)
            product = product[list(TOPOLOGIES).index(topology) :: step]
        for number, (cell, option) in enumerate(product):
            there = problem(cell, topology, option).on(case)
            assert len(cut(there.net, STEPS)) == 3
            value, grads = gradient(there, KEPT[number % len(KEPT)])
            wanted_value, wanted = whole(there)
            case.assert_close(value, case.to_numpy(wanted_value))
            for name, grad in grads.items():
                case.assert_close(grad, case.to_numpy(wanted[name]))

    @pytest.mark.parametrize("option", ONE_WAY)
    @pytest.mark.parametrize("topology", TOPOLOGIES)
    def test_has_the_same_bits_whatever_is_kept(self, topology, option):
        if excluded(topology, option):
            return
        for cell in CELLS:
            here = problem(cell, topology, option)
            everything = gradient(here)
            for keep in KEPT:
                assert_same_bits(everything, gradient(here, keep))

    @pytest.mark.parametrize(
        ("kernels", "dtype"), [("numpy", "float64"), ("numpy", "float32"), ("numba", "float32")]
    )
    @pytest.mark.parametrize("topology", TOPOLOGIES)
    def test_has_the_same_bits_in_kernels(self, monkeypatch, topology, kernels, dtype):
        if kernels == "numba":
            pytest.importorskip("numba", reason="numba is not installed")
        monkeypatch.setenv("RNN_XP_KERNELS", kernels)
        backend = rx.get_backend("numpy", device="cpu", dtype=dtype)
        options = [option for option in ONE_WAY if not excluded(topology, option)]
        for cell, option in itertools.product(CELLS, options):
            here = problem(cell, topology, option)
            there = here.on(SimpleNamespace(id=dtype, array=functools.partial(in_precision, dtype)))
            used = make_workspace(backend)
            everything = gradient(there, workspace=used)
            tolerance = 1e-10 if dtype == "float64" else 1e-3
            wanted = whole(here)[1]
            for name, grad in everything[1].items():
                scale = np.abs(wanted[name]).max()
                np.testing.assert_allclose(grad, wanted[name], atol=tolerance * scale, rtol=0)
            for keep in KEPT:
                assert_same_bits(everything, gradient(there, keep, workspace=used))

    @pytest.mark.parametrize("option", ["dropout", "everything"])
    def test_a_generator_ends_where_it_would_without_pieces(self, option):
        here = problem("gru", "many-to-many", option)
        ends = []
        for compute in (loss_back, here.net.__class__.value_and_grad):
            rng = np.random.default_rng(5)
            given = here.arrays
            if compute is loss_back:
                options = Options(**given, rng=rng)
                loss_back(here.net, here.params, here.x, here.y, "mse", None, options)
            else:
                here.net.value_and_grad(here.params, here.x, here.y, **given, rng=rng)
            ends.append(rng.random())
        assert ends[0] == ends[1]

    @pytest.mark.parametrize("topology", TOPOLOGIES)
    @pytest.mark.parametrize("option", ["plain", "lengths", "everything"])
    def test_forward_has_the_bits_that_the_loss_is_made_of(self, topology, option):
        settings, given = OPTIONS[option]
        settings = {name: v for name, v in settings.items() if "dropout" not in name}
        given = [name for name in given if name != "rng"]
        here = Problem(steps=STEPS, with_=given, cell="lstm", **TOPOLOGIES[topology], **settings)
        seen = []

        def loss(pred, target, weight, total):
            seen.append(pred)
            return rx.losses.mse(pred, target, weight, total)

        here.net.value_and_grad(here.params, here.x, here.y, loss, **here.options())
        pred, final = here.net.forward(here.params, here.x, **here.options())
        assert np.array_equal(pred, seen[0])
        _, wanted, _ = here.net.vjp(here.params, here.x, **here.options())
        for field, one in zip(final, wanted, strict=True):
            np.testing.assert_allclose(field, one, rtol=1e-12, atol=1e-14)


def peak(function):
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        function()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


class TestBudget:
    @staticmethod
    def measured(net, steps, budget):
        """The peak of a pass over 20 rows with all that the estimate counts."""
        rng = np.random.default_rng(0)
        x = rng.standard_normal((20, steps, 2))
        y = x[:, :, :1] if net.topology == "many_to_many" else x[:, 0, :1]
        mask, noise = rng.random((20, steps)) < 0.8, np.random.default_rng(1)
        params = net.init(0, rx.get_backend("numpy", device="cpu", dtype="float64"))
        return peak(
            lambda: net.value_and_grad(params, x, y, mask=mask, rng=noise, memory_budget=budget)
        )

    @pytest.mark.parametrize("cell", ["rnn-tanh", "gru", "gru-reset-before", "lstm"])
    @pytest.mark.parametrize("topology", TOPOLOGIES)
    def test_holds_the_peak(self, cell, topology):
        """Of a tenth of what everything needs, and of the least that is accepted."""
        for steps, options in ((1200, {}), (500, {"num_layers": 2, "dropout": 0.5})):
            net = rx.Network(
                **CELLS[cell], **TOPOLOGIES[topology], input_size=2, hidden_size=16, **options
            )
            least = fewest_bytes(net, steps, 20, 8)
            budget = max(least, block_bytes(net, steps, 20, 8) // 10)
            assert budget < 0.4 * block_bytes(net, steps, 20, 8)
            assert self.measured(net, steps, budget) <= budget

    def test_a_tenth_takes_no_more_than_a_third_more_time(self):
        for cell, topology in itertools.product(("rnn", "lstm"), TOPOLOGIES):
            net = rx.Network(cell=cell, hidden_size=50, **TOPOLOGIES[topology])
            for rows, steps in ((1, 100_000), (100, 10_000), (1000, 3000)):
                budget = block_bytes(net, steps, rows, 4) // 10
                keep = keep_within(net, steps, rows, 4, budget)
                assert relative_time(net, steps, keep) <= 4 / 3

    def test_a_hundred_thousand_steps_need_less_than_200_megabytes(self):
        for topology in TOPOLOGIES:
            net = rx.Network(cell="lstm", hidden_size=50, num_layers=2, **TOPOLOGIES[topology])
            assert fewest_bytes(net, 100_000, 1, 4) < 20e6

    def test_relative_time(self):
        net = rx.Network(hidden_size=4)
        assert relative_time(net, 1000, None) == 1.0
        assert relative_time(net, 1000, Keep(10, 0)) == 1.0
        assert relative_time(net, 1000, Keep(1, 10)) == pytest.approx((9 + 10 + 20) / 30)
        assert relative_time(net, 1000, Keep(5, 1)) == pytest.approx((5 + 10 + 20) / 30)

    def test_what_everything_needs_is_kept(self):
        net = rx.Network(cell="gru", hidden_size=8)
        assert keep_within(net, 1000, 5, 8, block_bytes(net, 1000, 5, 8)) is None

    def test_too_little(self):
        net, x = rx.Network(hidden_size=4), np.zeros((3, 500, 1), dtype="float32")
        params, y = net.init(), np.zeros((3, 1), dtype="float32")
        least = fewest_bytes(net, 500, 3, 4)
        with pytest.raises(
            ValueError,
            match=rf"memory_budget=1000 bytes is too little: 3 rows of 500 steps need about "
            rf"{least} bytes although pieces of it are computed again\. Give at least that, or",
        ):
            net.value_and_grad(params, x, y, memory_budget=1000)
        both = rx.Network(hidden_size=4, bidirectional=True)
        needed = block_bytes(both, 500, 3, 4)
        with pytest.raises(ValueError, match=rf"need about {needed} bytes\. Give"):
            both.value_and_grad(both.init(), x, y, memory_budget=needed - 1)

    def test_threads_are_as_many_as_are_fastest(self):
        net = rx.Network(cell="lstm", hidden_size=50)
        everything, least = (count(net, 3000, 100, 4) for count in (block_bytes, fewest_bytes))
        threads = functools.partial(workers_within, net=net, steps=3000, rows=100, itemsize=4)
        assert threads(everything, workers=1) == 1
        # Two that compute everything twice are done before one that does not.
        assert threads(everything, workers=2) == 2
        assert threads(everything, workers=2, again=False) == 1
        assert threads(least, workers=2) == 1
        with pytest.raises(ValueError, match=rf"about {least} bytes"):
            threads(least - 1, workers=2)
        with pytest.raises(ValueError, match=rf"about {everything} bytes"):
            threads(everything - 1, workers=2, again=False)


class TestFit:
    @pytest.mark.parametrize("topology", TOPOLOGIES)
    @pytest.mark.parametrize("optimizer", ["adam", "lbfgs"])
    def test_has_the_same_bits_with_any_budget(self, topology, optimizer):
        noisy = {"num_layers": 2, "dropout": 0.2} if optimizer == "adam" else {}
        net = rx.Network(cell="gru", hidden_size=5, **TOPOLOGIES[topology], **noisy)
        rng = np.random.default_rng(0)
        x = rng.standard_normal((7, 330, 1)).astype("float32")
        y = x if topology == "many-to-many" else x[:, 0]
        least = fewest_bytes(net, 330, 4, 4)
        fits = [
            rx.fit(
                net, x, y, optimizer=getattr(rx.optim, optimizer)(), epochs=2, block_rows=4,
                workers=2, memory_budget=budget, validation=(x[:2], y[:2]),
                lengths=np.asarray([330, 7, 120, 0, 250, 300, 1]),
            )
            for budget in (None, least, 2 * least, 3 * least)
        ]  # fmt: skip
        assert [fit.workers for fit in fits] == [2, 1, 2, 2]
        for fit in fits[1:]:
            assert fit.history == fits[0].history
            for name, p in fits[0].params.items():
                assert np.array_equal(fit.params[name], p)

    def test_optimisers_with_curvature_keep_everything(self):
        net = rx.Network(hidden_size=3)
        x = np.random.default_rng(0).standard_normal((2, 300, 1)).astype("float32")
        everything = block_bytes(net, 300, 2, 4)
        assert fewest_bytes(net, 300, 2, 4) < everything - 1
        with pytest.raises(ValueError, match=rf"needs about {everything} bytes"):
            rx.fit(
                net, x, x[:, 0], optimizer=rx.optim.levenberg_marquardt(), epochs=1,
                memory_budget=everything - 1,
            )  # fmt: skip


def test_the_best_of_few_states_is_the_binomial_one():
    """With s states beside the first, r rounds of advancing reach C(s + 1 + r, s + 1) pieces."""
    for states, rounds in itertools.product(range(4), range(1, 5)):
        count = math.comb(states + 1 + rounds, states + 1)
        again = [0] * count
        for start, first, _, _ in order(count, Keep(1, states)):
            for number in range(start, first):
                again[number] += 1
        assert max(again) == rounds
        assert 1 <= advance(count, states) < count
