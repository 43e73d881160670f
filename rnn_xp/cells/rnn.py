"""The simple recurrent cell (Elman 1990), one step forward and one step back.

Equations, samples in rows (books write W x, arrays compute x @ W.T)::

    Forward                                     Backward
    1  p_t = x_t @ w_xh.T + b_h                 dx_t    = dz_t @ w_xh
    2  z_t = p_t + h_{t-1} @ w_hh.T             dh_{t-1} = dz_t @ w_hh
    3  h_t = f(z_t)                             dz_t    = dh_t * f'(z_t)

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
from rnn_xp.kernels.portable import TANH, Activation, sum_rows

__all__ = ["RNNCache", "RNNCell", "RNNState"]


class RNNState(NamedTuple):
    """What an RNN cell hands to its next step: ``h``, the hidden state (N, H)."""

    h: Array


class RNNCache(NamedTuple):
    """What a step keeps for its backward: its output ``h``, since f'(z) is a function of h."""

    h: Array


@dataclass(frozen=True)
class RNNCell:
    """Simple recurrent cell ``h_t = f(x_t @ w_xh.T + h_{t-1} @ w_hh.T + b_h)``.

    Parameters
    ----------
    input_size, hidden_size : int
        I and H.
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

    input_size: int
    hidden_size: int
    activation: Activation = TANH

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the parameters: w_xh (H, I), w_hh (H, H), b_h (H,)."""
        size_in, size = self.input_size, self.hidden_size
        return {"w_xh": (size, size_in), "w_hh": (size, size), "b_h": (size,)}

    def project(self, params: Params, xs: Array, *, xp: Namespace) -> Array:
        """Do step 1, the part of z that does not depend on h, for any number of rows at once.

        Parameters
        ----------
        params : Params
        xs : Array (M, I)
            M rows; all T*N of them when a whole sequence is projected.
        xp : Namespace

        Returns
        -------
        Array (M, H)
        """
        return xp.matmul(xs, xp.matrix_transpose(params["w_xh"])) + params["b_h"]

    def project_back(self, params: Params, dz: Array, *, xp: Namespace) -> Array:
        """Adjoint of `project` with respect to the input: dz (M, H) to dx (M, I)."""
        return xp.matmul(dz, params["w_xh"])

    def step(
        self, params: Params, projected: Array, state: RNNState, *, xp: Namespace
    ) -> tuple[RNNState, RNNCache]:
        """Do steps 2 and 3.

        Parameters
        ----------
        params : Params
        projected : Array (N, H)
            This step's rows of `project`.
        state : RNNState
            h_{t-1} (N, H).
        xp : Namespace

        Returns
        -------
        state : RNNState
            h_t (N, H).
        cache : RNNCache
            For `step_back`.
        """
        z = projected + xp.matmul(state.h, xp.matrix_transpose(params["w_hh"]))  # 2
        h = self.activation.forward(z, xp=xp)  # 3
        return RNNState(h), RNNCache(h)

    def step_back(
        self, params: Params, dstate: RNNState, cache: RNNCache, *, xp: Namespace
    ) -> tuple[Array, RNNState]:
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
        dz : Array (N, H)
        dstate : RNNState
            dL/dh_{t-1} (N, H), as far as it comes through this step.
        """
        dz = self.activation.backward(dstate.h, cache.h, xp=xp)  # 3
        return dz, RNNState(xp.matmul(dz, params["w_hh"]))  # 2

    def collect(self, xs: Array, h_prev: Array, dz: Array, *, xp: Namespace) -> Params:
        """Sum the weight gradients over M rows: the rows of one step, or of all T*N.

        Parameters
        ----------
        xs : Array (M, I)
        h_prev : Array (M, H)
            Row for row, the hidden state that entered the step.
        dz : Array (M, H)
        xp : Namespace

        Returns
        -------
        Params
            Gradients with the shapes of `shapes`.
        """
        dz_t = xp.matrix_transpose(dz)
        return {
            "w_xh": xp.matmul(dz_t, xs),
            "w_hh": xp.matmul(dz_t, h_prev),
            "b_h": sum_rows(dz, xp=xp),
        }
