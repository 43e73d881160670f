"""The simple recurrent cell (Elman 1990), one step forward and one step back.

Equations, samples in rows (books write W x, arrays compute x @ W.T)::

    Forward                                     Backward
    1  p_t = x_t @ w_xh.T + b_h                 dx_t     = dz_t @ w_xh
    2  z_t = p_t + h_{t-1} @ w_hh.T             dh_{t-1} = dz_t @ w_hh
    3  h_t = f(z_t)                             dz_t     = dh_t * f'(z_t)

    dw_xh = sum_t dz_t.T @ x_t      dw_hh = sum_t dz_t.T @ h_{t-1}      db_h = sum_t sum_n dz_t

Each matrix product in the last line contracts the batch axis N, so it *is* the sum over samples;
stacking the steps into T*N rows makes the same product the sum over time too.

Step 1 does not depend on h and is computed for all time steps at once (`RNNCell.project`); the
weight gradients do not feed back and are collected once at the end (`RNNCell.collect`). Only the
recurrent part, steps 2 and 3, runs inside the time loop.

References
----------
.. [1] J. L. Elman, "Finding structure in time", Cognitive Science 14 (1990), 179-211.
.. [2] P. J. Werbos, "Backpropagation through time: what it does and how to do it",
       Proc. IEEE 78 (1990), 1550-1560.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from rnn_xp._typing import Array, Namespace, Params
from rnn_xp.cells import gates
from rnn_xp.cells.cell import Cell, Footprint, Walk
from rnn_xp.cells.gates import NormCache, Share
from rnn_xp.kernels.portable import RELU, TANH, Activation

__all__ = ["RNNCache", "RNNCell", "RNNState"]


class RNNState(NamedTuple):
    """State of an RNN cell: ``h``, the hidden state (N, H)."""

    h: Array


class RNNCache(NamedTuple):
    """Cache of a step: its output ``h``, since f'(z) is a function of h, and its input."""

    h: Array
    h_in: Array  # h_{t-1} as it entered step 2; the other factor of dw_hh
    keep: Array | None  # mask of recurrent dropout
    norm: NormCache | None


_FORWARD = """
each t      | a_t = h_{t-1} @ w_hh.T          | a_t = w_hh @ h_{t-1}        | N,H @ H,K
each t norm | a_t = g_hh * norm(a_t)          |                             | N,K
each t      | z_t = p_t + a_t                 |                             | N,K
each t      | h_t = $f(z_t)                   |                             | N,H
"""
_BACKWARD = """
each t      | dz_t = dh_t * $slope            |                             | N,H
each t norm | da_t = norm_back(dz_t * g_hh)   |                             | N,K
each t      | dh_{t-1} = ${da}_t @ w_hh       | dh_{t-1} = w_hh.T @ ${da}_t | N,K @ K,H
once        | dw_hh = ${da}.T @ h_prev        | dw_hh = $da @ h_prev.T      | K,S @ S,H
once norm   | dg_hh = ones @ (dz * norm(a))   | dg_hh = (dz * norm(a)) @ ones | 1,S @ S,K
"""
_NAMES = {TANH: "tanh", RELU: "relu"}
_SLOPES = {TANH: "(1 - h_t**2)", RELU: "(h_t > 0)"}


@dataclass(frozen=True)
class RNNCell(Cell):
    """Simple recurrent cell ``h_t = f(x_t @ w_xh.T + h_{t-1} @ w_hh.T + b_h)``.

    Parameters
    ----------
    input_size, hidden_size : int
        I and H.
    layer_norm : bool
        If True, normalise both products of z, see `rnn_xp.cells.gates`; adds the gains g_xh and
        g_hh.
    activation : Activation
        f and its adjoint: `rnn_xp.kernels.portable.TANH` or ``RELU``.

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

    activation: Activation = TANH

    gates: ClassVar[int] = 1
    state_type: ClassVar[type[RNNState]] = RNNState
    options: ClassVar[tuple[str, ...]] = ("activation",)
    # tape: h; apart: h, h_in; share: dz; rows: dz, h_in
    footprint: ClassVar[Footprint] = Footprint(
        tape=1, apart=2, share=1, rows=2, norm=2, norm_tape=1
    )

    @property
    def kernel(self) -> str | None:
        """Name of the compiled kernels; None with another f."""
        name = _NAMES.get(self.activation)
        return None if name is None else f"rnn-{name}"

    def walk(self) -> Walk:
        """Return the operations of a step, with the name of f and its slope."""
        name = _NAMES.get(self.activation, "f")
        slope = _SLOPES.get(self.activation, "f'(z_t)")
        return Walk(_FORWARD.replace("$f", name), _BACKWARD.replace("$slope", slope), dp="dz")

    def step(
        self,
        params: Params,
        projected: Array,
        state: RNNState,
        keep: Array | None = None,
        *,
        xp: Namespace,
    ) -> tuple[RNNState, RNNCache]:
        """Compute steps 2 and 3.

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
            For `collect`; it holds dz (N, H).
        dstate : RNNState
            dL/dh_{t-1} (N, H), the part that comes through this step.
        """
        dz = self.activation.backward(dstate.h, cache.h, xp=xp)  # 3
        da, dgain = gates.linear_back(dz, params.get("g_hh"), cache.norm, xp=xp)
        dh = xp.matmul(da, params["w_hh"])  # 2
        dh = dh if cache.keep is None else dh * cache.keep
        return Share(dz, cache.h_in, None if dgain is None else da, dgain), RNNState(dh)
