"""What the runtimes that load ONNX make of our graphs: a table for docs/guide/interchange.md.

    python -m benchmarks.consumers                      # all, with a virtual environment for each
    python -m benchmarks.consumers --only openvino,tract --venvs DIR
    python -m benchmarks.consumers --only litert --late # again, but only what was not done in time

Every runtime is installed with a pinned version in a virtual environment of its own (4 GB in all,
of which LiteRT's converter takes 2.5), and every graph is run in a process of its own, because some
graphs end the process. The predictions are compared with `Network.forward`, at sizes other than
those of the export where these are open. Results are kept in ``benchmarks/results/consumers.json``,
runtime by runtime; the table between the marks in the page is written from all of them.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

import numpy as np

import rnn_xp as rx
from rnn_xp.interchange.example import error_of, make_example
from rnn_xp.interchange.onnx import to_onnx
from rnn_xp.interchange.runtimes import run_apart

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "consumers.json"
PAGE = ROOT / "docs" / "guide" / "interchange.md"
BEGIN, END = "<!-- consumers: begin -->\n", "<!-- consumers: end -->\n"

PINNED = {
    "onnxruntime": ["onnxruntime==1.32.0"],
    "onnx": ["onnx==1.23.2"],
    "openvino": ["openvino==2026.4.1"],
    "tract": ["tract==0.23.9"],
    "mnn": ["MNN==3.6.1"],
    "opencv": ["opencv-python-headless==5.0.0.93"],
    "tvm": ["apache-tvm==0.27.0.post1", "onnx==1.23.2"],
    "iree": ["iree-base-compiler==3.13.0", "iree-base-runtime==3.13.0", "onnx==1.23.2"],
    "litert": ["ai-edge-litert==2.1.0", "onnx2tf==1.29.24"],
}
SLOW = ("iree", "litert")  # which compile or convert for seconds: fewer graphs
SIZED = ("litert",)  # whose converter fixes all sizes

CELLS = {
    "tanh": {"cell": "rnn"},
    "relu": {"cell": "rnn", "activation": "relu"},
    "gru": {"cell": "gru"},
    "gru-before": {"cell": "gru", "reset_after": False},
    "lstm": {"cell": "lstm"},
}
OPEN, STEPS, FIXED = ((3, 5), (4, 2), (1, 7)), ((3, 5), (1, 5), (4, 5)), ((3, 5), (3, 5))
FORMS = {
    "native": ({"spelling": "native"}, OPEN),
    "native, sizes fixed": ({"spelling": "native", "rows": 3, "steps": 5}, FIXED),
    "portable": ({"spelling": "portable"}, OPEN),
    "loop": ({"spelling": "loop"}, OPEN),
    "portable, steps fixed": ({"spelling": "portable", "steps": 5}, STEPS),
    "portable, sizes fixed": ({"spelling": "portable", "rows": 3, "steps": 5}, FIXED),
}
OPTIONS = {"full": {}, "lengths": {"lengths": True}, "state": {"stateful": True}}
EVERY, DEEP = ((1, 1), (1, 2), (2, 1), (2, 2)), ((1, 1), (2, 2))  # layers and directions
PLAN = (
    ("native", "full", EVERY), ("native", "lengths", EVERY), ("native", "state", DEEP),
    ("native, sizes fixed", "full", DEEP), ("native, sizes fixed", "lengths", DEEP),
    ("portable", "full", EVERY), ("portable", "lengths", EVERY), ("portable", "state", DEEP),
    ("loop", "full", EVERY), ("loop", "lengths", EVERY), ("loop", "state", DEEP),
    ("portable, steps fixed", "full", DEEP), ("portable, steps fixed", "lengths", EVERY),
    ("portable, steps fixed", "state", DEEP),
    ("portable, sizes fixed", "full", DEEP), ("portable, sizes fixed", "lengths", DEEP),
)  # fmt: skip
BOUND = 1e-5


def examples(cell, layers, directions, option, sizes):
    """A network, its parameters, and examples of the given sizes."""
    many = {"topology": "many_to_many"} if directions == 2 else {}
    net = rx.Network(
        **CELLS[cell], input_size=2, hidden_size=3, output_size=2, num_layers=layers,
        bidirectional=directions == 2, **many,
    )  # fmt: skip
    rng = np.random.default_rng(layers + directions)
    params = {n: (0.5 * rng.standard_normal(s)).astype("f4") for n, s in net.shapes.items()}
    made = [
        make_example(net, params, rows=rows, steps=steps, seed=seed, **OPTIONS[option])
        for seed, (rows, steps) in enumerate(sizes)
    ]
    return net, params, made


def judge(runtime, python, cell, layers, directions, form, option, limit):
    """Export, run, compare: a number, or the words of a refusal."""
    options, sizes = FORMS[form]
    net, params, made = examples(cell, layers, directions, option, sizes)
    model = to_onnx(net, params, **options, **OPTIONS[option])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(model.SerializeToString())
        feeds, names = [each.inputs for each in made], list(made[0].outputs)
        try:
            outputs = run_apart(path, runtime, feeds, names, python=python, limit=limit)
            return max(map(error_of, outputs, made)), ""
        except RuntimeError as refusal:
            return None, str(refusal)


def install(runtime, folder):
    """Make the runtime's environment, unless it is there; return its interpreter."""
    python = folder / runtime / "bin" / "python"
    if not python.exists():
        venv.create(folder / runtime, with_pip=True)
        pip = [python, "-m", "pip", "install", "--quiet", "numpy>=1.26", *PINNED[runtime]]
        subprocess.run(pip, check=True)
    return str(python)


