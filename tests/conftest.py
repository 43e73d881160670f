"""The matrix of backends that every numerical test runs on, and the report of what it covered."""

from __future__ import annotations

import os
import signal
import tempfile

# Before any import of the libraries that read them. Empty is the same as not set.
os.environ["JAX_ENABLE_X64"] = "1"
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["MPLBACKEND"] = "Agg"
# JAX compiles every operation for every shape; what it compiled is kept, for each worker apart.
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR",
    f"{tempfile.gettempdir()}/rnn_xp-jax-{os.environ.get('PYTEST_XDIST_WORKER', 'main')}",
)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["RNN_XP_BACKEND"] = os.environ["RNN_XP_DEVICE"] = os.environ["RNN_XP_DTYPE"] = ""
os.environ["RNN_XP_KERNELS"] = ""

import contextlib
import dataclasses
import importlib
import importlib.util
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from device import require_device
from extending import registered
from frozen import freeze
from guard import no_host_sync
from problems import CELLS, OPTIONS
from selection import LEFT_OUT, left_out, select

from rnn_xp.backend import Backend, array_namespace, device_of, get_backend, to_numpy

# dpnp's package brings a runtime for CPUs, but does not say where it is.
_CPU_RUNTIME = Path(sys.prefix, "lib", "libintelocl.so")
if _CPU_RUNTIME.exists():
    os.environ.setdefault("OCL_ICD_FILENAMES", str(_CPU_RUNTIME))

# On torch Keras runs at once; JAX compiles every shape.
os.environ["KERAS_BACKEND"] = "torch" if importlib.util.find_spec("torch") else "jax"
os.environ["KERAS_HOME"] = f"{tempfile.gettempdir()}/rnn_xp-keras"  # where it writes its settings

TOLERANCE = {"float64": 1e-12, "float32": 2e-5}
"""Relative to the largest entry of what is compared. The only place where it is said."""

CASES = {  # id: (library, device, dtype); what each case is there to catch
    "numpy-f64": ("numpy", "cpu", "float64"),  # the reference
    "numpy-f32": ("numpy", "cpu", "float32"),  # silent promotion to float64
    "numpy-frozen-f64": ("numpy", "frozen", "float64"),  # writing to what is not one's own
    "strict-cpu-f64": ("array_api_strict", "CPU_DEVICE", "float64"),  # names and types
    "strict-device1-f32": ("array_api_strict", "device1", "float32"),  # stands in for a GPU
    "strict-no_float64-f32": ("array_api_strict", "no_float64", "float32"),  # float32 only
    "torch-cpu-f64": ("torch", "cpu", "float64"),
    "torch-cpu-f32": ("torch", "cpu", "float32"),  # promotion rules of its own
    "jax-cpu-f64": ("jax", "cpu", "float64"),  # tracing; arrays that cannot change
    "jax-cpu-f32": ("jax", "cpu", "float32"),
    "dpnp-cpu-f64": ("dpnp", "cpu", "float64"),  # arrays that NumPy may not read unasked
    "dpnp-cpu-f32": ("dpnp", "cpu", "float32"),
    "mlx-cpu-f32": ("mlx", "cpu", "float32"),  # arrays without a device, computed when asked for
    "cupy-cuda-f32": ("cupy", "cuda:0", "float32"),
}
MARKS = {
    "torch": [pytest.mark.torch],
    "dpnp": [pytest.mark.libraries],
    "mlx": [pytest.mark.libraries],
    "cupy": [pytest.mark.device],
}


