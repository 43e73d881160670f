"""Tables, the page and the verdicts, from the results alone."""

from __future__ import annotations

import textwrap

from benchmarks.cpu import (
    FALL_TOLERANCE,
    GRADIENT_TOLERANCE,
    LOSS_TOLERANCE,
    PREDICTION_TOLERANCE,
    REFERENCE,
    SIZES,
    UPDATES,
    Case,
)
from benchmarks.cpu.options_page import options_table, options_verdicts
from benchmarks.cpu.scaling import FEW, FLAT, MANY, flatness, per_window
from benchmarks.cpu.timing import median, quartiles

NUMPY, NUMBA = "rnn_xp, fit, numpy", "rnn_xp, fit, numba"
ENGINE, TORCH = "rnn_xp, engine", "torch, eager"
CHECKED = ("steps", "sizes", "options", "inference")  # sections
# Shares of the time of torch eager: each, their median, and NumPy alone.
MOST_COMPILED, MOST_MEDIAN, MOST_NUMPY = 0.8, 0.25, 2.0
MOST_REFERENCE = {"rnn": 0.5, "gru": 0.65, "lstm": 0.65}
IDLE = 0.5  # load average
HEADINGS = ("", "ms", "quartiles", "timed", "÷ torch eager", "÷ best JAX", "÷ products")


def case_of(result):
    return Case(*(result[name] for name in ("cell", "N", "T", "I", "H")))


def medians(times):
    return {name: median(taken) for name, taken in times.items()}


def yardsticks(result):
    """Seconds of torch eager, of the best JAX written by hand, and of the products alone."""
    found = medians(result["times"])
    jax = [seconds for name, seconds in found.items() if name.startswith("jax,")]
    floors = medians(result.get("floors", {})).values()
    return found.get(TORCH), min(jax, default=None), min(floors, default=None)


def ratio(seconds, yardstick):
    return "" if yardstick is None or seconds is None else f"{seconds / yardstick:.2f}"


def milliseconds(seconds):
    """Three significant digits."""
    value = 1e3 * seconds
    return f"{value:.0f}" if value >= 99.95 else f"{value:.3g}"


def table(headings, rows):
    lines = [headings, ["---", *["---:"] * (len(headings) - 1)], *rows]
    return [f"| {' | '.join(line)} |" for line in lines]


def times_row(name, taken, yards):
    middle, (low, high) = median(taken), quartiles(taken)
    spread = f"{milliseconds(low)} to {milliseconds(high)}"
    ratios = (ratio(middle, yard) for yard in yards)
    return [name, milliseconds(middle), spread, str(len(taken)), *ratios]


def steps_table(result):
    """All contenders of one case, the fastest first, and the matrix products alone."""
    yards = yardsticks(result)
    ordered = sorted(result["times"].items(), key=lambda entry: median(entry[1]))
    rows = [times_row(name, taken, yards) for name, taken in ordered]
    if result.get("floors"):
        name, taken = min(result["floors"].items(), key=lambda entry: median(entry[1]))
        rows.append(times_row(name, taken, yards))
    return table(HEADINGS, rows)


def summary_table(results):
    """Ratios of `fit`, and what the products need."""
    rows = []
    for result in results:
        yards, gflop = yardsticks(result), result["flops"] / 1e9
        for kernels in (NUMPY, NUMBA):
            if kernels in result["times"]:
                fit = median(result["times"][kernels])
                rows.append(
                    [
                        str(case_of(result)), kernels.rpartition(" ")[2], milliseconds(fit),
                        *(ratio(fit, yard) for yard in yards), f"{gflop:.3f}",
                        f"{gflop / yards[2]:.0f}",
                    ]
                )  # fmt: skip
    headings = (
        "one epoch of `fit`", "kernels", "ms", *HEADINGS[-3:], "GFLOP", "GFLOP/s of the products"
    )  # fmt: skip
    return table(headings, rows)


def of_torch(result):
    """Shares of torch's time that the compiled and the NumPy kernels take, None where unknown."""
    found = medians(result["times"])
    names = (NUMBA, NUMPY)
    if TORCH not in found:
        return None, None
    return tuple(found[name] / found[TORCH] if name in found else None for name in names)


def sizes_table(results):
    """Both kinds of kernels beside torch, a row for each case."""
    names, rows = (NUMBA, NUMPY, TORCH), []
    for result in results:
        found = medians(result["times"])
        cells = [milliseconds(found[name]) if name in found else "" for name in names]
        shares = ["" if share is None else f"{share:.2f}" for share in of_torch(result)]
        rows.append([str(case_of(result)), *cells, *shares])
    headings = ("one epoch of `fit`", "compiled, ms", "NumPy, ms", "torch eager, ms")
    return table((*headings, "compiled ÷ torch", "NumPy ÷ torch"), rows)


