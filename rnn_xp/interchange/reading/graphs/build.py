"""From the units that a graph consists of to a model: layers in order, readout, scaler."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rnn_xp.data.scalers import Scaler
from rnn_xp.interchange.reading.graphs.values import Data, Entries, GraphError, Unit
from rnn_xp.interchange.reading.graphs.walk import Walked
from rnn_xp.interchange.reading.stack import Direction, Stack

__all__ = ["Built", "build"]

_Floats = NDArray[np.float64]
_Affine = tuple[_Floats, _Floats]


class Built(NamedTuple):
    """A model, and where its predictions lie in the graph's output.

    Attributes
    ----------
    stack : Stack
    output : str
        Name of the graph's output.
    places : ndarray of int64
        Place of each entry of the output among the predictions (rows, [steps,] columns).
    """

    stack: Stack
    output: str
    places: NDArray[np.int64]


def build(walked: Walked) -> Built:
    """Make a model of a graph that was walked.

    Raises
    ------
    GraphError
        If its parts do not make up one network.
    """
    entries = walked.entries
    name, pred, ignored = _prediction(walked)
    origins = entries.origins(pred)
    last = entries.units[int(origins.unit.flat[0])]
    rows, steps, columns = last.shape
    places = (origins.row * max(steps, 1) + np.maximum(origins.step, 0)) * columns + origins.column
    if sorted(places.ravel().tolist()) != list(range(rows * max(steps, 1) * columns)):
        raise GraphError(f"the output {name} is a part of the predictions, or repeats them.")
    outer = _by_column(pred, origins.column, columns)
    activation, readout, inner = "identity", last, outer
    if last.kind == "output":
        activation = last.facts["activation"]
        readout = entries.units[last.facts["of"]]
        inner = (last.facts["scale"], last.facts["offset"])
    layers, cell, says, names, x_affine = _layers(entries, readout)
    scaler = _scaler(x_affine, outer, last.kind == "readout")
    says |= {"output_activation": activation, "topology": "many_to_one"}
    if readout.shape[1]:
        says["topology"] = "many_to_many"
    else:
        says["read"] = readout.facts["read"]
    w_hy, b_y = _readout(entries, readout, inner, scaler, names, last.kind == "readout")
    if last.kind == "output" and scaler is None and not _is_plain(outer):
        raise GraphError(
            "the prediction is scaled after its activation, which no network here does."
        )
    if scaler is None and x_affine is not None:
        layers[0] = tuple(_with_affine(each, x_affine) for each in layers[0])
    notes = {"ignored": ", ".join(ignored)} if ignored else {}
    if walked.states:
        notes["initial state"] = f"zero, which the graph takes as {', '.join(walked.states)}"
    labels = [f"layer {at}" for at in range(len(layers))]
    stack = Stack(cell, layers, labels, w_hy, b_y, says, notes, scaler)
    return Built(stack, name, places)


def _prediction(walked: Walked) -> tuple[str, Data, list[str]]:
    """Return the output that the readout makes, and the names of outputs that are states."""
    found: dict[str, Data] = {}
    ignored: list[str] = []
    for name, value in walked.outputs.items():
        if not isinstance(value, Data):
            raise GraphError(f"the output {name} is constant.")
        kinds = walked.entries.kinds(walked.entries.origins(value))
        if len(np.unique(walked.entries.origins(value).unit)) == 1 and kinds <= {
            "readout",
            "output",
        }:
            found[name] = value
        elif kinds <= {"state", "cell"}:
            ignored.append(name)
        else:
            raise GraphError(f"the output {name} is made of {', '.join(sorted(kinds))}.")
    if len(found) != 1:
        raise GraphError(
            f"one output of a readout is required, found {', '.join(found) or 'none'}; states "
            "alone have no readout."
        )
    (name, value), *_ = found.items()
    return name, value, ignored


def _by_column(data: Data, column: NDArray[np.int64], columns: int) -> _Affine:
    parts = []
    for part in (data.scale, data.offset):
        values = np.zeros(columns)
        values[column.ravel()] = part.ravel()
        if (values[column] != part).any():
            raise GraphError("predictions at different rows or steps are scaled differently.")
        parts.append(values)
    return parts[0], parts[1]


def _layers(
    entries: Entries, readout: Unit
) -> tuple[list[tuple[Direction, ...]], str, dict[str, Any], dict[int, int], _Affine | None]:
    """Return the layers, and the place of each unit among the columns of its layer."""
    states = [unit for unit in entries.units if unit.kind == "state"]
    levels: dict[int, int] = {}
    for unit in states:  # a source comes before what reads it
        below = {levels.get(source, -1) for source, _ in unit.facts["sources"]}
        if len(below) != 1:
            raise GraphError("a layer reads several layers at once, as a residual connection does.")
        levels[unit.number] = below.pop() + 1
    sources = {source for source, _ in readout.facts["sources"]}
    of = {entries.units[n].facts.get("of", n) for n in sources}
    depth = max(levels.values(), default=-1) + 1
    if {levels[number] for number in of} != {depth - 1}:
        raise GraphError("the readout reads another layer than the last one.")
    places: dict[int, int] = {}
    layers: list[tuple[Direction, ...]] = []
    affine: _Affine | None = None
    first = states[0].facts
    for level in range(depth):
        units = sorted(
            (unit for unit in states if levels[unit.number] == level),
            key=lambda unit: bool(unit.facts["reverse"]),
        )
        if [unit.facts["reverse"] for unit in units] not in ([False], [False, True]):
            raise GraphError(
                f"layer {level} has {len(units)} recurrent operators with the directions "
                + ", ".join("reverse" if u.facts["reverse"] else "forward" for u in units)
                + "; one forward, and one reverse beside it, are what a network here has."
            )
        size = entries.units[0].shape[2] if not level else sum(
            entries.units[n].shape[2] for n in places if levels[n] == level - 1
        )  # fmt: skip
        parts: list[Direction] = []
        for unit in units:
            if unit.facts["cell"] != first["cell"] or _said(unit) != _said(states[0]):
                raise GraphError("its layers are different cells; all must be the same.")
            spread = _spread(unit, places, size)
            if level and not _is_plain(spread[1]):
                raise GraphError(f"layer {level} reads scaled states, which no network here does.")
            if not level and not all(map(np.array_equal, spread[1], affine or spread[1])):
                raise GraphError("two directions of a layer read differently scaled inputs.")
            affine = affine or spread[1]
            parts.append(unit.facts["direction"]._replace(w_xh=spread[0]))
        layers.append(tuple(parts))
        start = 0
        for unit in units:
            places[unit.number], start = start, start + unit.shape[2]
    plain = affine is None or _is_plain(affine)
    return layers, first["cell"], _said(states[0]), places, None if plain else affine


def _said(unit: Unit) -> dict[str, Any]:
    return {k: v for k, v in unit.facts.items() if k in ("activation", "reset_after")}


def _spread(unit: Unit, places: dict[int, int], size: int) -> tuple[NDArray[Any], _Affine]:
    """Return the input weights with a column for each value of the layer below, in its order."""
    direction: Direction = unit.facts["direction"]
    scale, offset = unit.facts["shift"]
    weights = np.zeros((direction.w_xh.shape[0], size), direction.w_xh.dtype)
    scales, offsets = np.ones(size), np.zeros(size)
    taken: set[int] = set()
    for k, (source, column) in enumerate(unit.facts["sources"]):
        place = places.get(source, 0) + column
        if place in taken:
            raise GraphError("a layer reads a value twice.")
        taken.add(place)
        weights[:, place] = direction.w_xh[:, k]
        scales[place], offsets[place] = scale[k], offset[k]
    return weights, (scales, offsets)


def _is_plain(affine: _Affine) -> bool:
    return bool((affine[0] == 1.0).all() and (affine[1] == 0.0).all())


def _scaler(x: _Affine | None, y: _Affine, linear: bool) -> Scaler | None:
    """Return the scaler if the prediction undoes the scaling of the first column of the input."""
    if x is None or not (x[0] > 0.0).all() or not np.isfinite(np.concatenate(x)).all():
        return None
    scale, offset = 1.0 / x[0], -x[1] / x[0]
    if not np.allclose(y[0], scale[0], rtol=1e-9, atol=0.0):
        return None
    if not linear and not np.allclose(y[1], offset[0], rtol=1e-9, atol=1e-12):
        return None
    return Scaler("standard", tuple(_short(offset)), tuple(_short(scale)))


def _short(values: _Floats) -> list[float]:
    """Return the numbers as the float32 that they were in the graph, where they are such."""
    near = values.astype(np.float32).astype(np.float64)
    same = np.isclose(near, values, rtol=1e-12, atol=0.0)
    return [float(value) for value in np.where(same, near, values)]


def _readout(
    entries: Entries, unit: Unit, affine: _Affine, scaler: Scaler | None, places: dict[int, int],
    linear: bool,
) -> tuple[NDArray[Any], NDArray[Any]]:  # fmt: skip
    """Return w_hy and b_y, with what is scaled and added after the product."""
    last = max((n for n in places), default=0)
    sources = [entries.units[n] for n, _ in unit.facts["sources"]]
    origins = [source.facts.get("of", source.number) for source in sources]
    width = max(places[n] + entries.units[n].shape[2] for n in {*origins, last})
    weights = np.zeros((unit.shape[2], width))
    for k, ((_, column), origin) in enumerate(zip(unit.facts["sources"], origins, strict=True)):
        weights[:, places[origin] + column] += unit.facts["weights"][:, k]
    scale, offset = affine
    if scaler is not None and linear:
        scale = np.where(
            np.isclose(scale, scaler.scale[0], rtol=1e-9), 1.0, scale / scaler.scale[0]
        )
        offset = (offset - scaler.offset[0]) / scaler.scale[0]
    bias = scale * unit.facts["bias"] + offset
    dtype = np.float64 if unit.facts["dtype"] == np.float64 else np.float32
    return (weights * scale[:, None]).astype(dtype), bias.astype(dtype)


def _with_affine(direction: Direction, affine: _Affine) -> Direction:
    """Fold a scaled input into the weights: w (s x + o) + b = (w s) x + (b + w o)."""
    w = direction.w_xh.astype(np.float64)
    bias = direction.b_h + w.dot(affine[1])
    kind = direction.w_xh.dtype
    return direction._replace(w_xh=(w * affine[0]).astype(kind), b_h=bias.astype(kind))
