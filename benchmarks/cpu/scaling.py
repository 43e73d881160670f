"""Time per window and peak memory of training, over the number of windows, steps and units."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

import rnn_xp as rx
from benchmarks.cpu import Case
from benchmarks.cpu.contenders import Engine
from benchmarks.cpu.timing import interleave, median
from benchmarks.memory import Resident, give_back, series

# Factors of the square root of ten, and the sizes that are promised to be alike.
FEW, MANY = 8317, 831_700
CURVES = {
    "N": [10, 32, 100, 320, 1000, 3200, FEW, 26_300, 83_170, 263_000, MANY, 1_000_000],
    "T": [1, 3, 10, 32, 100, 320, 1000],
    "H": [8, 16, 32, 64, 128, 256, 512],
}
QUICK = {"N": [10, 100, 1000, 8317], "T": [1, 10, 100], "H": [8, 32, 128]}
FIXED = {"N": 1040, "T": 10, "I": 1, "H": 50}  # what does not vary
MOST_ROWS = {"gru": 100_000, "lstm": 100_000}  # the others show how it goes on
FLAT = 0.15
CELLS = ("rnn", "gru", "lstm")
LOOKS = (("#D55E00", "o", "-"), ("#0072B2", "s", "--"), ("#009E73", "^", ":"))
NAMES = {"N": "windows", "T": "steps", "H": "hidden units"}


def curves(cells, quick):
    """What to measure: (cell, letter, values)."""
    for letter, values in (QUICK if quick else CURVES).items():
        for cell in cells:
            most = MOST_ROWS.get(cell, np.inf) if letter == "N" else np.inf
            yield cell, letter, [value for value in values if value <= most]


def measure(cell, letter, values, seconds, rounds):
    """Measure a curve in this process; a list of {value, times, memory}.

    Memory is the peak of what is resident above its level with the data loaded, during the first
    epoch; each size keeps its buffers, and so does not hide the next one's.
    """
    engines, points = [], []
    # What the first training anywhere needs, such as threads and imports, is no matter of size.
    first = Engine(Case(cell, 10, 2, 1, 8))
    first.step()
    first.close()
    for value in values:
        case = Case(cell, **{**FIXED, letter: value})
        data = rx.make_windows(series(case.N + case.T), case.T)
        data = tuple(array[: case.N] for array in data)
        engine = Engine(case, data=data)
        engine.name = str(value)
        peak = None
        if Path("/proc/self/status").exists():
            give_back()
            watched = Resident()
            engine.step()
            peak = watched.above()
        engines.append(engine)
        points.append({"value": value, "N": case.N, "memory": peak})
    times = interleave(engines, seconds, rounds)
    for engine, point in zip(engines, points, strict=True):
        engine.close()
        point["times"] = times[engine.name]
    return points


def in_a_fresh_process(*what):
    """Measure a curve where nothing else was ever loaded."""
    command = [sys.executable, "-m", "benchmarks.cpu", "--curve", json.dumps(what)]
    done = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    )
    return json.loads(done.stdout)


def per_window(point):
    """Microseconds."""
    return 1e6 * median(point["times"]) / point["N"]


def flatness(points):
    """Largest deviation of the time per window from that of the fewest windows, or None."""
    times = [per_window(point) for point in points if FEW <= point["value"] <= MANY]
    reached = any(point["value"] == MANY for point in points)
    return max(abs(time / times[0] - 1.0) for time in times) if reached else None


def draw(found, path):
    """Draw all curves: time per window above, peak memory below."""
    from matplotlib.figure import Figure

    letters = list(dict.fromkeys(curve["over"] for curve in found))
    figure = Figure(figsize=(4 * len(letters), 6.5), layout="constrained")
    axes = figure.subplots(2, len(letters), squeeze=False, sharex="col")
    for column, letter in enumerate(letters):
        above, below = axes[:, column]
        for curve in (curve for curve in found if curve["over"] == letter):
            points, look = curve["points"], LOOKS[CELLS.index(curve["cell"]) % len(LOOKS)]
            style = dict(zip(("color", "marker", "linestyle"), look, strict=True))
            style["markersize"] = 4.5
            values = [point["value"] for point in points]
            above.plot(values, [per_window(p) for p in points], label=curve["cell"], **style)
            if all(point["memory"] is not None for point in points):
                below.plot(values, [p["memory"] / 1e6 for p in points], **style)
        fixed = ", ".join(
            f"{name} = {value}" for name, value in FIXED.items() if name not in (letter, "I")
        )
        above.set(title=f"{NAMES[letter]}, with {fixed}", xscale="log", yscale="log")
        above.title.set_size("medium")
        below.set(xlabel=f"{letter}, {NAMES[letter]}", yscale="log")
        for ax in (above, below):
            ax.grid(alpha=0.3)
    axes[0, 0].set_ylabel("µs per window and epoch\nlower is better")
    axes[1, 0].set_ylabel("peak memory, MB\nlower is better")
    axes[0, 0].legend()
    figure.savefig(path, dpi=110, metadata={"Software": None})
