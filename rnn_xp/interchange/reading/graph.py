"""Graphs of ONNX: the network is recovered, and compared with the graph on random data.

The package onnx is required (extra ``onnx``); onnxruntime runs the graph if it is installed, and
otherwise the evaluator that comes with onnx. A graph is run only after each of its nodes was
recognised.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from rnn_xp._checks import install
from rnn_xp.checkpoint import CheckpointError
from rnn_xp.interchange.reading.graphs.build import Built, build
from rnn_xp.interchange.reading.graphs.values import GraphError
from rnn_xp.interchange.reading.graphs.walk import Sizes, input_sizes, walk
from rnn_xp.interchange.reading.stack import Stack
from rnn_xp.interchange.tensors import Floats
from rnn_xp.network import Network

__all__ = ["looks_like", "understand"]

_Verify = Callable[[Network, Mapping[str, Floats]], None]
_SMALL, _OTHERS = (3, 5), (4, 7)  # rows and steps, where a graph leaves them open
_TOLERANCE = 1e-5  # of float32, relative to the largest prediction and at least to 1


def looks_like(data: bytes) -> bool:
    """Tell if a file begins as a model of ONNX: its version, then a field that such a file has."""
    return len(data) > 16 and data[0] == 0x08 and data[1] < 0x20 and data[2] in (
        *(0x12, 0x1A, 0x22, 0x2A, 0x32, 0x3A, 0x42, 0x72),
    )  # fmt: skip


def understand(data: bytes, beside: Callable[[str], bytes]) -> tuple[Stack, _Verify]:
    """Recover the model of a graph.

    Parameters
    ----------
    data : bytes
    beside : callable
        Returns the content of a file in the same folder, where PyTorch keeps large weights.

    Returns
    -------
    stack : Stack
    verify : callable
        ``verify(net, params)`` compares a network with the graph on random data, and raises a
        ValueError unless they agree to 1e-5.

    Raises
    ------
    ValueError
        If a part of the graph has no place in a network here; it is named.
    ImportError
        If onnx is not installed.
    """
    onnx = _package()
    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:  # of protobuf, which has no common base with others
        raise CheckpointError(f"is a damaged graph of ONNX ({error}).") from error
    try:
        _contain(onnx, model, beside)
    except (OSError, ValueError) as error:
        raise CheckpointError(str(error)) from error
    data = model.SerializeToString()
    _check_attributes(onnx, model)
    first: GraphError | None = None
    for batch_first in (True, False):
        try:
            read = _read(onnx, model.graph, batch_first, _SMALL)
        except GraphError as error:
            first = first or error
            continue
        if not batch_first:
            read.built.stack.notes["layout"] = "the graph's input has steps first, here rows"
        reads = [read]
        if any(read.sizes.open):  # where it can be read at other sizes too, it is compared at them
            with contextlib.suppress(GraphError):
                reads.append(_read(onnx, model.graph, batch_first, _OTHERS))
        return read.built.stack, functools.partial(_verify, data, reads)
    raise CheckpointError(str(first))


class _Read(NamedTuple):
    """A graph that was read at some sizes."""

    built: Built
    sizes: Sizes
    states: dict[str, tuple[int, ...]]
    batch_first: bool


def _read(onnx: Any, graph: Any, batch_first: bool, small: tuple[int, int]) -> _Read:
    try:
        sizes = input_sizes(graph, batch_first, small)
        attributes = functools.partial(_attributes, onnx)
        walked = walk(graph, onnx.numpy_helper.to_array, attributes, sizes, batch_first)
        return _Read(build(walked), sizes, walked.states, batch_first)
    except GraphError:
        raise
    except (ValueError, TypeError, KeyError, IndexError, OverflowError) as error:
        raise CheckpointError(f"is a damaged graph of ONNX ({error}).") from error


def _package() -> Any:
    try:
        return importlib.import_module("onnx")
    except ImportError as error:
        raise ImportError(
            f"onnx is required to read a graph. Install it with: {install('onnx')}"
        ) from error


def _contain(onnx: Any, model: Any, beside: Callable[[str], bytes]) -> None:
    """Take weights that lie in a file beside the graph into the model; refuse other parts."""
    if model.functions or model.graph.sparse_initializer:
        raise CheckpointError("has functions or sparse weights of its own, which are not read.")
    tensors = [*model.graph.initializer]
    for node in model.graph.node:
        tensors += [each.t for each in node.attribute if each.HasField("t")]
    files: dict[str, bytes] = {}
    for tensor in tensors:
        if tensor.data_location != onnx.TensorProto.EXTERNAL and not tensor.external_data:
            continue
        where = {each.key: each.value for each in tensor.external_data}
        name = where.get("location", "")
        if not re.fullmatch(r"[\w][\w.() -]*", name):
            raise CheckpointError(
                f"keeps {tensor.name} in {name[:80]!r}; only a file in the same folder is read."
            )
        if name not in files:
            files[name] = beside(name)
        start = int(where.get("offset", "0"))
        end = start + int(where.get("length", str(len(files[name]) - start)))
        if not 0 <= start <= end <= len(files[name]):
            raise CheckpointError(f"keeps {tensor.name} in {name}, which is cut short.")
        tensor.raw_data = files[name][start:end]
        del tensor.external_data[:]
        tensor.data_location = onnx.TensorProto.DEFAULT


def _check_attributes(onnx: Any, model: Any) -> None:
    """Refuse an attribute that its operator does not have: it would be passed over."""
    versions = [each.version for each in model.opset_import if each.domain in ("", "ai.onnx")]
    for node in model.graph.node:
        try:
            schema = onnx.defs.get_schema(node.op_type, max(versions, default=1), "")
        except Exception:  # it has an error of its own; the walk names the operator
            continue
        for each in node.attribute:
            if each.name not in schema.attributes:
                label = node.name or ", ".join(node.output)
                raise CheckpointError(
                    f"is no valid graph of ONNX: {node.op_type} has no attribute {each.name!r}, "
                    f"which the node {label} gives it."
                )


def _attributes(onnx: Any, node: Any) -> dict[str, Any]:
    attributes: dict[str, Any] = {}
    for each in node.attribute:
        value = onnx.helper.get_attribute_value(each)
        if isinstance(value, onnx.TensorProto):
            value = onnx.numpy_helper.to_array(value)
        elif isinstance(value, bytes):
            value = value.decode("utf-8", "replace")
        elif isinstance(value, list) and value and isinstance(value[0], bytes):
            value = [text.decode("utf-8", "replace") for text in value]
        attributes[each.name] = value
    return attributes


def _verify(data: bytes, reads: list[_Read], net: Network, params: Mapping[str, Floats]) -> None:
    """Compare network and graph on random data, at the sizes of each walk."""
    exact = {name: np.asarray(array, np.float64) for name, array in params.items()}
    run = _runtime(data)
    for (stack, output, places), sizes, states, batch_first in reads:
        x = np.random.default_rng(0).standard_normal(sizes.axes)
        scaler = stack.scaler
        if scaler is not None:
            x = x * np.asarray(scaler.scale) + np.asarray(scaler.offset)
        raw = x.astype(sizes.dtype)
        feeds = {name: np.zeros(shape, sizes.dtype) for name, shape in states.items()}
        theirs = run({sizes.name: raw, **feeds}, output)
        ours = np.asarray(raw if batch_first else raw.transpose(1, 0, 2), np.float64)
        pred = np.asarray(net.forward(exact, ours if scaler is None else scaler.transform(ours))[0])
        pred = pred if scaler is None else scaler.inverse_target(pred)
        expected = pred.ravel()[places]
        if theirs.shape != expected.shape:
            raise ValueError(f"the graph predicts {theirs.shape}, not {expected.shape}.")
        reach = 1.0 if scaler is None else scaler.scale[0]
        size = max(reach, float(np.abs(expected).max(initial=0.0)))
        error = float(np.abs(theirs - expected).max(initial=0.0)) / size
        if not error <= _TOLERANCE:
            raise ValueError(
                f"the network recovered from the graph predicts otherwise, by {error:.1g} on "
                "random data: the graph has something that was not understood, or computes in "
                "half precision."
            )


def _runtime(data: bytes) -> Callable[[dict[str, Any], str], Any]:
    """Return a function that runs the graph, in onnxruntime or in onnx's own evaluator."""

    def in_runtime(feeds: dict[str, Any], output: str) -> Any:
        runtime = importlib.import_module("onnxruntime")
        options = runtime.SessionOptions()
        options.log_severity_level, options.intra_op_num_threads = 4, 1
        session = runtime.InferenceSession(
            data, options, providers=["CPUExecutionProvider"], enable_fallback=0
        )
        return session.run([output], feeds)[0]

    def in_evaluator(feeds: dict[str, Any], output: str) -> Any:
        reference = importlib.import_module("onnx.reference")
        return reference.ReferenceEvaluator(_package().load_model_from_string(data)).run(
            [output], feeds
        )[0]

    def run(feeds: dict[str, Any], output: str) -> Any:
        said = []
        for each in (in_runtime, in_evaluator):
            try:
                return np.asarray(each(feeds, output))
            except ImportError:
                continue
            except Exception as error:  # each has errors of its own
                said.append(str(error).splitlines()[0][:200])
        raise ValueError(
            "the graph cannot be run to compare it with the network: "
            + (" ".join(said) or "install onnxruntime")
        )

    return run
