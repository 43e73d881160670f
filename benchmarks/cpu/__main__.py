"""Measure speed, against other libraries and against the machine's own matrix products.

    python -m benchmarks.cpu                      print; less than ten minutes on two cores
    python -m benchmarks.cpu --quick              small sizes, less than a minute
    python -m benchmarks.cpu --only rnn,gru --sections steps,inference
    python -m benchmarks.cpu --out benchmarks/results/cpu        also write bench.json, .md and .png

What is not installed is left out, with a line that says so. Nothing is timed that is not equal to
the portable code in float64. Exits with 1 if anything was not; a missed target is no error.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import re
import sys
from pathlib import Path

from benchmarks.machine import some_of

CELLS, SECTIONS = (
    ("rnn", "gru", "lstm"),
    (
        "steps",
        "sizes",
        "pieces",
        "options",
        "inference",
        "scaling",
    ),
)
SHARES = {
    "steps": 0.3,
    "sizes": 0.4,
    "pieces": 1.0,
    "options": 0.35,
    "inference": 0.25,
    "scaling": 1.0,
}  # of the time that is then left
SECONDS, QUICK_SECONDS = 500.0, 28.0
UNSET = re.compile(r"(OPENBLAS|OMP|MKL|KMP|GOMP|XLA|JAX|RNN_XP|TORCH|KERAS)_")
SET = {
    "JAX_PLATFORMS": "cpu",
    "KERAS_BACKEND": "jax",
    "MPLBACKEND": "Agg",
    "TORCHINDUCTOR_COMPILE_THREADS": "1",  # others would go on after a time limit
}
THREADS = 2


def clean_environment():
    """Start again without what would change how libraries compute, and with two cores.

    Libraries read these settings when they are loaded, and XLA takes all the cores there are.
    """
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])
    wanted = {name: value for name, value in os.environ.items() if not UNSET.match(name)} | SET
    if wanted != dict(os.environ):
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], wanted)


def versions():
    """What else is installed, beside what `memory.machine` says."""
    names = ("torch", "jax", "keras", "onnxruntime")
    found = []
    for name in names:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            found.append(f"{name} not installed")
    return ", ".join(found)


def load_average():
    loads = os.getloadavg() if hasattr(os, "getloadavg") else ()
    return ", ".join(f"{load:.2f}" for load in loads) or "nan"


def draw(results, out):
    """Draw the contenders and the curves; the name of the curves' file, or nothing."""
    from benchmarks.cpu import pictures, scaling

    path = out.with_name(f"{out.name}.png")
    try:
        if results["steps"]:
            pictures.draw_steps(results["steps"], out.with_name(f"{out.name}_steps.png"))
        scaling.draw(results["scaling"], path)
    except ImportError:
        print("matplotlib is not installed: no picture")
        return None
    return path.name


def write(results, out):
    """Write what there is so far, so that nothing is lost if the run is cut short."""
    from benchmarks.cpu import report

    text = json.dumps(results, indent=1, default=float)
    # One line for each list of times, rounded to microseconds' hundredths.
    text = re.sub(r"(\.\d{8})\d+", r"\1", text)
    text = re.sub(r"\[\s+([-+\d.eE,\s]+?)\s+\]", lambda m: f"[{' '.join(m[1].split())}]", text)
    out.with_name(f"{out.name}.json").write_text(text + "\n", encoding="utf-8")
    out.with_name(f"{out.name}.md").write_text(report.page(results), encoding="utf-8")


