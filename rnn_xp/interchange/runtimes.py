"""Runtimes that load ONNX graphs, each behind the same function.

A runtime that is not installed raises `ImportError`. `run_apart` starts this file as a process of
its own, with a time limit, because some runtimes end the process that gives them a graph they do
not like. The file needs nothing but NumPy and the runtime.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["LIMIT", "PACKAGES", "RUNTIMES", "is_installed", "run_apart", "version_of"]

_Feed: TypeAlias = Mapping[str, NDArray[Any]]
_Outputs: TypeAlias = list[NDArray[Any]]
_Loaded: TypeAlias = Callable[[_Feed], _Outputs]

_NAMES = "outputs.txt"

LIMIT = 120.0
"""Seconds that a runtime may take for one graph."""


def _onnxruntime(path: Path, first: _Feed) -> _Loaded:
    """Run in onnxruntime, on the CPU with one thread."""
    runtime = importlib.import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda feed: list(session.run(None, dict(feed)))


def _reference(path: Path, first: _Feed) -> _Loaded:
    """Run in the evaluator of the package onnx."""
    evaluator = importlib.import_module("onnx.reference").ReferenceEvaluator(str(path))
    return lambda feed: list(evaluator.run(None, dict(feed)))


def _openvino(path: Path, first: _Feed) -> _Loaded:
    """Run in OpenVINO on the CPU, in float32 also where the processor has bfloat16."""
    runtime = importlib.import_module("openvino")
    core = runtime.Core()
    hints = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(core.read_model(str(path)), "CPU", hints)
    return lambda feed: [np.array(value) for value in compiled(dict(feed)).values()]


def _tract(path: Path, first: _Feed) -> _Loaded:
    """Run in tract."""
    runtime = importlib.import_module("tract")
    model = runtime.onnx().load(str(path))
    names = [model.input_name(at) for at in range(model.input_count())]
    runnable = model.into_model().into_runnable()

    def run(feed: _Feed) -> _Outputs:
        return [np.asarray(each.to_numpy()) for each in runnable.run([feed[n] for n in names])]

    return run


def _mnn(path: Path, first: _Feed) -> _Loaded:
    """Convert by MNN and run.

    The converter is called in its native module: the package's own command installs another
    package and sends a report of its use.
    """
    importlib.import_module("MNN")
    convert = importlib.import_module("_tools").mnnconvert
    expr, nn = (importlib.import_module(f"MNN.{name}") for name in ("expr", "nn"))
    converted = path.with_suffix(".mnn")
    options = ("--modelFile", str(path), "--MNNModel", str(converted), "--bizCode", "rnn_xp")
    convert(["mnnconvert", "-f", "ONNX", *options])
    if not converted.exists():
        raise ValueError("MNN's converter refuses the graph")
    net = nn.load_module_from_file(str(converted), list(first), _outputs(path))
    kinds = {"f": expr.float, "i": expr.int}

    def run(feed: _Feed) -> _Outputs:
        variables = [
            expr.const(np.ascontiguousarray(a), list(a.shape), expr.NCHW, kinds[a.dtype.kind])
            for a in feed.values()
        ]
        values = net.forward(variables)
        return [np.array(value.read(), copy=True).reshape(value.shape) for value in values]

    return run


def _iree(path: Path, first: _Feed) -> _Loaded:
    """Import and compile by IREE for this processor, and run."""
    runtime = importlib.import_module("iree.runtime")
    tools, text, code = Path(sys.executable).parent, f"{path}.mlir", f"{path}.vmfb"
    for command in (
        ["iree-import-onnx", str(path), "-o", text],
        ["iree-compile", text, "--iree-hal-target-device=local", "-o", code,
         "--iree-hal-local-target-device-backends=llvm-cpu", "--iree-llvmcpu-target-cpu=host"],
    ):  # fmt: skip
        ended = subprocess.run([tools / command[0], *command[1:]], capture_output=True, text=True)
        if ended.returncode:
            raise ValueError(f"{command[0]}: {ended.stderr}")
    module = runtime.load_vm_flatbuffer_file(code, driver="local-task")

    def run(feed: _Feed) -> _Outputs:
        values = module["rnn_xp"](*feed.values())
        values = values if isinstance(values, tuple | list) else [values]
        return [np.asarray(value.to_host()) for value in values]

    return run


def _opencv(path: Path, first: _Feed) -> _Loaded:
    """Run in OpenCV's dnn."""
    net = importlib.import_module("cv2").dnn.readNetFromONNX(str(path))

    def run(feed: _Feed) -> _Outputs:
        for name, value in feed.items():
            net.setInput(value, name)
        return [np.array(value) for value in net.forward(_outputs(path))]

    return run


def _tvm(path: Path, first: _Feed) -> _Loaded:
    """Convert by TVM's Relax and run on the CPU."""
    onnx, runtime = (importlib.import_module(name) for name in ("onnx", "tvm"))
    relax = importlib.import_module("tvm.relax")
    convert = importlib.import_module("tvm.relax.frontend.onnx").from_onnx
    module = convert(onnx.load(str(path)), keep_params_in_input=False)
    machine = relax.VirtualMachine(runtime.compile(module, target="llvm"), runtime.cpu())

    def run(feed: _Feed) -> _Outputs:
        values = machine["main"](*(runtime.runtime.tensor(value) for value in feed.values()))
        values = [values] if hasattr(values, "numpy") else values
        return [value.numpy() for value in values]

    return run


