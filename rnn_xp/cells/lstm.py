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

The way back through c (step 4) multiplies by f alone, not by a matrix and not by a slope: that is
why an LSTM with f near 1 remembers, and why the forget gate's bias starts at 1.

References
----------
.. [1] S. Hochreiter, J. Schmidhuber, "Long short-term memory", Neural Computation 9 (1997).
.. [2] F. A. Gers, J. Schmidhuber, F. Cummins, "Learning to forget: continual prediction with
       LSTM", Neural Computation 12 (2000), for the forget gate.
.. [3] R. Jozefowicz, W. Zaremba, I. Sutskever, "An empirical exploration of recurrent network
       architectures", ICML 2015, for its bias of 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from rnn_xp._typing import Array, Namespace, Params
from rnn_xp.cells import gates
from rnn_xp.cells.gates import NormCache, Share
from rnn_xp.kernels.portable import sigmoid

__all__ = ["LSTMCache", "LSTMCell", "LSTMState"]


class LSTMState(NamedTuple):
    """What an LSTM hands to its next step: hidden state ``h`` and cell state ``c``, each (N, H)."""

    h: Array
    c: Array


class LSTMCache(NamedTuple):
    """What a step keeps for its backward, each (N, H) unless said otherwise."""

    i: Array
    f: Array
    g: Array
    o: Array
    c_prev: Array
    tanh_c: Array  # kept because tanh is dear
    h_in: Array  # h_{t-1} as it entered step 2; the other factor of dw_hh
    keep: Array | None  # the mask of recurrent dropout
    norm: NormCache | None


@dataclass(frozen=True)
class LSTMCell:
    """LSTM cell.

    Parameters
    ----------
    input_size, hidden_size : int
        I and H.
    layer_norm : bool
        Normalise both products of z, see `rnn_xp.cells.gates`; adds the gains g_xh and g_hh.

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

    input_size: int
    hidden_size: int
    layer_norm: bool = False

    @property
    def kernel(self) -> str | None:
        """Name of the kernels for this cell, if there are any."""
        return None if self.layer_norm else "lstm"

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the parameters: w_xh (4H, I), w_hh (4H, H), b_h (4H,)."""
        return gates.gate_shapes(4, self.input_size, self.hidden_size, self.layer_norm)

    def constants(self) -> dict[str, tuple[float, ...]]:
        """Initial values, gate by gate, of the vectors that do not start at zero."""
        gains = {"g_xh": (1.0,) * 4, "g_hh": (1.0,) * 4} if self.layer_norm else {}
        return {"b_h": (0.0, 1.0, 0.0, 0.0), **gains}

    def initial_state(self, zeros: Array) -> LSTMState:
        """Return the state of zeros, given zeros (N, H)."""
        return LSTMState(zeros, zeros)

    def project(self, params: Params, xs: Array, *, xp: Namespace) -> Array:
        """Do step 1 for any number of rows: xs (M, I) to p (M, 4H)."""
        return gates.project(params, xs, xp=xp)

    def step(
        self,
        params: Params,
        projected: Array,
        state: LSTMState,
        keep: Array | None = None,
        *,
        xp: Namespace,
    ) -> tuple[LSTMState, LSTMCache]:
        """Do steps 2 to 5.

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

    def input_back(self, params: Params, xs: Array, share: Share, *, xp: Namespace) -> Array:
        """Adjoint of `project`: dx (M, I), given the same xs (M, I) and the rows' share."""
        return gates.input_back(params, xs, share, xp=xp)  # 1

    def collect(self, params: Params, xs: Array, share: Share, *, xp: Namespace) -> Params:
        """Sum the weight gradients over M rows: the rows of one step, or of all T*N."""
        return gates.collect(params, xs, share, xp=xp)
