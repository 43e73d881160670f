"""What each array library can do here: python -m benchmarks.libraries --out docs/guide/libraries.md

Every row is probed in a process of its own, by `rnn_xp.backends(probe=x)`: tiny networks beside
NumPy, and their gradients against the complex step. A library that is not installed has a row that
says so. `make libraries` installs them first.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import rnn_xp as rx
from benchmarks.foreign_arrays import FOREIGN, HOST, make
from rnn_xp.backend import BackendError, backend_of, get_backend, to_numpy
from rnn_xp.backend.adapters import ADAPTERS

ROOT = Path(rx.__file__).parents[1]
INTEL = Path(sys.prefix, "lib", "libintelocl.so")
LIMIT = 900  # seconds for a row


class Row(NamedTuple):
    """A library, a device of it, and what to set before it is imported."""

    module: str
    device: str = ""
    environment: dict[str, str] = {}  # noqa: RUF012
    spec: str = ""  # the version of the standard that array-api-strict is told to hold to


X64, CPU = {"JAX_ENABLE_X64": "1"}, {"JAX_PLATFORMS": "cpu"}
TWO = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
ROWS = {
    "NumPy": Row("numpy"),
    "array-api-strict": Row("array_api_strict", "CPU_DEVICE"),
    "array-api-strict, device1": Row("array_api_strict", "device1"),
    "array-api-strict, no_float64": Row("array_api_strict", "no_float64"),
    "array-api-strict, no_x64": Row("array_api_strict", "no_x64"),
    "array-api-strict, 2023.12": Row("array_api_strict", "CPU_DEVICE", spec="2023.12"),
    "array-api-strict, 2025.12": Row("array_api_strict", "CPU_DEVICE", spec="2025.12"),
    "PyTorch": Row("torch", "cpu"),
    "JAX": Row("jax", "cpu", X64 | CPU),
    "JAX without x64": Row("jax", "cpu", CPU),
    "JAX, second CPU device": Row("jax", "cpu:1", X64 | CPU | TWO),
    "dpnp": Row("dpnp", "cpu"),
    "MLX": Row("mlx", "cpu"),
    "Dask": Row("dask.array"),
    "Cubed": Row("cubed.array_api"),
    "ndonnx": Row("ndonnx"),
    "sparse": Row("sparse"),
    "Blosc2": Row("blosc2"),
    "CuPy": Row("cupy"),
}
STEPS = ("forward", "value_and_grad", "vjp", "fit", "gradient check")


# In the process of a row


def arrays(row: Row, dtype: str) -> Any:
    """Return an array of the row's library in a dtype, or None if its device has none."""
    if row.module in ADAPTERS:
        try:
            return get_backend(row.module, device=row.device or None, dtype=dtype).asarray([0.0])
        except BackendError as error:
            if f"has no {dtype}" in str(error):
                return None
            raise
    return importlib.import_module(row.module).asarray(np.zeros(1, dtype))


def jitted(row: Row) -> str:
    """Compile a gradient by the library's own means, and compare it with the one that is not."""
    compilers: dict[str, Callable[[], Callable[..., Any]]] = {
        "jax": lambda: importlib.import_module("jax").jit,
        "torch": lambda: importlib.import_module("torch").compile,
        "mlx": lambda: importlib.import_module("mlx.core").compile,
    }
    if row.module not in compilers:
        return "none"
    backend = get_backend(row.module, device=row.device, dtype="float32")
    net = rx.Network(hidden_size=4)
    params = net.init(0, backend)
    x, y = backend.asarray(np.ones((3, 2, 1))), backend.asarray(np.ones((3, 1)))
    try:
        got = compilers[row.module]()(net.value_and_grad)(params, x, y)[1]
    except Exception as error:
        return f"{type(error).__name__}"
    want = net.value_and_grad(params, x, y)[1]
    error = max(
        float(
            np.max(np.abs(to_numpy(got[k]) - to_numpy(want[k])) / np.max(np.abs(to_numpy(want[k]))))
        )
        for k in want
    )
    return f"{error:.0e}" if error <= 2e-5 else f"wrong by {error:.0e}"


def distance(got: np.ndarray, want: np.ndarray) -> float:
    return float(np.max(np.abs(got - want)) / np.max(np.abs(want)))


