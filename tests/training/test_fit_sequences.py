"""Training on sequences: topologies, masks, classes, truncated backpropagation, dropout."""

from __future__ import annotations

import numpy as np
import pytest
from problems import windows

import rnn_xp as rx
from rnn_xp.network.streams import Purpose

NET = rx.Network(input_size=1, hidden_size=8, output_size=1)
FLOAT64 = rx.get_backend("numpy", dtype="float64")


class TestSequences:
    """fit on the other topologies: masks, lengths, classes, truncated backpropagation."""

    @staticmethod
    def echo(rows=40, steps=12, seed=0):
        """Each step's target is the input before it."""
        x = np.random.default_rng(seed).standard_normal((rows, steps, 1))
        y = np.concatenate([np.zeros((rows, 1, 1)), x[:, :-1]], axis=1)
        return x, y

    NET = rx.Network(cell="gru", hidden_size=12, topology="many_to_many")

    def test_many_to_many_learns(self):
        x, y = self.echo()
        result = rx.fit(self.NET, x, y, optimizer=rx.optim.lbfgs(), epochs=60)
        assert result.history["loss"][-1] < 0.02

    def test_lengths_make_padding_invisible(self):
        x, y = self.echo()
        lengths = np.random.default_rng(1).integers(0, 13, 40)
        padded = np.arange(12) >= lengths[:, None]
        options = {"optimizer": rx.optim.adam(0.01), "epochs": 3, "lengths": lengths}
        clean = rx.fit(self.NET, x, y, **options)
        x[padded], y[padded] = 1e3, -1e3
        assert rx.fit(self.NET, x, y, **options).history == clean.history
        by_mask = {**options, "lengths": None, "mask": ~padded}
        assert rx.fit(self.NET, x, y, **by_mask).history == clean.history

    def test_workers_and_minibatches_take_the_masks_along(self):
        x, y = self.echo(rows=3000, steps=4)
        lengths = np.random.default_rng(1).integers(0, 5, 3000)
        options = {"optimizer": rx.optim.adam(0.01), "epochs": 1, "lengths": lengths}
        one = rx.fit(self.NET, x, y, workers=1, **options)
        four = rx.fit(self.NET, x, y, workers=4, **options)
        assert one.history == four.history
        small = rx.fit(
            self.NET, x, y, batch_size=700, backend=FLOAT64, optimizer=rx.optim.sgd(1e-300),
            epochs=1, lengths=lengths,
        )  # fmt: skip
        assert small.history["loss"][0] == pytest.approx(one.history["loss"][0], rel=1e-5)

    def test_classes(self):
        x = np.random.default_rng(0).standard_normal((60, 6, 1))
        y = (x.sum(axis=(1, 2)) > 0).astype(int)
        net = rx.Network(hidden_size=8, output_size=2, read="mean")
        result = rx.fit(net, x, y, loss="cross_entropy", optimizer=rx.optim.lbfgs(), epochs=40)
        assert result.history["loss"][0] == pytest.approx(np.log(2), rel=0.5)
        assert result.history["loss"][-1] < 0.05

    @pytest.mark.parametrize("truncate", [(12, 12), (4, 4), (3, 6), (1, 5)])
    def test_truncated_backpropagation_learns_what_is_within_its_reach(self, truncate):
        x, y = self.echo(rows=20, steps=12)
        result = rx.fit(
            self.NET, x, y, optimizer=rx.optim.adam(0.02), epochs=150, truncate=truncate
        )
        assert result.history["loss"][-1] < 0.1

    def test_one_segment_equals_the_full_batch(self):
        x, y = self.echo()
        options = {"optimizer": rx.optim.sgd(0.1), "epochs": 3, "backend": FLOAT64}
        whole = rx.fit(self.NET, x, y, **options)
        one = rx.fit(self.NET, x, y, truncate=(12, 12), **options)
        np.testing.assert_allclose(one.history["loss"], whole.history["loss"], rtol=1e-13)
        for name, p in whole.params.items():
            np.testing.assert_allclose(one.params[name], p, rtol=1e-12, atol=1e-14)

    def test_losses_of_segments_are_those_of_the_steps(self):
        """With a step too small to matter the epoch's loss is that of the full batch."""
        x, y = self.echo()
        mask = np.random.default_rng(5).random((40, 12)) > 0.3
        loss = {}
        for truncate in (None, (4, 4), (5, 7), (1, 12)):
            result = rx.fit(
                self.NET, x, y, optimizer=rx.optim.sgd(1e-300), epochs=1, truncate=truncate,
                mask=mask, backend=FLOAT64,
            )  # fmt: skip
            loss[truncate] = result.history["loss"][0]
        assert list(loss.values()) == pytest.approx([loss[None]] * 4, rel=1e-12)

    def test_truncated_runs_are_the_same_for_any_number_of_workers(self):
        x, y = self.echo(rows=2500, steps=6)
        runs = [
            rx.fit(
                self.NET, x, y, optimizer=rx.optim.adam(0.01), epochs=2, truncate=(2, 3), workers=w
            ).history
            for w in (1, 4)
        ]
        assert runs[0] == runs[1]

    @pytest.mark.parametrize("feed", ["zeros", "repeat", "feedback"])
    @pytest.mark.parametrize("truncate", [None, (3, 4)])
    def test_one_to_many(self, feed, truncate):
        x = np.linspace(-1.0, 1.0, 30)[:, None, None]
        y = x * 0.7 ** np.arange(1, 7)[None, :, None]
        net = rx.Network(cell="gru", hidden_size=10, topology="one_to_many", feed=feed)
        result = rx.fit(net, x, y, optimizer=rx.optim.adam(0.02), epochs=150, truncate=truncate)
        assert result.history["loss"][-1] < 0.05 * result.history["loss"][0]
        pred, _ = net.forward(result.params, x.astype("float32"), steps=6)
        assert pred.shape == (30, 6, 1)

    def test_many_to_one_truncated_reaches_back_k2_steps(self):
        x, y = windows(30, seq_length=6)
        options = {"optimizer": rx.optim.sgd(0.1), "epochs": 1, "backend": FLOAT64}
        start = NET.init(0, FLOAT64)
        result = rx.fit(NET, x, y, truncate=(1, 2), params=start, **options)
        _, state = NET.forward(start, x[:, :4])
        _, grads, _ = NET.segment_value_and_grad(start, x[:, 4:], y, state=state)
        for name, p in start.items():
            np.testing.assert_allclose(result.params[name], p - 0.1 * grads[name], rtol=1e-12)

    def test_reset_separates_what_was_joined(self):
        """Two sequences end to end in one row train like two rows."""
        x, y = self.echo(rows=10, steps=6)
        joined = {"x": x.reshape(5, 12, 1), "y": y.reshape(5, 12, 1)}
        reset = np.zeros((5, 12), dtype=bool)
        reset[:, 6] = True
        options = {"optimizer": rx.optim.sgd(0.1), "epochs": 3, "backend": FLOAT64}
        apart = rx.fit(self.NET, x, y, **options)
        together = rx.fit(self.NET, **joined, reset=reset, **options)
        np.testing.assert_allclose(together.history["loss"], apart.history["loss"], rtol=1e-12)