def overheads_table(results):
    rows = []
    for result in results:
        found = medians(result["times"])
        fit, engine = found.get(NUMBA, found[NUMPY]), found[ENGINE]
        shares = [f"{100 * share:.1f} %" for share in result["overheads"].values()]
        rows.append([str(case_of(result)), *shares, f"{100 * (fit / engine - 1):+.1f} %"])
    return table(("", "Adam", "L-BFGS", "`fit` beyond the engine"), rows)


def pieces_table(results):
    rows = [
        [result["what"], *(f"{result[k]:.2f}" if k in result else "" for k in ("numpy", "numba"))]
        for result in results
    ]
    return table(("on one thread", "NumPy", "compiled"), rows)


def inference_table(results):
    names = list(dict.fromkeys(name for result in results for name in result["times"]))
    rows = []
    for result in results:
        found = medians(result["times"])
        cells = [milliseconds(found[name]) if name in found else "" for name in names]
        rows.append([str(case_of(result)), f"{result['rows']:,}", *cells])
    return table(("ms", "windows", *names), rows)


def scaling_tables(curves):
    lines = []
    for letter in dict.fromkeys(curve["over"] for curve in curves):
        chosen = [curve for curve in curves if curve["over"] == letter]
        values = sorted({point["value"] for curve in chosen for point in curve["points"]})
        rows = [[f"{value:,}"] for value in values]
        for curve in chosen:
            points = {point["value"]: point for point in curve["points"]}
            for row, value in zip(rows, values, strict=True):
                point = points.get(value)
                memory = point and point["memory"]
                row += [
                    f"{per_window(point):.3g}" if point else "",
                    f"{memory / 1e6:.1f}" if memory is not None else "",
                ]
        units = [text for c in chosen for text in (f"{c['cell']}, µs", f"{c['cell']}, MB")]
        lines += ["", *table((letter, *units), rows)]
    return lines


def sizes_verdicts(results):
    """What is asked of each case, and of the median of all: (what, share of torch, limit)."""
    shares = []
    for result in results:
        case, (compiled, numpy) = case_of(result), of_torch(result)
        if compiled is not None and case.size in SIZES:
            shares.append(compiled)
            yield f"{case}: compiled kernels ÷ torch eager", compiled, MOST_COMPILED
        if numpy is not None and case.size in SIZES:
            limit = MOST_REFERENCE[case.cell] if case.size == REFERENCE else MOST_NUMPY
            yield f"{case}: NumPy kernels ÷ torch eager", numpy, limit
    if shares:
        what = f"compiled kernels ÷ torch eager, median of {len(shares)}"
        yield what, median(shares), MOST_MEDIAN


def verdicts(results):
    """Each target as (holds, sentence)."""
    found = []

    def judge(what, value, limit, unit=""):
        holds = value <= limit
        word = "holds" if holds else f"MISSED by {100 * (value / limit - 1):.0f} %"
        found.append((holds, f"{word}: {what}: {value:.3g}{unit}, at most {limit:g}{unit}"))

    for what, share, limit in sizes_verdicts(results.get("sizes", [])):
        judge(what, share, limit)
    for result in results["steps"]:
        case, times = case_of(result), medians(result["times"])
        _, jax, floor = yardsticks(result)
        compiled = times.get(NUMBA)
        if compiled and case.cell == "rnn" and case.size == REFERENCE:
            if jax:
                judge(f"{case}: compiled kernels ÷ best JAX", compiled / jax, 1.0)
            judge(f"{case}: compiled kernels ÷ matrix products", compiled / floor, 2.3)
        if case.size == REFERENCE:
            for name, share in result["overheads"].items():
                judge(f"{case}: {name} beyond the gradient", 100 * share, 5.0, " %")
    for what, value, limit in options_verdicts(results.get("options", [])):
        judge(what, value, limit)
    for curve in results["scaling"]:
        flat = flatness(curve["points"]) if curve["over"] == "N" else None
        if flat is not None:
            what = f"{curve['cell'].upper()}: time per window from N = {FEW:,} to {MANY:,} flat"
            judge(what, 100 * flat, 100 * FLAT, " %")
    wrong = [s for name in CHECKED for r in results.get(name, []) for s in r["wrong"]]
    found += [(False, f"WRONG and not timed: {sentence}") for sentence in wrong]
    return found


