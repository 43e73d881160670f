"""What the checks ran on, and what CuPy does there that the code relies on."""

from __future__ import annotations

import importlib.metadata
import math
import platform
import subprocess

import numpy as np

from benchmarks.gpu import attempt
from benchmarks.machine import processor

PACKAGES = (
    *("numpy", "cupy-cuda13x", "cupy-cuda12x", "torch", "jax", "pytest", "hypothesis"),
    *("array-api-compat", "array-api-strict", "safetensors", "threadpoolctl"),
)
QUERY = (
    "name,driver_version,memory.total,clocks.sm,clocks.max.sm,clocks.mem,power.limit,"
    "compute_mode,utilization.gpu"
)


def environment(place):
    """The machine, the GPU and its clocks, the versions."""
    yield {"what": "Python", "value": f"{platform.python_version()} on {platform.system()}"}
    yield {"what": "CPU", "value": processor()}
    yield attempt("GPU", gpu, place)
    for name in PACKAGES:
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            version = "not installed"
        yield {"what": name, "value": version}
    yield attempt("CUDA", cuda, place)


def gpu(place):
    if place.dry:
        return {"value": "none, this is a dry run on the CPU"}
    command = ["nvidia-smi", f"--query-gpu={QUERY}", "--format=csv,noheader"]
    asked = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = [
        ", ".join(f"{name} {value}" for name, value in zip(QUERY.split(","), each, strict=True))
        for each in (line.split(", ") for line in asked.stdout.splitlines())
    ]
    return {"value": "; ".join(lines)}


def cuda(place):
    if place.dry:
        return {"value": "none"}
    runtime = place.cupy.cuda.runtime
    return {"value": f"runtime {runtime.runtimeGetVersion()}, driver {runtime.driverGetVersion()}"}


def capture(place):
    """What a CUDA graph takes, what it refuses, and how floats are promoted and multiplied."""
    for function in (replays, refuses_products, refuses_reads, stays_float32, multiplies_exactly):
        what = function.__doc__.rstrip(".")
        yield {"what": what} if place.dry else attempt(what, function, place.cupy)


def _captured(cupy, work):
    """Capture work in a graph; (graph, stream)."""
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        try:
            work()
        finally:
            graph = stream.end_capture()
    return graph, stream


def replays(cupy):
    """Elementwise kernels are captured in a graph, and replayed."""
    x = cupy.zeros(1000, dtype="float32")
    cupy.add(x, 1.0, out=x)  # compiled before the capture
    cupy.cuda.Device().synchronize()
    graph, stream = _captured(cupy, lambda: cupy.add(x, 1.0, out=x))
    for _ in range(3):
        graph.launch(stream)
    stream.synchronize()
    return {"holds": bool((x == 4.0).all()), "detail": f"1 + 3 replays make {float(x[0])}"}


def _refused(cupy, work, error):
    try:
        _captured(cupy, work)
    except Exception as raised:
        holds = isinstance(raised, error)
        return {"holds": holds, "detail": f"{type(raised).__name__}: {raised}"[:300]}
    return {"holds": False, "detail": "it was captured"}


def refuses_products(cupy):
    """A matrix product is refused in a capture, so that the portable code has no graph."""
    a = cupy.ones((8, 8), dtype="float32")
    cupy.matmul(a, a)
    cupy.cuda.Device().synchronize()
    return _refused(cupy, lambda: cupy.matmul(a, a), NotImplementedError)


def refuses_reads(cupy):
    """A read by the host is refused in a capture."""
    a = cupy.ones(8, dtype="float32")
    return _refused(cupy, lambda: float(a[0]), RuntimeError)


def stays_float32(cupy):
    """float32 stays float32 with Python's numbers."""
    a = cupy.ones(8, dtype="float32")
    made = (
        a * 0.5, a / 3, a / math.sqrt(2.0), 1.0 - a, cupy.where(a > 0, 0.0, a),
        cupy.where(a > 0, a, 1.0),
    )  # fmt: skip
    return {"holds": {str(b.dtype) for b in made} == {"float32"}}


def multiplies_exactly(cupy):
    """Matrix products of float32 are not rounded to TF32."""
    a = np.random.default_rng(0).standard_normal((512, 512))
    found = cupy.asnumpy(cupy.matmul(*(cupy.asarray(a, dtype="float32"),) * 2))
    a = a.astype("float32").astype("float64")
    error = float(np.abs(found - a @ a).max() / np.abs(a @ a).max())
    return {"holds": error < 1e-5, "detail": f"relative error {error:.1e}"}
