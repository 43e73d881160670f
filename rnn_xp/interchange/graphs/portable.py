"""Layers spelled by what they compute: elementary operators in a Scan or a Loop over the steps.

::

    p = xs @ w_xh.T + b_h                      once, for all steps
    Scan  h, p[t], mask[t]  ->  h              h_t = step(p[t], h), or h where the mask is False

So there is no operator, activation or input whose meaning a runtime may have dropped: lengths are a
Where in each step, which carries the state on in both directions, and relu or the reset gate stand
where they act. A Loop says the same for runtimes that have no Scan. If the number of steps is
fixed, they are written one after another, for runtimes that have neither.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np

from rnn_xp.interchange.graphs.graph import Graph
from rnn_xp.interchange.graphs.native import Run
from rnn_xp.interchange.tensors import Floats
from rnn_xp.network import Network

__all__ = ["run_portable"]

_Step: TypeAlias = Callable[[Graph, str, list[str]], list[str]]

_EPS = 1e-5  # of layer normalisation, as in rnn_xp.kernels.portable.normalise


def run_portable(
    graph: Graph,
    net: Network,
    params: Mapping[str, Floats],
    xs: str,
    *,
    mask: str | None,
    initial: Sequence[str],
    rows: int | str,
    steps: int | str,
    loop: bool = False,
) -> Run:
    """Add the stack of layers.

    Parameters
    ----------
    graph, net, params, xs, initial : as for `run_native`
    mask : str, optional
        (T, N, 1), True within the length of a row.
    rows, steps : int or str
        N and T, or their names. Steps whose number is given are written one after another.
    loop : bool
        If True, open steps are a Loop, otherwise a Scan.

    Returns
    -------
    Run
    """
    fields = 2 if net.cell == "lstm" else 1
    finals: list[list[str]] = [[] for _ in range(fields)]
    zeros = "" if initial else _zeros(graph, net, xs, rows)
    outs: list[str] = []
    last: list[str] = []
    for layer in range(net.num_layers):
        if layer:
            xs = _joined(graph, outs, 2)
        below, below_last, outs, last = outs, last, [], []
        for direction in range(net.directions):
            prefix = net.layers.prefix(layer, direction)
            weights = {n.removeprefix(prefix): p for n, p in params.items() if n.startswith(prefix)}
            state = [_taken(graph, field, len(finals[0])) for field in initial] or [zeros] * fields
            projected = _linear(graph, xs, weights["w_xh"], weights.get("g_xh"))
            projected = graph.add("Add", projected, graph.weight(weights["b_h"]))
            step = _step(net, weights)
            if isinstance(steps, int):
                final, hs = _unrolled(graph, step, projected, state, mask, steps, direction)
            else:
                add = _looped if loop else _scanned
                final, hs = add(graph, net, step, projected, state, mask, rows, direction)
            for values, value in zip(finals, final, strict=True):
                values.append(value)
            end = final[0]
            if net.residual and layer:
                hs, end = (
                    graph.add("Add", a, b[direction]) for a, b in ((hs, below), (end, below_last))
                )
            outs.append(hs)
            last.append(end)
    return Run(_joined(graph, outs, 2), _joined(graph, last, 1), finals)


def _scanned(
    graph: Graph,
    net: Network,
    step: _Step,
    projected: str,
    state: list[str],
    mask: str | None,
    rows: int | str,
    direction: int,
) -> tuple[list[str], str]:
    """Add a Scan over the steps; return the final state (N, H) and the outputs (T, N, H)."""
    body = graph.inside()
    before = [body.input(f"{body.prefix}s{k}", (rows, net.hidden_size)) for k in range(len(state))]
    size = net.layers.cells[0].gates * net.hidden_size
    p = body.input(f"{body.prefix}p", (rows, size))
    given = [projected]
    after = step(body, p, before)
    if mask is not None:
        now = body.input(f"{body.prefix}m", (rows, 1), np.bool_)
        after = _kept(body, now, after, before)
        given.append(mask)
    shape = (rows, net.hidden_size)
    ends = [body.output(f"{body.prefix}o{k}", value, shape) for k, value in enumerate(after)]
    body.output(f"{body.prefix}h", ends[0], shape)
    if direction:  # onnx's own evaluator knows no Scan that goes backwards
        given = [_reversed(graph, value) for value in given]
    *final, hs = graph.add(
        "Scan", *state, *given,
        outputs=len(state) + 1, body=body.proto("step"), num_scan_inputs=len(given),
    )  # fmt: skip
    return final, _reversed(graph, hs) if direction else hs


def _looped(
    graph: Graph,
    net: Network,
    step: _Step,
    projected: str,
    state: list[str],
    mask: str | None,
    rows: int | str,
    direction: int,
) -> tuple[list[str], str]:
    """Add a Loop over the steps; return the final state and the outputs as `_scanned`."""
    if direction:
        projected = _reversed(graph, projected)
        mask = mask and _reversed(graph, mask)
    steps = graph.add("Gather", graph.add("Shape", projected), graph.constant(0, np.int64))
    body, shape = graph.inside(), (rows, net.hidden_size)
    t = body.input(f"{body.prefix}t", (), np.int64)
    more = body.input(f"{body.prefix}e", (), np.bool_)
    before = [body.input(f"{body.prefix}s{k}", shape) for k in range(len(state))]
    after = step(body, body.add("Gather", projected, t, axis=0), before)
    if mask is not None:
        after = _kept(body, body.add("Gather", mask, t, axis=0), after, before)
    body.output(f"{body.prefix}e1", more, (), np.bool_)
    ends = [body.output(f"{body.prefix}o{k}", value, shape) for k, value in enumerate(after)]
    body.output(f"{body.prefix}h", ends[0], shape)
    *final, hs = graph.add(
        "Loop", steps, graph.constant(True, np.bool_), *state,
        outputs=len(state) + 1, body=body.proto("step"),
    )  # fmt: skip
    # onnx's own evaluator stacks the rows of all steps, (T*N, H); elsewhere this changes nothing.
    every = [graph.integers(-1), _rows(graph, projected, rows), graph.integers(net.hidden_size)]
    hs = graph.add("Reshape", hs, graph.add("Concat", *every, axis=0))
    return final, _reversed(graph, hs) if direction else hs


def _unrolled(
    graph: Graph,
    step: _Step,
    projected: str,
    state: list[str],
    mask: str | None,
    steps: int,
    direction: int,
) -> tuple[list[str], str]:
    """Add the steps one after another; return the final state and the outputs as `_scanned`."""
    outs = [""] * steps
    first = graph.integers(0)
    for t in reversed(range(steps)) if direction else range(steps):
        after = step(graph, _taken(graph, projected, t), state)
        if mask is not None:
            after = _kept(graph, _taken(graph, mask, t), after, state)
        state = after
        outs[t] = graph.add("Unsqueeze", state[0], first)
    return state, _joined(graph, outs, 0)


def _taken(graph: Graph, value: str, at: int) -> str:
    """Add one entry of a value along its first axis."""
    return str(graph.add("Gather", value, graph.constant(at, np.int64), axis=0))


def _reversed(graph: Graph, value: str) -> str:
    """Add a sequence (T, ...) with its steps in the other order."""
    zero, one = graph.constant(0, np.int64), graph.constant(1, np.int64)
    steps = graph.add("Gather", graph.add("Shape", value), zero)
    last = graph.add("Sub", steps, one)
    order = graph.add("Sub", last, graph.add("Range", zero, steps, one))
    return str(graph.add("Gather", value, order, axis=0))


def _kept(graph: Graph, mask: str, after: list[str], before: list[str]) -> list[str]:
    return [graph.add("Where", mask, new, old) for new, old in zip(after, before, strict=True)]


def _step(net: Network, weights: Mapping[str, Floats]) -> _Step:
    """Return the function that adds one step of a layer and direction."""
    kind = {"rnn": _rnn, "gru": _gru if net.reset_after else _gru_reset_before, "lstm": _lstm}
    add = kind[net.cell]
    return lambda graph, p, state: add(graph, net, weights, p, state)


def _rnn(
    graph: Graph, net: Network, weights: Mapping[str, Floats], p: str, state: list[str]
) -> list[str]:
    z = graph.add("Add", p, _linear(graph, state[0], weights["w_hh"], weights.get("g_hh")))
    return [graph.add({"tanh": "Tanh", "relu": "Relu"}[net.activation], z)]


def _gru(
    graph: Graph, net: Network, weights: Mapping[str, Floats], p: str, state: list[str]
) -> list[str]:
    a = _linear(graph, state[0], weights["w_hh"], weights.get("g_hh"))
    (p_r, p_z, p_n), (a_r, a_z, a_n) = (_split(graph, value, net, 3) for value in (p, a))
    r, z = (graph.add("Sigmoid", graph.add("Add", *both)) for both in ((p_r, a_r), (p_z, a_z)))
    q = graph.add("Add", a_n, graph.weight(weights["b_hn"]))
    n = graph.add("Tanh", graph.add("Add", p_n, graph.add("Mul", r, q)))
    return [_between(graph, z, n, state[0])]


def _gru_reset_before(
    graph: Graph, net: Network, weights: Mapping[str, Floats], p: str, state: list[str]
) -> list[str]:
    cut = 2 * net.hidden_size
    gain = weights.get("g_hh")
    first, second = (None, None) if gain is None else (gain[:cut], gain[cut:])
    a = _linear(graph, state[0], weights["w_hh"][:cut], first)
    (p_r, p_z, p_n), (a_r, a_z) = _split(graph, p, net, 3), _split(graph, a, net, 2)
    r, z = (graph.add("Sigmoid", graph.add("Add", *both)) for both in ((p_r, a_r), (p_z, a_z)))
    kept = graph.add("Mul", r, state[0])
    n = graph.add("Add", p_n, _linear(graph, kept, weights["w_hh"][cut:], second))
    return [_between(graph, z, graph.add("Tanh", n), state[0])]


def _lstm(
    graph: Graph, net: Network, weights: Mapping[str, Floats], p: str, state: list[str]
) -> list[str]:
    h, c = state
    z = graph.add("Add", p, _linear(graph, h, weights["w_hh"], weights.get("g_hh")))
    z_i, z_f, z_g, z_o = _split(graph, z, net, 4)
    i, f, o = (graph.add("Sigmoid", value) for value in (z_i, z_f, z_o))
    kept, new = graph.add("Mul", f, c), graph.add("Mul", i, graph.add("Tanh", z_g))
    c = graph.add("Add", kept, new)
    return [graph.add("Mul", o, graph.add("Tanh", c)), c]


def _between(graph: Graph, z: str, n: str, h: str) -> str:
    """Add (1 - z) * n + z * h."""
    new = graph.add("Mul", graph.add("Sub", graph.constant(1.0), z), n)
    return str(graph.add("Add", new, graph.add("Mul", z, h)))


def _linear(graph: Graph, x: str, w: Floats, gain: Floats | None) -> str:
    """Add the product x @ w.T and, given a gain, its normalisation."""
    a = graph.add("MatMul", x, graph.weight(w.T))
    if gain is None:
        return str(a)
    d = graph.add("Sub", a, graph.add("ReduceMean", a, axes=[-1]))
    variance = graph.add("ReduceMean", graph.add("Mul", d, d), axes=[-1])
    deviation = graph.add("Sqrt", graph.add("Add", variance, graph.constant(_EPS)))
    n = graph.add("Div", d, deviation)
    return str(graph.add("Mul", n, graph.weight(gain)))


def _split(graph: Graph, value: str, net: Network, gates: int) -> list[str]:
    """Add the blocks (N, H) of the gates."""
    ends = [graph.integers(gate * net.hidden_size) for gate in range(gates + 1)]
    axis = graph.integers(1)
    return [graph.add("Slice", value, *pair, axis) for pair in itertools.pairwise(ends)]


def _joined(graph: Graph, values: list[str], axis: int) -> str:
    return values[0] if len(values) == 1 else str(graph.add("Concat", *values, axis=axis))


def _zeros(graph: Graph, net: Network, xs: str, rows: int | str) -> str:
    """Add the state (N, H) before the first step."""
    if isinstance(rows, int):
        return graph.constant(np.zeros((rows, net.hidden_size)))
    size = graph.integers(net.hidden_size)
    shape = graph.add("Concat", _rows(graph, xs, rows), size, axis=0)
    return str(graph.add("Expand", graph.constant(np.zeros((1, 1))), shape))


def _rows(graph: Graph, xs: str, rows: int | str) -> str:
    """Add the number of rows of a sequence (T, N, .), as a vector of one entry."""
    if isinstance(rows, int):
        return graph.integers(rows)
    return str(graph.add("Gather", graph.add("Shape", xs), graph.integers(1)))
