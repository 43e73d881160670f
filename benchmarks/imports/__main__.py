"""Import files that other libraries make, and compare the predictions.

    python -m benchmarks.imports                    with every library that is installed
    python -m benchmarks.imports --only torch,onnx --folder files
    python -m benchmarks.imports --out benchmarks/results/imports.md

Each library runs in a process of its own, writes its files and predicts. Then each file is loaded
here: predictions agree to 1e-6 (1e-12 in float64, 1e-5 for graphs of ONNX; relative, to 1 at
least), or the file is refused by the name of what has no place here. Exits with 1 otherwise.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.imports.cases import read
from benchmarks.imports.facts import EXPECTED
from benchmarks.machine import some_of
from rnn_xp.checkpoint import CheckpointError
from rnn_xp.interchange import load

MAKERS = {  # name: module, packages it needs, environment
    "torch": ("torch_files", ["torch"], {}),
    "keras-jax": ("keras_files", ["keras", "jax"], {"KERAS_BACKEND": "jax"}),
    "keras-torch": ("keras_files", ["keras", "torch"], {"KERAS_BACKEND": "torch"}),
    "tf.keras": ("tf_files", ["tf-keras"], {}),
    "jax": ("jax_files", ["flax", "equinox"], {"JAX_PLATFORMS": "cpu"}),
    "mlx": ("mlx_files", ["mlx"], {}),
    "paddle": ("paddle_files", ["paddlepaddle"], {}),
    "onnx": ("onnx_files", ["onnxscript", "onnxruntime"], {}),
}
SHOWN = [
    *("torch", "lightning", "keras", "jax", "tf-keras", "flax", "equinox", "mlx", "paddlepaddle"),
    *("onnx", "onnxscript", "tf2onnx", "onnxruntime"),
]


def version(package):
    """Return the version of an installed package, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def make(name, folder):
    """Let a library write its files; return what it said if it failed."""
    module, needed, settings = MAKERS[name]
    if missing := [package for package in needed if version(package) is None]:
        return f"{', '.join(missing)} is not installed"
    code = f"from benchmarks.imports import {module}; {module}.make({str(folder)!r})"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **settings},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return "" if done.returncode == 0 else f"failed: {done.stderr.strip().splitlines()[-1]}"


def judge(case, folder):
    """Load a file; return True if all is well, and the result in words."""
    path = Path(folder, case.file)
    try:
        loaded = load(path, **case.hints)
    except CheckpointError as error:
        text = str(error).removeprefix(f"{path}: ")
        return bool(case.refused) and case.refused in text, f"refused: {text}"
    if case.refused:
        return False, f"taken, though {case.refused!r} was expected"
    expected = np.load(f"{path}.expected.npz")
    net, params, _ = loaded
    x = expected["x"].astype(params["readout.w_hy"].dtype)
    if net.input_size != x.shape[2]:
        return False, f"{net.input_size} inputs"
    pred = np.asarray(net.forward(params, x)[0])
    if pred.shape != expected["pred"].shape:
        return False, f"predicts {pred.shape}"
    size = max(1.0, float(np.abs(expected["pred"]).max()))
    error = float(np.abs(pred - expected["pred"]).max()) / size
    limit = 1e-5 if path.suffix == ".onnx" else 1e-12 if pred.dtype == np.float64 else 1e-6
    if error <= limit:
        return True, f"equal to {error:.0e}" if error else "equal"
    return False, f"differs by {error:.0e}"


def measure():
    """Return the lines of what layers do that no array shows, and how many are not as expected."""
    lines, wrong = [], 0
    for name, expected in EXPECTED.items():
        package = {"paddle": "paddlepaddle", "onnx": "onnxruntime"}.get(name, name)
        if version(package) is None:
            continue
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.imports.facts", name],
            env={**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        facts = tuple(json.loads(done.stdout.splitlines()[-1]))
        wrong += facts != expected
        shown = " | ".join(facts) if facts == expected else f"WRONG: {facts}, not {expected}"
        lines.append(f"| {package} {version(package)} | {shown} |")
    head = ["", "## What no array shows", "", "Measured on layers of each library.", ""]
    head += ["| library | forget bias at the start | outputs in the padding | the reverse starts |"]
    return [*head, "|---|---|---|---|", *lines], wrong


def table(folder, problems):
    """Return the lines of the result, and the number of files that are not as they should be."""
    wrong, rows, counts = 0, [], {"equal": 0, "refused": 0}
    for case in read(folder):
        ok, words = judge(case, folder)
        wrong += not ok
        counts["refused" if words.startswith("refused") else "equal"] += ok
        suffix = "".join(Path(case.file).suffixes[-2:])
        shown = words if ok else f"WRONG: {words}"
        rows.append(f"| {case.maker} | {case.about} | {suffix} | {shown} |")
    versions = ", ".join(f"{name} {version(name)}" for name in SHOWN if version(name))
    head = [
        "# Models of other libraries, imported", "",
        "Written by `python -m benchmarks.imports --out benchmarks/results/imports.md`. Each file",
        "was made by the library itself. \"equal to\" is the largest difference of predictions,",
        "relative to the largest of them and at least to 1.", "",
        f"{len(rows)} files: {counts['equal']} equal, {counts['refused']} refused by name, "
        f"{wrong} wrong.", "", f"Versions: {versions}.",
        *(f"Not made: {name}, {why}." for name, why in problems.items()), "",
        "| library | model | file | result |", "|---|---|---|---|",
    ]  # fmt: skip
    return [*head, *rows], wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", type=some_of(list(MAKERS)), default=list(MAKERS))
    parser.add_argument("--folder", type=Path, help="keep the files here")
    parser.add_argument("--out", type=Path, help="write the table to this file")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        problems = {name: why for name in args.only if (why := make(name, folder))}
        lines, wrong = table(folder, problems)
    more, others = measure()
    lines, wrong = lines + more, wrong + others
    if args.out:
        args.out.write_text("\n".join(lines) + "\n")
    print("\n".join(lines if not args.out else lines[6:7]))
    failed = [name for name, why in problems.items() if why.startswith("failed")]
    return 1 if wrong or failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
