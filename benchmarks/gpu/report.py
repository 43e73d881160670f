"""The page and the picture, from the records alone."""

from __future__ import annotations

import textwrap

from benchmarks.cpu import GRADIENT_TOLERANCE, LOSS_TOLERANCE, SIZES, Case
from benchmarks.cpu.report import table
from benchmarks.gpu.benchmark import TF32_SLACK
from benchmarks.gpu.tiers import FUSED, NAMES
from rnn_xp.forecasting.looks import NETWORK

TORCH, GRAPH = "torch, eager", "torch, CUDA graph"
TITLES = {
    "environment": "Environment",
    "references": "References for the benchmark",
    "capture": "What CuPy does",
    "agreement": "Agreement with NumPy in float64",
    "sanitizer": "Sanitizer",
    "tests": "Tests on the device",
    "training": "The reference training",
    "products": "Products that a CUDA graph can record: µs",
    "layers": "Layers: µs of a step",
    "steps": "Steps: options, minibatches and second-order optimisers",
}
MOST_LINES = 30  # of a traceback


def failures(results):
    """All that does not hold, was wrong or failed: (section, record)."""
    return [
        (section["section"], record)
        for section in results["sections"]
        for record in section["records"]
        if record.get("holds") is False
    ]


# One colour for a library and one shape for each of its ways, both told apart by the colour-blind.
LIBRARY_COLORS = (NETWORK, "#0072B2", "#009E73", "#CC79A7")
LIBRARY_MARKERS = ("o", "s", "^", "D", "v")


def timed(results, tf32):
    """Case to name to the records of all rounds, in the order in which they came."""
    found = {}
    for section in results["sections"]:
        for record in section["records"]:
            if record.get("tf32") is tf32 and "wall" in record:
                case = Case(**record["case"])
                found.setdefault(case, {}).setdefault(record["name"], []).append(record)
    return found


def best(records):
    """The round with the smallest median."""
    return min(records, key=lambda record: record["wall"])


def number(value):
    """Three significant digits."""
    return "" if value is None else f"{value:,.0f}" if value >= 99.95 else f"{value:.3g}"


def verdicts(results):
    """Each target as (holds, sentence); those that were not measured are left out."""
    found, case = [], Case("rnn", *SIZES[0])
    rounds = timed(results, False).get(case, {})
    names = {name: best(records)["wall"] for name, records in rounds.items()}
    fused = min((wall for name, wall in names.items() if name.startswith(NAMES[FUSED])),
                default=None)  # fmt: skip

    def judge(what, value, limit, unit="", at_most=True):
        holds = value <= limit if at_most else value >= limit
        side = "at most" if at_most else "at least"
        found.append((holds, f"{what}: {number(value)}{unit}, {side} {limit:g}{unit}"))

    if fused is not None:
        judge(f"{case}: {NAMES[FUSED]}, an epoch", fused, 60.0, " µs")
        for peer, factor in ((TORCH, 5.0), (GRAPH, 1.5)):
            if peer in names:
                judge(f"{case}: {peer} ÷ fused engine", names[peer] / fused, factor, "", False)
    for section in results["sections"]:
        for record in section["records"]:
            if section["section"] == "training" and "value" in record:
                found.append((record["holds"], f"{record['what']}: {record['value']:.4f}"))
    return found


def times_tables(results, tf32):
    """A table for each case, the fastest first."""
    lines = []
    for case, names in timed(results, tf32).items():
        ordered = sorted(names.items(), key=lambda entry: best(entry[1])["wall"])
        eager = best(names[TORCH])["wall"] if TORCH in names else None
        rows = []
        for name, records in ordered:
            chosen = best(records)
            rounds = " / ".join(number(record["wall"]) for record in records)
            spread = f"{number(chosen['p10'])} to {number(chosen['p90'])}"
            ratio = f"{eager / chosen['wall']:.2f}" if eager else ""
            shown = (number(chosen[key]) for key in ("wall", "device"))
            rows.append([name, *shown, rounds, spread, ratio])
        headings = (
            "", "µs", "on the device", "each round", "p10 to p90", "times as fast as torch eager",
        )  # fmt: skip
        lines += ["", f"### {case}", "", *table(headings, rows)]
    return lines


def state(record):
    """A word or two on a record."""
    if "holds" not in record:
        return record.get("note", "")
    return "holds" if record["holds"] else "**does not hold**"


def section_lines(section):
    """The records of a section as a table, without tracebacks."""
    known = ("what", "holds", "error", "note", "case", "name", "library", "tf32", "round")
    rows = []
    for record in section["records"]:
        shown = {key: value for key, value in record.items() if key not in known}
        text = ", ".join(
            f"{value}" if key in ("value", "detail") else f"{key} {short(value)}"
            for key, value in shown.items()
        )
        row = [record["what"], state(record), text.replace("\n", " ")]
        rows.append([cell.replace("|", "\\|") for cell in row])
    head = f"{section['status']}, {section['seconds']:.0f} s"
    return ["", f"({head})", "", *table(("", "", ""), rows)]


def short(value):
    return f"{value:.3g}" if isinstance(value, float) else f"{value}"