def is_late(row):
    return row["refusal"].startswith("did not end")


def measure(runtime, python, limit, before=()):
    """All graphs in one runtime that ``before`` has not got: a list of all rows."""
    names = ("form", "option", "cell", "layers", "directions")
    known, rows = {tuple(row[n] for n in names): row for row in before}, []
    for form, option, shapes in PLAN:
        if runtime in SIZED and not form.endswith("sizes fixed"):
            continue
        if runtime in SLOW:
            shapes = DEEP
        for cell, shape in itertools.product(CELLS, shapes):
            if (form, option, cell, *shape) in known:
                rows.append(known[form, option, cell, *shape])
                continue
            for _ in range(2):  # a machine that is busy with other things gets a second chance
                error, words = judge(runtime, python, cell, *shape, form, option, limit)
                if not words.startswith("did not end"):
                    break
            rows.append(
                {"form": form, "option": option, "cell": cell, "layers": shape[0],
                 "directions": shape[1], "error": error, "refusal": words[:160]}
            )  # fmt: skip
    return rows


def verdict(row):
    """One word for a row, or how far off it is."""
    if row["error"] is None:
        words = row["refusal"]
        if is_late(row):
            return "not in time"
        return "ends the process" if words == "ended the process" else "refused"
    return "equal" if row["error"] <= BOUND else "wrong"


def summary(rows):
    """The rows of one form and option in a few words."""
    if not rows:
        return ""
    kinds = {}
    for row in rows:
        kinds.setdefault(verdict(row), []).append(row)
    said = []
    for kind in ("equal", "wrong", "refused", "ends the process", "not in time"):
        group = kinds.get(kind, [])
        if not group:
            continue
        largest = max((row["error"] or 0.0 for row in group), default=0.0)
        number = f" {largest:.0e}" if kind == "equal" else f" by {largest:.1g}"
        text = kind + (number if kind in ("equal", "wrong") else "")
        if len(kinds) > 1:
            every = {cell: sum(row["cell"] == cell for row in rows) for cell in CELLS}
            counts = {cell: sum(row["cell"] == cell for row in group) for cell in CELLS}
            text += ": " + ", ".join(
                cell if counts[cell] == every[cell] else f"{cell} {counts[cell]}/{every[cell]}"
                for cell in CELLS if counts[cell]
            )  # fmt: skip
        said.append(text)
    return "; ".join(said)


def table(results):
    """The table in Markdown."""
    lines = [
        "| runtime | graph | full sequences | lengths | state |",
        "|---|---|---|---|---|",
    ]
    for runtime in (name for name in PINNED if name in results):
        rows = results[runtime]["rows"]
        first = True
        for form in FORMS:
            if not any(row["form"] == form for row in rows):
                continue
            cells = [
                summary([r for r in rows if (r["form"], r["option"]) == (form, option)])
                for option in OPTIONS
            ]
            named, first = f"{runtime} {results[runtime]['version']}" if first else "", False
            lines.append(f"| {named} | {form} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def write(results, page):
    """Keep the results, and put the table between the marks of the page."""
    lines = []  # a line for each graph
    for runtime, found in results.items():
        rows = ",\n  ".join(json.dumps(row) for row in found["rows"])
        version = json.dumps(found["version"])
        lines.append(f'{json.dumps(runtime)}: {{"version": {version}, "rows": [\n  {rows}]}}')
    RESULTS.write_text("{" + ",\n".join(lines) + "}\n", encoding="utf-8")
    text = page.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    page.write_text(f"{before}{BEGIN}{table(results)}{END}{after}", encoding="utf-8")


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", help="names of runtimes, separated by commas")
    parser.add_argument("--venvs", type=Path, help="folder for their environments")
    parser.add_argument("--limit", type=float, default=120.0, help="seconds for one graph")
    parser.add_argument("--late", action="store_true", help="only what was not done in time")
    args = parser.parse_args(argv)
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        for runtime in args.only.split(",") if args.only else PINNED:
            begin = time.perf_counter()
            try:
                python = install(runtime, args.venvs or Path(folder))
            except subprocess.CalledProcessError:
                print(f"{runtime} could not be installed", file=sys.stderr)
                continue
            before = results.get(runtime, {"rows": []})["rows"] if args.late else []
            in_time = [row for row in before if not is_late(row)]
            rows = measure(runtime, python, args.limit, in_time)
            version = PINNED[runtime][0].partition("==")[2]
            results[runtime] = {"version": version, "rows": rows}
            write(results, PAGE)
            took = time.perf_counter() - begin
            print(f"{runtime} {version}: {len(rows)} graphs in {took:.0f} s", flush=True)


if __name__ == "__main__":
    main()
