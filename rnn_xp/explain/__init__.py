"""Backpropagation through time made visible: shapes, gradient flow, a check, attributions.

- `shapes`: the products of forward and backward, and which of them sum over the batch;
- `flow`: the change of the gradient on its way back through time;
- `check`: the error of the gradient, and the entry that is furthest off;
- `attribution`: the input steps and the training windows that a prediction rests on;
- `curvature`: the largest eigenvalues of the Hessian, which bound the learning rate.
- `walk`: all of it to look at, on a page with every product of every sum.
"""

from rnn_xp.explain.attribution import (
    IntegratedGradients,
    influence,
    integrated_gradients,
    saliency,
)
from rnn_xp.explain.check import GradientCheck, check_network
from rnn_xp.explain.curvature import Curvature, Sharpness, measure_curvature
from rnn_xp.explain.flow import GradientFlow, measure_flow
from rnn_xp.explain.shapes import Dim, Operation, shape_table, walk_shapes
from rnn_xp.explain.walk import Walk, walk

__all__ = [
    "Curvature",
    "Dim",
    "GradientCheck",
    "GradientFlow",
    "IntegratedGradients",
    "Operation",
    "Sharpness",
    "Walk",
    "check_network",
    "influence",
    "integrated_gradients",
    "measure_curvature",
    "measure_flow",
    "saliency",
    "shape_table",
    "walk",
    "walk_shapes",
]
