"""A character model of the project's own documentation, which then writes some itself."""

from __future__ import annotations

import ast
import hashlib
import math
from collections import Counter
from pathlib import Path

import numpy as np

import rnn_xp as rx
from benchmarks.learn import Outcome, one_hot, predict, train
from rnn_xp.losses import cross_entropy

ROOT = Path(__file__).parents[2]


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
        goal="below the 3-gram",
        reached=bits < grams[3],
        baseline=", ".join(f"{n}-gram {value:.3f}" for n, value in grams.items()),
        published="none for this text; the n-grams are measured on the same split",
        epochs=epochs,
        numbers={"bits": bits, **{f"{n}-gram": value for n, value in grams.items()}},
        sample=generate(net, result, alphabet, "\n\n", 800, temperature, rng),
    )
