"""Backpropagation through time made visible: shapes, gradient flow, a check.

- `shapes`: the products of forward and backward, and which of them sum over the batch;
- `flow`: the change of the gradient on its way back through time;
- `check`: the error of the gradient, and the entry that is furthest off;
- `walk`: all of it to look at, on a page with every product of every sum.
"""

from rnn_xp.explain.check import GradientCheck, check_network
from rnn_xp.explain.flow import GradientFlow, measure_flow
from rnn_xp.explain.shapes import Dim, Operation, shape_table, walk_shapes
from rnn_xp.explain.walk import Walk, walk

__all__ = [
    "Dim",
    "GradientCheck",
    "GradientFlow",
    "Operation",
    "Walk",
    "check_network",
    "measure_flow",
    "shape_table",
    "walk",
    "walk_shapes",
]