@dataclasses.dataclass(frozen=True)
class Case:
    """One library on one device in one precision, with what a test needs to run there."""

    id: str
    backend: Backend
    frozen: bool

    @property
    def xp(self) -> Any:
        return self.backend.xp

    @property
    def device(self) -> Any:
        return self.backend.device

    @property
    def dtype(self) -> Any:
        return self.backend.dtype

    @property
    def dtype_name(self) -> str:
        return self.backend.dtype_name

    @property
    def tolerance(self) -> float:
        return TOLERANCE[self.dtype_name]

    def array(self, host: Any) -> Any:
        """Copy to the device: floats and complex numbers in the case's precision, others as is."""
        values = np.asarray(host)
        values = np.array(values, dtype=self._dtype_of(values), order="C", copy=True)
        if self.backend.name == "numpy":
            return freeze(values) if self.frozen else values
        return self.xp.asarray(values, device=self.device)

    def to_numpy(self, array: Any) -> np.ndarray:
        return to_numpy(array)

    def guard(self, allow: int = 0) -> contextlib.AbstractContextManager[Any]:
        """Around the code under test, not the assertions: the host may read `allow` times."""
        strict = self.backend.name == "array_api_strict"
        return no_host_sync(allow) if strict else contextlib.nullcontext([])

    def jit(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Compile where the library compiles; arguments are arrays, tuples and dicts of them."""
        return importlib.import_module("jax").jit(function) if "jax" in self.id else function

    def assert_close(
        self, actual: Any, desired: Any, *, rtol: float | None = None, atol: float | None = None
    ) -> None:
        """Same library, device, shape and dtype as this case makes of `desired`, and its values.

        A difference may be `rtol` (default: the case's tolerance) times the largest entry of
        `desired`, so that where all of it is zero only zero will do; or `atol`, if given.
        """
        assert array_namespace(actual) is self.xp
        assert device_of(actual) == self.device
        desired = np.asarray(desired) if isinstance(desired, list | float) else to_numpy(desired)
        host = to_numpy(actual)
        assert host.dtype == self._dtype_of(desired), f"{host.dtype} in {self.id}"
        assert host.shape == desired.shape
        rtol = self.tolerance if rtol is None else rtol
        if atol is None:
            atol = rtol * float(np.max(np.abs(desired), initial=0.0))
        np.testing.assert_allclose(host, desired, rtol=0.0, atol=atol)

    def _dtype_of(self, values: np.ndarray) -> np.dtype:
        real = np.dtype(self.dtype_name)
        return {"f": real, "c": np.result_type(real, 1j)}.get(values.dtype.kind, values.dtype)


@pytest.fixture(
    params=[pytest.param(id, id=id, marks=MARKS.get(case[0], [])) for id, case in CASES.items()]
)
def case(request: pytest.FixtureRequest) -> Iterator[Case]:
    """Every backend in turn; one that is not to be had here is skipped, and the summary says so."""
    request.node.user_properties.append(("case", request.param))
    library, device, dtype = CASES[request.param]
    if library == "cupy":
        require_device()
    try:
        importlib.import_module(library)
    except ModuleNotFoundError:
        pytest.skip(f"{library} is not installed")
    backend = get_backend(library, device="cpu" if device == "frozen" else device, dtype=dtype)
    with contextlib.ExitStack() as stack:
        if library == "array_api_strict":
            flags = {"boolean_indexing": False, "data_dependent_shapes": False}
            stack.enter_context(backend.xp.ArrayAPIStrictFlags(**flags, enabled_extensions=()))
        yield Case(request.param, backend, device == "frozen")


@pytest.fixture(scope="class")
def mingru() -> Iterator[None]:
    """Make the cell of docs/guide/extending.md known for a test, or for the tests of a class."""
    with registered():
        yield


# What a shell runs in the background ignores SIGINT; the tests of Ctrl-C must not.
for number, usual in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGTERM, signal.SIG_DFL),
):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, usual)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--contract-table", metavar="FILE", help="write what the contract covered")
    parser.addoption("--full", action="store_true", help="all of the products, not a cover of them")
    parser.addoption("--kills", type=int, help="how often to kill a training (1; 3 with --full)")
    parser.addoption("--mutations", type=int, help="of a checkpoint file (1000; 4000 with --full)")


def pytest_configure(config: pytest.Config) -> None:
    full = config.option.full
    for name, usual in (("kills", 3 if full else 1), ("mutations", 4000 if full else 1000)):
        if getattr(config.option, name) is None:
            setattr(config.option, name, usual)


@pytest.hookimpl(tryfirst=True)  # before -k and -m
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    select(config, items, CASES)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Worker processes tell the one that prints what they left out."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["left out"] = session.config.stash.get(LEFT_OUT, {})


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    node.config.stash[LEFT_OUT] = getattr(node, "workeroutput", {}).get("left out", {})


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """List for every case how many tests passed there, or why none ran."""
    path = terminalreporter.config.getoption("--contract-table")
    if path:
        write_contract_table(path, terminalreporter.stats.get("passed", []))
    counts: dict[str, dict[str, int]] = {id: {} for id in CASES}
    reasons: dict[str, str] = {}
    for outcome in ("passed", "failed", "error", "skipped"):
        for report in terminalreporter.stats.get(outcome, []):
            for key, id in getattr(report, "user_properties", ()):
                if key == "case":
                    counts[id][outcome] = counts[id].get(outcome, 0) + 1
                    if outcome == "skipped":
                        reasons[id] = str(report.longrepr[2]).removeprefix("Skipped: ")
    if any(counts.values()):
        write_backends(terminalreporter, counts, reasons)
    if words := left_out(terminalreporter.config):
        terminalreporter.line(words)


def write_backends(
    terminalreporter: Any, counts: dict[str, dict[str, int]], reasons: dict[str, str]
) -> None:
    terminalreporter.section("backends covered")
    for id, found in counts.items():
        tally = ", ".join(f"{number} {outcome}" for outcome, number in found.items())
        why = f" ({reasons[id]})" if id in reasons else ""
        terminalreporter.line(f"{id:22} {tally or 'no test selected'}{why}")


def write_contract_table(path: str, passed: list[Any]) -> None:
    """Write what passed: for each option and cell, how many topologies on which library."""
    found: dict[tuple[str, str], dict[str, set[str]]] = {}
    for report in passed:
        for key, value in getattr(report, "user_properties", ()):
            if key == "contract":
                cell, topology, option, library = value
                by_library = found.setdefault((option, cell), {})
                by_library.setdefault(library, set()).add(topology)
    others = sorted({option for option, _ in found} - set(OPTIONS))
    options = [option for option in [*OPTIONS, *others] if any((option, c) in found for c in CELLS)]
    libraries = {"numpy": "np", "array_api_strict": "strict", "jax": "jax", "torch": "torch"}
    lines = [
        "# What the gradient contract covers",
        "",
        "Written by `make contract` from a test run: every entry is a test that passed, and",
        "counts the topologies and feeds (of 7) whose gradients were right. By the complex step",
        "to 1e-12 in float64, on array-api-strict also in float32 to 2e-5; the losses with kinks",
        "(mae, huber, pinball) by central differences to 1e-7. With respect to all parameters,",
        "the input and the initial state; losses and truncated backpropagation (tbptt) with",
        "respect to the parameters. NumPy (np) and array-api-strict (strict) run the full",
        "product; JAX under jit and torch run every pair of cell, topology and option. Feedback",
        "has no reverse direction and one-to-many no lengths, hence 6 and 4 of 7; tbptt is shown",
        "with one of the three reads of many-to-one, on NumPy. Rows of a method (jacobian,",
        "per_sample_grads, jvp, hvp, gnvp) count the topologies in which it was right with every",
        "option that was run: all on NumPy, to 1e-11 in float64, each pair on the other libraries.",
        "",
        "| | " + " | ".join(CELLS) + " |",
        "|---" * (len(CELLS) + 1) + "|",
    ]
    for option in options:
        entries = []
        for cell in CELLS:
            counts = found.get((option, cell), {})
            entries.append(
                ", ".join(
                    f"{short} {len(counts[k])}" for k, short in libraries.items() if k in counts
                )
            )
        lines.append(f"| {option} | " + " | ".join(entries) + " |")
    with open(path, "w", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
