"""Gated recurrent unit (Cho et al. 2014), in its two variants. They are different functions.

Gates in PyTorch's order r, z, n (reset, update, candidate). The update is the same in both::

    h = (1 - z) * n + z * h_prev        z near 1 keeps the old state

`GRUCell`, *reset-after* (cuDNN's and PyTorch's form, Keras' default): r gates the product, which
has a bias of its own, so that one matrix product serves all gates::

    Forward                                        Backward
    1  p = x @ w_xh.T + b_h                        dx = dp @ w_xh
    2  a = h_prev @ w_hh.T                         dh_prev = da @ w_hh + dh * z
    3  r, z = sigmoid(p_r + a_r, p_z + a_z)        dp_r = dr * r * (1 - r);  da_r = dp_r
                                                   dp_z = dz * z * (1 - z);  da_z = dp_z
    4  q = a_n + b_hn                              da_n = dq;  db_hn = sum of dq
       n = tanh(p_n + r * q)                       dp_n = dn * (1 - n**2);  dr = dp_n * q
                                                   dq = dp_n * r
    5  h = (1 - z) * n + z * h_prev                dn = dh * (1 - z);  dz = dh * (h_prev - n)

`GRUResetBeforeCell`, *reset-before* (the original form, Keras' ``reset_after=False``): r gates the
state before the product, so that the candidate needs a product of its own::

    4  s = r * h_prev                              dr = ds * h_prev;  dh_prev += ds * r
       n = tanh(p_n + s @ w_hn.T)                  dp_n = dn * (1 - n**2);  ds = dp_n @ w_hn

References
----------
.. [1] K. Cho et al., "Learning phrase representations using RNN encoder-decoder for statistical
       machine translation", EMNLP 2014 (reset-before).
.. [2] PyTorch documentation of ``torch.nn.GRU`` (reset-after).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from rnn_xp._typing import Array, Namespace, Params
from rnn_xp.cells import gates
from rnn_xp.cells.gates import NormCache, Share
from rnn_xp.kernels.portable import sigmoid, sum_rows

__all__ = [
    "GRUCache",
    "GRUCell",
    "GRUResetBeforeCache",
    "GRUResetBeforeCell",
    "GRUResetBeforeShare",
    "GRUShare",
    "GRUState",
]


class GRUState(NamedTuple):
    """What a GRU hands to its next step: ``h``, the hidden state (N, H)."""

    h: Array


class GRUCache(NamedTuple):
    """What a step keeps for its backward, each (N, H) unless said otherwise."""

    r: Array
    z: Array
    n: Array
    q: Array
    h_prev: Array  # for step 5, which recurrent dropout leaves alone
    h_in: Array  # h_prev as it entered step 2; the other factor of dw_hh
    keep: Array | None  # the mask of recurrent dropout
    norm: NormCache | None


class GRUShare(NamedTuple):
    """A step's share in the weight gradients: that of the gates, and dq (N, H) for b_hn."""

    gates: Share
    dq: Array