class TestDropout:
    NET = rx.Network(
        hidden_size=8, num_layers=2, dropout=0.5, recurrent_dropout=0.3, cell="gru", output_size=1
    )

    def fit(self, **options):
        x, y = windows(2500)
        options = {"optimizer": rx.optim.adam(0.01), "epochs": 2, **options}
        return rx.fit(self.NET, x, y, **options).history["loss"]

    def test_a_function_of_the_seed_alone(self):
        assert self.fit(workers=1) == self.fit(workers=4)
        assert self.fit(seed=0, batch_size=500) == self.fit(seed=0, batch_size=500)
        assert self.fit(seed=0) != self.fit(seed=1)

    def test_other_masks_in_every_update_and_block(self, monkeypatch):
        drawn = []
        original = rx.Network.value_and_grad

        def value_and_grad(self, *args, rng=None, **options):
            seeds = rng.bit_generator.seed_seq
            drawn.append((seeds.entropy, *seeds.spawn_key))
            return original(self, *args, rng=rng, **options)

        monkeypatch.setattr(rx.Network, "value_and_grad", value_and_grad)
        self.fit(seed=7, workers=1)
        assert drawn == [
            (7, Purpose.DROPOUT, step, block) for step in (0, 1) for block in (0, 1, 2)
        ]
        drawn.clear()
        self.fit(seed=7, workers=1, batch_size=1000)
        assert drawn == [(7, Purpose.DROPOUT, step, 0) for step in range(6)]

    def test_masks_keep_the_expectation(self):
        """Where all is positive relu is the identity, and the mean over many draws is exact."""
        net = rx.Network(
            hidden_size=8, num_layers=2, activation="relu", dropout=0.5, recurrent_dropout=0.3
        )
        params = {k: np.abs(p) for k, p in net.init(0, FLOAT64).items()}
        x = np.ones((20_000, 2, 1))
        plain, _ = net.forward(params, x)
        noisy, _, _ = net.vjp(params, x, rng=np.random.default_rng(0))
        assert np.std(noisy) > 0.1 * plain[0, 0]
        assert np.mean(noisy) == pytest.approx(plain[0, 0], rel=0.02)

    def test_recurrent_masks_are_the_same_at_every_step(self):
        """With w_xh zero and h_0 of ones, a unit that is dropped once is dropped for ever."""
        net = rx.Network(hidden_size=50, recurrent_dropout=0.5, output_size=50)
        params = {k: np.zeros(s) for k, s in net.shapes.items()}
        params["layer0.w_hh"] = np.eye(50)
        params["readout.w_hy"] = np.eye(50)
        state = rx.RNNState(np.ones((1, 1, 50)))
        pred, _, _ = net.vjp(params, np.zeros((1, 12, 1)), state, rng=np.random.default_rng(0))
        alive = np.count_nonzero(pred)
        assert 15 <= alive <= 35, "independent masks would leave none of 50 after 12 steps"

    def test_line_search_methods_are_refused(self):
        with pytest.raises(ValueError, match="LBFGS needs the full batch, without truncation or"):
            self.fit(optimizer=rx.optim.lbfgs())
