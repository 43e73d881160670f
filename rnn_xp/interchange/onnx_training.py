"""ONNX: one training step as a graph, so that any ONNX runtime can fine-tune a network.

::

    x, y, weights, optimiser state --> forward --> BPTT --> update --> loss, next weights and state

No code is duplicated: the library's own code runs once, on ndonnx arrays, which record an operator
for every operation. The graph's length grows with the number of steps, and its sizes N and T are
fixed by the export. Weights are inputs and outputs under the library's own names and are not
stored in the file; they come from the ``model.safetensors`` of a run.

An export needs the package ndonnx (extra ``onnx-train``); any runtime runs the graph.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import json
import threading
from collections.abc import Iterator, Mapping
from typing import Any

from rnn_xp._checks import install
from rnn_xp._typing import Array, Loss, Namespace
from rnn_xp.interchange.tensors import check_expressible
from rnn_xp.losses import resolve_loss, takes_classes
from rnn_xp.network import Network
from rnn_xp.optim.first_order import FirstOrder, FirstOrderState

__all__ = ["to_training_step"]

_ONE_AT_A_TIME = threading.Lock()


def to_training_step(
    net: Network,
    *,
    rows: int,
    steps: int,
    optimizer: FirstOrder,
    loss: str | Loss = "mse",
    about: Mapping[str, Any] | None = None,
) -> Any:
    """Export forward, backpropagation through time and the optimiser's update.

    Parameters
    ----------
    net : Network
        Network with any cell, without dropout, whose masks are drawn outside a graph.
    rows, steps : int
        N and T of the graph.
    optimizer : FirstOrder
        Optimiser such as ``rnn_xp.optim.adam(0.001)``. Its rate must be a number: the rate is an
        input of the graph, so a schedule is followed outside.
    loss : str or callable
        See `Network.value_and_grad`.
    about : mapping, optional
        Additional metadata.

    Returns
    -------
    onnx.ModelProto
        Inputs, float32 unless stated otherwise: ``x`` (N, T, I) and ``y``; ``learning_rate``;
        ``step``, an int64, the number of updates so far; the parameters by name; and the
        optimiser's state, such as ``m.layer0.w_xh``. Outputs: ``loss``, before the update, and
        ``next.NAME`` for each input that changes.

    Raises
    ------
    ValueError
        If the graph cannot express the training, or an argument does not fit.
    ImportError
        If ndonnx is not installed.

    Notes
    -----
    The graph contains no scaler: x and y must be scaled. Each batch size needs a graph of its own.
    It has no branches.
    """
    check_expressible(
        net,
        "A training step in ONNX",
        dropout="its masks are drawn outside the graph; export with dropout=0",
        recurrent_dropout="its masks are drawn outside the graph; export with recurrent_dropout=0",
    )
    if not isinstance(optimizer, FirstOrder):
        raise ValueError(
            f"A training step in ONNX cannot express {type(optimizer).__name__}: its line search "
            "reads losses. Use adam, adamw, rmsprop, adagrad or sgd."
        )
    if not isinstance(optimizer.learning_rate, float):
        raise ValueError(
            "A training step in ONNX needs a learning rate that is a number; it is an input of "
            "the graph, so that a schedule can be followed from outside."
        )
    for name, size in (("rows", rows), ("steps", steps)):
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise ValueError(f"{name} must be an integer >= 1, got {size!r}.")
    xp, onnx, operators = _load()
    function = resolve_loss(loss, net.output_activation)

    def argument(shape: tuple[int, ...], dtype: Any = xp.float32) -> Any:
        return xp.argument(shape=shape, dtype=dtype)

    one_to_many = net.topology == "one_to_many"
    lead = (rows,) if net.topology == "many_to_one" else (rows, steps)
    y = argument((*lead, net.output_size))
    if takes_classes(function):
        y = argument(lead, xp.int64)
    x = argument((rows, 1 if one_to_many else steps, net.input_size))
    weights = {name: argument(shape) for name, shape in net.shapes.items()}
    rate, count = argument(()), argument((), xp.int64)
    slots = {
        slot: {name: argument(shape) for name, shape in net.shapes.items()}
        for slot in optimizer.init(weights).slots
    }
    before = FirstOrderState(0, slots, None)
    with _real_and_not_empty(xp, operators):
        value, grads = net.value_and_grad(weights, x, y, loss=function)
        new, after = _traced(optimizer, rate, count, xp).update(grads, before, weights)

    changing = {**weights, **optimizer.pack(before)[0]}
    changed = {**new, **optimizer.pack(after)[0], "step": count + 1}
    model = xp.build(
        {"x": x, "y": y, "step": count, "learning_rate": rate, **changing},
        {"loss": value, **{f"next.{name}": array for name, array in changed.items()}},
    )
    facts = {
        "network": dataclasses.asdict(net),
        "optimizer": {"name": type(optimizer).__name__, **dataclasses.asdict(optimizer)},
        "loss": loss if isinstance(loss, str) else repr(loss),
        **(about or {}),
    }
    onnx.helper.set_model_props(model, {"rnn_xp": json.dumps(facts, sort_keys=True)})
    onnx.checker.check_model(model, full_check=True)
    return model


def _load() -> tuple[Any, Any, Any]:
    """Return ndonnx, onnx, and the operators in which ndonnx writes."""
    try:
        names = ("ndonnx", "onnx", "spox.opset.ai.onnx.v21")
        xp, onnx, operators = map(importlib.import_module, names)
        return xp, onnx, operators
    except ImportError as error:
        raise ImportError(
            "ndonnx is required to export a training step. Install it with: "
            f"{install('onnx-train')}"
        ) from error


@contextlib.contextmanager
def _real_and_not_empty(xp: Namespace, operators: Any) -> Iterator[None]:
    """Define functions of ndonnx for real arrays that have entries.

    ``real(z)`` is z: there are no complex numbers. ndonnx's own ``matmul``, ``max`` and
    ``any`` wrap every result in an If that serves arrays without entries. Building it takes a
    second for each product, and the graph of a training has no such arrays.

    Other threads that use ndonnx meanwhile see these functions, too.
    """

    def matmul(a: Array, b: Array) -> Array:
        return xp.asarray(operators.matmul(a.unwrap_spox(), b.unwrap_spox()))

    def largest(z: Array, *, axis: int | None = None, keepdims: bool = False) -> Array:
        axes = None if axis is None else operators.const([axis], dtype="int64")
        return xp.asarray(operators.reduce_max(z.unwrap_spox(), axes, keepdims=int(keepdims)))

    def some(z: Array, **options: Any) -> Array:
        return largest(xp.astype(z, xp.int32), **options) > 0

    defined = {"real": lambda z: z, "matmul": matmul, "max": largest, "any": some}
    with _ONE_AT_A_TIME:
        before = {name: getattr(xp, name) for name in defined}
        try:
            for name, function in defined.items():
                setattr(xp, name, function)
            yield
        finally:
            for name, function in before.items():
                setattr(xp, name, function)


def _traced(optimizer: FirstOrder, rate: Array, count: Array, xp: Namespace) -> FirstOrder:
    """Return the same optimiser, whose rate and number of updates are values of the graph."""

    class Traced(type(optimizer)):  # type: ignore[misc]
        def rate(self, state: FirstOrderState) -> Array:
            return rate

        def _corrections(self, t: int) -> tuple[Array, Array]:
            # In float64, like Python's own numbers: early on, 1 - beta2**t is tiny.
            updates = xp.astype(count + 1, xp.float64)
            share, square = (1.0 - xp.pow(beta, updates) for beta in (self.beta1, self.beta2))
            return xp.astype(share, xp.float32), xp.astype(xp.sqrt(square), xp.float32)

    fields = (field.name for field in dataclasses.fields(optimizer) if field.init)
    made: FirstOrder = Traced(**{name: getattr(optimizer, name) for name in fields})
    return made
