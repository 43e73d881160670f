"""Four tasks whose data are drawn: temporal XOR, delayed recall, adding, copy memory.

Each is called with (quick, seed); the first two take a second or two and have no smaller size.
"""

from __future__ import annotations

import math

import numpy as np

import rnn_xp as rx
from benchmarks.learn import Outcome, one_hot, predict, train
from rnn_xp.losses import cross_entropy


def xor_data(rows, bits, rng):
    """Every third bit is the XOR of the two before; the target is the next bit."""
    triples = rng.integers(0, 2, (rows, bits // 3 + 1, 3))
    triples[:, :, 2] = triples[:, :, 0] ^ triples[:, :, 1]
    stream = triples.reshape(rows, -1, 1)
    return stream[:, :bits], stream[:, 1 : bits + 1]


def xor(quick, seed):
    x, y = xor_data(300, 30, np.random.default_rng((seed, 0)))
    net = rx.Network(
        input_size=1, hidden_size=16, output_size=1,
        topology="many_to_many", output_activation="sigmoid",
    )  # fmt: skip
    result, network, epochs = train(net, x, y, (rx.optim.lbfgs(), 200), seed=seed)
    x, y = xor_data(1, 3000, np.random.default_rng((seed, 1)))
    error = np.mean((predict(net, result, x)[0] - y).reshape(-1, 3) ** 2, axis=0)
    second, third, first = map(float, error)  # step 0 predicts the second bit of a triple
    return Outcome(
        task="temporal XOR: 9,000 bits as 300 rows; test: one stream of 3,000",
        network=network,
        text=f"MSE of the next bit {first:.3f}, {second:.3f}, {third:.4f} by its place of three",
        goal="third below 0.02",
        reached=third < 0.02,
        baseline="0.25 each without memory; best possible 0.25, 0.25, 0",
        published="Elman 1990: the error drops at every third bit; no number to match",
        epochs=epochs,
        numbers={"first": first, "second": second, "third": third},
    )


def recall_data(rows, steps, delay, symbols, rng):
    """The target is the symbol of ``delay`` steps ago; earlier steps have weight 0."""
    shown = rng.integers(0, symbols, (rows, steps))
    target = np.roll(shown, delay, axis=1)
    weight = np.zeros((rows, steps))
    weight[:, delay:] = 1.0
    return one_hot(shown, symbols), target, weight


def recall(quick, seed):
    delay, symbols = 10, 4
    x, y, weight = recall_data(1000, 30, delay, symbols, np.random.default_rng((seed, 0)))
    net = rx.Network(
        input_size=symbols, hidden_size=64, output_size=symbols, topology="many_to_many"
    )
    result, network, epochs = train(
        net, x, y, (rx.optim.adam(0.005), 40),
        seed=seed, loss="cross_entropy", sample_weight=weight, batch_size=50,
    )  # fmt: skip
    x, y, _ = recall_data(1000, 100, delay, symbols, np.random.default_rng((seed, 1)))
    right = np.argmax(predict(net, result, x)[0], axis=-1) == y
    right = right[:, delay:]
    accuracy = float(np.mean(right))
    return Outcome(
        task=f"delayed recall: {symbols} symbols, {delay} steps ago, T=30; test: T=100",
        network=network,
        text=f"{int(np.sum(~right)):,} wrong of {right.size:,}",
        goal="none wrong",
        reached=accuracy == 1.0,
        baseline=f"guessing: {1 - 1 / symbols:.0%} wrong",
        published="none",
        epochs=epochs,
        numbers={"accuracy": accuracy},
    )


def adding_data(rows, steps, rng):
    """Columns: values in U(0,1), and a mark at one in each half; the target is their sum."""
    values, marks, row = rng.random((rows, steps)), np.zeros((rows, steps)), np.arange(rows)
    marks[row, rng.integers(0, steps // 2, rows)] = 1.0
    marks[row, rng.integers(steps // 2, steps, rows)] = 1.0
    return np.stack([values, marks], axis=2), np.sum(values * marks, axis=1, keepdims=True)


def adding(quick, seed):
    steps, rows, epochs = (20, 8000, 4) if quick else (100, 16000, 5)
    x, y = adding_data(rows, steps, np.random.default_rng((seed, 0)))
    net = rx.Network(cell="gru", input_size=2, hidden_size=32, output_size=1)
    plan = (rx.optim.adam(0.005), epochs)
    result, network, epochs = train(net, x, y, plan, seed=seed, batch_size=32)
    x, y = adding_data(2560, steps, np.random.default_rng((seed, 1)))
    error = predict(net, result, x)[0] - y
    # Of 1997: target 0.5 + (X1 + X2) / 4 with X in [-1, 1], which is half the sum here.
    mse, wrong = float(np.mean(error**2)), int(np.sum(np.abs(error) / 2 > 0.04))
    one, one_wrong = float(np.mean((y - 1) ** 2)), int(np.sum(np.abs(y - 1) / 2 > 0.04))
    return Outcome(
        task=f"adding problem, T={steps}",
        network=network,
        text=f"MSE {mse:.5f}; wrong by the criterion of 1997: {wrong} of 2,560, after "
        f"{epochs * rows:,} sequences ({rows:,} different)",
        goal="MSE below 0.01",
        reached=mse < 0.01,
        baseline=f"predicting 1: MSE {one:.4f} (1/6 expected), {one_wrong:,} of 2,560 wrong",
        published="Hochreiter & Schmidhuber 1997, T=100, LSTM: 1 of 2,560 wrong after 74,000 "
        "sequences. Bai et al. 2018, T=600, 70 K parameters, MSE: LSTM 0.164, GRU 5.3e-5, "
        "RNN 0.177, TCN 5.8e-5",
        epochs=epochs,
        numbers={"mse": mse, "wrong": wrong, "mse_of_1": one},
    )


def copy_data(rows, length, wait, rng):
    """Symbols 1..8, ``wait`` blanks (0) ending in the delimiter 9, then say them again."""
    symbols = rng.integers(1, 9, (rows, length))
    shown = np.zeros((rows, wait + 2 * length), dtype=int)
    target = np.zeros_like(shown)
    shown[:, :length], shown[:, length + wait - 1], target[:, -length:] = symbols, 9, symbols
    return one_hot(shown, 10), target


def copy(quick, seed):
    length, wait, size, rows, epochs = (3, 5, 48, 5000, 6) if quick else (10, 20, 96, 10000, 15)
    x, y = copy_data(rows, length, wait, np.random.default_rng((seed, 0)))
    net = rx.Network(
        cell="gru", input_size=10, hidden_size=size, output_size=9, topology="many_to_many"
    )
    result, network, epochs = train(
        net, x, y, (rx.optim.adam(0.005), epochs), seed=seed, loss="cross_entropy", batch_size=32
    )
    x, y = copy_data(1000, length, wait, np.random.default_rng((seed, 1)))
    logits, _ = predict(net, result, x)
    nats, blind = float(cross_entropy(logits, y)[0]), length * math.log(8) / (wait + 2 * length)
    right = float(np.mean(np.argmax(logits, axis=-1)[:, -length:] == y[:, -length:]))
    return Outcome(
        task=f"copy memory, {length} of 8 symbols, T={wait}",
        network=network,
        text=f"cross-entropy {nats:.4f}; {right:.1%} of the {length} symbols right",
        goal="below half of the memoryless",
        reached=nats < 0.5 * blind,
        baseline=f"memoryless: {length} ln 8 / (T+{2 * length}) = {blind:.4f}, 12.5% right",
        published="Bai et al. 2018, T=1000, 16 K parameters: LSTM .0204, GRU .0197, RNN .0202 "
        "(memoryless .0204, so not learnt), TCN 3.5e-5",
        epochs=epochs,
        numbers={"cross_entropy": nats, "memoryless": blind, "accuracy": right},
    )
