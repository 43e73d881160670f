"""Memory: what a block needs is estimated, and more rows need no more of it."""

from __future__ import annotations

import gc
import itertools
import threading
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
from problems import CELLS as OWN_CELLS
from problems import EXAMPLES, TOPOLOGIES, excluded

import rnn_xp as rx
from rnn_xp.engines.blocks import Batch
from rnn_xp.engines.memory import workers_within
from rnn_xp.engines.portable import PortableEngine
from rnn_xp.engines.threads import in_order
from rnn_xp.losses import cross_entropy, mse
from rnn_xp.network.memory import block_bytes
from rnn_xp.training import inputs as training_data

pytestmark = pytest.mark.usefixtures("mingru")

CELLS = OWN_CELLS | EXAMPLES
STACKS = {
    "one": {},
    "two": {"num_layers": 2},
    "bidirectional": {"bidirectional": True},
    "two-bidirectional": {"num_layers": 2, "bidirectional": True},
}
OPTIONS = {
    "plain": {},
    "layer-norm": {"layer_norm": True},
    "recurrent-dropout": {"recurrent_dropout": 0.5},
}
BETWEEN_LAYERS = {
    "dropout": {"dropout": 0.5},
    "residual": {"residual": True},
    "all": {"layer_norm": True, "residual": True, "dropout": 0.5, "recurrent_dropout": 0.5},
}


@pytest.fixture(scope="module", autouse=True)
def only_what_is_new_is_collected():
    """What other tests left in this process may be gigabytes, and is not looked through here."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def peak(function):
    """The most that is allocated at once during a call, beside what was before."""
    gc.collect()
    gc.disable()  # what only the collector frees may pile up: that would be found here
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        function()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
        gc.enable()


def measured(net, steps, rows, dtype="float64", schedule=False, loss=mse):
    """Peak of one block, forward and backward."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((rows, steps, net.input_size)).astype(dtype)
    x = x[:, :1, :] if net.topology == "one_to_many" else x
    lead = (rows,) if net.topology == "many_to_one" else (rows, steps)
    y = rng.standard_normal((*lead, net.output_size)).astype(dtype)
    y = np.argmax(y, axis=-1) if loss is cross_entropy else y
    given = {}
    if schedule:
        given = {"mask": rng.random((rows, steps)) < 0.8, "reset": rng.random((rows, steps)) < 0.2}
    params = net.init(0, rx.get_backend("numpy", dtype=dtype))
    return peak(
        lambda: net.value_and_grad(
            params, x, y, loss, rng=np.random.default_rng(1), total=1.0, **given
        )
    )


class TestBlockBytes:
    @pytest.mark.cover("values")
    @pytest.mark.parametrize("stack", STACKS)
    @pytest.mark.parametrize("topology", TOPOLOGIES)
    @pytest.mark.parametrize("cell", [name for name in CELLS if name != "rnn-relu"])
    def test_holds_the_peak_and_is_less_than_twice_as_much(self, cell, topology, stack):
        if excluded(topology, stack):
            return
        options = OPTIONS | (BETWEEN_LAYERS if "two" in stack else {})
        for option, steps, schedule in itertools.product(options, (5, 20), (False, True)):
            net = rx.Network(
                **CELLS[cell], **TOPOLOGIES[topology], **STACKS[stack], **options[option],
                input_size=2, output_size=2, hidden_size=16,
            )  # fmt: skip
            found = measured(net, steps, 100, schedule=schedule)
            estimate = block_bytes(net, steps, 100, 8)
            assert found <= estimate <= 2 * found, (option, steps, schedule, found, estimate)

    @pytest.mark.parametrize("cell", ["rnn", "lstm", "mingru"])
    @pytest.mark.parametrize(
        ("topology", "inputs", "outputs", "hidden", "rows", "steps", "loss", "factor"),
        [
            ("many_to_one", 1, 1, 50, 1040, 10, mse, 2.0),  # the reference workload
            ("many_to_one", 40, 1, 16, 200, 10, mse, 2.0),
            ("many_to_many", 1, 40, 16, 200, 10, mse, 2.0),
            ("many_to_many", 1, 40, 16, 200, 10, cross_entropy, 2.0),
            ("many_to_one", 1, 1, 16, 300, 1, mse, 2.5),  # a step's own arrays are all there is
            ("many_to_one", 1, 1, 4, 1, 5, mse, 5.0),  # Python's objects, too
            ("many_to_many", 2, 2, 8, 20, 50, mse, 3.0),
        ],
    )
    @pytest.mark.cover("values")
    def test_other_sizes(self, cell, topology, inputs, outputs, hidden, rows, steps, loss, factor):
        sizes = {"input_size": inputs, "output_size": outputs, "hidden_size": hidden}
        for layers, (dtype, itemsize), schedule in itertools.product(
            (1, 3), (("float32", 4), ("float64", 8)), (False, True)
        ):
            net = rx.Network(cell=cell, topology=topology, num_layers=layers, **sizes)
            found = measured(net, steps, rows, dtype, schedule, loss)
            assert found <= block_bytes(net, steps, rows, itemsize) <= factor * found

    @pytest.mark.parametrize("topology", ["many_to_one", "many_to_many"])
    def test_holds_a_segment_of_truncated_backpropagation(self, topology):
        net = rx.Network(hidden_size=16, topology=topology)
        x = np.random.default_rng(0).standard_normal((100, 20, 1))
        y = x if topology == "many_to_many" else x[:, 0]
        engine = make_engine(x, y, net=net, block_rows=100, truncate=(5, 5))
        params = net.init(0, engine.backend)
        found = peak(lambda: engine.run(params, engine.optimizer.init(params), 1))
        assert found <= block_bytes(net, 20, 100, 8)