@dataclass(frozen=True)
class _GRU:
    """What both variants have in common.

    Parameters
    ----------
    input_size, hidden_size : int
        I and H.
    layer_norm : bool
        Normalise both products, see `rnn_xp.cells.gates`; adds the gains g_xh and g_hh.
    """

    input_size: int
    hidden_size: int
    layer_norm: bool = False

    @property
    def kernel(self) -> str | None:
        """Name of the kernels for this cell, if there are any."""
        return None

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the parameters: w_xh (3H, I), w_hh (3H, H), b_h (3H,)."""
        return gates.gate_shapes(3, self.input_size, self.hidden_size, self.layer_norm)

    def constants(self) -> dict[str, tuple[float, ...]]:
        """Initial values, gate by gate, of the vectors that do not start at zero."""
        return {"g_xh": (1.0,) * 3, "g_hh": (1.0,) * 3} if self.layer_norm else {}

    def initial_state(self, zeros: Array) -> GRUState:
        """Return the state of zeros, given zeros (N, H)."""
        return GRUState(zeros)

    def project(self, params: Params, xs: Array, *, xp: Namespace) -> Array:
        """Do step 1 for any number of rows: xs (M, I) to p (M, 3H)."""
        return gates.project(params, xs, xp=xp)


class GRUCell(_GRU):
    """GRU cell, reset-after. Parameters as in `rnn_xp.cells.gates`, and b_hn (H,).

    Examples
    --------
    >>> import numpy as np
    >>> cell = GRUCell(input_size=1, hidden_size=1)
    >>> params = {name: np.zeros(shape) for name, shape in cell.shapes().items()}
    >>> state, _ = cell.step(params, np.zeros((1, 3)), GRUState(np.ones((1, 1))), xp=np)
    >>> state.h.tolist()  # z is one half: halfway between the old state and n = 0
    [[0.5]]
    """

    @property
    def kernel(self) -> str | None:
        """Name of the kernels for this cell, if there are any."""
        return None if self.layer_norm else "gru"

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the parameters: w_xh (3H, I), w_hh (3H, H), b_h (3H,), b_hn (H,)."""
        return super().shapes() | {"b_hn": (self.hidden_size,)}

    def step(
        self,
        params: Params,
        projected: Array,
        state: GRUState,
        keep: Array | None = None,
        *,
        xp: Namespace,
    ) -> tuple[GRUState, GRUCache]:
        """Do steps 2 to 5: projected (N, 3H), state h_{t-1}, keep (N, H) to multiply it by."""
        size = self.hidden_size
        h_in = state.h if keep is None else state.h * keep
        a, norm = gates.linear(h_in, params["w_hh"], params.get("g_hh"), xp=xp)  # 2
        r = sigmoid(projected[:, :size] + a[:, :size], xp=xp)  # 3
        z = sigmoid(projected[:, size : 2 * size] + a[:, size : 2 * size], xp=xp)
        q = a[:, 2 * size :] + params["b_hn"]  # 4
        n = xp.tanh(projected[:, 2 * size :] + r * q)
        h = (1.0 - z) * n + z * state.h  # 5
        return GRUState(h), GRUCache(r, z, n, q, state.h, h_in, keep, norm)

    def step_back(
        self, params: Params, dstate: GRUState, cache: GRUCache, *, xp: Namespace
    ) -> tuple[GRUShare, GRUState]:
        """Back-propagate one step: dL/dh_t to the step's share and dL/dh_{t-1}."""
        r, z, n, q, h_prev, h_in, keep, norm = cache
        dn = dstate.h * (1.0 - z)  # 5
        dz = dstate.h * (h_prev - n)
        dp_n = dn * (1.0 - n * n)  # 4
        dq = dp_n * r
        dp_r = dp_n * q * r * (1.0 - r)  # 3
        dp_z = dz * z * (1.0 - z)
        da, dgain = gates.linear_back(
            xp.concat([dp_r, dp_z, dq], axis=1), params.get("g_hh"), norm, xp=xp
        )
        dh = xp.matmul(da, params["w_hh"])  # 2
        dh = dh if keep is None else dh * keep
        share = Share(xp.concat([dp_r, dp_z, dp_n], axis=1), h_in, da, dgain)
        return GRUShare(share, dq), GRUState(dh + dstate.h * z)

    def input_back(self, params: Params, xs: Array, share: GRUShare, *, xp: Namespace) -> Array:
        """Adjoint of `project`: dx (M, I), given the same xs (M, I) and the rows' share."""
        return gates.input_back(params, xs, share.gates, xp=xp)  # 1

    def collect(self, params: Params, xs: Array, share: GRUShare, *, xp: Namespace) -> Params:
        """Sum the weight gradients over M rows: the rows of one step, or of all T*N."""
        grads = gates.collect(params, xs, share.gates, xp=xp)
        return grads | {"b_hn": sum_rows(share.dq, xp=xp)}


class GRUResetBeforeCache(NamedTuple):
    """What a step keeps for its backward, each (N, H) unless said otherwise."""

    r: Array
    z: Array
    n: Array
    s: Array
    h_prev: Array
    h_in: Array
    keep: Array | None
    norm: NormCache | None  # of the product for r and z
    norm_n: NormCache | None


class GRUResetBeforeShare(NamedTuple):
    """A step's share in the weight gradients: the gates r and z, and beside them the candidate."""

    gates: Share  # its dz (N, 3H) is for all three; da, dgain (N, 2H) are for r and z
    s: Array
    da_n: Array
    dgain_n: Array | None


