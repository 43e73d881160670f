"""The shapes of forward and backward: every matrix product that a network computes, in order.

Arrays hold samples in rows: ``h (N,H) @ w_hh.T (H,H) -> (N,H)``. Books put samples in columns:
``w_hh (H,H) @ h (H,N) -> (H,N)``. Weights and their gradients are the same in both conventions;
everything else is transposed. A product that contracts the batch axis is a sum over samples and, if
its rows belong to all steps, over time as well. That axis is marked: ``[N]``, ``[T*N]``.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from string import Template
from typing import NamedTuple

from rnn_xp.cells.cell import Walk
from rnn_xp.network import Network

__all__ = ["Dim", "Operation", "shape_table", "walk_shapes"]

# How often | samples in rows | in columns, if that differs | shapes. How often: "once", "each t",
# or "turn", which is each t with feedback and otherwise once for all steps; then conditions.
# Axes: N rows of a step, S of all steps, A of a turn, R of the readout's turn, M read in all;
# X inputs of the layer, H hidden, E 2H, K all gates, D all directions, O outputs. The lines of a
# cell come from its method `walk`.
_LAYER = """
turn plain  | p = x @ w_xh.T + b_h            | p = w_xh @ x + b_h          | A,X @ X,K
turn norm   | a_x = x @ w_xh.T                | a_x = w_xh @ x              | A,X @ X,K
turn norm   | p = g_xh * norm(a_x) + b_h      |                             | A,K
"""
_RESIDUAL = """
each t residual | out_t = h_t + x_t           |                             | N,H
"""
_READOUT = """
once plain  | h = $read                       |                             | M,D
turn        | $y = h @ w_hy.T + b_y           | $y = w_hy @ h + b_y         | R,D @ D,O
once linear | $y += last steps of x @ w_xy.T  | $y += w_xy @ last steps of x | M,L @ L,O
turn active | pred = $g(y)                    |                             | R,O
each t feedback | x_{t+1} = pred_t            |                             | N,O
"""

_READOUT_BACK = """
each t feedback | dpred_t = own + dx_{t+1}    |                             | N,O
turn        | dy = $dy                        |                             | R,O
turn        | dh = dy @ w_hy                  | dh = w_hy.T @ dy            | R,O @ O,D
once        | dw_hy = dy.T @ h                | dw_hy = dy @ h.T            | O,M @ M,D
once        | db_y = ones @ dy                | db_y = dy @ ones            | 1,M @ M,O
once linear | dw_xy = dy.T @ last steps of x  | dw_xy = dy @ last steps of x.T | O,M @ M,L
"""
_OWN = """
each t own  | dh_t = own + through h_{t+1}    |                             | N,H
"""
_LAYER_BACK = """
turn below norm | a_x = x @ w_xh.T, again     | a_x = w_xh @ x, again       | A,X @ X,K
turn below  | dx = $dx @ w_xh                 | dx = w_xh.T @ $dx           | A,K @ K,X
each t residual | dx_t += dout_t              |                             | N,H
once norm   | a_x = x @ w_xh.T, again         | a_x = w_xh @ x, again       | S,X @ X,K
once norm   | da_x = norm_back($dp * g_xh)    |                             | S,K
once        | dw_xh = ${dx}.T @ x             | dw_xh = $dx @ x.T           | K,S @ S,X
once        | db_h = ones @ $dp               | db_h = $dp @ ones           | 1,S @ S,K
once norm   | dg_xh = ones @ ($dp * norm(a_x)) | dg_xh = ($dp * norm(a_x)) @ ones | 1,S @ S,K
"""


_INDENT = " " * 6  # before the further lines of an operation


class Dim(NamedTuple):
    """An axis: its name and its length."""

    text: str
    size: int


_Shape = tuple[Dim, ...]


@dataclass(frozen=True)
class Operation:
    """One line of the walk; shapes are those with samples in rows.

    Attributes
    ----------
    part : str
        Part of the network, such as "forward, layer 0" or "backward, readout".
    rows, columns : str
        The equation, with samples in rows and in columns.
    left, right : tuple of Dim
        Shapes of the factors; empty if the operation is not a matrix product.
    result : tuple of Dim
        Shape of the result.
    each_step : bool
        True if it is computed step by step, False if once for all steps.
    times : int
        Number of computations over all steps, layers and directions.
    """

    part: str
    rows: str
    columns: str
    left: _Shape
    right: _Shape
    result: _Shape
    each_step: bool
    times: int

    @property
    def sums_over(self) -> str:
        """Batch axis that the product contracts, "N" or "T*N"; empty if it contracts none."""
        inner = self.left[1].text if self.left else ""
        return inner if inner in ("N", "T*N") else ""

    def shapes(self, *, columns: bool = False, sizes: bool = False) -> str:
        """Return the shapes as text, in letters or in numbers."""
        factors, result = [self.left, self.right] if self.left else [], self.result
        # The gradient of a weight has the weight's shape in both conventions.
        if columns and not self.rows.startswith("dw"):
            factors, result = [factor[::-1] for factor in factors[::-1]], result[::-1]

        def show(shape: _Shape) -> str:
            return "({})".format(",".join(self._show(dim, sizes=sizes) for dim in shape))

        product = " @ ".join(map(show, factors))
        return f"{product} -> {show(result)}" if factors else show(result)

    def _show(self, dim: Dim, *, sizes: bool) -> str:
        text = str(dim.size) if sizes else dim.text
        return f"[{text}]" if dim.text == self.sums_over else text


def walk_shapes(net: Network, rows: int, steps: int) -> list[Operation]:
    """List the operations of `Network.value_and_grad` without dropout, with their shapes.

    Parameters
    ----------
    net : Network
    rows, steps : int
        N and T.

    Returns
    -------
    list of Operation
        Every matrix product, and the entry-by-entry operations between them.

    Raises
    ------
    ValueError
        If the cell does not list its operations, see `rnn_xp.cells.cell.Cell.walk`.

    Examples
    --------
    >>> from rnn_xp import Network
    >>> walk = walk_shapes(Network(hidden_size=50), rows=8317, steps=10)
    >>> product = next(op for op in walk if op.rows.startswith("dw_hy"))
    >>> product.rows, product.shapes(sizes=True), product.sums_over
    ('dw_hy = dy.T @ h', '(1,[8317]) @ ([8317],50) -> (1,50)', 'N')
    """
    cell = _operations_of(net)
    upper = net.num_layers - 1
    groups = [(0, "layer 0", 1)]
    if upper:
        groups.append((1, f"layers 1 to {upper}, each" if upper > 1 else "layer 1", upper))
    if net.bidirectional:
        groups = [(n, f"{name}, each of two directions", 2 * k) for n, name, k in groups]
    make = _Maker(net, rows, steps)
    walk: list[Operation] = []
    for layer, name, copies in groups:
        text = _LAYER + cell.forward + _RESIDUAL
        walk += make(f"forward, {name}", text, copies, layer)
    walk += [*make("forward, readout", _READOUT), *make("backward, readout", _READOUT_BACK)]
    for layer, name, copies in reversed(groups):
        text = _OWN + cell.backward + _LAYER_BACK
        walk += make(f"backward, {name}", text, copies, layer)
    return walk


def _operations_of(net: Network) -> Walk:
    """Return the operations of the cell, or say that it does not list them."""
    cell = net.layers.cells[0]
    if (operations := cell.walk()) is None:
        raise ValueError(
            f"{type(cell).__name__} does not list its operations, so that they cannot be "
            "explained. Define its method walk(), which returns a rnn_xp.cells.cell.Walk."
        )
    return operations


class _Maker:
    """Maker of the operations of one network from the lines above."""

    def __init__(self, net: Network, rows: int, steps: int) -> None:
        self.net, self.steps = net, steps

        def hidden(k: int) -> Dim:
            return Dim("H" if k == 1 else f"{k}H", k * net.hidden_size)

        n, s = Dim("N", rows), Dim("T*N", steps * rows)
        read = n if net.topology == "many_to_one" else s
        gates = hidden(net.layers.cells[0].gates)
        self.axes = {
            "N": n,
            "S": s,
            "A": n if net.feedback else s,
            "M": read,
            "R": n if net.feedback else read,
            "1": Dim("1", 1),
            "H": hidden(1),
            "E": hidden(2),
            "K": gates,
            "D": hidden(net.directions),
            "O": Dim("O", net.output_size),
            "L": Dim("L*I", net.linear_lags * net.input_size),
        }

    def __call__(
        self, part: str, text: str, copies: int = 1, layer: int | None = None
    ) -> Iterator[Operation]:
        net, words, conditions = self.net, self._words(), self._conditions(layer)
        inputs = self.axes["D"] if layer else Dim("I", net.input_size)
        axes = {**self.axes, "X": inputs}
        for line in text.strip().splitlines():
            if not line:
                continue
            when, rows, columns, shapes = (field.strip() for field in line.split("|"))
            often, *needed = when.replace("each t", "each").split()
            if not conditions.issuperset(needed):
                continue
            each_step = often == "each" or (often == "turn" and net.feedback)
            sides = [tuple(axes[axis] for axis in side.split(",")) for side in shapes.split(" @ ")]
            left, right = sides if len(sides) == 2 else ((), ())
            yield Operation(
                part=part,
                rows=Template(rows).substitute(words),
                columns=Template(columns or rows).substitute(words),
                left=left,
                right=right,
                result=(left[0], right[1]) if left else sides[0],
                each_step=each_step,
                times=copies * (self.steps if each_step else 1),
            )

    def _conditions(self, layer: int | None) -> set[str]:
        net, readout = self.net, layer is None
        top_alone = layer == net.num_layers - 1 and net.num_layers <= 2
        read_once = net.topology == "many_to_one" and net.read == "last"
        true = {
            "norm": net.layer_norm,
            "plain": not net.feedback if readout else not net.layer_norm,
            "feedback": net.feedback,
            "linear": bool(net.linear_lags),
            "active": net.output_activation != "identity",
            "residual": net.residual and bool(layer),
            "own": net.feedback or not (top_alone and read_once),
            "below": net.feedback or bool(layer),
        }
        return {name for name, holds in true.items() if holds}

    def _words(self) -> dict[str, str]:
        net = self.net
        read = {"mean": "mean of h_t", "max": "max of h_t", "last": "h_T"}[net.read]
        if net.bidirectional and net.read == "last":
            read = "h_T, reversed h_1"
        dp = _operations_of(net).dp
        active = net.output_activation != "identity"
        return {
            "g": net.output_activation,
            "y": "y" if active else "pred",
            "dy": "dpred through the slope of g" if active else "dpred",
            "read": read if net.topology == "many_to_one" else "every h_t",
            "dp": dp,
            "dx": "da_x" if net.layer_norm else dp,
            "da": "da" if net.layer_norm else dp,
        }


def shape_table(
    walk: list[Operation], *, columns: bool = False, width: int | None = None
) -> list[str]:
    """Format a walk as lines of aligned text.

    Parameters
    ----------
    walk : list of Operation
    columns : bool
        If True, samples are in columns, as in books; otherwise in rows.
    width : int, optional
        Columns of the terminal. Where they are too few for a line per operation, each operation
        takes two or three lines, all broken at the same place.

    Returns
    -------
    list of str
    """
    table = [
        (
            f"  {op.columns if columns else op.rows}",
            "each t" if op.each_step else "once",
            op.shapes(columns=columns),
            op.shapes(columns=columns, sizes=True),
        )
        for op in walk
    ]
    widths = [max(len(row[i]) for row in table) for i in range(4)]
    breaks = _breaks(widths, width)
    lines, part = [], ""
    for op, row in zip(walk, table, strict=True):
        if op.part != part:
            part = op.part
            lines.append(part)
        cells = [f"{cell:{size}}" for cell, size in zip(row, widths, strict=True)]
        for first, last in itertools.pairwise(breaks):
            indent = _INDENT if first else ""
            lines.append(indent + "  ".join(cells[first:last]).rstrip())
    return lines


def _breaks(widths: list[int], width: int | None) -> tuple[int, ...]:
    """Return the cells with which a row's lines begin: as few lines as fit into the width."""
    for breaks in ((0, 4), (0, 3, 4), (0, 2, 4)):
        lines = itertools.pairwise(breaks)
        needed = [sum(widths[a:b]) + 2 * (b - a - 1) + (len(_INDENT) if a else 0) for a, b in lines]
        if width is None or max(needed) <= width:
            return breaks
    return 0, 2, 3, 4
