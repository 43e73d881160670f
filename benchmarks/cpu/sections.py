"""The sections of a run, each a list of plain results that go into the JSON file as they are."""

from __future__ import annotations

import contextlib
import dataclasses
import time

import rnn_xp as rx
from benchmarks.cpu import (
    ADAM,
    THREADS,
    WrongError,
    check_inference,
    check_training,
    reference,
    scaling,
)
from benchmarks.cpu import options as of_options
from benchmarks.cpu.contenders import Engine, Fit, Naive, floors, kinds_of_kernels
from benchmarks.cpu.inference import predictors
from benchmarks.cpu.libraries import LIBRARIES, Torch, missing
from benchmarks.cpu.pieces import pieces as kernel_pieces
from benchmarks.cpu.timing import LEAST_ROUNDS, ROUNDS, interleave

MOST_SECONDS = 14.0  # more of them for one case would tell nothing new
OVERHEAD_SECONDS = 1.0
OVERHEAD_EPOCHS = (3, 25)  # at least, at most
OPTIMIZERS = {"Adam": ADAM, "L-BFGS": rx.optim.lbfgs()}


class Clock:
    """Time that is left, to be shared by what is still to be done."""

    def __init__(self, seconds):
        self.end = time.perf_counter() + seconds

    def left(self):
        return max(self.end - time.perf_counter(), 0.0)


def checked(contenders, check, right):
    """Contenders that are right, and sentences about those that are wrong or fail.

    What is another library's failure is no reason to stop; what is wrong is not timed.
    """
    good, wrong, notes = [], [], []
    for contender in contenders:
        try:
            check(contender, right)
        except WrongError as error:
            wrong.append(str(error))
        except Exception as error:
            if contender.name.startswith("rnn_xp,"):
                raise
            notes.append(f"{contender.name} fails: {type(error).__name__}: {str(error)[:100]}")
        else:
            good.append(contender)
            continue
        contender.close()
    return good, wrong, notes


def steps(cases, clock, quick):
    """Training steps of every contender; yields a result for each case."""
    for number, case in enumerate(cases):
        began, share = time.perf_counter(), clock.left() / (len(cases) - number)
        contenders, notes = [Naive(case), Engine(case)], []
        contenders += [Fit(case, kernels) for kernels in kinds_of_kernels()]
        for library in LIBRARIES:
            try:
                found, more = library(case, quick)
            except Exception as error:  # installed, but broken
                found, more = [], [f"{library.__name__}: {type(error).__name__}: {error}"[:120]]
            contenders, notes = contenders + found, notes + more
        products, end = floors(case), began + share - 2 * OVERHEAD_SECONDS
        result = _timed_steps(case, contenders, products, end, quick)
        yield {
            **result,
            "flops": case.flops,
            "floors": {product.name: result["times"].pop(product.name) for product in products},
            "overheads": {name: overhead(case, rule) for name, rule in OPTIMIZERS.items()},
            "notes": notes + result["notes"],
        }


def sizes(cases, clock, quick):
    """Training steps of both kinds of kernels and of torch; yields a result for each case."""
    for number, case in enumerate(cases):
        end = time.perf_counter() + clock.left() / (len(cases) - number)
        contenders = [Fit(case, kernels) for kernels in kinds_of_kernels()]
        contenders += [] if missing("torch") else [Torch(case)]
        yield _timed_steps(case, contenders, [], end, quick)


def _timed_steps(case, contenders, others, end, quick):
    """Check contenders and time those that are right, with others, to about an end."""
    good, wrong, notes = checked(contenders, check_training, reference(case))
    seconds = min(max(end - time.perf_counter(), 1.0), MOST_SECONDS)
    times = interleave([*good, *others], seconds, LEAST_ROUNDS if quick else ROUNDS)
    for contender in [*good, *others]:
        contender.close()
    return {**dataclasses.asdict(case), "times": times, "notes": notes, "wrong": wrong}


def pieces(cases, clock, quick):
    """Pieces of a layer alone; no case's own."""
    yield from kernel_pieces()


def overhead(case, optimizer):
    """Share of an epoch that is not spent in the loss and its gradient."""
    contender = Engine(case, optimizer)
    contender.step()
    contender.engine.inside = 0.0
    least, most = OVERHEAD_EPOCHS
    total, epochs = 0.0, 0
    while epochs < least or (epochs < most and total < OVERHEAD_SECONDS):
        total += sum(contender.times(0.0, 1))
        epochs += 1
    contender.close()
    return 1.0 - contender.engine.inside / total


def inference(cases, clock, quick):
    """Predictions for all windows and for a single one; yields a result for each."""
    rounds = LEAST_ROUNDS if quick else ROUNDS
    for number, case in enumerate(cases):
        right = reference(case)
        seconds = min(clock.left() / (len(cases) - number), MOST_SECONDS / 3)
        for rows, part in ((case.N, 0.7), (1, 0.3)):
            contenders, notes = predictors(case, rows)
            good, wrong, more = checked(contenders, check_inference, right)
            times = interleave(good, part * seconds, rounds)
            yield {
                **dataclasses.asdict(case),
                "rows": rows,
                "times": times,
                "notes": notes + more,
                "wrong": wrong,
            }


def options(cells, clock, quick):
    """Steps with every option beside a plain one, on one thread; yields a result for each case."""
    rounds, planned = LEAST_ROUNDS if quick else ROUNDS, list(of_options.cases(cells, quick))
    with one_thread_of_torch():
        for number, case in enumerate(planned):
            seconds = clock.left() / (len(planned) - number)
            found = of_options.contenders(case, kinds_of_kernels())
            good, wrong, notes = checked(
                found, lambda contender, case: of_options.check(case, contender), case
            )
            times = interleave(good, min(seconds, MOST_SECONDS), rounds)
            yield {**dataclasses.asdict(case), "times": times, "notes": notes, "wrong": wrong}


@contextlib.contextmanager
def one_thread_of_torch():
    """Let torch compute on one thread, if it is installed."""
    if missing("torch"):
        yield
        return
    import torch

    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(THREADS)


def scalings(cells, clock, quick):
    """Curves of training; yields a result for each."""
    rounds = LEAST_ROUNDS if quick else ROUNDS
    plans = list(scaling.curves(cells, quick))
    for number, (cell, letter, values) in enumerate(plans):
        if not clock.left():
            print(f"no time is left for {cell} over {letter}: run --sections scaling by itself")
            continue
        seconds = min(clock.left() / (len(plans) - number) / 2, 2 * MOST_SECONDS)
        points = scaling.in_a_fresh_process(cell, letter, values, seconds, rounds)
        yield {"cell": cell, "over": letter, "points": points}
