"""`benchmarks/learn`: the quick tasks are learnt, the data are what they are said to be."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import rnn_xp as rx
from benchmarks.learn import __main__ as command
from benchmarks.learn import characters, synthetic

ROOT = Path(__file__).parents[2]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def outcome(task, capsys):
    code = command.main([task, "--quick", "--json"])
    (found,) = json.loads(capsys.readouterr().out)["tasks"]
    assert code == (0 if found["reached"] else 1)
    return found


class TestLearns:
    def test_temporal_xor(self, capsys):
        found = outcome("xor", capsys)
        assert found["reached"]
        assert found["numbers"]["third"] < 0.02
        # What cannot be known is not known: random bits cost 1/4 each.
        assert 0.23 < found["numbers"]["first"] < 0.29
        assert 0.23 < found["numbers"]["second"] < 0.29

    @pytest.mark.full
    def test_delayed_recall(self, capsys):
        found = outcome("recall", capsys)
        assert found["reached"]
        assert found["numbers"]["accuracy"] == 1.0

    def test_adding_problem_of_20_steps(self, capsys):
        found = outcome("adding", capsys)
        assert found["reached"]
        assert found["numbers"]["mse"] < 0.01
        assert found["numbers"]["mse_of_1"] == pytest.approx(1 / 6, rel=0.1)


class TestData:
    def test_xor_gives_the_next_bit(self, rng):
        x, y = synthetic.xor_data(50, 30, rng)
        assert x.shape == y.shape == (50, 30, 1)
        np.testing.assert_array_equal(x[:, 1:], y[:, :-1])
        np.testing.assert_array_equal(x[:, 2::3], x[:, 0::3] ^ x[:, 1::3])

    def test_recall_gives_the_symbol_of_long_ago(self, rng):
        x, y, weight = synthetic.recall_data(5, 12, 3, 4, rng)
        shown = np.argmax(x, axis=-1)
        np.testing.assert_array_equal(y[:, 3:], shown[:, :-3])
        np.testing.assert_array_equal(weight, np.tile(np.arange(12) >= 3, (5, 1)))

    def test_adding_marks_one_value_in_each_half(self, rng):
        x, y = synthetic.adding_data(500, 20, rng)
        marks = x[:, :, 1]
        np.testing.assert_array_equal(marks[:, :10].sum(1), 1)
        np.testing.assert_array_equal(marks[:, 10:].sum(1), 1)
        expected = [sum(value for value, mark in row if mark) for row in x]
        np.testing.assert_allclose(y[:, 0], expected)
        assert marks.any(axis=0).all()

    def test_copy_says_the_symbols_again(self, rng):
        x, y = synthetic.copy_data(2, 3, 4, rng)
        shown = np.argmax(x, axis=-1)
        a, b, c = shown[0, :3]
        assert shown[0].tolist() == [a, b, c, 0, 0, 0, 9, 0, 0, 0]
        assert y[0].tolist() == [0, 0, 0, 0, 0, 0, 0, a, b, c]
        assert min(a, b, c) >= 1
        assert max(a, b, c) <= 8

    def test_training_and_test_data_differ(self):
        a, _ = synthetic.adding_data(5, 20, np.random.default_rng((0, 0)))
        b, _ = synthetic.adding_data(5, 20, np.random.default_rng((0, 1)))
        assert not np.any(a[:, :, 0] == b[:, :, 0])


class TestNgrams:
    def test_unigram_by_hand(self):
        # Witten-Bell over 4 kinds: three of 5 seen are 0, two kinds seen: (3 + 2/4) / (5 + 2).
        bits = characters.ngram_bits([0, 0, 1, 0, 1], [0], 1, 4)
        assert bits == pytest.approx(-math.log2(3.5 / 7))

    def test_bigram_by_hand(self):
        # After 1 only 0 was seen, once: (1 + 1 * p) / (1 + 1) with the unigram's p.
        bits = characters.ngram_bits([0, 0, 1, 0, 1], [0], 2, 4)
        assert bits == pytest.approx(-math.log2((1 + 3.5 / 7) / 2))

    def test_what_was_never_seen_has_a_finite_price(self):
        assert math.isfinite(characters.ngram_bits([0, 0, 1], [3, 3, 2], 3, 4))

    def test_probabilities_sum_to_one(self):
        text = [0, 1, 2, 0, 1, 1, 0, 2, 1, 0]
        probabilities = [2.0 ** -characters.ngram_bits(text, [k], 3, 5) for k in range(5)]
        assert sum(probabilities) == pytest.approx(1.0)


class TestGenerate:
    ALPHABET = "abcd"

    @pytest.fixture
    def trained(self):
        """A network that has learnt the cycle abcd a little."""
        net = rx.Network(
            cell="gru", input_size=4, hidden_size=8, output_size=4, topology="many_to_many"
        )
        cycle = np.arange(41) % 4
        x, y = np.eye(4)[cycle[:-1]][None], cycle[None, 1:]
        result = rx.fit(
            net, x, y, loss="cross_entropy", optimizer=rx.optim.adam(0.02), epochs=60, workers=1
        )
        return net, result

    def generate(self, trained, prompt, length, temperature, seed=0):
        rng = np.random.default_rng(seed)
        return characters.generate(*trained, self.ALPHABET, prompt, length, temperature, rng)

    def test_goes_on_with_what_was_learnt(self, trained):
        assert self.generate(trained, "ab", 10, 0.1) == "cdabcdabcd"

    def test_same_seed_same_text(self, trained):
        first = self.generate(trained, "a", 40, 3.0)
        assert first == self.generate(trained, "a", 40, 3.0)
        assert first != self.generate(trained, "a", 40, 3.0, seed=1)

    def test_the_carried_state_equals_reading_the_whole_text_again(self, trained):
        net, result = trained
        text = "a" + self.generate(trained, "a", 12, 1e-9)
        fed = np.eye(4)[[self.ALPHABET.index(c) for c in text[:-1]]][None]
        pred, _ = net.forward(result.params, result.backend.asarray(fed))
        best = np.argmax(result.backend.to_numpy(pred)[0], axis=-1)
        assert text[1:] == "".join(self.ALPHABET[k] for k in best)


class TestCommand:
    def test_page(self, tmp_path):
        process = subprocess.run(
            [sys.executable, "-m", "benchmarks.learn", "xor", "--quick", "--out", "page.md"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert process.returncode == 0, process.stderr
        page = (tmp_path / "page.md").read_text()
        rows = [line for line in page.splitlines() if line.startswith("|")]
        assert len(rows) == 3
        assert len({row.count("|") for row in rows}) == 1
        assert "below 0.02: reached" in rows[2]
        assert rows[2] in process.stdout
        assert np.__version__ in page
        for private in (str(ROOT), str(tmp_path), os.uname().nodename):
            assert private not in page

    def test_not_reached_is_said(self, monkeypatch, capsys):
        def fails(quick, seed):
            return sys.modules["benchmarks.learn"].Outcome(
                "a task", "RNN", "MSE 1", "MSE below 0.5", False, "1", "none", 1, {"mse": 1.0}
            )

        monkeypatch.setitem(command.TASKS, "xor", fails)
        assert command.main(["xor"]) == 1
        assert "MSE below 0.5: **not reached**" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("given", "said"),
        [
            (["xro"], "no task 'xro'. Choose from: xor, recall, adding, copy, characters."),
            (["--seed", "-1"], "--seed must be >= 0"),
            (["--temperature", "0"], "--temperature a finite number > 0"),
            (["--out", "nowhere/page.md"], "there is no such folder"),
        ],
    )
    def test_errors(self, given, said, capsys):
        with pytest.raises(SystemExit):
            command.main(given)
        assert said in capsys.readouterr().err
