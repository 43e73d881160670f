"""Gated recurrent unit (Cho et al. 2014), in two variants, which are different functions.

Gates in PyTorch's order r, z, n (reset, update, candidate). The update is the same in both::

    h = (1 - z) * n + z * h_prev        z near 1 keeps the old state

`GRUCell`, *reset-after* (the form of cuDNN and PyTorch, and the default of Keras): r gates the
product, which has a bias of its own, so that one matrix product serves all gates::

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
from typing import Any, ClassVar, NamedTuple

from rnn_xp._typing import Array, Namespace, Params
from rnn_xp.cells import gates
from rnn_xp.cells.cell import Cell, Footprint, Walk
from rnn_xp.cells.gates import NormCache, Parameter, Share
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
    """State of a GRU: ``h``, the hidden state (N, H)."""

    h: Array


class GRUCache(NamedTuple):
    """Cache of a step; arrays are (N, H)."""

    r: Array
    z: Array
    n: Array
    q: Array
    h_prev: Array  # for step 5, to which recurrent dropout does not apply
    h_in: Array  # h_prev as it entered step 2; the other factor of dw_hh
    keep: Array | None  # mask of recurrent dropout
    norm: NormCache | None


class GRUShare(NamedTuple):
    """One step's share in the weight gradients: the gates' share, and dq (N, H) for b_hn."""

    gates: Share
    dq: Array


_FORWARD = """
each t      | a_t = h_{t-1} @ w_hh.T          | a_t = w_hh @ h_{t-1}        | N,H @ H,K
each t norm | a_t = g_hh * norm(a_t)          |                             | N,K
each t      | r, z = sigmoid(p_t + a_t)       |                             | N,E
each t      | q_t = a_n + b_hn                |                             | N,H
each t      | n = tanh(p_n + r * q_t)         |                             | N,H
each t      | h_t = (1 - z) * n + z * h_{t-1} |                             | N,H
"""
_BACKWARD = """
each t      | dn = dh_t * (1 - z)             |                             | N,H
each t      | dz = dh_t * (h_{t-1} - n)       |                             | N,H
each t      | dp_n = dn * (1 - n**2)          |                             | N,H
each t      | dr = dp_n * q_t, dq_t = dp_n * r |                            | N,H
each t      | da_t = (dr, dz) * slopes, dq_t  |                             | N,K
each t norm | da_t = norm_back(da_t * g_hh)   |                             | N,K
each t      | dh_{t-1} = da_t @ w_hh          | dh_{t-1} = w_hh.T @ da_t    | N,K @ K,H
each t      | dh_{t-1} += dh_t * z            |                             | N,H
once        | dw_hh = da.T @ h_prev           | dw_hh = da @ h_prev.T       | K,S @ S,H
once        | db_hn = ones @ dq               | db_hn = dq @ ones           | 1,S @ S,H
once norm   | dg_hh = ones @ (da * norm(a))   | dg_hh = (da * norm(a)) @ ones | 1,S @ S,K
"""


@dataclass(frozen=True)
class GRUCell(Cell):
    """GRU cell, reset-after.

    Parameters
    ----------
    input_size, hidden_size : int
        I and H.
    layer_norm : bool
        If True, normalise both products, see `rnn_xp.cells.gates`; adds the gains g_xh and g_hh.

    Examples
    --------
    >>> import numpy as np
    >>> cell = GRUCell(input_size=1, hidden_size=1)
    >>> params = {name: np.zeros(shape) for name, shape in cell.shapes().items()}
    >>> state, _ = cell.step(params, np.zeros((1, 3)), GRUState(np.ones((1, 1))), xp=np)
    >>> state.h.tolist()  # z is one half: halfway between the old state and n = 0
    [[0.5]]
    """

    gates: ClassVar[int] = 3
    state_type: ClassVar[type[GRUState]] = GRUState
    options: ClassVar[tuple[str, ...]] = ("reset_after",)
    # tape: r, z, n, q, h; apart: h_prev; share: dz, da, dq; rows: dz, da, dq, h_in; keep: h_in
    footprint: ClassVar[Footprint] = Footprint(
        tape=5, apart=1, share=7, rows=8, norm=3, norm_tape=3, keep=1
    )

    @classmethod
    def make(
        cls, input_size: int, hidden_size: int, layer_norm: bool = False, **options: Any
    ) -> Cell:
        """Build this variant, or `GRUResetBeforeCell` for ``reset_after=False``."""
        variant = cls if options.get("reset_after", True) else GRUResetBeforeCell
        return variant(input_size, hidden_size, layer_norm)

    def walk(self) -> Walk:
        """Return the operations of a step."""
        return Walk(_FORWARD, _BACKWARD)

    @property
    def kernel(self) -> str | None:
        """Name of the compiled kernels."""
        return "gru"

    def parameters(self) -> dict[str, Parameter]:
        """Return the parameters of three gates, and b_hn (H,)."""
        return super().parameters() | {"b_hn": Parameter((self.hidden_size,))}

    def step(
        self,
        params: Params,
        projected: Array,
        state: GRUState,
        keep: Array | None = None,
        *,
        xp: Namespace,
    ) -> tuple[GRUState, GRUCache]:
        """Compute steps 2 to 5: projected (N, 3H), state h_{t-1}, dropout mask keep (N, H)."""
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
        """Back-propagate one step: from dL/dh_t to the step's share and dL/dh_{t-1}."""
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
        """Adjoint of `project`: return dx (M, I), given the same xs (M, I) and the rows' share."""
        return gates.input_back(params, xs, share.gates, xp=xp)  # 1

    def collect(self, params: Params, xs: Array, share: GRUShare, *, xp: Namespace) -> Params:
        """Return the weight gradients, summed over the rows of xs (..., M, I) and of the share."""
        grads = gates.collect(params, xs, share.gates, xp=xp)
        return grads | {"b_hn": sum_rows(share.dq, xp=xp)}