class TestWorkersWithin:
    NET = rx.Network(hidden_size=50)
    ONE = block_bytes(NET, 10, 1040, 4)

    @pytest.mark.parametrize(
        ("budget", "workers", "expected"),
        [(ONE, 8, 1), (2 * ONE - 1, 8, 1), (2 * ONE, 8, 2), (100 * ONE, 8, 8), (ONE, 1, 1)],
    )
    def test_blocks_that_fit(self, budget, workers, expected):
        assert workers_within(budget, self.NET, 10, 1040, 4, workers) == expected

    @pytest.mark.parametrize("budget", [0, -1, ONE - 1])
    def test_too_little_for_one(self, budget):
        message = (
            rf"memory_budget={budget} bytes .* 1040 rows and 10 steps needs about {self.ONE} "
            r"bytes\. .*smaller block_rows="
        )
        with pytest.raises(ValueError, match=message):
            workers_within(budget, self.NET, 10, 1040, 4, 2)


def make_engine(x, y, **options):
    backend = rx.get_backend("numpy", dtype=x.dtype.name)
    options = {"net": rx.Network(hidden_size=50), "loss": mse, "block_rows": 1040, **options}
    return PortableEngine(
        optimizer=rx.optim.adam(0.01), backend=backend, data=Batch(x, y), **options
    )


def windows(rows, dtype="float32", steps=10):
    series = np.random.default_rng(0).standard_normal(rows + steps).astype(dtype)
    return rx.make_windows(series, steps)


class TestFlat:
    @staticmethod
    def training(rows, workers=1, **options):
        """Peak of an epoch of the reference network."""
        backend = rx.get_backend("numpy", dtype="float32")
        x, y = windows(rows)
        options = {"optimizer": rx.optim.adam(0.01), "epochs": 1, "backend": backend, **options}
        net = rx.Network(hidden_size=50)
        rx.fit(net, x[:9], y[:9], workers=workers, **options)  # what is imported on first use
        return peak(lambda: rx.fit(net, x, y, workers=workers, **options))

    def test_five_times_the_windows_need_no_more(self):
        few, many = self.training(8317), self.training(41_585)
        assert many == pytest.approx(few, rel=0.03)  # gradients of two more levels of the tree
        assert many < block_bytes(rx.Network(hidden_size=50), 10, 1040, 4)
        # Threads need not meet at their peaks, so this is no more than a bound.
        assert self.training(41_585, workers=2) < 2 * 1.03 * few

    def test_casting_windows_casts_the_series(self):
        """Of 41,585 rows the windows in float32 would be 1.7 MB, the series is 0.17 MB."""
        backend = rx.get_backend("numpy", dtype="float32")
        x, y = windows(41_585, "float64")
        net, nothing = rx.Network(hidden_size=4), {"sample_weight": None, "lengths": None}
        x = np.asarray(x)

        def enter():
            return training_data.enter(
                net, mse, backend, x=x, y=y, mask=None, reset=None, **nothing
            )

        assert peak(enter) < 1_000_000
        entered = enter()
        assert entered.x.dtype == np.float32
        assert entered.x.strides == (4, 4, 4)
        assert np.array_equal(entered.x, x.astype("float32"))
        assert np.array_equal(entered.y, y.astype("float32"))

    def test_finding_values_that_are_not_finite_takes_pieces(self):
        x = windows(1_000_000)[0]
        backend = rx.get_backend("numpy", dtype="float32")
        # As one array of bool it would be 10 MB.
        assert peak(lambda: training_data._floats(backend, "x", x)) < 1_500_000

    @pytest.mark.parametrize("shape", [(), (3,), (2**20,), (2**20 + 1,), (700_001, 3), (2, 2**21)])
    @pytest.mark.parametrize("where", ["none", "first", "last"])
    def test_every_piece_is_looked_at(self, shape, where):
        backend = rx.get_backend("numpy", dtype="float32")
        array = np.zeros(shape, dtype="float32")
        if where == "none":
            assert training_data._floats(backend, "x", array) is array
            return
        array.reshape(-1)[0 if where == "first" else -1] = np.nan
        with pytest.raises(ValueError, match="x has values that are not finite"):
            training_data._floats(backend, "x", array)

    def test_weights_of_steps_are_made_by_blocks(self):
        """As large as the data if made at once: (N, T) of 20,000 rows and 50 steps is 8 MB."""
        net = rx.Network(hidden_size=2, topology="many_to_many")
        x = np.zeros((20_000, 50, 1))
        engine = make_engine(x, x, net=net, block_rows=100)
        batch = engine.data._replace(lengths=np.full(20_000, 7), sample_weight=np.ones(20_000))
        assert peak(lambda: engine.total(batch)) < 300_000
        assert engine.total(batch) == 7.0 * 20_000
        assert engine._total(engine.cut(batch), context=3) == 4.0 * 20_000

    @pytest.mark.parametrize("workers", [1, 3])
    def test_few_blocks_and_results_are_outstanding(self, workers):
        """A thousand blocks: counted are those begun but whose result is not yet added."""
        lock, state = threading.Lock(), SimpleNamespace(now=0, most=0, begun=0, ahead=0, added=0)
        x, y = windows(1000)
        engine = make_engine(x, y, block_rows=1, workers=workers)

        def block(number):
            with lock:
                state.now, state.begun = state.now + 1, state.begun + 1
                state.most = max(state.most, state.now)
                state.ahead = max(state.ahead, state.begun - state.added)
            with lock:
                state.now -= 1
            return number

        with engine.running():
            found = []
            for number in engine._map(block, engine.blocks.own):
                found.append(number)
                state.added += 1
        assert found == list(range(1000))
        assert state.most <= workers
        assert state.ahead <= 2 * workers


