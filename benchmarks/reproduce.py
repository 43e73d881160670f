"""Published results beside ours: temporal XOR, adding, Mackey-Glass, and forecasts.

    python -m benchmarks.reproduce                        a few minutes on two cores
    python -m benchmarks.reproduce mackey-glass forecasts
    python -m benchmarks.reproduce --out benchmarks/results/reproduce.md

What is not reached is shown as not reached, and is no error.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np

import rnn_xp as rx
from benchmarks.learn import HEADINGS, table_row
from benchmarks.learn.series import free_running, mackey_glass
from benchmarks.learn.synthetic import adding, xor
from benchmarks.machine import processor

TASKS = {"xor": xor, "adding": adding, "mackey-glass": free_running}
SEEDS = {"mackey-glass": 3}  # one, unless it says more
LEVEL = 0.9


def skills(quick):
    """Skill against persistence one day ahead, default settings, and the AR of the same lags."""
    series = rx.datasets.load("length_of_day")
    rows = []
    for lags in (10,) if quick else (10, 28):
        for seed in range(1 if quick else 3):
            forecaster = rx.Forecaster(seq_length=lags, random_state=seed, verbose=False)
            forecaster.set_params(epochs=5 if quick else forecaster.epochs)
            result = forecaster.backtest(series)
            linear = next(score for score in result.scores if score.name.startswith("linear"))
            rows.append([lags, seed, result.metrics["skill"], linear.skill, result.verdict])
    return rows


def steps(quick):
    """Mean absolute error of each step, the network and the AR of the same lags; coverage."""
    series = rx.datasets.load("length_of_day")
    rows = []
    for lags in (10,) if quick else (10, 30):
        forecaster = rx.Forecaster(
            seq_length=lags, horizon=3 if quick else 10, epochs=5 if quick else 200, level=LEVEL,
            verbose=False,
        )  # fmt: skip
        result = forecaster.backtest(series)
        part = result.series[0]
        linear = np.abs(part.baselines[f"linear AR({lags})"] - part.truth).mean(axis=0)
        rows += [
            [lags, k + 1, own, float(linear[k]), result.per_step["coverage"][k]]
            for k, own in enumerate(result.per_step["mae"])
        ]
    return rows


def coverages(quick):
    """Measured coverage of 90 % intervals over test parts."""
    noise = np.random.default_rng(0).normal(0.0, 0.02, 4000)
    rows = []
    for name, values in (
        ("length_of_day", rx.datasets.load("length_of_day").values),
        ("Mackey-Glass, tau = 17, with noise", mackey_glass(4000) + noise),
    ):
        for kind in ("adaptive", "split"):
            forecaster = rx.Forecaster(
                horizon=5, intervals=kind, level=LEVEL, epochs=5 if quick else 200, verbose=False
            )
            found = forecaster.backtest(values).metrics
            rows.append([name, kind, found["coverage"], found["width"]])
    return rows


def market(quick):
    """What a backtest of the oil price says."""
    series = rx.datasets.load("wti")
    return rx.Forecaster(epochs=5 if quick else 200, verbose=False).backtest(series)


PAGE = """# Published results beside ours

Written by `{command}`.

Every row is one run of one seed, of data and weights. Published results are there for
orientation: networks, lengths and amounts of training differ. What is not reached is shown as not
reached.

{outcomes}
{more}
Machine: {machine}.
"""
FORECASTS = """
## `Forecaster` on the length of day

One day ahead, default settings, trained on the first 80 %. Skill is 1 - RMSE / RMSE of persistence
on the rest; the linear AR is fitted on all that the network could see.

| lags | seed | skill | skill of the AR | verdict |
|---:|---:|---:|---:|---|
{skills}

One to ten days ahead, direct. Mean absolute error in ms, and the measured coverage of adaptive
90 % intervals.

| lags | days ahead | network | AR of the same lags | | coverage |
|---:|---:|---:|---:|---|---:|
{steps}

## Intervals

Five steps ahead, pooled; nominal coverage 90 %. Split-conformal intervals promise it if errors stay
like those of the validation part, which those of the length of day do not.

| series | intervals | coverage | mean width |
|---|---|---:|---:|
{coverages}

## The oil price, one day ahead

```
{market}
```
"""


def forecasts(quick):
    """Sections of the page on the `Forecaster`."""

    def side(own, linear):
        word = "ahead" if own < linear else "**behind**"
        return f"{word} by {100 * abs(1 - own / linear):.1f} %"

    def rows(cells):
        return "\n".join(table_row(*map(str, row)) for row in cells)

    return FORECASTS.format(
        skills=rows([n, s, f"{a:.4f}", f"{b:.4f}", said] for n, s, a, b, said in skills(quick)),
        steps=rows(
            [n, k, f"{a:.4f}", f"{b:.4f}", side(a, b), f"{100 * c:.1f} %"]
            for n, k, a, b, c in steps(quick)
        ),
        coverages=rows(
            [name, kind, f"{100 * c:.1f} %", f"{width:.4g}"]
            for name, kind, c, width in coverages(quick)
        ),
        market=market(quick),
    )


def main(argv=None):
    parser = argparse.ArgumentParser(description="Published results beside ours.")
    known = [*TASKS, "forecasts"]
    parser.add_argument("tasks", nargs="*", metavar="TASK", help=f"of: {', '.join(known)}")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to try the script")
    parser.add_argument("--seed", type=int, default=0, help="of data and weights (0)")
    parser.add_argument("--out", type=Path, metavar="FILE.md", help="also write a page")
    args = parser.parse_args(argv)
    if unknown := [name for name in args.tasks if name not in known]:
        parser.error(f"no task {unknown[0]!r}. Choose from: {', '.join(known)}.")
    if args.out and not args.out.absolute().parent.is_dir():
        parser.error(f"--out {args.out}: there is no such folder. Make it first.")
    chosen, outcomes = args.tasks or known, []
    print(table_row(*HEADINGS), "|---" * len(HEADINGS) + "|", sep="\n", flush=True)
    for name in chosen:
        if name == "forecasts":
            continue
        for seed in range(args.seed, args.seed + (1 if args.quick else SEEDS.get(name, 1))):
            wall, cpu = time.perf_counter(), time.process_time()
            outcome = TASKS[name](args.quick, seed)
            outcome.seconds = time.perf_counter() - wall
            outcome.cpu_seconds = time.process_time() - cpu
            outcomes.append(outcome)
            print(outcome.row(), flush=True)
    more = forecasts(args.quick) if "forecasts" in chosen else ""
    print(more)
    words = ["python -m benchmarks.reproduce", *args.tasks, *(["--quick"] if args.quick else [])]
    if args.out:
        words += [f"--seed {args.seed}", f"--out {args.out}"]
        rows = [table_row(*HEADINGS), "|---" * len(HEADINGS) + "|", *(o.row() for o in outcomes)]
        machine = f"{processor()}; NumPy {np.__version__}, computed by {rx.get_backend()}"
        text = PAGE.format(
            command=" ".join(words), outcomes="\n".join(rows), more=more, machine=machine
        )
        args.out.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
