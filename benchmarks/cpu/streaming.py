"""Latency of one row: a step of a stream, and a prediction from T steps, beside other libraries.

    python -m benchmarks.cpu.streaming                     three cells, a minute
    python -m benchmarks.cpu.streaming --out benchmarks/results/streaming.md

H = 50, one input, float32, one thread. onnxruntime runs the graphs that `to_onnx` writes, for a
step with the state as an input and an output. Results are compared before they are timed.
Exits with 1 if a step takes more than 20 microseconds.
"""

from __future__ import annotations

import argparse
import sys
import textwrap
from pathlib import Path

import numpy as np

import rnn_xp as rx
from benchmarks.cpu.libraries import missing
from benchmarks.cpu.timing import Contender, interleave, median
from benchmarks.machine import kernels
from benchmarks.memory import machine

HIDDEN, STEPS, MOST_MICROSECONDS, CALLS, SECONDS = 50, (10, 100), 20.0, 200, 1.0
CELLS = ("rnn", "gru", "lstm")
BACKEND = rx.get_backend("numpy", device="cpu", dtype="float32")


class Calls(Contender):
    """A function called many times; a time is that of one call."""

    def __init__(self, name, call):
        self.name, self.call = name, call

    def step(self):
        for _ in range(CALLS):
            self.call()

    def times(self, seconds, most):
        return [taken / CALLS for taken in super().times(seconds, most)]


def stream(net, params, x):
    """A step of a stream, or a prediction from a state of zeros."""
    reader = rx.Stream(net, params)
    if x.shape[1] == 1:
        step = x[:, 0]
        return lambda: reader.step(step)

    def predict():
        reader.reset()
        return reader.run(x)

    return predict


def onnxruntime(net, params, x):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    online = x.shape[1] == 1
    graph = rx.interchange.onnx.to_onnx(net, params, stateful=online).SerializeToString()
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    feed = {"x": x}
    for entry in session.get_inputs()[1:]:  # the state
        feed[entry.name] = np.zeros((1, 1, HIDDEN), "float32")
    return lambda: session.run(None, feed)[0]


def torch(net, params, x):
    import torch

    torch.set_num_threads(1)
    layer = getattr(torch.nn, net.cell.upper())(1, HIDDEN, batch_first=True)
    readout = torch.nn.Linear(HIDDEN, 1)
    model = torch.nn.ModuleDict({"rnn": layer, "readout": readout}).eval()
    state = rx.interchange.torch.to_state_dict(net, params, rnn="rnn", readout="readout")
    model.load_state_dict({name: torch.as_tensor(array) for name, array in state.items()})
    xs, empty = torch.from_numpy(x), torch.zeros(1, 1, HIDDEN)
    state = (empty, empty) if net.cell == "lstm" else empty

    def predict():
        with torch.inference_mode():
            return readout(layer(xs, state)[0][:, -1])

    return predict


def contenders(net, params, x):
    """Contenders that give the right prediction, the stream first."""
    wanted, _ = net.forward(params, x)
    found = [Calls("rx.Stream", stream(net, params, x))]
    found.append(Calls("Network.predict", lambda: net.predict(params, x)))
    if not missing("onnxruntime") and not missing("onnx"):
        found.append(Calls("onnxruntime", onnxruntime(net, params, x)))
    if not missing("torch"):
        found.append(Calls("torch", torch(net, params, x)))
    for contender in found:
        pred = contender.call()
        pred = pred[0] if isinstance(pred, tuple) else pred
        np.testing.assert_allclose(np.asarray(pred).reshape(1, -1), wanted, atol=1e-5)
    return found


def measure(cell, steps):
    """Return microseconds of a call by contender."""
    net = rx.Network(cell=cell, hidden_size=HIDDEN)
    params = net.init(0, BACKEND)
    x = np.random.default_rng(0).standard_normal((1, steps, 1), dtype=np.float32)
    times = interleave(contenders(net, params, x), SECONDS, 5)
    return {name: 1e6 * median(taken) for name, taken in times.items()}


def row(cell, steps, found):
    what = "step" if steps == 1 else f"T = {steps}"
    ours = found["rx.Stream"]
    ratio = f"{ours / found['onnxruntime']:.2f}" if "onnxruntime" in found else ""
    return f"| {cell} | {what} | {' | '.join(f'{time:.1f}' for time in found.values())} | {ratio} |"


def page(lines, verdict, command):
    text = (
        "Microseconds of one row (H = 50, one input, float32, one thread): a step of a stream with "
        "a carried state, and a prediction from T steps. *Ratio* is rx.Stream by onnxruntime on "
        "the exported graph. `Network.predict` checks and prepares everything at each call. "
        f"Kernels: {kernels(BACKEND)}."
    )
    parts = ["# Latency of one row", "", f"Written by `{command}`.", "", *textwrap.wrap(text, 100)]
    return "\n".join([*parts, "", *lines, "", verdict, "", f"Machine: {machine()}."]) + "\n"


def main(argv=None):
    parser = argparse.ArgumentParser(description="Measure the latency of one row.")
    parser.add_argument("--cells", nargs="+", choices=CELLS, default=list(CELLS))
    parser.add_argument("--out", type=Path, metavar="FILE.md", help="also write a page")
    args = parser.parse_args(argv)
    lines, slowest, ratios = [], 0.0, []
    for cell in args.cells:
        for steps in (1, *STEPS):
            found = measure(cell, steps)
            if not lines:
                names = ["cell", "what", *found, "ratio"]
                lines = [f"| {' | '.join(names)} |", "|---|---" + "|---:" * (len(names) - 2) + "|"]
            lines.append(row(cell, steps, found))
            slowest = max(slowest, found["rx.Stream"] if steps == 1 else 0.0)
            if steps > 1 and "onnxruntime" in found:
                ratios.append(found["rx.Stream"] / found["onnxruntime"])
    verdict = f"A step takes at most {slowest:.1f} microseconds; limit {MOST_MICROSECONDS:.0f}."
    if ratios:
        verdict += f" A prediction takes at most {max(ratios):.2f} x onnxruntime; limit 1.00."
    print(*lines, "", verdict, machine(), sep="\n")
    if args.out:
        given = "" if args.cells == list(CELLS) else f" --cells {' '.join(args.cells)}"
        command = f"python -m benchmarks.cpu.streaming{given}"
        args.out.write_text(page(lines, verdict, command), encoding="utf-8")
    return 0 if slowest <= MOST_MICROSECONDS else 1


if __name__ == "__main__":
    sys.exit(main())
