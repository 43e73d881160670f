"""Learn five tasks whose answers are known, and print each result beside the published numbers.

    python scripts/learn.py                      all tasks, a few minutes on two cores
    python scripts/learn.py xor recall --seed 1
    python scripts/learn.py --quick              smaller sizes, seconds each
    python scripts/learn.py --out docs/results/learn.md

Exits with 1 if a goal was not reached. One update sees at most a few dozen rows, which are one
block of work for one thread, so the CPU time tells what an idle machine would need.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import hashlib
import json
import math
import os
import platform
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np

import rnn_xp as rx
from rnn_xp.callbacks import Progress
from rnn_xp.losses import cross_entropy

ROOT = Path(__file__).parents[1]
HEADINGS = (
    "task", "network", "on a fresh test set", "goal", "trivial answers", "published",
    "seconds (CPU)", "epochs",
)  # fmt: skip


@dataclasses.dataclass
class Outcome:
    """What one task came to. ``numbers`` are the measured ones, for other programs."""

    task: str
    network: str
    text: str
    goal: str
    reached: bool
    baseline: str
    published: str
    epochs: int
    numbers: dict[str, float]
    sample: str = ""
    seconds: float = 0.0
    cpu_seconds: float = 0.0

    def row(self) -> str:
        goal = f"{self.goal}: {'reached' if self.reached else '**not reached**'}"
        seconds = f"{self.seconds:.1f} ({self.cpu_seconds:.1f})"
        return table_row(
            self.task, self.network, self.text, goal, self.baseline, self.published,
            seconds, str(self.epochs),
        )  # fmt: skip


def table_row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def train(net, x, y, *plan, seed, **options):
    """Train by a plan of (optimiser, epochs); the result, the network in words, all epochs."""
    params, total = None, 0
    for stage, (optimizer, epochs) in enumerate(plan):
        with Progress(lines=0) as progress:
            result = rx.fit(
                net, x, y, optimizer=optimizer, epochs=epochs, params=params, seed=seed + stage,
                workers=1, callbacks=[progress], **options,
            )  # fmt: skip
        params, total = result.params, total + len(result.history["loss"])
    names = [f"{type(o).__name__} {getattr(o, 'learning_rate', '')}".strip() for o, _ in plan]
    kind = f"{net.cell.upper()} {net.num_layers}x{net.hidden_size}"
    return result, f"{kind}, {net.num_parameters:,} parameters, {', then '.join(names)}", total


def predict(net, result, x, state=None):
    """Predictions for host data, as a NumPy array, and the final state."""
    backend = result.backend
    pred, state = net.forward(result.params, backend.asarray(x.astype(backend.dtype_name)), state)
    return backend.to_numpy(pred), state


def one_hot(symbols, classes):
    return np.eye(classes, dtype=bool)[symbols]


# --- temporal XOR ---------------------------------------------------------------------------------


def xor_data(rows, bits, rng):
    """Every third bit is the XOR of the two before; the target is the next bit."""
    triples = rng.integers(0, 2, (rows, bits // 3 + 1, 3))
    triples[:, :, 2] = triples[:, :, 0] ^ triples[:, :, 1]
    stream = triples.reshape(rows, -1, 1)
    return stream[:, :bits], stream[:, 1 : bits + 1]


def xor(quick, seed):
    x, y = xor_data(100, 30, np.random.default_rng((seed, 0)))
    net = rx.Network(
        input_size=1, hidden_size=8, output_size=1,
        topology="many_to_many", output_activation="sigmoid",
    )  # fmt: skip
    plan = (rx.optim.lbfgs(), 100 if quick else 150)
    result, network, epochs = train(net, x, y, plan, seed=seed)
    x, y = xor_data(1, 3000, np.random.default_rng((seed, 1)))
    error = np.mean((predict(net, result, x)[0] - y).reshape(-1, 3) ** 2, axis=0)
    second, third, first = map(float, error)  # step 0 predicts the second bit of a triple
    return Outcome(
        task="temporal XOR: 3,000 bits as 100 rows; test: one stream of 3,000",
        network=network,
        text=f"MSE of the next bit {first:.3f}, {second:.3f}, {third:.4f} by its place of three",
        goal="third below 0.02",
        reached=third < 0.02,
        baseline="0.25 each without memory; best possible 0.25, 0.25, 0",
        published="Elman 1990: the error drops at every third bit (shown, not tabled)",
        epochs=epochs,
        numbers={"first": first, "second": second, "third": third},
    )


# --- delayed recall -------------------------------------------------------------------------------


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
        net, x, y, (rx.optim.adam(0.003), 12 if quick else 30),
        seed=seed, loss="cross_entropy", sample_weight=weight, batch_size=50,
    )  # fmt: skip
    x, y, _ = recall_data(1000, 100, delay, symbols, np.random.default_rng((seed, 1)))
    right = np.argmax(predict(net, result, x)[0], axis=-1) == y
    accuracy = float(np.mean(right[:, delay:]))
    return Outcome(
        task=f"delayed recall: {symbols} symbols, {delay} steps ago, T=30; test: T=100",
        network=network,
        text=f"{accuracy:.2%} right of {right[:, delay:].size:,}",
        goal="every one",
        reached=accuracy == 1.0,
        baseline=f"guessing {1 / symbols:.0%}",
        published="none",
        epochs=epochs,
        numbers={"accuracy": accuracy},
    )


# --- adding problem -------------------------------------------------------------------------------


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


# --- copy memory ----------------------------------------------------------------------------------


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
        text=f"cross-entropy {nats:.4f}; {right:.1%} of the symbols right",
        goal="below half of the memoryless",
        reached=nats < 0.5 * blind,
        baseline=f"memoryless: {length} ln 8 / (T+{2 * length}) = {blind:.4f}, 12.5 % right",
        published="Bai et al. 2018, T=1000, 16 K parameters: LSTM .0204, GRU .0197, RNN .0202 "
        "(memoryless .0204, so not learnt), TCN 3.5e-5",
        epochs=epochs,
        numbers={"cross_entropy": nats, "memoryless": blind, "accuracy": right},
    )


# --- character model ------------------------------------------------------------------------------


def project_text():
    """Return README.md and the docstrings of the library, in the order of their files."""
    parts = [(ROOT / "README.md").read_text(encoding="utf-8")]
    for path in sorted((ROOT / "rnn_xp").rglob("*.py")):
        nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
        found = (ast.get_docstring(node) for node in nodes if isinstance(node, documented))
        parts += filter(None, found)
    return "\n\n".join(parts)


def ngram_bits(train_part, test_part, order, classes):
    """Bits per symbol of an n-gram model that falls back on shorter contexts (Witten-Bell)."""
    grams, contexts, kinds = Counter(), Counter(), Counter()
    for k in range(order):
        for i in range(k, len(train_part)):
            gram = tuple(train_part[i - k : i + 1])
            kinds[gram[:-1]] += gram not in grams
            grams[gram] += 1
            contexts[gram[:-1]] += 1
    bits, whole = 0.0, [*train_part, *test_part]
    for i in range(len(train_part), len(whole)):
        p = 1 / classes
        for k in range(order):
            gram = tuple(whole[i - k : i + 1])
            seen, new = contexts[gram[:-1]], kinds[gram[:-1]]
            p = (grams[gram] + new * p) / (seen + new) if seen else p
        bits -= math.log2(p)
    return bits / len(test_part)


def generate(net, result, alphabet, prompt, length, temperature, rng):
    """Continue a text symbol by symbol: each one drawn is the next input, the state carried on."""
    text, state = prompt, None
    while len(text) < len(prompt) + length:
        fed = [alphabet.index(symbol) for symbol in (text if state is None else text[-1])]
        logits, state = predict(net, result, one_hot(fed, len(alphabet))[None], state)
        scaled = logits[0, -1].astype(float) / temperature
        p = np.exp(scaled - scaled.max())
        text += alphabet[rng.choice(len(alphabet), p=p / p.sum())]
    return text[len(prompt) :]


def characters(quick, seed, temperature=0.5):
    text = project_text()
    alphabet, digest = "".join(sorted(set(text))), hashlib.sha256(text.encode()).hexdigest()
    ids, classes, cut = [alphabet.index(c) for c in text], len(alphabet), len(text) * 9 // 10
    # Streams side by side, an update after every 50 steps of all of them.
    streams, size, plan = 32, 128, [(rx.optim.adam(0.005), 30), (rx.optim.adam(0.001), 10)]
    if quick:
        size, plan = 64, [(rx.optim.adam(0.01), 5)]
    steps = (cut - 1) // streams
    x = one_hot(ids[: streams * steps], classes).reshape(streams, steps, classes)
    y = np.reshape(ids[1 : streams * steps + 1], (streams, steps))
    net = rx.Network(
        cell="gru", input_size=classes, hidden_size=size, output_size=classes,
        topology="many_to_many", recurrent_dropout=0.0 if quick else 0.2,
    )  # fmt: skip
    result, network, epochs = train(
        net, x, y, *plan, seed=seed, loss="cross_entropy", truncate=(50, 50)
    )
    logits, _ = predict(net, result, one_hot(ids[cut - 1 : -1], classes)[None])
    bits = float(cross_entropy(logits, np.asarray(ids[cut:])[None])[0]) / math.log(2)
    grams = {n: ngram_bits(ids[:cut], ids[cut:], n, classes) for n in (1, 2, 3, 5)}
    rng = np.random.default_rng((seed, 2))
    return Outcome(
        task=f"character model: README.md and the docstrings, {len(text):,} characters of "
        f"{classes} kinds (sha256 {digest[:8]}); test: the last tenth",
        network=network,
        text=f"{bits:.3f} bits per character",
        goal="below the bigram",
        reached=bits < grams[2],
        baseline=", ".join(f"{n}-gram {value:.3f}" for n, value in grams.items()),
        published="none for this text; the n-grams are measured on the same split",
        epochs=epochs,
        numbers={"bits": bits, **{f"{n}-gram": value for n, value in grams.items()}},
        sample=generate(net, result, alphabet, "\n\n", 800, temperature, rng),
    )


# --- the command ----------------------------------------------------------------------------------

TASKS = {"xor": xor, "recall": recall, "adding": adding, "copy": copy, "characters": characters}


def machine():
    """Describe the processor and the versions, which decide the bits, and how busy it was."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        model = lines[0].partition(":")[2].strip() if lines else model
    load = f", load average {os.getloadavg()[1]:.1f}" if hasattr(os, "getloadavg") else ""
    return (
        f"{model}, {os.cpu_count()} cores{load}; Python {platform.python_version()}, NumPy "
        f"{np.__version__}, computed by {rx.get_backend()}"
    )


