"""Backpropagation through time made visible, for a given network.

- `shapes`: of which products forward and backward consist, and which of them sum over the batch;
- `flow`: how the gradient changes on its way back through time;
- `check`: whether the gradient is right, and where it is furthest off.
"""

from rnn_xp.explain.check import GradientCheck, check_network
from rnn_xp.explain.flow import GradientFlow, measure_flow
from rnn_xp.explain.shapes import Dim, Operation, shape_table, walk_shapes

__all__ = [
    "Dim",
    "GradientCheck",
    "GradientFlow",
    "Operation",
    "check_network",
    "measure_flow",
    "shape_table",
    "walk_shapes",
]
