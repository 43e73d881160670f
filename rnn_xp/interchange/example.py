"""An example inside a graph's file: inputs and what the library itself predicts for them.

Whoever receives the file can see whether a runtime computes what was exported::

    rnn-xp export model.onnx --check openvino

The example is JSON under the key ``rnn_xp.example`` of the metadata::

    {"inputs": {"x": {"dtype": "float32", "shape": [2, 4, 1], "values": [...]}},
     "outputs": {"pred": {...}}, "tolerance": 1e-05}

An output is right if it differs by at most the tolerance times the largest expected value, or times
1 if that is smaller.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rnn_xp._typing import Array
from rnn_xp.checkpoint import CheckpointError
from rnn_xp.data.scalers import Scaler
from rnn_xp.interchange.graphs.network import FIELDS
from rnn_xp.interchange.onnx import single
from rnn_xp.interchange.runtimes import RUNTIMES, run_apart, version_of
from rnn_xp.network import Network

__all__ = ["KEY", "Checked", "Example", "check", "error_of", "example_of", "make_example", "write"]

KEY = "rnn_xp.example"

_ROWS, _STEPS = 3, 5
_TOLERANCE = 1e-5

_Arrays = Mapping[str, NDArray[Any]]


class Example(NamedTuple):
    """Inputs and outputs of a graph by name, and the tolerance of the outputs."""

    inputs: dict[str, NDArray[Any]]
    outputs: dict[str, NDArray[Any]]
    tolerance: float = _TOLERANCE


class Checked(NamedTuple):
    """Result of `check`.

    Attributes
    ----------
    runtime, version : str
    error : float or None
        Largest difference, relative to values above 1; None if the runtime refuses the graph.
    message : str
        Words of a runtime that refuses the graph.
    ok : bool
    """

    runtime: str
    version: str
    error: float | None
    message: str
    ok: bool


def make_example(
    net: Network,
    params: Mapping[str, Array],
    *,
    scaler: Scaler | None = None,
    lengths: bool = False,
    stateful: bool = False,
    rows: int | None = None,
    steps: int | None = None,
    seed: int = 0,
) -> Example:
    """Make an example for a graph that `to_onnx` made with the same options.

    Parameters
    ----------
    net, params, scaler, lengths, stateful, rows, steps : as for `to_onnx`
        Sizes that are open there are small here.
    seed : int
        Seed of the random inputs.

    Returns
    -------
    Example
    """
    rng = np.random.default_rng(seed)
    rows, steps = rows or _ROWS, steps or max(_STEPS, net.linear_lags)
    params = single(net, params)
    x = rng.standard_normal((rows, steps, net.input_size)).round(3)
    if scaler is not None:
        x = x * scaler.scale + scaler.offset
    inputs = {"x": x.astype(np.float32)}
    seen = inputs["x"]
    if scaler is not None:
        seen = scaler.transform(seen).astype(np.float32)
    options: dict[str, Any] = {}
    if lengths:
        inputs["lengths"] = np.linspace(steps, 1, rows).astype(np.int32)
        options["lengths"] = inputs["lengths"]
    if stateful:
        shape = (net.num_layers * net.directions, rows, net.hidden_size)
        before = [rng.uniform(-1, 1, shape).round(3).astype(np.float32) for _ in FIELDS[net.cell]]
        options["state"] = net.layers.cells[0].state_type(*before)
        inputs |= {f"initial_{f}": a for f, a in zip(FIELDS[net.cell], before, strict=True)}
    pred, final = net.forward(params, seen, **options)
    outputs = {"pred": pred if scaler is None else scaler.inverse_target(pred).astype(np.float32)}
    if stateful:
        outputs |= {f"final_{field}": getattr(final, field) for field in FIELDS[net.cell]}
    return Example(inputs, outputs)


def write(model: Any, example: Example) -> None:
    """Put an example into the metadata of a model (`onnx.ModelProto`)."""
    content = {
        "inputs": {name: _plain(array) for name, array in example.inputs.items()},
        "outputs": {name: _plain(array) for name, array in example.outputs.items()},
        "tolerance": example.tolerance,
    }
    entry = next((e for e in model.metadata_props if e.key == KEY), None)
    entry = model.metadata_props.add() if entry is None else entry
    entry.key, entry.value = KEY, json.dumps(content)


def example_of(model: Any) -> Example:
    """Return the example of a model.

    Raises
    ------
    ValueError
        If there is none, or it does not belong to the graph.
    """
    entry = next((e for e in model.metadata_props if e.key == KEY), None)
    if entry is None:
        raise ValueError(
            "the graph has no example in its metadata: it is not from rnn-xp export, or from an "
            "earlier version. Export it again."
        )
    try:
        content = json.loads(entry.value)
        inputs, outputs = (
            {name: _array(each) for name, each in content[part].items()}
            for part in ("inputs", "outputs")
        )
        tolerance = float(content["tolerance"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"the example in the graph's metadata cannot be read: {error}.") from error
    names = [value.name for value in model.graph.input], [v.name for v in model.graph.output]
    if (list(inputs), list(outputs)) != names:
        raise ValueError("the example in the graph's metadata is of another graph.")
    return Example(inputs, outputs, tolerance)


def error_of(outputs: _Arrays, example: Example) -> float:
    """Return the largest difference from an example, relative to values above 1.

    Raises
    ------
    RuntimeError
        If an output has another shape.
    """
    largest = 0.0
    for name, expected in example.outputs.items():
        value = np.asarray(outputs[name])
        if value.shape != expected.shape:
            raise RuntimeError(f"{name} has shape {value.shape} instead of {expected.shape}")
        if expected.dtype.kind not in "fiub":  # labels
            largest = largest if np.array_equal(value, expected) else np.inf
            continue
        wide = expected.astype(np.float64)
        scale = max(1.0, float(np.abs(wide).max(initial=0.0)))
        error = float(np.abs(value.astype(np.float64) - wide).max(initial=0.0)) / scale
        largest = max(largest, error if np.isfinite(error) else np.inf)
    return largest


def check(path: str | Path, runtime: str, **apart: Any) -> Checked:
    """Run the example of a file in a runtime, in a process of its own.

    Parameters
    ----------
    path : path
    runtime : str
        A name in `RUNTIMES`.
    **apart
        ``python`` and ``limit`` of `run_apart`.

    Returns
    -------
    Checked

    Raises
    ------
    ValueError
        If the runtime is not known, or the file is damaged, no graph or has no example.
    ImportError
        If onnx or the runtime is not installed.
    """
    if runtime not in RUNTIMES:
        raise ValueError(f"runtime={runtime!r} is not known. Valid: {', '.join(RUNTIMES)}.")
    version = "" if "python" in apart else version_of(runtime)
    example = example_of(_graph_of(path))
    try:
        (outputs,) = run_apart(path, runtime, [example.inputs], list(example.outputs), **apart)
        error = error_of(outputs, example)
    except RuntimeError as refusal:
        return Checked(runtime, version, None, str(refusal), ok=False)
    return Checked(runtime, version, error, "", ok=error <= example.tolerance)


def _graph_of(path: str | Path) -> Any:
    """Read a graph; a file that holds none is refused."""
    import onnx

    try:
        model = onnx.load(str(path))
    except OSError:
        raise
    except Exception as error:  # of protobuf, which has no common base with others
        raise CheckpointError(f"{path}: is a damaged graph of ONNX ({error}).") from error
    if not model.graph.node:
        raise CheckpointError(f"{path}: is no graph of ONNX: it is empty, or of another kind.")
    return model


def _plain(array: NDArray[Any]) -> dict[str, Any]:
    values = array.ravel().tolist()
    if array.dtype.kind == "f":  # the shortest text that gives the same number again
        values = [float(str(value)) for value in array.ravel()]
    name = "str" if array.dtype.kind in "UO" else array.dtype.name
    return {"dtype": name, "shape": list(array.shape), "values": values}


def _array(plain: Mapping[str, Any]) -> NDArray[Any]:
    return np.asarray(plain["values"], dtype=plain["dtype"]).reshape(plain["shape"])
