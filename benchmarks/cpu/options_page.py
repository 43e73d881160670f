"""Table and verdicts of the section on options, from the results alone."""

from __future__ import annotations

from benchmarks.cpu.options import BASES, TORCH_PACKED, TORCH_PLAIN, Case
from benchmarks.cpu.timing import median

__all__ = ["options_table", "options_verdicts"]

KINDS = {"numpy": "NumPy kernels", "numba": "compiled kernels"}
MOST, RAGGED, PACKED = 1.3, 0.8, 0.5  # times a plain step, with lengths, and of torch packed


def case_of(result):
    names = ("cell", "N", "T", "I", "H", "layers", "directions")
    return Case(*(result[name] for name in names))


def ratios(result, kind):
    """Each option as a multiple of its base; lengths also of torch's packed sequences."""
    found = {name: median(taken) for name, taken in result["times"].items()}
    pairs = {option: (f"{kind}, {option}", f"{kind}, {base}") for option, base in BASES.items()}
    made = {
        option: found[mine] / found[base]
        for option, (mine, base) in pairs.items()
        if mine in found and base in found
    }
    for what, torch in (("lengths", TORCH_PACKED), ("plain", TORCH_PLAIN)):
        if torch in found and f"{kind}, {what}" in found:
            made[torch] = found[f"{kind}, {what}"] / found[torch]
    return made


def options_table(results):
    columns = [*BASES, TORCH_PACKED, TORCH_PLAIN]
    rows = []
    for result in results:
        for kind in KINDS:
            made = ratios(result, kind)
            if made:
                plain = 1e3 * median(result["times"][f"{kind}, plain"])
                cells = [f"{made[name]:.2f}" if name in made else "" for name in columns]
                rows.append([str(case_of(result)), kind, f"{plain:.3g}", *cells])
    options = [
        option if base == "plain" else f"{option} ÷ {base}" for option, base in BASES.items()
    ]
    headings = ["", "kernels", "plain, ms", *options, "lengths ÷ torch packed", "plain ÷ torch"]
    lines = [headings, ["---", "---", *["---:"] * (len(headings) - 2)], *rows]
    return [f"| {' | '.join(line)} |" for line in lines]


def options_verdicts(results):
    """The worst case of each kind of kernels and option: (what, ratio, the most it may be)."""
    for kind, words in KINDS.items():
        for name in [*BASES, TORCH_PACKED]:
            made = [(ratios(result, kind), case_of(result)) for result in results]
            known = [(found[name], case) for found, case in made if name in found]
            if known:
                value, case = max(known, key=lambda entry: entry[0])
                limit = {"lengths": RAGGED, TORCH_PACKED: PACKED}.get(name, MOST)
                what = (
                    "lengths ÷ torch, packed" if name == TORCH_PACKED else f"{name} ÷ {BASES[name]}"
                )
                yield f"{words}, {what}, worst of {len(known)} ({case})", value, limit
