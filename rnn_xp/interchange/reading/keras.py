"""Models of Keras that say what they are: .keras, and .h5 with a description.

The description decides the order of the layers and what arrays cannot say: which steps are read,
the activations, the kind of a GRU. Layers without influence on a prediction, such as Dropout, are
read over; every other layer and option that a network here lacks is refused by its name.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnn_xp.checkpoint import CheckpointError
from rnn_xp.interchange.reading.dialects import Module, recurrent
from rnn_xp.interchange.reading.stack import Direction, Stack

__all__ = ["understand"]

_Arrays = dict[str, NDArray[Any]]

_CELLS = {"SimpleRNN": "rnn", "GRU": "gru", "LSTM": "lstm"}
_WITHOUT_EFFECT = {
    *("InputLayer", "Dropout", "SpatialDropout1D", "GaussianNoise", "GaussianDropout"),
    *("ActivityRegularization", "AlphaDropout"),
}
_READS = {"GlobalAveragePooling1D": "mean", "GlobalMaxPooling1D": "max"}
_OUTPUTS = {
    "linear": "identity", None: "identity", "sigmoid": "sigmoid", "tanh": "tanh",
    "softmax": "softmax",
}  # fmt: skip
_Layer = tuple[str, str, dict[str, Any]]  # class, name of its group of arrays, config


def understand(config: dict[str, Any], arrays: _Arrays) -> Stack:
    """Read the model that a description and its arrays make up.

    Parameters
    ----------
    config : dict
        The description, as ``model.get_config`` and ``to_json`` have it.
    arrays : dict of str to ndarray

    Returns
    -------
    Stack

    Raises
    ------
    ValueError
        If the model is no stack of recurrent layers with a Dense; the layer is named.
    CheckpointError
        If the description is damaged.
    """
    try:
        layers = _layers(config, arrays)
        return _stack(layers, arrays)
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise CheckpointError(f"is damaged: its description of the model lacks {error}.") from error


def _stack(layers: list[_Layer], arrays: _Arrays) -> Stack:
    found: list[tuple[Direction, ...]] = []
    names: list[str] = []
    cell = ""
    says: dict[str, Any] = {"read": "last", "output_activation": "identity"}
    pooled = every = False
    head: tuple[Any, Any] | None = None
    for kind, group, options in layers:
        if kind in _WITHOUT_EFFECT:
            continue
        label = f"{kind} {options.get('name', '')!r}"
        if kind in _CELLS or kind == "Bidirectional":
            if found and (not every or pooled or head is not None):
                raise ValueError(f"{label} comes after a layer that does not return sequences.")
            inner, directions, more = _recurrent(kind, label, options, _of(group, arrays))
            if cell and (inner != cell or says | more != says):
                raise ValueError(f"{label} is another cell than {names[0]}; all must be the same.")
            cell, every = inner, bool(_option(options, "return_sequences"))
            says |= more
            found.append(directions)
            names.append(label)
        elif kind in _READS and every and not pooled and head is None:
            says["read"], pooled = _READS[kind], True
        elif kind in ("Dense", "TimeDistributed") and found and head is None:
            head, says["output_activation"] = _dense(kind, label, options, _of(group, arrays))
        elif kind == "Activation" and head is not None and _linear(says):
            says["output_activation"] = _output(label, options["activation"])
        else:
            raise ValueError(_why_not(kind, label, head is not None))
    if not found or head is None:
        raise ValueError("has no SimpleRNN, GRU or LSTM with a Dense after it.")
    says["topology"] = "many_to_one" if pooled or not every else "many_to_many"
    return Stack(cell, found, names, *head, says=says)


def _linear(says: dict[str, Any]) -> bool:
    return bool(says["output_activation"] == "identity")


def _why_not(kind: str, label: str, after: bool) -> str:
    if kind in ("Dense", "TimeDistributed"):
        return f"{label} is a second Dense, or stands before the recurrent layers: " + (
            "a network here has one readout, after them."
        )
    if kind == "Masking":
        return f"{label} masks steps by their values; give mask= or lengths= to Network.forward."
    where = " after the readout" if after else ""
    return f"{label}{where} is no layer of a network here: SimpleRNN, GRU or LSTM, then a Dense."


def _layers(config: dict[str, Any], arrays: _Arrays) -> list[_Layer]:
    """Return the layers in their order, with the names of their groups of arrays."""
    kind, inner = config["class_name"], config["config"]
    listed = inner if isinstance(inner, list) else inner["layers"]
    if kind not in ("Sequential", "Functional", "Model"):
        raise ValueError(f"is a model of the class {kind}; Sequential and Functional are read.")
    if len(listed) > 1000:
        raise ValueError("has over 1000 layers.")
    before: str | None = None
    counts: dict[str, int] = {}
    layers: list[_Layer] = []
    for layer in listed:
        name, options = str(layer["config"]["name"]), dict(layer["config"])
        kind = str(layer["class_name"])
        if "inbound_nodes" in layer:
            sources = _sources(layer["inbound_nodes"])
            if sources != ([] if before is None else [before]):
                raise ValueError(
                    f"{kind} {name!r} is called on {', '.join(sources) or 'nothing'}, but a chain "
                    "of layers is required, each called once on the one before."
                )
        before = name
        snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", kind).lower()
        number = counts[snake] = counts.get(snake, -1) + 1
        numbered = f"layers.{snake}_{number}" if number else f"layers.{snake}"
        groups = (f"model_weights.{name}", numbered, f"layers.{name}")
        group = next((g for g in groups if any(key.startswith(f"{g}.") for key in arrays)), name)
        layers.append((kind, group, options))
    return layers


def _sources(nodes: Any) -> list[str]:
    """Return the names of the layers whose outputs a layer is called on, in Keras 2 or 3."""
    found: list[str] = []
    pending = [nodes]
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            history = node.get("keras_history")
            pending += node.values()
            found += [str(history[0])] if history else []
        elif isinstance(node, list):
            if len(node) >= 3 and isinstance(node[0], str) and isinstance(node[1], int):
                if len(node) > 3:  # Keras 2; in Keras 3 it is a keras_history
                    found.append(node[0])
            else:
                pending += node
    return found


def _of(group: str, arrays: _Arrays) -> _Arrays:
    return {
        key.removeprefix(f"{group}."): array
        for key, array in arrays.items()
        if key.startswith(f"{group}.")
    }


def _option(options: dict[str, Any], name: str, default: Any = None) -> Any:
    """Return an option of a layer, or of the layer inside a wrapper."""
    inner = options.get("layer")
    if name not in options and isinstance(inner, dict):
        return inner["config"].get(name, default)
    return options.get(name, default)


def _recurrent(
    kind: str, label: str, options: dict[str, Any], arrays: _Arrays
) -> tuple[str, tuple[Direction, ...], dict[str, Any]]:
    """Return the cell of a layer, its directions and what it says of the network."""
    if kind == "Bidirectional":
        if options.get("merge_mode") != "concat":
            raise ValueError(
                f"{label} has merge_mode={options.get('merge_mode')!r}; 'concat' is required."
            )
        inner = options["layer"]
        kind, forward = str(inner["class_name"]), dict(inner["config"])
        backward = options.get("backward_layer")
        back = dict(backward["config"]) if backward else {**forward, "go_backwards": True}
        if kind not in _CELLS or (backward and backward["class_name"] != kind):
            raise ValueError(f"{label} wraps {kind}, which is no SimpleRNN, GRU or LSTM of a kind.")
        sides = [(forward, False), (back, True)]
    else:
        sides = [(options, False)]
    cell, says = _CELLS[kind], {}
    parts: list[Direction] = []
    for side, reverse in sides:
        says = _check(label, cell, side, reverse)
        module = _module(label, arrays, reverse if len(sides) == 2 else None)
        if module.cell != cell or module.reset_after not in (None, says.get("reset_after", True)):
            raise ValueError(f"{label} has arrays that do not fit its description.")
        direction = module.layers[0][0]
        if int(side["units"]) != direction.w_hh.shape[1]:
            raise ValueError(f"{label} has arrays of another size than its {side['units']} units.")
        if says.get("reset_after") is False:
            direction = direction._replace(b_hn=None)
        parts.append(direction)
    if len(sides) == 2 and _check(label, cell, sides[0][0], False) != says:
        raise ValueError(f"{label} has two directions with different options.")
    return cell, tuple(parts), says


def _check(label: str, cell: str, options: dict[str, Any], reverse: bool) -> dict[str, Any]:
    """Refuse options that no cell here has; return those that a network says."""
    expected: dict[str, Any] = {"go_backwards": reverse, "time_major": False}
    if cell != "rnn":
        expected |= {"recurrent_activation": "sigmoid", "activation": "tanh"}
    for name, value in expected.items():
        given = options.get(name, value)
        if given != value:
            raise ValueError(f"{label} has {name}={given!r}; {value!r} is required.")
    if cell == "rnn":
        activation = options.get("activation", "tanh")
        if activation not in ("tanh", "relu"):
            raise ValueError(
                f"{label} has activation={activation!r}; 'tanh' or 'relu' is required."
            )
        return {"activation": activation}
    return {"reset_after": bool(options.get("reset_after", True))} if cell == "gru" else {}


def _module(label: str, arrays: _Arrays, reverse: bool | None) -> Module:
    """Read the arrays of one direction: numbered by Keras 3, or named."""
    named: _Arrays = {}
    for key, array in arrays.items():
        *path, leaf = key.split(".")
        backward = any(part.startswith("backward") for part in path)
        if (reverse is not None and backward != reverse) or "seed_generator" in path:
            continue
        leaf = {"0": "kernel", "1": "recurrent_kernel", "2": "bias"}.get(leaf, leaf)
        if leaf in named:
            raise ValueError(f"{label} has two arrays named {leaf}.")
        named[leaf] = array
    if "recurrent_kernel" not in named:
        raise ValueError(f"{label} has no weights in the file.")
    module = recurrent(label, "recurrent_kernel", named)
    if named:
        raise ValueError(f"{label} has an array {min(named)}, which no such layer has.")
    return module


def _dense(
    kind: str, label: str, options: dict[str, Any], arrays: _Arrays
) -> tuple[tuple[Any, Any], str]:
    if kind == "TimeDistributed":
        inner = options["layer"]
        if inner["class_name"] != "Dense":
            raise ValueError(f"{label} wraps {inner['class_name']}; a Dense is required.")
        options = inner["config"]
    named: _Arrays = {}
    for key, array in arrays.items():
        leaf = key.rpartition(".")[2]
        named[{"0": "kernel", "1": "bias"}.get(leaf, leaf)] = array
    kernel = named.pop("kernel", np.zeros(0))
    units = int(options["units"])
    bias = named.pop("bias", np.zeros(units, kernel.dtype))
    if kernel.ndim != 2 or kernel.shape[1] != units or bias.shape != (units,) or named:
        raise ValueError(f"{label} has arrays that do not fit its {units} units.")
    return (kernel.T, bias), _output(label, options.get("activation"))


def _output(label: str, activation: Any) -> str:
    if not (activation is None or isinstance(activation, str)) or activation not in _OUTPUTS:
        shown = activation if isinstance(activation, str) else "one of its own"
        valid = ", ".join(repr(name) for name in _OUTPUTS if name)
        raise ValueError(f"{label} has activation={shown!r}; valid: {valid}.")
    return _OUTPUTS[activation]
