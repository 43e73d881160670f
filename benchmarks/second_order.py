"""Time gradients by sample and products with second derivatives, side by side in one run.

    python -m benchmarks.second_order                  the reference batch, about two minutes
    python -m benchmarks.second_order --seconds 20 --dtypes float32
    python -m benchmarks.second_order --out benchmarks/results/second_order.md

On the reference batch (8317 windows of 10 values, 50 hidden units), one thread each, contenders in
turns, in processor time; before a contender is timed its gradients are compared with those of this
library. Exits with 1 if per-sample gradients take more than a fifth of the time of
``torch.func.vmap(grad)`` over the same network (or of opacus, where it is installed), if a Hessian
product takes more than three gradients, if an update of Levenberg-Marquardt takes more than 2.5
times as long as the product J^T J in it, or if per-sample gradients in blocks need 200 MB or more.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import textwrap
import time
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

import rnn_xp as rx
from benchmarks.cpu.timing import Contender, interleave, median, quartiles
from benchmarks.machine import processor, some_of
from rnn_xp.engines.blocks import Batch
from rnn_xp.engines.portable import PortableEngine

WINDOWS, STEPS, HIDDEN, BLOCK = 8317, 10, 50, 1040
DTYPES = ("float32", "float64")
LEAST_RATIO, MOST_GRADIENTS, MOST_BYTES = 5.0, 3.0, 200e6
MOST_PRODUCTS = 2.5
UPDATE, PRODUCT = "levenberg_marquardt, one update", "J^T J alone"
PEERS = ("torch.func.vmap(grad)", "opacus")


class Task:
    """The reference network with random parameters, and its batch."""

    def __init__(self, dtype):
        series = np.sin(np.arange(WINDOWS + STEPS) / 5.0).astype(dtype)
        x, y = rx.make_windows(series, seq_length=STEPS)
        self.x, self.y = x.copy(), y.copy()  # torch takes no read-only views
        self.net = rx.Network(hidden_size=HIDDEN)
        self.params = self.net.init(seed=0, backend=rx.get_backend("numpy", dtype=dtype))
        rng = np.random.default_rng(0)
        self.v = {k: rng.standard_normal(p.shape).astype(dtype) for k, p in self.params.items()}
        self.batch = (self.params, self.x, self.y)


class Call(Contender):
    """A function without arguments, timed in processor time.

    All contenders have one thread, so on an idle machine this is the time that passes; on a busy
    one it leaves out what others take.
    """

    clock = staticmethod(time.process_time)

    def __init__(self, name, step):
        self.name, self.function = name, step

    def step(self):
        self.function()


def own(task):
    """Return the contenders of this library."""
    net, batch, v = task.net, task.batch, task.v

    def in_blocks():
        for _ in net.per_sample_grads(*batch, in_blocks=BLOCK):
            pass

    return [
        Call("value_and_grad", lambda: net.value_and_grad(*batch)),
        Call("per_sample_grads", lambda: net.per_sample_grads(*batch)),
        Call(f"per_sample_grads, blocks of {BLOCK}", in_blocks),
        Call("jacobian", lambda: net.jacobian(*batch[:2])),
        Call("jvp", lambda: net.jvp(*batch[:2], v)),
        Call("hvp", lambda: net.hvp(*batch, v)),
        Call("gnvp", lambda: net.gnvp(*batch, v)),
    ]


def levenberg_marquardt_of(task):
    """Return an update of Levenberg-Marquardt, and the product in it that no library can avoid.

    The damping is so large that the first trial is accepted.
    """
    optimizer = rx.optim.levenberg_marquardt(damping=10.0)
    backend = rx.get_backend("numpy", dtype=str(task.x.dtype))
    batch = Batch(task.x, task.y)
    engine = PortableEngine(task.net, rx.losses.mse, optimizer, backend, batch, BLOCK)
    jacobian = task.net.jacobian(task.params, task.x)
    rows = np.concatenate([jacobian[k].reshape(WINDOWS, -1) for k in sorted(jacobian)], axis=1)

    def update():
        state = optimizer.init(task.params)
        _, state, _ = engine.run(task.params, state, 1)
        if not state.damping < optimizer.damping:
            raise SystemExit("The first trial was not accepted: no measure of one iteration.")

    return [Call(UPDATE, update), Call(PRODUCT, lambda: rows.T @ rows)]


def vmap_of_torch(task):
    """Return the same network in torch, whose gradients `vmap` makes for every sample."""
    import torch

    params = {name: torch.asarray(p) for name, p in task.params.items()}
    x, y = torch.asarray(task.x), torch.asarray(task.y)

    def loss(params, x, y):
        h = torch.zeros(HIDDEN, dtype=x.dtype)
        for t in range(STEPS):
            p = params["layer0.w_xh"] @ x[t] + params["layer0.b_h"]
            h = torch.tanh(p + params["layer0.w_hh"] @ h)
        return ((params["readout.w_hy"] @ h + params["readout.b_y"] - y) ** 2).sum() / WINDOWS

    by_sample = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))
    return lambda: by_sample(params, x, y)


def opacus_of(task):
    """Return opacus's own recurrent layer, whose hooks make the gradients of every sample."""
    import torch
    from opacus.grad_sample import GradSampleModule
    from opacus.layers import DPRNN

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = DPRNN(1, HIDDEN, batch_first=True)
            self.readout = torch.nn.Linear(HIDDEN, 1)

        def forward(self, x):
            return self.readout(self.rnn(x)[0][:, -1, :])

    x, y = torch.asarray(task.x), torch.asarray(task.y)
    model = GradSampleModule(Model().to(x.dtype), loss_reduction="sum")
    names = {
        "rnn.weight_ih_l0": "layer0.w_xh", "rnn.weight_hh_l0": "layer0.w_hh",
        "rnn.bias_ih_l0": "layer0.b_h", "readout.weight": "readout.w_hy",
        "readout.bias": "readout.b_y",
    }  # fmt: skip
    weights = dict(model._module.named_parameters())
    with torch.no_grad():
        weights["rnn.bias_hh_l0"].zero_()  # a second bias, which this library does not have
        for name, own_name in names.items():
            weights[name].copy_(torch.asarray(task.params[own_name]))
    warnings.filterwarnings("ignore", "Full backward hook is firing")  # x needs no gradient

    def step():
        model.zero_grad()
        (((model(x) - y) ** 2).sum() / WINDOWS).backward()
        return {own_name: weights[name].grad_sample for name, own_name in names.items()}

    return step