class GRUResetBeforeCache(NamedTuple):
    """Cache of a step; arrays are (N, H)."""

    r: Array
    z: Array
    n: Array
    s: Array
    h_prev: Array
    h_in: Array
    keep: Array | None
    norm: NormCache | None  # for the product of r and z
    norm_n: NormCache | None


class GRUResetBeforeShare(NamedTuple):
    """One step's share in the weight gradients: for the gates r and z, and for the candidate."""

    gates: Share  # its dz (N, 3H) is for all three; da, dgain (N, 2H) are for r and z
    s: Array
    da_n: Array
    dgain_n: Array | None


_FORWARD_BEFORE = """
each t      | a_t = h_{t-1} @ w_hh[r,z].T     | a_t = w_hh[r,z] @ h_{t-1}   | N,H @ H,E
each t norm | a_t = g_hh[r,z] * norm(a_t)     |                             | N,E
each t      | r, z = sigmoid(p_t + a_t)       |                             | N,E
each t      | s_t = r * h_{t-1}               |                             | N,H
each t      | q_t = s_t @ w_hh[n].T           | q_t = w_hh[n] @ s_t         | N,H @ H,H
each t norm | q_t = g_hh[n] * norm(q_t)       |                             | N,H
each t      | n = tanh(p_n + q_t)             |                             | N,H
each t      | h_t = (1 - z) * n + z * h_{t-1} |                             | N,H
"""
_BACKWARD_BEFORE = """
each t      | dn = dh_t * (1 - z)             |                             | N,H
each t      | dz = dh_t * (h_{t-1} - n)       |                             | N,H
each t      | dq_t = dn * (1 - n**2)          |                             | N,H
each t norm | dq_t = norm_back(dq_t * g_hh[n]) |                            | N,H
each t      | ds_t = dq_t @ w_hh[n]           | ds_t = w_hh[n].T @ dq_t     | N,H @ H,H
each t      | dr = ds_t * h_{t-1}             |                             | N,H
each t      | da_t = (dr, dz) * slopes        |                             | N,E
each t norm | da_t = norm_back(da_t * g_hh[r,z]) |                          | N,E
each t      | dh_{t-1} = da_t @ w_hh[r,z]     | dh_{t-1} = w_hh[r,z].T @ da_t | N,E @ E,H
each t      | dh_{t-1} += ds_t * r + dh_t * z |                             | N,H
once        | dw_hh[r,z] = da.T @ h_prev      | dw_hh[r,z] = da @ h_prev.T  | E,S @ S,H
once        | dw_hh[n] = dq.T @ s             | dw_hh[n] = dq @ s.T         | H,S @ S,H
once norm   | dg_hh[r,z] = ones @ (da * norm(a)) | dg_hh[r,z] = (da * norm(a)) @ ones | 1,S @ S,E
once norm   | dg_hh[n] = ones @ (dq * norm(q)) | dg_hh[n] = (dq * norm(q)) @ ones | 1,S @ S,H
"""