def _litert(path: Path, first: _Feed) -> _Loaded:
    """Convert a copy by onnx2tf, which rewrites its input, and run in LiteRT."""
    interpreter = importlib.import_module("ai_edge_litert.interpreter").Interpreter
    convert = importlib.import_module("onnx2tf").convert
    copy, folder = path.with_name("copy.onnx"), path.with_name("converted")
    copy.write_bytes(path.read_bytes())
    shapes = [f"{name}:{','.join(map(str, value.shape))}" for name, value in first.items()]
    convert(
        input_onnx_file_path=str(copy), output_folder_path=str(folder), non_verbose=True,
        keep_ncw_or_nchw_or_ncdhw_input_names=[n for n, a in first.items() if a.ndim == 3],
        overwrite_input_shape=shapes,
    )  # fmt: skip
    model = interpreter(model_path=str(next(folder.glob("*float32.tflite"))))
    signature = model.get_signature_runner()
    names = _outputs(path)

    def run(feed: _Feed) -> _Outputs:
        values = signature(**feed)
        return [values[name] for name in names]

    return run


RUNTIMES: dict[str, Callable[[Path, _Feed], _Loaded]] = {
    "onnxruntime": _onnxruntime, "onnx": _reference, "openvino": _openvino, "tract": _tract,
    "mnn": _mnn, "iree": _iree, "opencv": _opencv, "tvm": _tvm, "litert": _litert,
}  # fmt: skip
"""Functions that load a file, given the first inputs: another function, which runs the graph."""

PACKAGES = {
    "onnxruntime": "onnxruntime", "onnx": "onnx", "openvino": "openvino", "tract": "tract",
    "mnn": "MNN", "iree": "iree-base-compiler", "opencv": "opencv-python-headless",
    "tvm": "apache-tvm", "litert": "ai-edge-litert",
}  # fmt: skip
"""Distributions that bring the runtimes."""


def version_of(runtime: str) -> str:
    """Return the installed version, or raise `PackageNotFoundError`, an `ImportError`."""
    return importlib.metadata.version(PACKAGES[runtime])


def is_installed(runtime: str) -> bool:
    """Return True if the runtime's distribution is installed."""
    try:
        version_of(runtime)
    except ImportError:
        return False
    return True


def run_apart(
    path: str | Path,
    runtime: str,
    feeds: Sequence[_Feed],
    outputs: Sequence[str],
    *,
    python: str = sys.executable,
    limit: float = LIMIT,
) -> list[dict[str, NDArray[Any]]]:
    """Load a graph and run it on one input after another, in a process of its own.

    Parameters
    ----------
    path : path
    runtime : str
        A name in `RUNTIMES`.
    feeds : sequence of mappings of str to array
        Inputs, each in the order of the graph.
    outputs : sequence of str
        Names of the outputs, in the order of the graph.
    python : str
        Interpreter for which the runtime is installed.
    limit : float
        Seconds after which the process is ended.

    Returns
    -------
    list of dict of str to ndarray
        For each of the inputs, the outputs by name.

    Raises
    ------
    RuntimeError
        If the runtime refuses the graph, ends the process or exceeds the limit; its words are in
        the message.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copy = folder / "model.onnx"
        copy.write_bytes(Path(path).read_bytes())
        (folder / _NAMES).write_text("\n".join(outputs), encoding="utf-8")
        _save(folder / "inputs.npz", feeds)
        words = [copy, runtime, folder / "inputs.npz", folder / "outputs.npz"]
        # Converters call what they find on the PATH; here it is what belongs to the interpreter.
        apart = {**os.environ, "PIP_NO_INDEX": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
        apart["PATH"] = os.pathsep.join([str(Path(python).parent), "/usr/bin", "/bin"])
        command = [python, "-P", __file__, *map(str, words)]  # -P: no module beside it
        try:
            ended = subprocess.run(
                command, capture_output=True, text=True, timeout=limit, env=apart
            )
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"did not end within {limit:g} s") from None
        if ended.returncode:
            lines = [line for line in ended.stderr.strip().splitlines() if line.strip()]
            said = next((w for w in lines if w.startswith("rnn_xp: ")), "")
            raise RuntimeError(said.removeprefix("rnn_xp: ") or "ended the process")
        results = [list(values.values()) for values in _load(folder / "outputs.npz")]
    counts = {len(values) for values in results}
    if len(results) != len(feeds) or counts != {len(outputs)}:
        raise RuntimeError(f"returns another number of values than {len(outputs)}")
    return [dict(zip(outputs, values, strict=True)) for values in results]


def _save(path: Path, groups: Sequence[_Feed]) -> None:
    arrays = {f"{at:03}/{name}": a for at, group in enumerate(groups) for name, a in group.items()}
    np.savez(path, **arrays)  # type: ignore[arg-type]


def _load(path: Path) -> list[dict[str, NDArray[Any]]]:
    groups: dict[str, dict[str, NDArray[Any]]] = {}
    with np.load(path) as arrays:
        for key in arrays.files:  # in the order in which they were saved
            at, _, name = key.partition("/")
            groups.setdefault(at, {})[name] = arrays[key]
    return list(groups.values())


def _outputs(path: Path) -> list[str]:
    """Return the names of a graph's outputs, which `run_apart` writes beside it."""
    return (path.parent / _NAMES).read_text(encoding="utf-8").split()


def _main(path: str, runtime: str, inputs: str, outputs: str) -> int:
    feeds = _load(Path(inputs))
    try:
        run = RUNTIMES[runtime](Path(path), feeds[0])
        results = [[np.asarray(value) for value in run(feed)] for feed in feeds]
    except Exception as error:
        words = " ".join(f"{type(error).__name__}: {error}".split())
        sys.stderr.write(f"\nrnn_xp: {words[:400]}\n")
        return 1
    texts = [[v.astype(str) if v.dtype == object else v for v in values] for values in results]
    _save(Path(outputs), [{f"{k:03}": v for k, v in enumerate(values)} for values in texts])
    return 0


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))