def measure(row: Row) -> dict[str, Any]:
    """Return what a row of the table shows."""
    warnings.simplefilter("ignore")
    if row.spec:
        strict = importlib.import_module("array_api_strict")
        strict.set_array_api_strict_flags(api_version=row.spec)
    found: dict[str, Any] = {"version": "", "devices": [], "jit": "none", "probes": {}}
    for dtype in ("float64", "float32"):
        array = arrays(row, dtype)
        if array is None:
            continue
        probe = rx.backends(probe=array)
        found["version"] = probe.version
        found["device"] = probe.device
        found["probes"][dtype] = {
            "works": {name: outcome.error for name, outcome in probe.outcomes.items()},
            "reasons": {name: outcome.reason for name, outcome in probe.outcomes.items()},
            "missing": probe.missing,
            "functions": len(probe.functions),
        }
    if row.module in ADAPTERS:
        status = {status.name: status for status in rx.backends()}[row.module]
        found["devices"] = list(status.devices)
    found["jit"] = jitted(row)
    return found


# In the first process


def collect(names: list[str], folder: Path | None) -> dict[str, Any]:
    """Return the rows; those that a folder has already are taken from there."""
    results = {}
    for name in names:
        kept = None if folder is None else folder / f"{name}.json"
        if kept is not None and kept.exists():
            results[name] = json.loads(kept.read_text(encoding="utf-8"))
            continue
        results[name] = ask(name)
        if kept is not None:
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text(json.dumps(results[name]), encoding="utf-8")
        print(f"{name}: {results[name].get('failed', 'done')}", file=sys.stderr, flush=True)
    return results


def ask(name: str) -> dict[str, Any]:
    """Measure a row in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **ROWS[name].environment}
    environment["RNN_XP_BACKEND"] = environment["RNN_XP_DEVICE"] = ""
    if INTEL.exists():
        environment.setdefault("OCL_ICD_FILENAMES", str(INTEL))
    command = [sys.executable, "-m", "benchmarks.libraries", "--row", name]
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=LIMIT, cwd=ROOT
        )
    except subprocess.TimeoutExpired:
        return {"failed": f"no answer within {LIMIT} s"}
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        return {"failed": lines[-1].partition(": ")[2] or lines[-1]}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def cell(found: dict[str, Any], step: str) -> str:
    """Return the errors in float64 and float32 of a step, or a dash and the number of a note."""
    shown = []
    for dtype in ("float64", "float32"):
        probe = found["probes"].get(dtype)
        if probe is not None:
            works = not probe["reasons"][step]
            shown.append(f"{probe['works'][step]:.0e}" if works else "no")
        else:
            shown.append("-")
    return " / ".join(shown) if len(set(shown)) > 1 else shown[0]


def table(results: dict[str, Any]) -> Iterator[str]:
    heads = ("library", "version", *STEPS, "functions", "jit", "devices here")
    yield "| " + " | ".join(heads) + " |"
    yield "|---" * len(heads) + "|"
    for name, found in results.items():
        if "failed" in found:
            yield f"| {name} | not usable here |" + " |" * (len(heads) - 2)
            continue
        probe = next(iter(found["probes"].values()))
        usable = f"{probe['functions'] - len(probe['missing'])} of {probe['functions']}"
        devices = ", ".join(found["devices"]) or found["device"]
        steps = [cell(found, step) for step in STEPS]
        shown = [name, found["version"], *steps, usable, found["jit"], devices]
        yield f"| {' | '.join(shown)} |"


def notes(results: dict[str, Any]) -> Iterator[str]:
    for name, found in results.items():
        if "failed" in found:
            yield f"- **{name}**: {found['failed'].replace(str(Path(sys.prefix)), '...')}"
            continue
        where: dict[str, dict[str, list[str]]] = {}  # by reason and step or function, the dtypes
        for dtype, probe in found["probes"].items():
            missing = {f"`{function}`": why for function, why in probe["missing"].items()}
            for what, reason in (probe["reasons"] | missing).items():
                if reason:
                    where.setdefault(reason, {}).setdefault(what, []).append(dtype)
        if "float64" not in found["probes"]:
            yield f"- **{name}** has no float64 here."
        for reason, whats in where.items():
            shown = [
                what if len(dtypes) == len(found["probes"]) else f"{what} ({dtypes[0]})"
                for what, dtypes in whats.items()
            ]
            yield f"- **{name}**: {', '.join(shown)}: {reason}"


def foreign_table() -> Iterator[str]:
    """Give every kind of object to a network and to a training, and show the answers."""
    net, targets = rx.Network(hidden_size=3), HOST[:, -1]
    yield "| given | `net.forward` | `rx.fit` | give instead |"
    yield "|---|---|---|---|"
    probed = {row.module for row in ROWS.values()} - set(ADAPTERS)
    for kind, foreign in FOREIGN.items():
        if foreign.library in probed:  # the table above says more
            continue
        try:
            _, x = make(kind)
        except Exception as error:  # not installed, or not for this machine
            reason = "not installed" if isinstance(error, ModuleNotFoundError) else "does not load"
            yield f"| {kind} | {reason} | {reason} | {foreign.remedy} |"
            continue
        try:
            params = net.init(0, backend_of(x))
        except TypeError:
            params = net.init(0, get_backend())
        forward = answer(lambda params=params, x=x: net.forward(params, x))
        adam = rx.optim.adam()
        fit = answer(lambda x=x, o=adam: rx.fit(net, x, targets, optimizer=o, epochs=1))
        yield f"| {kind} | {forward} | {fit} | {foreign.remedy} |"


def answer(call: Callable[[], Any]) -> str:
    """Return "works", or the first sentence of the error."""
    try:
        call()
    except (TypeError, ValueError) as error:
        said = str(error).partition(". ")[0].splitlines()[0].rstrip(".")
        return f"{type(error).__name__}: {said.replace('|', '/')}"
    return "works"


PAGE = """# What each array library can do