def peers(task):
    """Return the contenders of other libraries that are installed, compared with this one first."""
    made = {"torch.func.vmap(grad)": ("torch", vmap_of_torch), "opacus": ("opacus", opacus_of)}
    contenders, mine = [], task.net.per_sample_grads(*task.batch)
    tolerance = 1e-4 if task.x.dtype == np.float32 else 1e-10
    for name, (library, make) in made.items():
        if importlib.util.find_spec(library) is None:
            continue
        step = make(task)
        theirs = step()
        for key, terms in mine.items():
            worst = np.max(np.abs(terms - np.asarray(theirs[key]).reshape(terms.shape)))
            if worst > tolerance * np.max(np.abs(terms)):
                raise SystemExit(f"{name} differs in {key} by {worst:.2g}: not the same network.")
        contenders.append(Call(name, step))
    return contenders


def peak_bytes(task):
    """Return the peak of what per-sample gradients in blocks allocate, and what is said of it."""
    net = task.net
    next(net.per_sample_grads(task.params, task.x[:2], task.y[:2], in_blocks=2))
    tracemalloc.start()
    for _ in net.per_sample_grads(*task.batch, in_blocks=BLOCK):
        pass
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    footprint = net.layers.cells[0].footprint
    states = STEPS * HIDDEN * (footprint.tape + footprint.rows)
    return peak, task.x.dtype.itemsize * BLOCK * (2 * net.num_parameters + states)


