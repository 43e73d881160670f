"""The simple recurrent cell (Elman 1990), one step forward and one step back.

Equations, samples in rows (books write W x, arrays compute x @ W.T)::

    Forward                                     Backward
    1  p_t = x_t @ w_xh.T + b_h                 dx_t     = dz_t @ w_xh
    2  z_t = p_t + h_{t-1} @ w_hh.T             dh_{t-1} = dz_t @ w_hh
    3  h_t = f(z_t)                             dz_t     = dh_t * f'(z_t)

    dw_xh = sum_t dz_t.T @ x_t      dw_hh = sum_t dz_t.T @ h_{t-1}      db_h = sum_t sum_n dz_t

Each matrix product in the last line contracts the batch axis N, so it *is* the sum over samples;
stacking the steps into T*N rows makes the same product the sum over time too.

Step 1 does not depend on h and is done for all steps at once (`RNNCell.project`); the weight
gradients do not feed back and are collected once at the end (`RNNCell.collect`). Only what is
truly recurrent, steps 2 and 3, runs inside the time loop.

References
----------
.. [1] J. L. Elman, "Finding structure in time", Cognitive Science 14 (1990), 179-211.
.. [2] P. J. Werbos, "Backpropagation through time: what it does and how to do it",
       Proc. IEEE 78 (1990), 1550-1560.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from rnn_xp._typing import Array, Namespace, Params
from rnn_xp.cells import gates
from rnn_xp.cells.gates import NormCache, Share
from rnn_xp.kernels.portable import RELU, TANH, Activation

__all__ = ["RNNCache", "RNNCell", "RNNState"]


class RNNState(NamedTuple):
    """What an RNN cell hands to its next step: ``h``, the hidden state (N, H)."""

    h: Array


class RNNCache(NamedTuple):
    """What a step keeps for its backward: its output ``h``, since f'(z) is a function of h."""

    h: Array
    h_in: Array  # h_{t-1} as it entered step 2; the other factor of dw_hh
    keep: Array | None  # the mask of recurrent dropout
    norm: NormCache | None


@dataclass(frozen=True)
class RNNCell:
    """Simple recurrent cell ``h_t = f(x_t @ w_xh.T + h_{t-1} @ w_hh.T + b_h)``.

    Parameters
    ----------
    input_size, hidden_size : int
        I and H.
    activation : Activation
        f and its adjoint: `rnn_xp.kernels.portable.TANH` or ``RELU``.
    layer_norm : bool
        Normalise both products of z, see `rnn_xp.cells.gates`; adds the gains g_xh and g_hh.

    Examples
    --------
    >>> import numpy as np
    >>> cell = RNNCell(input_size=1, hidden_size=1)
    >>> params = {"w_xh": np.ones((1, 1)), "w_hh": np.ones((1, 1)), "b_h": np.zeros(1)}
    >>> projected = cell.project(params, np.asarray([[0.5]]), xp=np)
    >>> state, cache = cell.step(params, projected, RNNState(np.zeros((1, 1))), xp=np)
    >>> float(state.h[0, 0]) == float(np.tanh(0.5))
    True
    """

    input_size: int
    hidden_size: int
    activation: Activation = TANH
    layer_norm: bool = False

    @property
    def kernel(self) -> str | None:
        """Name of the kernels for this cell, if there are any."""
        names = {TANH: "rnn-tanh", RELU: "rnn-relu"}
        return None if self.layer_norm else names.get(self.activation)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the parameters: w_xh (H, I), w_hh (H, H), b_h (H,)."""
        return gates.gate_shapes(1, self.input_size, self.hidden_size, self.layer_norm)

    def constants(self) -> dict[str, tuple[float, ...]]:
        """Initial values, gate by gate, of the vectors that do not start at zero."""
        return {"g_xh": (1.0,), "g_hh": (1.0,)} if self.layer_norm else {}

    def initial_state(self, zeros: Array) -> RNNState:
        """Return the state of zeros, given zeros (N, H)."""
        return RNNState(zeros)

    def project(self, params: Params, xs: Array, *, xp: Namespace) -> Array:
        """Do step 1 for any number of rows: xs (M, I) to p (M, H)."""
        return gates.project(params, xs, xp=xp)

    def step(
        self,
        params: Params,
        projected: Array,
        state: RNNState,
        keep: Array | None = None,
        *,
        xp: Namespace,
    ) -> tuple[RNNState, RNNCache]:
        """Do steps 2 and 3.

        Parameters
        ----------
        params : Params
        projected : Array (N, H)
            This step's rows of `project`.
        state : RNNState
            h_{t-1} (N, H).
        keep : Array (N, H), optional
            Mask of recurrent dropout, by which h_{t-1} is multiplied before step 2.
        xp : Namespace

        Returns
        -------
        state : RNNState
            h_t (N, H).
        cache : RNNCache
            For `step_back`.
        """
        h_in = state.h if keep is None else state.h * keep
        recurrent, norm = gates.linear(h_in, params["w_hh"], params.get("g_hh"), xp=xp)
        h = self.activation.forward(projected + recurrent, xp=xp)  # 2, 3
        return RNNState(h), RNNCache(h, h_in, keep, norm)

    def step_back(
        self, params: Params, dstate: RNNState, cache: RNNCache, *, xp: Namespace
    ) -> tuple[Share, RNNState]:
        """Back-propagate one step.

        Parameters
        ----------
        params : Params
        dstate : RNNState
            dL/dh_t (N, H): the loss's own share at t plus what came back through h_{t+1}.
        cache : RNNCache
            From the matching `step`.
        xp : Namespace

        Returns
        -------
        share : Share
            For `collect`, dz (N, H) in it.
        dstate : RNNState
            dL/dh_{t-1} (N, H), as far as it comes through this step.
        """
        dz = self.activation.backward(dstate.h, cache.h, xp=xp)  # 3
        da, dgain = gates.linear_back(dz, params.get("g_hh"), cache.norm, xp=xp)
        dh = xp.matmul(da, params["w_hh"])  # 2
        dh = dh if cache.keep is None else dh * cache.keep
        return Share(dz, cache.h_in, None if dgain is None else da, dgain), RNNState(dh)

    def input_back(self, params: Params, xs: Array, share: Share, *, xp: Namespace) -> Array:
        """Adjoint of `project`: dx (M, I), given the same xs (M, I) and the rows' share."""
        return gates.input_back(params, xs, share, xp=xp)  # 1

    def collect(self, params: Params, xs: Array, share: Share, *, xp: Namespace) -> Params:
        """Sum the weight gradients over M rows: the rows of one step, or of all T*N."""
        return gates.collect(params, xs, share, xp=xp)
