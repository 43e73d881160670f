"""Layers that are prepared once and called often, on few rows: streams and single predictions.

What a call of a kernel does before it computes, packing the weights and laying out buffers, takes
longer than a step of one row. Here it is done once for each number of steps. Results have the bits
of the kernels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rnn_xp.kernels.course import Course
from rnn_xp.kernels.numba.layer import Layout

__all__ = ["Prepared"]

_Floats = NDArray[np.floating[Any]]
_MOST_STEPS = 4096  # of layouts that are kept, all together


class _Layer(NamedTuple):
    """A layer for one number of steps, and views of its buffers.

    Attributes
    ----------
    inputs : ndarray (T, N, I)
        Where the input goes.
    carried : list of (state, first, last), each ndarray (N, H)
        A field of the state: where it is between calls, before the first step, after the last.
    """

    layout: Layout
    inputs: _Floats
    carried: list[tuple[_Floats, _Floats, _Floats]]


class Prepared:
    """Layers in one direction, and the state that they are in.

    Parameters
    ----------
    kernels : sequence of L kernels
    weights : sequence of L dict
        Parameters of the layers; nobody may write to them afterwards.
    rows : int
    fields : int
        Number of fields of a state.
    residual : bool
        If True, each layer but the first adds its input to its output.
    workspace : Workspace
        Gives the buffers; each number of steps has buffers apart.
    """

    def __init__(
        self,
        kernels: Sequence[Any],
        weights: Sequence[dict[str, _Floats]],
        rows: int,
        fields: int,
        residual: bool,
        workspace: Any,
    ) -> None:
        self._kernels, self._residual, self._workspace = kernels, residual, workspace
        self._weights = weights
        size = weights[0]["w_hh"].shape[1]
        self.state = np.zeros((fields, len(kernels), rows, size), workspace.dtype)
        """The state (fields, L, N, H), which `run` takes further."""
        self._layers: dict[int, list[_Layer]] = {}

    def begin(self, state: Sequence[_Floats]) -> None:
        """Continue from a state, each field (L, N, H)."""
        for field, given in zip(self.state, state, strict=True):
            field[...] = given

    def run(self, x: _Floats) -> _Floats:
        """Compute the steps of x (N, T, I); return the states of the top layer (T, N, H).

        They are overwritten by the next call.
        """
        steps = x.shape[1]
        layers = self._layers.get(steps) or self._lay_out(steps)
        outs: _Floats = x.transpose(1, 0, 2)
        for number, (layout, inputs, carried) in enumerate(layers):
            inputs[...] = below = outs
            for state, first, _ in carried:
                first[...] = state
            layout.function(*layout.arguments)
            for state, _, last in carried:
                state[...] = last
            outs = layout.fields[0][1:]
            if self._residual and number:
                outs = outs + below
        return outs

    def _lay_out(self, steps: int) -> list[_Layer]:
        if sum(self._layers) + steps > _MOST_STEPS:
            self._layers.clear()
        workspace, rows = type(self._workspace)(self._workspace.dtype), self.state.shape[2]
        layers = []
        for number, (kernel, weights) in enumerate(zip(self._kernels, self._weights, strict=True)):
            size = weights["w_xh"].shape[1]
            xs, states = np.zeros((steps, rows, size), workspace.dtype), self.state[:, number]
            course = Course(initial=tuple(states), keeps=False)
            layout = kernel.lay_out(weights, xs, course, workspace, f"layer{number}.")
            carried = [
                (state, field[0], field[steps])
                for state, field in zip(states, layout.fields, strict=True)
            ]
            inputs = layout.tape.entering[:steps, :, 1 : 1 + size]
            layers.append(_Layer(layout, inputs, carried))
        self._layers[steps] = layers
        return layers
