"""Long short-term memory (Hochreiter and Schmidhuber 1997), with a forget gate, no peepholes.

Gates in PyTorch's order i, f, g, o (input, forget, candidate, output), stacked in one z (N, 4H)::

    Forward                                        Backward
    1  p = x @ w_xh.T + b_h                        dx = dz @ w_xh
    2  z = p + h_prev @ w_hh.T                     dh_prev = dz @ w_hh
    3  i, f, o = sigmoid(z_i, z_f, z_o)            dz_i = di * i * (1 - i), likewise f and o
       g = tanh(z_g)                               dz_g = dg * (1 - g**2)
    4  c = f * c_prev + i * g                      df = dc * c_prev;  di = dc * g;  dg = dc * i
                                                   dc_prev = dc * f
    5  h = o * tanh(c)                             do = dh * tanh(c)
                                                   dc = dc + dh * o * (1 - tanh(c)**2)

On the way back through c (step 4) the gradient is multiplied by f alone, not by a matrix or a
slope. This is why an LSTM with f near 1 remembers, and why the bias of the forget gate starts at 1.

References
----------
.. [1] S. Hochreiter, J. Schmidhuber, "Long short-term memory", Neural Computation 9 (1997).
.. [2] F. A. Gers, J. Schmidhuber, F. Cummins, "Learning to forget: continual prediction with
       LSTM", Neural Computation 12 (2000): the forget gate.
.. [3] R. Jozefowicz, W. Zaremba, I. Sutskever, "An empirical exploration of recurrent network
       architectures", ICML 2015: its bias of 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from rnn_xp._typing import Array, Namespace, Params
from rnn_xp.cells import gates
from rnn_xp.cells.cell import Cell, Footprint, Walk
from rnn_xp.cells.gates import NormCache, Parameter, Share
from rnn_xp.kernels.portable import sigmoid

__all__ = ["LSTMCache", "LSTMCell", "LSTMState"]


class LSTMState(NamedTuple):
    """State of an LSTM: hidden state ``h`` and cell state ``c``, each (N, H)."""

    h: Array
    c: Array


class LSTMCache(NamedTuple):
    """Cache of a step; arrays are (N, H)."""

    i: Array
    f: Array
    g: Array
    o: Array
    c_prev: Array
    tanh_c: Array  # kept because tanh is expensive
    h_in: Array  # h_{t-1} as it entered step 2; the other factor of dw_hh
    keep: Array | None  # mask of recurrent dropout
    norm: NormCache | None


_FORWARD = """
each t      | a_t = h_{t-1} @ w_hh.T          | a_t = w_hh @ h_{t-1}        | N,H @ H,K
each t norm | a_t = g_hh * norm(a_t)          |                             | N,K
each t      | z_t = p_t + a_t                 |                             | N,K
each t      | i, f, o = sigmoid(z), g = tanh(z) |                           | N,K
each t      | c_t = f * c_{t-1} + i * g       |                             | N,H
each t      | h_t = o * tanh(c_t)             |                             | N,H
"""
_BACKWARD = """
each t      | dc_t += dh_t * o * (1 - tanh(c_t)**2) |                       | N,H
each t      | dz_t = (di, df, dg, do) * slopes |                            | N,K
each t norm | da_t = norm_back(dz_t * g_hh)   |                             | N,K
each t      | dh_{t-1} = ${da}_t @ w_hh       | dh_{t-1} = w_hh.T @ ${da}_t | N,K @ K,H
each t      | dc_{t-1} = dc_t * f             |                             | N,H
once        | dw_hh = ${da}.T @ h_prev        | dw_hh = $da @ h_prev.T      | K,S @ S,H
once norm   | dg_hh = ones @ (dz * norm(a))   | dg_hh = (dz * norm(a)) @ ones | 1,S @ S,K
"""


@dataclass(frozen=True)
class LSTMCell(Cell):
    """LSTM cell.

    Parameters
    ----------
    input_size, hidden_size : int
        I and H.
    layer_norm : bool
        If True, normalise both products of z, see `rnn_xp.cells.gates`; adds the gains g_xh and
        g_hh.

    Examples
    --------
    >>> import numpy as np
    >>> cell = LSTMCell(input_size=2, hidden_size=3)
    >>> cell.shapes()
    {'w_xh': (12, 2), 'w_hh': (12, 3), 'b_h': (12,)}
    >>> params = {name: np.zeros(shape) for name, shape in cell.shapes().items()}
    >>> before = LSTMState(h=np.zeros((1, 3)), c=np.ones((1, 3)))
    >>> state, _ = cell.step(params, np.zeros((1, 12)), before, xp=np)
    >>> state.c.tolist()  # all gates are half open
    [[0.5, 0.5, 0.5]]
    """

    gates: ClassVar[int] = 4
    state_type: ClassVar[type[LSTMState]] = LSTMState
    # tape: i, f, g, o, c, tanh_c, h; apart: c_prev, h_in; share: dz; rows: dz, h_in
    footprint: ClassVar[Footprint] = Footprint(
        tape=7, apart=2, share=4, rows=5, norm=8, norm_tape=4
    )

    def walk(self) -> Walk:
        """Return the operations of a step."""
        return Walk(_FORWARD, _BACKWARD, dp="dz")

    @property
    def kernel(self) -> str | None:
        """Name of the compiled kernels."""
        return "lstm"

    def parameters(self) -> dict[str, Parameter]:
        """Return the parameters of four gates; the bias of the forget gate starts at 1."""
        declared = super().parameters()
        return declared | {"b_h": declared["b_h"]._replace(initial=(0.0, 1.0, 0.0, 0.0))}

    def step(
        self,
        params: Params,
        projected: Array,
        state: LSTMState,
        keep: Array | None = None,
        *,
        xp: Namespace,
    ) -> tuple[LSTMState, LSTMCache]:
        """Compute steps 2 to 5.

        Parameters
        ----------
        params : Params
        projected : Array (N, 4H)
            This step's rows of `project`.
        state : LSTMState
        keep : Array (N, H), optional
            Mask of recurrent dropout, by which h_{t-1} is multiplied before step 2.
        xp : Namespace

        Returns
        -------
        state : LSTMState
        cache : LSTMCache
        """
        size = self.hidden_size
        h_in = state.h if keep is None else state.h * keep
        recurrent, norm = gates.linear(h_in, params["w_hh"], params.get("g_hh"), xp=xp)
        z = projected + recurrent  # 2
        i = sigmoid(z[:, :size], xp=xp)  # 3
        f = sigmoid(z[:, size : 2 * size], xp=xp)
        g = xp.tanh(z[:, 2 * size : 3 * size])
        o = sigmoid(z[:, 3 * size :], xp=xp)
        c = f * state.c + i * g  # 4
        tanh_c = xp.tanh(c)
        h = o * tanh_c  # 5
        return LSTMState(h, c), LSTMCache(i, f, g, o, state.c, tanh_c, h_in, keep, norm)

    def step_back(
        self, params: Params, dstate: LSTMState, cache: LSTMCache, *, xp: Namespace
    ) -> tuple[Share, LSTMState]:
        """Back-propagate one step.

        Parameters
        ----------
        params : Params
        dstate : LSTMState
            dL/dh_t, the loss's own share included, and dL/dc_t as it came back through c_{t+1}.
        cache : LSTMCache
        xp : Namespace

        Returns
        -------
        share : Share
        dstate : LSTMState
            dL/dh_{t-1} and dL/dc_{t-1}.
        """
        i, f, g, o, c_prev, tanh_c, h_in, keep, norm = cache
        do = dstate.h * tanh_c  # 5
        dc = dstate.c + dstate.h * o * (1.0 - tanh_c * tanh_c)
        dz = xp.concat(  # 4, 3
            [
                dc * g * i * (1.0 - i),
                dc * c_prev * f * (1.0 - f),
                dc * i * (1.0 - g * g),
                do * o * (1.0 - o),
            ],
            axis=1,
        )
        da, dgain = gates.linear_back(dz, params.get("g_hh"), norm, xp=xp)
        dh = xp.matmul(da, params["w_hh"])  # 2
        dh = dh if keep is None else dh * keep
        share = Share(dz, h_in, None if dgain is None else da, dgain)
        return share, LSTMState(dh, dc * f)