def targets(results):
    """The verdicts as sentences, the missed ones first."""
    found = sorted(verdicts(results), key=lambda verdict: verdict[0])
    sentences = [sentence for _, sentence in found]
    busy = float(results["load_before"].split(",")[0]) > IDLE
    if busy:
        warning = "the machine was not idle before the run, so ratios to others mean little"
        sentences.insert(0, f"{warning}: load average {results['load_before']}")
    return sentences or ["none is for what was measured in this run"]


def page(results):
    """The whole page; sections that did not run are left out."""

    def text(*sentences):
        return ["", *textwrap.wrap(" ".join(sentences), 100)]

    lines = [
        "# Speed", "", f"Written by `{results['command']}` on {results['date']}.",
        *text(
            f"Machine: {results['machine']}. Threads: {results['threads']}. Load average before "
            f"the run {results['load_before']}, after it {results['load_after']}; a third party's "
            "work in between would show there. Ratios below 1 mean faster than the yardstick.",
        ),
        *text(
            "Before anything is timed, every contender does the very steps that will be timed, and "
            "is compared with the portable code in float64 from the same weights and data: the "
            f"loss to {LOSS_TOLERANCE:g}, each gradient to {GRADIENT_TOLERANCE:g} of its largest "
            f"entry, predictions to {PREDICTION_TOLERANCE:g}; and {UPDATES} updates must lower the "
            f"loss by the same amount (within {100 * FALL_TOLERANCE:g} %, for torch and Keras "
            "train a second bias). Times are medians of one process, in which all take turns.",
        ),
        "", "## Targets", "", *(f"- {sentence}" for sentence in targets(results)),
    ]  # fmt: skip
    if results["steps"]:
        picture = results["picture"] and results["picture"].replace(".png", "_steps.png")
        lines += ["", "## Training steps", ""]
        lines += [f"![Training steps]({picture})", ""] if picture else []
        lines += summary_table(results["steps"])
        lines += text(
            "A step is forward, backpropagation through time and Adam, on the full batch. `fit` is "
            "timed from one call of a callback to the next. *Products* are the matrix products of "
            "the step and nothing else, into arrays made beforehand, in the fastest of three ways "
            "(one thread, BLAS's own two, two threads that share the rows). *Best JAX* is the "
            "faster of the two networks written by hand around `lax.scan`. Kernels *numba* are "
            "what `fit` uses where numba is installed, *numpy* what it uses otherwise.",
        )
        for result in results["steps"]:
            heading = f"### {case_of(result)} ({result['flops'] / 1e9:.3f} GFLOP)"
            lines += ["", heading, "", *steps_table(result)]
            lines += text(*(f"{note}." for note in result["notes"])) if result["notes"] else []
        lines += ["", "## Beyond the gradient", "", *overheads_table(results["steps"])]
        lines += text("Shares of an epoch that are not spent in the loss and its gradient.")
    if results.get("sizes"):
        lines += ["", "## Sizes", "", *sizes_table(results["sizes"])]
        lines += text(
            "A step as above, by two threads each. Over hundreds of steps gradients fall below the "
            "normal numbers of float32, with which processors compute slowly. rnn_xp's kernels "
            "take such numbers for zero; torch does so only if `torch.set_flush_denormal` is "
            "called, which it is not here.",
        )
    if results["pieces"]:
        lines += ["", "## Pieces of a layer", "", *pieces_table(results["pieces"])]
    if results.get("options"):
        lines += ["", "## Options", "", *options_table(results["options"])]
        lines += text(
            "The loss and its gradient for one block of rows, on one thread, as multiples of the "
            "plain step of the same kernels; N = 1040 is a block of the reference workload. "
            "Lengths are uniform in [T/4, T]; a fifth of the steps is masked, of the states "
            "reset, and a fifth of the recurrent inputs dropped. Torch computes on one thread too.",
        )
    if results["inference"]:
        lines += ["", "## Inference", "", *inference_table(results["inference"])]
        lines += text("rnn_xp uses one thread here, the others two.")
        notes = dict.fromkeys(note for r in results["inference"] for note in r["notes"])
        lines += text(*(f"{note}." for note in notes)) if notes else []
    if results["scaling"]:
        picture = results["picture"]
        lines += ["", "## Scaling", *(["", f"![Scaling]({picture})"] if picture else [])]
        lines += scaling_tables(results["scaling"])
        lines += text(
            "Time per window of an epoch, and the peak of resident memory above its level with the "
            "data loaded, each curve in a process of its own. What does not vary is N = 1040, "
            "T = 10, H = 50.",
        )
    return "\n".join(lines) + "\n"