class GRUResetBeforeCell(_GRU):
    """GRU cell, reset-before. With layer normalisation r and z share one, n has its own.

    Examples
    --------
    >>> import numpy as np
    >>> cell = GRUResetBeforeCell(input_size=1, hidden_size=1)
    >>> params = {name: np.zeros(shape) for name, shape in cell.shapes().items()}
    >>> state, _ = cell.step(params, np.zeros((1, 3)), GRUState(np.ones((1, 1))), xp=np)
    >>> state.h.tolist()
    [[0.5]]
    """

    def _recurrent(self, params: Params) -> tuple[Array, Array, Array | None, Array | None]:
        """w_hh and its gain, cut into the part for r and z and the part for n."""
        rows, w, gain = 2 * self.hidden_size, params["w_hh"], params.get("g_hh")
        if gain is None:
            return w[:rows, :], w[rows:, :], None, None
        return w[:rows, :], w[rows:, :], gain[:rows], gain[rows:]

    def step(
        self,
        params: Params,
        projected: Array,
        state: GRUState,
        keep: Array | None = None,
        *,
        xp: Namespace,
    ) -> tuple[GRUState, GRUResetBeforeCache]:
        """Do steps 2 to 5: projected (N, 3H), state h_{t-1}, keep (N, H) to multiply it by."""
        size = self.hidden_size
        w, w_n, gain, gain_n = self._recurrent(params)
        h_in = state.h if keep is None else state.h * keep
        a, norm = gates.linear(h_in, w, gain, xp=xp)  # 2
        r = sigmoid(projected[:, :size] + a[:, :size], xp=xp)  # 3
        z = sigmoid(projected[:, size : 2 * size] + a[:, size:], xp=xp)
        s = r * h_in  # 4
        a_n, norm_n = gates.linear(s, w_n, gain_n, xp=xp)
        n = xp.tanh(projected[:, 2 * size :] + a_n)
        h = (1.0 - z) * n + z * state.h  # 5
        cache = GRUResetBeforeCache(r, z, n, s, state.h, h_in, keep, norm, norm_n)
        return GRUState(h), cache

    def step_back(
        self, params: Params, dstate: GRUState, cache: GRUResetBeforeCache, *, xp: Namespace
    ) -> tuple[GRUResetBeforeShare, GRUState]:
        """Back-propagate one step: dL/dh_t to the step's share and dL/dh_{t-1}."""
        r, z, n, s, h_prev, h_in, keep, norm, norm_n = cache
        w, w_n, gain, gain_n = self._recurrent(params)
        dn = dstate.h * (1.0 - z)  # 5
        dz = dstate.h * (h_prev - n)
        dp_n = dn * (1.0 - n * n)  # 4
        da_n, dgain_n = gates.linear_back(dp_n, gain_n, norm_n, xp=xp)
        ds = xp.matmul(da_n, w_n)
        dp_r = ds * h_in * r * (1.0 - r)  # 3
        dp_z = dz * z * (1.0 - z)
        da, dgain = gates.linear_back(xp.concat([dp_r, dp_z], axis=1), gain, norm, xp=xp)
        dh = xp.matmul(da, w) + ds * r  # 2, 4
        dh = dh if keep is None else dh * keep
        share = Share(xp.concat([dp_r, dp_z, dp_n], axis=1), h_in, da, dgain)
        return GRUResetBeforeShare(share, s, da_n, dgain_n), GRUState(dh + dstate.h * z)

    def input_back(
        self, params: Params, xs: Array, share: GRUResetBeforeShare, *, xp: Namespace
    ) -> Array:
        """Adjoint of `project`: dx (M, I), given the same xs (M, I) and the rows' share."""
        return gates.input_back(params, xs, share.gates, xp=xp)  # 1

    def collect(
        self, params: Params, xs: Array, share: GRUResetBeforeShare, *, xp: Namespace
    ) -> Params:
        """Sum the weight gradients over M rows: the rows of one step, or of all T*N."""
        grads = gates.collect(params, xs, share.gates, xp=xp)
        dw_n = xp.matmul(xp.matrix_transpose(share.da_n), share.s)
        grads |= {"w_hh": xp.concat([grads["w_hh"], dw_n])}
        if share.dgain_n is not None:
            dgain_n = sum_rows(share.dgain_n, xp=xp)
            grads |= {"g_hh": xp.concat([grads["g_hh"], dgain_n])}
        return grads