def judge(dtype, medians, peak, said):
    """Compare the results with what is promised; a list of (passed, sentence)."""
    verdicts = []
    for peer in PEERS:
        if peer in medians:
            ratio = medians[peer] / medians["per_sample_grads"]
            text = f"{peer} takes {ratio:.1f} times as long as per_sample_grads"
            verdicts.append(
                (ratio >= LEAST_RATIO, f"{text}; at least {LEAST_RATIO:g} is promised.")
            )
    gradients = medians["hvp"] / medians["value_and_grad"]
    text = f"hvp takes {gradients:.2f} gradients; at most {MOST_GRADIENTS:g} are promised."
    verdicts.append((gradients <= MOST_GRADIENTS, text))
    products = medians[UPDATE] / medians[PRODUCT]
    text = f"{UPDATE}, takes {products:.2f} times as long as {PRODUCT}; at most {MOST_PRODUCTS:g} "
    verdicts.append((products <= MOST_PRODUCTS, f"{text}is promised."))
    text = (
        f"per_sample_grads in blocks of {BLOCK} need {peak / 1e6:.1f} MB; {said / 1e6:.1f} MB is "
        f"said, and less than {MOST_BYTES / 1e6:g} promised."
    )
    verdicts.append((peak < MOST_BYTES and 0.8 * said < peak < 1.2 * said, text))
    return [
        (passed, f"{dtype}, {'held' if passed else 'MISSED'}: {text}") for passed, text in verdicts
    ]


def table(times):
    """Return Markdown lines: medians and quartiles in milliseconds, and gradients."""
    lines = ["| | median, ms | quartiles, ms | gradients |", "|---|---|---|---|"]
    gradient = median(times["value_and_grad"])
    for name, taken in times.items():
        low, high = quartiles(taken)
        lines.append(
            f"| {name} | {1e3 * median(taken):.1f} | {1e3 * low:.1f} to {1e3 * high:.1f} | "
            f"{median(taken) / gradient:.2f} |"
        )
    return lines


def main(argv=None):
    parser = argparse.ArgumentParser(description="Time gradients by sample and second derivatives.")
    parser.add_argument("--seconds", type=float, default=60.0, help="for each dtype")
    parser.add_argument("--dtypes", type=some_of(DTYPES), default=DTYPES, metavar="A,B")
    parser.add_argument("--out", type=Path, metavar="FILE.md", help="also write a page")
    args = parser.parse_args(argv)
    if args.out and not args.out.absolute().parent.is_dir():
        parser.error(f"--out {args.out}: there is no such folder. Make it first.")
    torch = importlib.import_module("torch") if importlib.util.find_spec("torch") else None
    if torch:
        torch.set_num_threads(1)
    lines, verdicts = [], []
    for dtype in args.dtypes:
        with threadpool_limits(1):
            task = Task(dtype)
            contenders = [*own(task), *levenberg_marquardt_of(task), *peers(task)]
            times = interleave(contenders, args.seconds, rounds=7)
            checked = judge(dtype, {k: median(t) for k, t in times.items()}, *peak_bytes(task))
        lines += ["", f"## {dtype}", "", *table(times), "", *(f"- {said}" for _, said in checked)]
        verdicts += [passed for passed, _ in checked]
    absent = [name for name in PEERS if name not in times]
    text = (
        f"{WINDOWS} windows of {STEPS} values, {HIDDEN} hidden units, mean squared error, one "
        "thread each, contenders in turns, in processor time. *gradients* is the median divided by "
        f"that of value_and_grad. Not installed: {', '.join(absent) or 'nothing'}."
    )
    versions = f"NumPy {np.__version__}" + (f", torch {torch.__version__}" if torch else "")
    command = " ".join(["python -m benchmarks.second_order", *(argv or sys.argv[1:])])
    page = ["# Gradients by sample, products with second derivatives", "",
            f"Written by `{command}`.", "", *textwrap.wrap(text, 100), *lines, "",
            f"Machine: {processor()}, {versions}."]  # fmt: skip
    print(*page, sep="\n")
    if args.out:
        args.out.write_text("\n".join(page) + "\n", encoding="utf-8")
    return 0 if all(verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