@dataclass(frozen=True)
class GRUResetBeforeCell(Cell):
    """GRU cell, reset-before.

    Parameters
    ----------
    input_size, hidden_size : int
        I and H.
    layer_norm : bool
        If True, normalise the products; r and z are normalised together, n on its own.

    Examples
    --------
    >>> import numpy as np
    >>> cell = GRUResetBeforeCell(input_size=1, hidden_size=1)
    >>> params = {name: np.zeros(shape) for name, shape in cell.shapes().items()}
    >>> state, _ = cell.step(params, np.zeros((1, 3)), GRUState(np.ones((1, 1))), xp=np)
    >>> state.h.tolist()
    [[0.5]]
    """

    gates: ClassVar[int] = 3
    state_type: ClassVar[type[GRUState]] = GRUState
    options: ClassVar[tuple[str, ...]] = ("reset_after",)
    # tape: r, z, n, s, h; apart: h_prev; share: dz, da (2), da_n; rows: dz, da, da_n, h_in, s
    footprint: ClassVar[Footprint] = Footprint(
        tape=5, apart=1, share=6, rows=8, norm=3, norm_tape=3, keep=1
    )

    def walk(self) -> Walk:
        """Return the operations of a step."""
        return Walk(_FORWARD_BEFORE, _BACKWARD_BEFORE)

    @property
    def kernel(self) -> str | None:
        """Name of the compiled kernels."""
        return "gru-before"

    def _recurrent(self, params: Params) -> tuple[Array, Array, Array | None, Array | None]:
        """Return w_hh and its gain, each split into the part for r and z and the part for n."""
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
        """Compute steps 2 to 5: projected (N, 3H), state h_{t-1}, dropout mask keep (N, H)."""
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
        """Back-propagate one step: from dL/dh_t to the step's share and dL/dh_{t-1}."""
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
        """Adjoint of `project`: return dx (M, I), given the same xs (M, I) and the rows' share."""
        return gates.input_back(params, xs, share.gates, xp=xp)  # 1

    def collect(
        self, params: Params, xs: Array, share: GRUResetBeforeShare, *, xp: Namespace
    ) -> Params:
        """Return the weight gradients, summed over the rows of xs (..., M, I) and of the share."""
        grads = gates.collect(params, xs, share.gates, xp=xp)
        dw_n = xp.matmul(xp.matrix_transpose(share.da_n), share.s)
        grads |= {"w_hh": xp.concat([grads["w_hh"], dw_n], axis=-2)}
        if share.dgain_n is not None:
            dgain_n = sum_rows(share.dgain_n, xp=xp)
            grads |= {"g_hh": xp.concat([grads["g_hh"], dgain_n], axis=-1)}
        return grads
