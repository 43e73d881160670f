"""Time to a given validation loss: Levenberg-Marquardt, L-BFGS and Adam on six series.

"A part" is Levenberg-Marquardt with the curvature of some 1000 windows, others in each update.

    python -m benchmarks.optimizers                    about ten minutes on two cores
    python -m benchmarks.optimizers --seconds 5 --sizes 8
    python -m benchmarks.optimizers --out benchmarks/results/optimizers.md

Each optimiser trains the same network from the same weights, in float64 and on all cores, until its
time is up or it says that it is done. The last tenth of the windows is for validation. The loss to
reach is 1 % above the lowest validation loss that L-BFGS has reached, so L-BFGS reaches it by
definition; a dash means that an optimiser did not. What the command line and `Forecaster` choose
without being told rests on this table.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import sys
import time
from pathlib import Path

import numpy as np

import rnn_xp as rx
from benchmarks.learn.series import henon, mackey_glass
from benchmarks.machine import processor
from rnn_xp.data.scalers import fit_scaler

OPTIMIZERS = {
    "Levenberg-Marquardt": lambda rows: rx.optim.levenberg_marquardt(),
    "a part": rx.optim.of_part,
    "L-BFGS": lambda rows: rx.optim.lbfgs(),
    "Adam": lambda rows: rx.optim.adam(0.01),
}
MARGIN = 1.01
STEPS = 10


def sunspots():
    """Yearly sunspot numbers since 1700, of statsmodels."""
    from statsmodels.datasets import sunspots as module

    return np.asarray(module.load_pandas().data["SUNACTIVITY"], dtype=float)


SERIES = {
    "length_of_day": lambda: rx.datasets.load("length_of_day").values,
    "wti": lambda: rx.datasets.load("wti").values,
    "Mackey-Glass": lambda: mackey_glass(3000),
    "Mackey-Glass with noise": lambda: (
        mackey_glass(3000) + np.random.default_rng(0).normal(0.0, 0.02, 3000)
    ),
    "Henon": lambda: henon(2000),
    "sunspots": sunspots,
}


class Clock:
    """A callback that keeps the time and the validation loss of every epoch, and ends in time."""

    def __init__(self, seconds):
        self.seconds, self.start = seconds, time.perf_counter()
        self.points = []

    def __call__(self, epoch):
        passed = time.perf_counter() - self.start
        self.points.append((passed, epoch.validation_loss))
        return "the time is up" if passed > self.seconds else None

    @property
    def best(self):
        return min((loss for _, loss in self.points), default=np.inf)

    def time_to(self, loss):
        return next((passed for passed, here in self.points if here <= loss), None)


def race(values, hidden, seconds):
    """Train with every optimiser; their clocks by name, the number of rows, and of parameters."""
    scaled = (values - values.mean()) / values.std()
    x, y = rx.make_windows(scaled, STEPS)
    net = rx.Network(hidden_size=hidden)
    backend = rx.get_backend("numpy", dtype="float64")
    clocks = {}
    for name, make in OPTIMIZERS.items():
        clocks[name] = Clock(seconds)
        with contextlib.suppress(rx.DivergenceError):  # its best loss stands
            rx.fit(
                net, x, y, optimizer=make(len(x)), epochs=100_000, validation=0.1, backend=backend,
                callbacks=[clocks[name]],
            )  # fmt: skip
    return clocks, len(x), net.num_parameters


def reference():
    """The reference workload, as `make train` runs it: time to the last loss of L-BFGS.

    Returns lines of a table: optimiser, epochs, seconds, loss, RMSE on the test part relative to
    that of persistence, and seconds to the loss that L-BFGS ends with. Each epoch's loss is that
    before its update.
    """
    series = rx.datasets.load("length_of_day").values
    cut = 8327
    scaler = fit_scaler("standard", series[:cut])
    scaled = scaler.transform(series).astype("float32")
    x, y = rx.make_windows(scaled[:cut], STEPS)
    test_x, test_y = rx.make_windows(scaled[cut:], STEPS)
    persistence = np.sqrt(np.mean((test_x[:, -1] - test_y) ** 2))
    net, lines, goal = rx.Network(hidden_size=50), [], None
    runs = (
        ("L-BFGS", rx.optim.lbfgs(), 300),
        ("Levenberg-Marquardt, a part", rx.optim.of_part(len(x)), 14),
    )
    for name, optimizer, epochs in runs:
        times = []
        start = time.perf_counter()
        result = rx.fit(
            net, x, y, optimizer=optimizer, epochs=epochs,
            callbacks=[lambda epoch, s=start, t=times: t.append(time.perf_counter() - s)],
        )  # fmt: skip
        losses = result.history["loss"]
        goal = losses[-1] if goal is None else goal
        to_goal = next((t for t, loss in zip(times, losses, strict=True) if loss <= goal), None)
        errors = net.predict(result.params, test_x) - test_y
        ratio = np.sqrt(np.mean(errors**2)) / persistence
        reached = "-" if to_goal is None else f"{to_goal:.2f}"
        lines.append(
            f"| {name} | {epochs} | {times[-1]:.2f} | {losses[-1]:.6f} | {ratio:.4f} | {reached} |"
        )
    return lines


def row(name, hidden, seconds):
    clocks, rows, parameters = race(SERIES[name](), hidden, seconds)
    goal = MARGIN * clocks["L-BFGS"].best
    cells = [name, f"{rows:,}", f"{parameters:,}", f"{goal:.3g}"]
    for clock in clocks.values():
        passed = clock.time_to(goal)
        cells += ["-" if passed is None else f"{passed:.2f}", f"{clock.best:.3g}"]
    return f"| {' | '.join(cells)} |"


def page(command, rows, seconds, reference_rows):
    heads = "".join(f" {name}, s | its lowest |" for name in OPTIMIZERS)
    return f"""# Time to a validation loss

Written by `{command}`: at most {seconds:g} s for each training, float64, windows of {STEPS}.

| series | windows | parameters | loss to reach |{heads}
|---|---:|---:|---:|{"---:|---:|" * len(OPTIMIZERS)}
{chr(10).join(rows)}

The reference workload as `make train` runs it (8317 windows, 50 hidden units, float32, no
validation), and by Levenberg-Marquardt with the curvature of a part:

| optimiser | epochs | seconds | loss | test RMSE / persistence | s to L-BFGS's last loss |
|---|---:|---:|---:|---:|---:|
{chr(10).join(reference_rows)}

Machine: {processor()}.
"""


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("series", nargs="*", help=f"of {', '.join(SERIES)}; all by default")
    parser.add_argument("--seconds", type=float, default=15.0, help="time of each training")
    parser.add_argument("--sizes", type=int, nargs="+", default=[10, 25, 50], metavar="H")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args(arguments)
    names = args.series or list(SERIES)
    for name in names:
        if name not in SERIES:
            parser.error(f"{name} is none of {', '.join(SERIES)}")
    if "sunspots" in names and not importlib.util.find_spec("statsmodels"):
        parser.error("sunspots needs statsmodels: pip install statsmodels; or name other series")
    rows = []
    for name in names:
        for hidden in args.sizes:
            rows.append(row(name, hidden, args.seconds))
            print(rows[-1], file=sys.stderr, flush=True)
    command = " ".join(["python -m benchmarks.optimizers", *(arguments or sys.argv[1:])])
    text = page(command, rows, args.seconds, reference())
    if args.out is None:
        print(text)
    else:
        args.out.write_text(text)


if __name__ == "__main__":
    main()
