"""Learn five tasks whose answers are known, and print each result beside the published numbers.

    python -m benchmarks.learn                      all tasks, a few minutes on two cores
    python -m benchmarks.learn xor recall --seed 1
    python -m benchmarks.learn --quick              smaller sizes, less than 10 s each
    python -m benchmarks.learn --out benchmarks/results/learn.md

Exits with 1 if a goal was not reached. A batch has at most a few hundred rows, which are one block
of work for one thread, so the CPU time tells what an idle machine would need.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import platform
import sys
import time
from pathlib import Path

import numpy as np

import rnn_xp as rx
from benchmarks.learn import HEADINGS, table_row
from benchmarks.learn.characters import characters
from benchmarks.learn.synthetic import adding, copy, recall, xor
from benchmarks.machine import processor

TASKS = {"xor": xor, "recall": recall, "adding": adding, "copy": copy, "characters": characters}


def machine():
    """Describe the processor and the versions, which decide the bits, and how busy it was."""
    load = f", load average {os.getloadavg()[1]:.1f}" if hasattr(os, "getloadavg") else ""
    return (
        f"{processor()}{load}; Python {platform.python_version()}, NumPy "
        f"{np.__version__}, computed by {rx.get_backend()}"
    )


def command(args):
    """Return what to type for the same run."""
    words = ["python -m benchmarks.learn", *args.tasks, *(["--quick"] if args.quick else [])]
    return " ".join([*words, f"--seed {args.seed} --temperature {args.temperature:g}"])


def page(outcomes, command, where):
    """Return benchmarks/results/learn.md."""
    lines = [
        "# What the networks learn", "", f"Written by `{command}`.", "",
        "Every row is one run of one seed, tested on data that were not trained on. The published",
        "results are there for orientation, not for a ranking: networks, lengths and amounts of",
        "training differ.",
        "", table_row(*HEADINGS), "|---" * len(HEADINGS) + "|", *(o.row() for o in outcomes),
        "", f"Machine: {where}.", "", "On an idle machine a task takes about its CPU seconds.",
    ]  # fmt: skip
    for sample in (o.sample for o in outcomes if o.sample):
        # Indented, because the text may contain any fence.
        shown = [f"    {line}".rstrip() for line in sample.strip("\n").splitlines()]
        shown = [line for line in shown if line][:10]
        lines += ["", "What the character model writes (blank lines left out):", "", *shown]
    return "\n".join(lines) + "\n"


def main(argv=None):
    parser = argparse.ArgumentParser(description="Learn tasks whose answers are known.")
    parser.add_argument("tasks", nargs="*", metavar="TASK", help=f"of: {', '.join(TASKS)}")
    parser.add_argument("--quick", action="store_true", help="smaller sizes, seconds each")
    parser.add_argument("--seed", type=int, default=0, help="of data and weights (default 0)")
    parser.add_argument("--temperature", type=float, default=0.5, help="of the generated text")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--out", type=Path, metavar="FILE.md", help="also write a page")
    args = parser.parse_args(argv)
    if unknown := [name for name in args.tasks if name not in TASKS]:
        parser.error(f"no task {unknown[0]!r}. Choose from: {', '.join(TASKS)}.")
    if args.seed < 0 or not 0.0 < args.temperature < math.inf:
        parser.error("--seed must be >= 0 and --temperature a finite number > 0.")
    if args.out and not args.out.absolute().parent.is_dir():
        parser.error(f"--out {args.out}: there is no such folder. Make it first.")
    where, outcomes = machine(), []
    if not args.json:
        print(table_row(*HEADINGS), "|---" * len(HEADINGS) + "|", sep="\n", flush=True)
    for name in args.tasks or TASKS:
        wall, cpu = time.perf_counter(), time.process_time()
        options = {"temperature": args.temperature} if name == "characters" else {}
        outcome = TASKS[name](args.quick, args.seed, **options)
        outcome.seconds = time.perf_counter() - wall
        outcome.cpu_seconds = time.process_time() - cpu
        outcomes.append(outcome)
        if not args.json:
            print(outcome.row(), flush=True)
    if args.json:
        tasks = [dataclasses.asdict(outcome) for outcome in outcomes]
        print(json.dumps({"machine": where, "seed": args.seed, "tasks": tasks}, indent=1))
    else:
        print(f"\n{where}", *(o.sample for o in outcomes if o.sample), sep="\n\n")
    if args.out:
        args.out.write_text(page(outcomes, command(args), where), encoding="utf-8")
    return 0 if all(outcome.reached for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
