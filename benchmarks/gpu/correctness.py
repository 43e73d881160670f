"""What rnn_xp computes on the GPU, against NumPy in float64; the device's tests; the sanitizer."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import rnn_xp as rx
from benchmarks.gpu import attempt
from benchmarks.gpu.tiers import FUSED, KERNELS, NAMES, PORTABLE, make_engine

EPOCHS = 20
TOLERANCES = {"float32": 1e-4, "float64": 1e-10}  # of each epoch's loss
NETWORKS = {  # the network, and the loss where it is not mse
    "rnn": ({"cell": "rnn"}, "mse"),
    "rnn, relu": ({"cell": "rnn", "activation": "relu"}, "mse"),
    "gru": ({"cell": "gru"}, "mse"),
    "lstm": ({"cell": "lstm"}, "mse"),
    "rnn, every step": ({"cell": "rnn", "topology": "many_to_many"}, "mse"),
    "gru, every step, classes": ({"cell": "gru", "topology": "many_to_many"}, "cross_entropy"),
    "lstm, two layers, two directions": (
        {"cell": "lstm", "num_layers": 2, "bidirectional": True}, "mse",
    ),
    "gru, layer norm": ({"cell": "gru", "layer_norm": True}, "mse"),
}  # fmt: skip
# N, T, I, H, O; of the fused engine a block has 4 rows, 2 and 64
SIZES = {"N = 500": (500, 10, 2, 50, 3), "N = 65": (65, 7, 1, 7, 2), "N = 5000": (5000, 4, 1, 7, 2)}
DRY_SIZES = {"N = 9": (9, 4, 2, 3, 2)}
SMALL, DRY_SMALL = (200, 10, 1, 50, 1), (9, 4, 1, 3, 1)
WIDE = (40, 4, 1, 136, 1)  # in clusters of blocks, of which the last is not full
RMSE_LIMIT = 1.02
TOOLS = ("memcheck", "racecheck")
SANITIZER = "compute-sanitizer"
FAULT = 9  # what the sanitizer shall exit with if it finds something


def problem(options, loss, size):
    """A network with data on the host."""
    N, T, I, H, O = size  # noqa: E741
    net = rx.Network(input_size=I, hidden_size=H, output_size=O, **options)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((N, T, I))
    lead = (N, T) if net.topology == "many_to_many" else (N,)
    classes = loss == "cross_entropy"
    return net, x, rng.integers(0, O, lead) if classes else rng.standard_normal((*lead, O))


def losses(tier, net, backend, x, y, loss, epochs=EPOCHS):
    """Losses of some epochs from the same weights."""
    optimizer = rx.optim.adam(0.01)
    engine = make_engine(tier, net, backend, x, y, loss, optimizer)
    params = net.init(0, backend)
    _, _, values = engine.run(params, optimizer.init(params), epochs)
    return backend.to_numpy(values)


def agreement(place):
    """Twenty epochs of Adam in every way, compared loss by loss."""
    host = rx.get_backend("numpy", dtype="float64")

    def compare(tier, dtype, expected, *args):
        found = losses(tier, args[0], place.backend(dtype), *args[1:])
        error = float(np.max(np.abs(found - expected) / expected))
        return {"error_of_loss": error, "holds": error <= TOLERANCES[dtype]}

    for size_name, size in (DRY_SIZES if place.dry else SIZES).items():
        for name, (options, loss) in NETWORKS.items():
            net, x, y = problem(options, loss, size)
            expected = losses(PORTABLE, net, host, x, y, loss)
            for tier, label in NAMES.items():
                for dtype in ("float32",) if tier == FUSED else ("float32", "float64"):
                    what = f"{label}, {dtype}: {name}, {size_name}"
                    yield attempt(what, compare, tier, dtype, expected, net, x, y, loss)


def small(place):
    """Two epochs in every way, at a size that a sanitizer is through with soon."""
    if not place.dry:
        place.cupy.cuda.set_allocator(None)  # a pool would hide what is beyond an array

    def work(tier, options, size=SMALL):
        net, x, y = problem(options, "mse", DRY_SMALL if place.dry else size)
        found = losses(tier, net, place.backend(), x, y, "mse", epochs=2)
        return {"holds": bool(np.isfinite(found).all())}

    for tier, label in NAMES.items():
        for cell in ("rnn", "gru", "lstm"):
            yield attempt(f"{label}: {cell}", work, tier, {"cell": cell})
    for cell in ("rnn", "gru", "lstm"):
        for norm in (False, True):
            options = {"cell": cell, "layer_norm": norm}
            what = f"{NAMES[KERNELS]}: {cell}, wide" + (", layer norm" if norm else "")
            yield attempt(what, work, KERNELS, options, WIDE)


def find_sanitizer():
    """Where the tool is: on the path, with CUDA, or in a package; None if nowhere."""
    folders = ["/usr/local/cuda/bin", *(f"{path}/nvidia/cu13/bin" for path in sys.path)]
    return shutil.which(SANITIZER) or next(
        (found for folder in folders if (found := shutil.which(SANITIZER, path=folder))), None
    )


def sanitizer(place, command, seconds):
    """The small case under the sanitizer; ``command`` runs it."""
    tool, end = find_sanitizer(), time.perf_counter() + seconds

    def check(name):
        limit = max((end - time.perf_counter()) / (len(TOOLS) - TOOLS.index(name)), 1.0)
        options = ["--tool", name, "--error-exitcode", str(FAULT)]
        try:
            ran = subprocess.run([tool, *options, *command], capture_output=True, text=True,
                                 timeout=limit)  # fmt: skip
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"{name} was not done after {limit:.0f} s") from None
        lines = [line for line in ran.stdout.splitlines() if line.startswith("=========")]
        return {"holds": ran.returncode == 0, "detail": "\n".join(lines[-20:]) or ran.stderr[-500:]}

    for name in TOOLS:
        if tool is None:
            yield {"what": name, "note": f"{SANITIZER} is not there"}
        else:
            yield attempt(name, check, name)


def tests(place, seconds):
    """The test suite's tests that need a device; what had been done when time was out counts."""
    only = ["tests/forecasting/test_metrics.py"] if place.dry else ["-m", "device"]
    plugins = ["-p", "no:cacheprovider", "-p", "_hypothesis_pytestplugin"]
    if not place.dry and importlib.util.find_spec("xdist") is not None:
        plugins += ["-p", "xdist.plugin", "-n", "4"]
    command = [sys.executable, "-m", "pytest", "-v", "--tb=short", *plugins,
               "--continue-on-collection-errors", *only]  # fmt: skip
    # What else is installed there may bring plugins, whose warnings would be errors here.
    alone = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=alone)
        try:
            process.wait(seconds)
            note = {}
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            note = {"note": f"stopped after {seconds:.0f} s"}
        output.seek(0)
        yield {"what": " ".join(["pytest", *only]), **summary(output.read()), **note}