def page(outcomes, command, where):
    """Return docs/results/learn.md."""
    lines = [
        "# What the networks learn", "", f"Written by `{command}`.", "",
        "Training and test data are drawn from different seeds. Each run is one seed, not a mean.",
        "Published results stand for orientation: sizes, lengths and training differ where said.",
        "", table_row(*HEADINGS), "|---" * len(HEADINGS) + "|", *(o.row() for o in outcomes),
        "", f"Machine: {where}. The CPU seconds are what an idle machine would take.",
    ]  # fmt: skip
    for sample in (o.sample for o in outcomes if o.sample):
        # Indented, because the text may contain any fence.
        shown = [f"    {line}".rstrip() for line in sample.strip("\n").splitlines()]
        shown = [line for line in shown if line][:10]
        lines += ["", "What the character model writes (blank lines left out):", "", *shown]
    return "\n".join(lines) + "\n"


def main(argv=None):
    parser = argparse.ArgumentParser(description="Learn tasks whose answers are known.")
    parser.add_argument("tasks", nargs="*", metavar="TASK", help=f"of: {', '.join(TASKS)}")
    parser.add_argument("--quick", action="store_true", help="smaller sizes, seconds each")
    parser.add_argument("--seed", type=int, default=0, help="of data and weights (default 0)")
    parser.add_argument("--temperature", type=float, default=0.5, help="of the generated text")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--out", type=Path, metavar="FILE.md", help="also write a page")
    args = parser.parse_args(argv)
    if unknown := [name for name in args.tasks if name not in TASKS]:
        parser.error(f"no task {unknown[0]!r}. Choose from: {', '.join(TASKS)}.")
    if args.seed < 0 or not 0.0 < args.temperature < math.inf:
        parser.error("--seed must be >= 0 and --temperature a finite number > 0.")
    if args.out and not args.out.absolute().parent.is_dir():
        parser.error(f"--out {args.out}: there is no such folder. Make it first.")
    where, outcomes = machine(), []
    if not args.json:
        print(table_row(*HEADINGS), "|---" * len(HEADINGS) + "|", sep="\n", flush=True)
    for name in args.tasks or TASKS:
        wall, cpu = time.perf_counter(), time.process_time()
        options = {"temperature": args.temperature} if name == "characters" else {}
        outcome = TASKS[name](args.quick, args.seed, **options)
        outcome.seconds = time.perf_counter() - wall
        outcome.cpu_seconds = time.process_time() - cpu
        outcomes.append(outcome)
        if not args.json:
            print(outcome.row(), flush=True)
    if args.json:
        tasks = [dataclasses.asdict(outcome) for outcome in outcomes]
        print(json.dumps({"machine": where, "seed": args.seed, "tasks": tasks}, indent=1))
    else:
        print(f"\n{where}", *(o.sample for o in outcomes if o.sample), sep="\n\n")
    if args.out:
        given = " ".join(sys.argv[1:] if argv is None else argv)
        args.out.write_text(page(outcomes, f"python scripts/learn.py {given}", where), "utf-8")
    return 0 if all(outcome.reached for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