def run(args):
    """Do the sections; the results."""
    from threadpoolctl import threadpool_limits

    from benchmarks.cpu import QUICK_SIZES, SIZES_OF, Case, report
    from benchmarks.cpu.sections import Clock, inference, options, pieces, scalings, sizes, steps
    from benchmarks.memory import machine

    words = [f"--{name}" for name in ("quick",) if args.quick]
    words += [f"--only {','.join(args.only)}"] if args.only != list(CELLS) else []
    words += [f"--sections {','.join(args.sections)}"] if args.sections != list(SECTIONS) else []
    words += [f"--out {args.out}"] if args.out and not args.out.is_absolute() else []
    results = {
        "command": " ".join(["python -m benchmarks.cpu", *words]),
        "date": datetime.date.today().isoformat(),
        "machine": f"{machine()}, {versions()}",
        "threads": (
            f"{THREADS} for everyone: rnn_xp {THREADS} workers with one BLAS thread each, torch "
            f"{THREADS}, XLA and onnxruntime {THREADS}; straightforward NumPy one"
        ),
        "load_before": load_average(),
        "load_after": "",
        "quick": args.quick,
        "picture": None,
        **{name: [] for name in SECTIONS},
    }
    print(results["machine"], f"Threads: {results['threads']}.", sep="\n")
    print(f"Load average before: {results['load_before']}.", flush=True)
    whole = Clock(args.seconds or (QUICK_SECONDS if args.quick else SECONDS))
    run_section = {
        "steps": steps, "sizes": sizes, "pieces": pieces, "options": options,
        "inference": inference, "scaling": scalings,
    }  # fmt: skip
    with threadpool_limits(1, user_api="blas"):
        for section in args.sections:
            last = section == args.sections[-1]
            clock = Clock(whole.left() * (1.0 if last else SHARES[section]))
            what = args.only
            if section in SIZES_OF:
                chosen = QUICK_SIZES if args.quick else SIZES_OF[section]
                what = [Case(cell, *size) for size in chosen for cell in args.only]
            print(f"\n{section}", flush=True)
            for result in run_section[section](what, clock, args.quick):
                results[section].append(result)
                print("", *lines(section, result, report), sep="\n", flush=True)
                results["load_after"] = load_average()
                if args.out:
                    write(results, args.out)
    if args.out and results["scaling"]:
        results["picture"] = draw(results, args.out)
        write(results, args.out)
    return results


def lines(section, result, report):
    """What to print of a result."""
    from benchmarks.cpu import options_page

    if section == "scaling":
        return report.scaling_tables([result])[1:]
    if section == "pieces":
        return report.pieces_table([result])
    said = [*result["notes"], *(f"WRONG: {sentence}" for sentence in result["wrong"])]
    if section == "steps":
        return [str(report.case_of(result)), *report.steps_table(result), *said]
    table = {
        "sizes": report.sizes_table,
        "options": options_page.options_table,
        "inference": report.inference_table,
    }[section]
    return [*table([result]), *said]


def main(argv=None):
    parser = argparse.ArgumentParser(description="Measure the speed of training and inference.")
    parser.add_argument("--quick", action="store_true", help="small sizes, less than a minute")
    parser.add_argument("--only", type=some_of(CELLS), default=list(CELLS), metavar="CELLS")
    parser.add_argument(
        "--sections", type=some_of(SECTIONS), default=list(SECTIONS), metavar="SECTIONS"
    )
    parser.add_argument("--seconds", type=float, help="how long it may take, about")
    parser.add_argument("--out", type=Path, metavar="NAME", help="write NAME.json, .md and .png")
    parser.add_argument("--curve", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.curve:
        from threadpoolctl import threadpool_limits

        from benchmarks.cpu.scaling import measure

        with threadpool_limits(1, user_api="blas"):
            print(json.dumps(measure(*args.curve)))
        return 0
    if args.out and not args.out.absolute().parent.is_dir():
        parser.error(f"--out {args.out}: there is no such folder. Make it first.")
    results = run(args)
    from benchmarks.cpu import report

    print(f"\nLoad average after: {results['load_after']}.", "", sep="\n")
    print(*report.targets(results), sep="\n")
    wrong = any(result["wrong"] for name in report.CHECKED for result in results[name])
    return 1 if wrong else 0


if __name__ == "__main__":
    clean_environment()
    sys.exit(main())
