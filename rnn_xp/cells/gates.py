"""What all cells share: z = x @ w_xh.T + h @ w_hh.T + b_h for G gates at once, and its gradients.

A product may be layer-normalised; it then has a gain::

    Forward                        Backward
    1  a = x @ w.T                 dw = da.T @ x        dx = da @ w
    2  n = (a - mean) / deviation  da = normalise_back(dn)
    3  out = gain * n              dn = dout * gain     dgain = sum over rows of dout * n

Without a gain steps 2 and 3 are left out and out = a. The shift of layer normalisation is the
bias b_h, which is added anyway. Input and recurrent product are normalised separately, each over
all gates together, as in J. L. Ba, J. R. Kiros, G. E. Hinton, "Layer normalization" (2016).
"""

from __future__ import annotations

from typing import NamedTuple

from rnn_xp._typing import Array, Namespace, Params
from rnn_xp.kernels.portable import normalise, normalise_back, sum_rows

__all__ = [
    "NormCache",
    "Share",
    "collect",
    "gate_shapes",
    "input_back",
    "linear",
    "linear_back",
    "project",
]


class NormCache(NamedTuple):
    """What step 2 keeps: ``n`` (M, K), and ``inv`` (M, 1), the inverse deviations."""

    n: Array
    inv: Array


class Share(NamedTuple):
    """A step's share in the weight gradients, row by row; `collect` multiplies it out.

    Attributes
    ----------
    dz : Array (M, G*H)
    h_in : Array (M, H)
        What was multiplied by w_hh: h_{t-1}, after recurrent dropout.
    da : Array (M, G*H) or None
        Gradient of the recurrent product, where it is another than ``dz``.
    dgain : Array (M, G*H) or None
        By row, the gradient of the recurrent gain.
    """

    dz: Array
    h_in: Array
    da: Array | None
    dgain: Array | None


def gate_shapes(
    gates: int, input_size: int, hidden_size: int, layer_norm: bool
) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the parameters of G gates: w_xh (G*H, I), w_hh (G*H, H), b_h (G*H,)."""
    rows = gates * hidden_size
    shapes = {"w_xh": (rows, input_size), "w_hh": (rows, hidden_size), "b_h": (rows,)}
    return shapes | ({"g_xh": (rows,), "g_hh": (rows,)} if layer_norm else {})


def project(params: Params, xs: Array, *, xp: Namespace) -> Array:
    """Compute the part of z that does not depend on h, for any number of rows at once.

    Parameters
    ----------
    params : Params
    xs : Array (M, I)
        M rows; all T*N of them when a whole sequence is projected.
    xp : Namespace

    Returns
    -------
    Array (M, G*H)
    """
    return linear(xs, params["w_xh"], params.get("g_xh"), xp=xp)[0] + params["b_h"]


def linear(
    x: Array, w: Array, gain: Array | None, *, xp: Namespace
) -> tuple[Array, NormCache | None]:
    """Map rows: x (M, I), w (K, I), gain (K,) or None, to out (M, K) and a cache for the back."""
    a = xp.matmul(x, xp.matrix_transpose(w))  # 1
    if gain is None:
        return a, None
    n, inv = normalise(a, xp=xp)  # 2
    return gain * n, NormCache(n, inv)  # 3


def linear_back(
    dout: Array, gain: Array | None, cache: NormCache | None, *, xp: Namespace
) -> tuple[Array, Array | None]:
    """Adjoint of `linear` down to a: da (M, K), and dgain (M, K) yet to be summed, or None."""
    if gain is None or cache is None:
        return dout, None
    return normalise_back(dout * gain, cache.n, cache.inv, xp=xp), dout * cache.n  # 3, 2


def input_back(params: Params, xs: Array, share: Share, *, xp: Namespace) -> Array:
    """Adjoint of `project` with respect to its input: dx (M, I), given the same xs (M, I)."""
    da, _ = _projected_back(params, xs, share, xp=xp)
    return xp.matmul(da, params["w_xh"])


def collect(params: Params, xs: Array, share: Share, *, xp: Namespace) -> Params:
    """Sum the weight gradients over M rows: the rows of one step, or of all T*N.

    Each product contracts the rows, so it is the sum over samples, and over steps where the rows
    are those of several.

    Parameters
    ----------
    params : Params
    xs : Array (M, I)
    share : Share
        Row for row as ``xs``.
    xp : Namespace

    Returns
    -------
    Params
        With the shapes of `gate_shapes`.
    """
    da_x, dgain_x = _projected_back(params, xs, share, xp=xp)
    da = share.dz if share.da is None else share.da
    grads = {
        "w_xh": xp.matmul(xp.matrix_transpose(da_x), xs),
        "w_hh": xp.matmul(xp.matrix_transpose(da), share.h_in),
        "b_h": sum_rows(share.dz, xp=xp),
    }
    if dgain_x is not None and share.dgain is not None:
        grads |= {"g_xh": sum_rows(dgain_x, xp=xp), "g_hh": sum_rows(share.dgain, xp=xp)}
    return grads


def _projected_back(
    params: Params, xs: Array, share: Share, *, xp: Namespace
) -> tuple[Array, Array | None]:
    """`linear_back` of the input product, whose normalisation is not kept but computed again."""
    gain = params.get("g_xh")
    norm = None if gain is None else linear(xs, params["w_xh"], gain, xp=xp)[1]
    return linear_back(share.dz, gain, norm, xp=xp)
