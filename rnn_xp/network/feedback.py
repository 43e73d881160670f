"""Feedback: a network whose prediction is its own next input, as one cell.

::

    Forward                                       Backward
    1  x_t = pred_{t-1}                           dpred_{t-1} = dx_t
    2  layers, one step each, to h_t              step_back of each layer, from the top down
    3  y_t = h_t @ w_hy.T + b_y                   dh_t = dy_t @ w_hy
    4  pred_t = g(y_t)                            dy_t = dpred_t * g'(y_t)

dpred_t has two parts: the loss's own, and the part that comes back through step 1 of the next time
step. The same is true of h in any recurrent network. Layers and readout together are therefore a
cell whose state is (pred, states of the layers), and `rnn_xp.network.sequence` runs it like any
other cell.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from rnn_xp._typing import Array, Namespace, Params, State
from rnn_xp.kernels.portable import Activation, sum_rows
from rnn_xp.network.layers import Layers, layer_params

__all__ = ["FeedbackCache", "FeedbackCell", "FeedbackShare", "FeedbackState"]


class FeedbackState(NamedTuple):
    """State: the prediction (N, O), which is the next input, and the states of the layers."""

    pred: Array
    layers: tuple[State, ...]


class FeedbackCache(NamedTuple):
    """Cache of a step: inputs and caches of the layers, output of the top layer, prediction."""

    xs: tuple[Array, ...]
    caches: tuple[Any, ...]
    between: tuple[Array | None, ...]  # masks of dropout between the layers
    h: Array
    pred: Array


class FeedbackShare(NamedTuple):
    """One step's share in the weight gradients: inputs and shares of the layers and the readout."""

    xs: tuple[Array, ...]
    layers: tuple[Any, ...]
    h: Array
    dy: Array


@dataclass(frozen=True)
class FeedbackCell:
    """Layers and readout as one cell. Parameters keep their names in the network.

    Parameters
    ----------
    layers : Layers
        Layers with one direction.
    activation : Activation
        Activation of the output, g.
    """

    layers: Layers
    activation: Activation

    def step(
        self,
        params: Params,
        projected: tuple[Array | None, ...],
        state: FeedbackState,
        keep: tuple[Array | None, ...] | None = None,
        *,
        xp: Namespace,
    ) -> tuple[FeedbackState, FeedbackCache]:
        """Compute steps 1 to 4.

        Parameters
        ----------
        params : Params
        projected : tuple of L arrays (N, H) or None
            This step's dropout masks between the layers; no input can be projected before the
            prediction is known.
        state : FeedbackState
        keep : tuple of L arrays (N, H) or None, optional
            Masks of recurrent dropout.
        xp : Namespace

        Returns
        -------
        state : FeedbackState
        cache : FeedbackCache
        """
        x, xs, states, caches = state.pred, [], [], []  # 1
        keeps = (None,) * len(self.layers.cells) if keep is None else keep
        for layer, cell in enumerate(self.layers.cells):  # 2
            weights, below, between = self._own(params, layer), x, projected[layer]
            x = x if between is None else x * between
            xs.append(x)
            new, cache = cell.step(
                weights, cell.project(weights, x, xp=xp), state.layers[layer], keeps[layer], xp=xp
            )
            states.append(new)
            caches.append(cache)
            x = new.h + below if self.layers.residual and layer else new.h
        y = xp.matmul(x, xp.matrix_transpose(params["readout.w_hy"])) + params["readout.b_y"]  # 3
        pred = self.activation.forward(y, xp=xp)  # 4
        cache = FeedbackCache(tuple(xs), tuple(caches), projected, x, pred)
        return FeedbackState(pred, tuple(states)), cache

    def step_back(
        self, params: Params, dstate: FeedbackState, cache: FeedbackCache, *, xp: Namespace
    ) -> tuple[FeedbackShare, FeedbackState]:
        """Back-propagate one step.

        Given the gradient of (pred_t, states_t), return the step's share and the gradient of
        (pred_{t-1}, states_{t-1}).
        """
        dy = self.activation.backward(dstate.pred, cache.pred, xp=xp)  # 4
        dout = xp.matmul(dy, params["readout.w_hy"])  # 3
        shares: list[Any] = []
        dstates: list[State] = []
        for layer in range(len(self.layers.cells) - 1, -1, -1):  # 2
            cell, weights = self.layers.cells[layer], self._own(params, layer)
            dnew = dstate.layers[layer]
            dnew = dnew._replace(h=dnew.h + dout)
            share, dold = cell.step_back(weights, dnew, cache.caches[layer], xp=xp)
            dx = cell.input_back(weights, cache.xs[layer], share, xp=xp)
            between = cache.between[layer]
            dx = dx if between is None else dx * between
            dout = dx + dout if self.layers.residual and layer else dx
            shares.insert(0, share)
            dstates.insert(0, dold)
        result = FeedbackState(dout, tuple(dstates))  # 1
        return FeedbackShare(cache.xs, tuple(shares), cache.h, dy), result

    def collect(self, params: Params, share: FeedbackShare, *, xp: Namespace) -> Params:
        """Return all weight gradients, the readout's included, summed over rows (..., M, .)."""
        grads = {
            "readout.w_hy": xp.matmul(xp.matrix_transpose(share.dy), share.h),
            "readout.b_y": sum_rows(share.dy, xp=xp),
        }
        for layer, cell in enumerate(self.layers.cells):
            layer_grads = cell.collect(
                self._own(params, layer), share.xs[layer], share.layers[layer], xp=xp
            )
            prefix = self.layers.prefix(layer, 0)
            grads |= {prefix + name: grad for name, grad in layer_grads.items()}
        return grads

    def _own(self, params: Params, layer: int) -> Params:
        return layer_params(params, self.layers.prefix(layer, 0))
