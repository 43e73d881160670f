"""What is right for each case, computed once, and the times of one library's contenders."""

from __future__ import annotations

import dataclasses
import importlib
import os
import time
from pathlib import Path

import numpy as np

from benchmarks.cpu import Reference, WrongError, check_training, reference
from benchmarks.cpu.libraries import missing
from benchmarks.gpu import attempt
from benchmarks.gpu.timing import measure

# TF32 keeps 10 bits of a factor; the tolerances are those of float32, with 23.
TF32_SLACK = 1000.0
MODULES = {"rnn_xp": "tiers", "torch": "torch_peers", "jax": "jax_peers"}
CASE_SECONDS = 0.3  # of timing, for a contender
DRY_SECONDS = 0.01


def file_of(folder, case):
    return Path(folder, f"{'-'.join(map(str, (case.cell, *case.size)))}.npz")


def references(place, references, only=""):
    """What is right, in float64 on the CPU; one file for each case."""

    def work(case):
        right = reference(case)
        unfinished = Path(references, "unfinished.npz")
        np.savez(unfinished, __losses__=right.losses, **right.gradient)
        os.replace(unfinished, file_of(references, case))
        return {"loss": right.losses[0]}

    for case in place.cases(only):
        yield attempt(str(case), work, case)


def read_reference(folder, case):
    """What `references` wrote of a case."""
    with np.load(file_of(folder, case)) as arrays:
        gradient = {name: arrays[name] for name in arrays if name != "__losses__"}
        return Reference(gradient, arrays["__losses__"].tolist(), np.empty(0))


def times(place, library, tf32, round, references, seconds, only=""):
    """Times of a library's contenders in all cases, as far as the seconds go.

    What differs from the reference is said and not timed; what fails, with its traceback.
    """
    about = {"library": library, "tf32": tf32, "round": round}
    end = time.perf_counter() + seconds
    if library != "rnn_xp" and missing(library):
        yield {"what": f"{library} is not installed", **about}
        return

    def left():
        return max(end - time.perf_counter(), 0.0)

    contenders = importlib.import_module(f"benchmarks.gpu.{MODULES[library]}").contenders
    cases = place.cases(only)[:1] if place.dry and tf32 else place.cases(only)
    for case, name, make in contenders(place, cases, tf32, left):
        record = {"what": f"{case}: {name}", "case": dataclasses.asdict(case), "name": name}
        if not left():
            yield record | about | {"note": "no time was left"}
            continue
        slack = TF32_SLACK if tf32 else 1.0
        found = attempt(record["what"], _timed, make, case, references, slack, place)
        yield record | about | found


def _timed(make, case, references, slack, place):
    right, contender = read_reference(references, case), make()
    try:
        check_training(contender, right, slack)
    except WrongError as error:
        return {"holds": False, "wrong": str(error)}
    return measure(contender, DRY_SECONDS if place.dry else CASE_SECONDS)