def page(results):
    """The whole page."""

    def text(*sentences):
        return ["", *textwrap.wrap(" ".join(sentences), 100)]

    found = failures(results)
    lines = ["# On a GPU", "", f"Written by `{results['command']}` on {results['date']}."]
    if results["dry"]:
        lines += text("**A dry run on the CPU with stand-ins: no number here is a GPU's.**")
    judged = [f"- {'holds' if holds else 'MISSED'}: {what}" for holds, what in verdicts(results)]
    lines += ["", "## Targets", "", *(judged or ["None was measured."])]
    if found:
        lines += ["", f"{len(found)} of the records below do not hold; see *What failed*."]
    for tf32, title in (
        (False, "FP32, TF32 off for all"),
        (True, "TF32 on where there is a choice"),
    ):
        tables = times_tables(results, tf32)
        if tables:
            lines += ["", f"## An epoch: {title}", *tables]
    if timed(results, False):
        lines += text(
            "An epoch is forward, backpropagation through time and Adam on the full batch. A",
            "sample is as many epochs as last 50 ms with one wait at the end; given is the round",
            "with the smallest median, by the clock and between two events on the device. Each",
            "library has a process of its own in each round, in which its contenders follow each",
            "other. rnn_xp's losses are read every 10 epochs, as by `fit`, or every 100. Before it",
            "is timed each contender is compared with NumPy in float64: the loss to",
            f"{LOSS_TOLERANCE:g}, gradients to {GRADIENT_TOLERANCE:g} of their largest entry (with",
            f"TF32 {TF32_SLACK:g} times that), and the fall of the loss. At the reference size all",
            "that an epoch touches stays in the GPU's second-level cache.",
        )
        if results["picture"]:
            lines += ["", f"![Times of an epoch]({results['picture']})"]
    for section in results["sections"]:
        if section["section"] in TITLES:
            lines += ["", f"## {TITLES[section['section']]}", *section_lines(section)]
    lines += left_out(results)
    if found or any(section["error"] for section in results["sections"]):
        lines += ["", "## What failed"]
    for where, record in found:
        said = record.get("error") or record.get("wrong") or record.get("detail") or ""
        lines += ["", f"### {where}: {record['what']}", "", *code(said)]
    for section in results["sections"]:
        if section["error"]:
            lines += ["", f"### The section {section['section']}: {section['status']}", ""]
            lines += code(section["error"])
    return "\n".join(lines) + "\n"


def left_out(results):
    """What the benchmark did not time, each reason once."""
    notes = {}
    for section in results["sections"]:
        for record in section["records"]:
            if "tf32" in record and "wall" not in record and record.get("holds") is not False:
                reason = record.get("note", "not timed")
                case = str(Case(**record["case"])) if "case" in record else record["what"]
                names = notes.setdefault((reason, case), [])
                names += [record["name"]] if "name" in record else []
    found = {  # what another round has timed is not missing
        (str(case), name) for tf32 in (False, True) for case, names in timed(results, tf32).items()
        for name in names
    }  # fmt: skip
    rows = []
    for (reason, case), names in notes.items():
        missing = dict.fromkeys(name for name in names if (case, name) not in found)
        if missing or not names:
            rows.append([case, "; ".join(missing), reason])
    return ["", "## Not timed", "", *table(("", "", ""), rows)] if rows else []


def code(text):
    lines = str(text).strip().splitlines()
    return ["```", *lines[-MOST_LINES:], "```"]


def draw(results, path):
    """Times of an epoch in all cases, a row of points for each; False without matplotlib."""
    try:
        import matplotlib
    except ImportError:
        return False
    matplotlib.use("Agg")
    from matplotlib import pyplot

    found = timed(results, False)
    if not found:
        return False
    names = list(dict.fromkeys(name for each in found.values() for name in each))
    figure, axes = pyplot.subplots(figsize=(11, 1.5 + 0.5 * len(found)), layout="constrained")
    libraries = list(dict.fromkeys(name.partition(",")[0] for name in names))
    for name in names:
        library = name.partition(",")[0]
        number = libraries.index(library)
        ways = [each for each in names if each.partition(",")[0] == library]
        shift = 0.22 * (number - (len(libraries) - 1) / 2)  # a line of its own for each library
        at = [row + shift for row, each in enumerate(found.values()) if name in each]
        walls = [best(each[name])["wall"] for each in found.values() if name in each]
        axes.plot(
            walls, at, LIBRARY_MARKERS[ways.index(name) % len(LIBRARY_MARKERS)], label=name,
            color=LIBRARY_COLORS[number % len(LIBRARY_COLORS)], markersize=6,
            markerfacecolor="none",
        )  # fmt: skip
    axes.set(xscale="log", xlabel="µs of an epoch, FP32; lower is better", yticks=range(len(found)))
    axes.set_title("Time of a training epoch, rnn_xp and the contenders")
    for row in range(len(found) - 1):
        axes.axhline(row + 0.5, color="0.85", linewidth=0.8)
    axes.set_yticklabels([str(case) for case in found])
    axes.invert_yaxis()
    axes.grid(axis="x", which="both", alpha=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize="small")
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
    return True