def summary(text):
    """How many tests passed, failed and were skipped, and what pytest says of those that failed."""
    words = "PASSED|FAILED|ERROR|SKIPPED"
    alone = re.findall(rf"^(\S+::.*?) ({words})\b", text, re.MULTILINE)
    parallel = re.findall(rf"^\[gw\d+\] .*?\b({words}) (\S+::.*)$", text, re.MULTILINE)
    outcomes = [*alone, *((name, word) for word, name in parallel)]
    found = {w.lower(): sum(word == w for _, word in outcomes) for w in words.split("|")}
    failed = [name.strip() for name, word in outcomes if word in ("FAILED", "ERROR")]
    failed += re.findall(r"^_+ (ERROR collecting \S+)", text, re.MULTILINE)
    if failed:
        broken = re.split(r"^=+ (?:FAILURES|ERRORS) =+$", text, maxsplit=1, flags=re.MULTILINE)
        found["error"] = f"{len(failed)} failed: {failed[:20]}\n{broken[-1][:4000]}"
    elif not found["passed"]:
        found["error"] = text[-4000:]
    return {**found, "holds": bool(found["passed"]) and not failed}


def training(place, script):
    """The reference training on the CPU and on the GPU: errors on what was not trained on."""
    backends = {"CPU": "numpy", "GPU": "numpy" if place.dry else "cupy"}

    def train(backend, optimizer, schedule):
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, script, "--json", "--out", str(Path(folder, "run"))]
            command += ["--optimizer", optimizer, *schedule]
            command += ["--epochs", "2"] if place.dry else []
            environment = {**os.environ, "RNN_XP_BACKEND": backend}
            ran = subprocess.run(command, capture_output=True, text=True, env=environment)
        if ran.returncode:
            raise RuntimeError(f"{' '.join(command)}\n{ran.stdout}{ran.stderr}")
        said = json.loads(ran.stdout.splitlines()[-1])
        return {
            "rmse": said["scores"][-1]["rmse"], "final_loss": said["final_loss"],
            "seconds": said["seconds"], "epochs": said["epochs"], "engine": said["engine"],
        }  # fmt: skip

    # At a constant rate of 0.01, Adam keeps jumping about and where it is after 300 epochs depends
    # on the rounding, on the CPU as well; on a cosine that ends at 0 it comes to rest.
    schedules = {"lbfgs": ()} if place.dry else {"lbfgs": (), "adam": ("--schedule", "cosine")}
    for optimizer, schedule in schedules.items():
        found = {}
        for where, backend in backends.items():
            what = " ".join([optimizer, *schedule[1:], f"on the {where}, {backend}"])
            found[where] = attempt(what, train, backend, optimizer, schedule)
            yield found[where]
        if all("rmse" in record for record in found.values()):
            ratio = found["GPU"]["rmse"] / found["CPU"]["rmse"]
            what = f"{optimizer}: test RMSE on the GPU, as a multiple of that on the CPU"
            yield {"what": what, "value": ratio, "holds": ratio <= RMSE_LIMIT}