Written by `make libraries` (`python -m benchmarks.libraries`) on {system}, Python {python}: every
row is what `rnn_xp.backends(probe=x)` answered on that library, in a process of its own. Write no
number here by hand.

    rnn-xp backends --probe dask.array      # the same for one library, with all reasons
    probe = rx.backends(probe=x)            # in Python: probe.works, probe.missing, print(probe)

`forward`, `value_and_grad`, `vjp` and `fit` (two epochs of Adam) show the largest difference to
NumPy on RNN, GRU and LSTM, relative to the largest entry of each array, in float64 / float32;
`gradient check` the largest error against the complex step, which runs on NumPy in double
precision whatever the library is. A step works if its error is at most 1e-12 in float64 and 2e-5
in float32; otherwise it says no, and the reason is below. `functions` counts those of the
standard that are used anywhere in the package, each tried beside NumPy; `jit` is the error of a
gradient that was compiled by the library's own compiler.

{table}

`no_float64`, `no_x64` and `device1` of array-api-strict stand in for accelerators that are not
here; the dates are versions of the standard that it is told to hold to.

## What is missing, and why

{notes}

## Libraries without an adapter

NumPy, CuPy, PyTorch, JAX, dpnp, MLX and array-api-strict have an
[adapter](extending.md), and a name in `RNN_XP_BACKEND`. Arrays of any other library
that name an Array API namespace are computed with as they are. `fit` probes such a library first,
once for each device and dtype of a process (a second for Dask, ten or more for Cubed and ndonnx),
trains on what passes, and refuses what does not by the words of the probe. Weights, sums and
results then are arrays of that library, whose laziness stays its own: Dask and Cubed compute when
a loss is read.

## What is no array to compute with

Each is given to a network and to a training. Data of the host (lists, tables, series, labelled
arrays) train after conversion; nothing is converted in the middle of a computation.

{foreign}
"""


def page(results: dict[str, Any]) -> str:
    system = f"{platform.system()} ({platform.machine()})"
    warnings.simplefilter("ignore")
    return PAGE.format(
        system=system,
        python=platform.python_version(),
        table="\n".join(table(results)),
        notes="\n".join(notes(results)),
        foreign="\n".join(foreign_table()),
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, help="file to write; the page is printed by default")
    parser.add_argument("--only", nargs="+", choices=[*ROWS], help="these rows")
    parser.add_argument("--keep", type=Path, help="folder in which rows are kept for the next time")
    parser.add_argument("--row", choices=[*ROWS], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.row:
        print(json.dumps(measure(ROWS[args.row])))
        return 0
    text = page(collect(args.only or [*ROWS], args.keep))
    if args.out:
        args.out.write_text(text, encoding="utf-8")
    else:
        print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