class TestThreads:
    def test_results_are_in_order_and_items_read_as_needed(self):
        read = []

        def items():
            for k in range(50):
                read.append(k)
                yield k

        def work(k):
            time.sleep(0.002 * (k % 3 == 0))  # every third is late
            return k * k

        with ThreadPoolExecutor(3) as pool:
            for taken, result in enumerate(in_order(pool, work, items(), ahead=5)):
                assert result == taken * taken
                assert len(read) <= taken + 5
        assert len(read) == 50

    @pytest.mark.parametrize("where", [0, 5, 49])
    def test_a_failure_ends_it_and_leaves_nothing_at_work(self, where):
        done, working = [], threading.Semaphore(0)

        def work(k):
            if k == where:
                raise ArithmeticError(f"block {k}")
            working.release()
            time.sleep(0.02)
            done.append(k)
            return k

        with ThreadPoolExecutor(2) as pool:
            results = in_order(pool, work, range(50), ahead=4)
            with pytest.raises(ArithmeticError, match=f"block {where}"):
                list(results)
            begun = sum(iter(lambda: working.acquire(blocking=False), False))
            assert len(done) == begun  # before the pool is closed: nobody works on
            assert begun <= where + 3
            assert pool.submit(abs, -1).result() == 1

    def test_who_stops_listening_stops_the_work(self):
        done = []
        with ThreadPoolExecutor(2) as pool:
            results = in_order(pool, done.append, range(1000), ahead=4)
            next(results)
            results.close()
            assert len(done) <= 4

    def test_left_alone_it_ends_after_its_pool(self):
        """As after an interrupt, when the traceback still holds the iterator."""
        pool = ThreadPoolExecutor(1)
        results = in_order(pool, time.sleep, [0.0, 0.05, 0.0, 0.0], ahead=4)
        next(results)
        pool.shutdown(cancel_futures=True)
        closing = threading.Thread(target=results.close, daemon=True)
        closing.start()
        closing.join(timeout=10)
        assert not closing.is_alive()

    def test_an_engine_whose_loss_fails_has_no_threads_left(self):
        before, calls = threading.active_count(), []

        def fails(*given):
            calls.append(1)
            raise ArithmeticError("no loss")

        engine = make_engine(*windows(200), workers=4, loss=fails, block_rows=2)
        with pytest.raises(ArithmeticError, match="no loss"), engine.running():
            engine.value_and_grad(engine.net.init(0, engine.backend))
        assert threading.active_count() == before
        assert len(calls) <= 8

    def test_blocks_see_the_callers_way_with_overflow(self):
        seen = []

        def loss(*given):
            seen.append(np.geterr()["over"])
            return mse(*given)

        engine = make_engine(*windows(50), workers=2, loss=loss, block_rows=16)
        with engine.running():
            for how in ("raise", "ignore"):
                with np.errstate(over=how):
                    engine.value_and_grad(engine.net.init(0, engine.backend))
                assert set(seen) == {how}
                seen.clear()
