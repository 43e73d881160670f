"""The products that all cells share: z = x @ w_xh.T + h @ w_hh.T + b_h for G gates at once.

A product may be layer-normalised; it then has a gain::

    Forward                        Backward
    1  a = x @ w.T                 dw = da.T @ x        dx = da @ w
    2  n = (a - mean) / deviation  da = normalise_back(dn)
    3  out = gain * n              dn = dout * gain     dgain = sum over rows of dout * n

Without a gain steps 2 and 3 are omitted and out = a. The bias b_h, which is added anyway, serves as
the shift of layer normalisation. The input product and the recurrent product are normalised
separately, each over all gates together.

References
----------
.. [1] J. L. Ba, J. R. Kiros, G. E. Hinton, "Layer normalization", arXiv:1607.06450 (2016).
"""

from __future__ import annotations

from typing import NamedTuple

from rnn_xp._typing import Array, Namespace, Params
from rnn_xp.kernels.portable import normalise, normalise_back, sum_rows

__all__ = [
    "NormCache",
    "Parameter",
    "Share",
    "collect",
    "input_back",
    "linear",
    "linear_back",
    "parameters",
    "project",
]


class Parameter(NamedTuple):
    """Shape and initial values of a parameter.

    Attributes
    ----------
    shape : tuple of int
    initial : str or tuple of float
        "glorot" or "orthogonal" values are drawn by `rnn_xp.network.initializers`, gate by gate.
        Numbers are constants, one for each gate.
    gates : int
        Number of blocks of rows that are drawn separately.
    """

    shape: tuple[int, ...]
    initial: str | tuple[float, ...] = (0.0,)
    gates: int = 1


class NormCache(NamedTuple):
    """Results of step 2 that its adjoint needs.

    Attributes
    ----------
    n : Array (M, K)
        The normalised rows.
    inv : Array (M, 1)
        Inverse standard deviations.
    """

    n: Array
    inv: Array


class Share(NamedTuple):
    """One step's share in the weight gradients, row by row; `collect` forms the products.

    Attributes
    ----------
    dz : Array (M, G*H)
        Gradient of p = x @ w_xh.T + b_h.
    h_in : Array (M, H), optional
        The factor that was multiplied by w_hh: h_{t-1}, after recurrent dropout. None if the cell
        has no w_hh.
    da : Array (M, G*H), optional
        Gradient of the recurrent product, if it differs from ``dz``.
    dgain : Array (M, G*H), optional
        Gradient of the recurrent gain, row by row.
    """

    dz: Array
    h_in: Array | None = None
    da: Array | None = None
    dgain: Array | None = None


def parameters(
    gates: int,
    input_size: int,
    hidden_size: int,
    layer_norm: bool = False,
    *,
    recurrent: bool = True,
) -> dict[str, Parameter]:
    """Declare the parameters of G gates.

    Parameters
    ----------
    gates, input_size, hidden_size : int
        G, I and H.
    layer_norm : bool
        If True, each product has a gain, which starts at 1.
    recurrent : bool
        If True, there is a recurrent product.

    Returns
    -------
    dict of str to Parameter
        w_xh (G*H, I), w_hh (G*H, H), b_h (G*H,) and the gains g_xh and g_hh (G*H,).

    Examples
    --------
    >>> {name: p.shape for name, p in parameters(3, 1, 50).items()}
    {'w_xh': (150, 1), 'w_hh': (150, 50), 'b_h': (150,)}
    """
    rows = gates * hidden_size
    gain = Parameter((rows,), (1.0,) * gates)
    declared = {"w_xh": Parameter((rows, input_size), "glorot", gates)}
    if recurrent:
        declared["w_hh"] = Parameter((rows, hidden_size), "orthogonal", gates)
    declared["b_h"] = Parameter((rows,))
    if layer_norm:
        declared |= {"g_xh": gain, "g_hh": gain} if recurrent else {"g_xh": gain}
    return declared


def project(params: Params, xs: Array, *, xp: Namespace) -> Array:
    """Compute p = x @ w_xh.T + b_h, the part of z that does not depend on h.

    Parameters
    ----------
    params : Params
    xs : Array (M, I)
        The inputs; M is T*N for a whole sequence.
    xp : Namespace

    Returns
    -------
    Array (M, G*H)
    """
    return linear(xs, params["w_xh"], params.get("g_xh"), xp=xp)[0] + params["b_h"]


def linear(
    x: Array, w: Array, gain: Array | None, *, xp: Namespace
) -> tuple[Array, NormCache | None]:
    """Multiply rows x (M, I) by w (K, I) and, given a gain (K,), normalise the product.

    Returns
    -------
    out : Array (M, K)
    cache : NormCache or None
        For `linear_back`.
    """
    a = xp.matmul(x, xp.matrix_transpose(w))  # 1
    if gain is None:
        return a, None
    n, inv = normalise(a, xp=xp)  # 2
    return gain * n, NormCache(n, inv)  # 3


def linear_back(
    dout: Array, gain: Array | None, cache: NormCache | None, *, xp: Namespace
) -> tuple[Array, Array | None]:
    """Adjoint of `linear` with respect to a and the gain.

    Returns
    -------
    da : Array (M, K)
    dgain : Array (M, K) or None
        Gradient of the gain, row by row, not yet summed.
    """
    if gain is None or cache is None:
        return dout, None
    return normalise_back(dout * gain, cache.n, cache.inv, xp=xp), dout * cache.n  # 3, 2


def input_back(params: Params, xs: Array, share: Share, *, xp: Namespace) -> Array:
    """Adjoint of `project` for its input: return dx (M, I), given the same xs (M, I)."""
    da, _ = _projected_back(params, xs, share, xp=xp)
    return xp.matmul(da, params["w_xh"])


def collect(params: Params, xs: Array, share: Share, *, xp: Namespace) -> Params:
    """Return the weight gradients, summed over M rows, such as those of all steps and samples.

    Each product contracts the rows, so it is the sum over samples and, for the rows of several
    steps, over time as well. Axes before the rows are kept: N samples with T rows each have N
    gradients, before their sum.

    Parameters
    ----------
    params : Params
    xs : Array (..., M, I)
    share : Share
        Shares of the same rows, with the same axes before them.
    xp : Namespace

    Returns
    -------
    Params
        Names as in `parameters`; shapes as there, with the kept axes before them.
    """
    da_x, dgain_x = _projected_back(params, xs, share, xp=xp)
    da = share.dz if share.da is None else share.da
    grads = {
        "w_xh": xp.matmul(xp.matrix_transpose(da_x), xs),
        "b_h": sum_rows(share.dz, xp=xp),
    }
    if share.h_in is not None:
        grads["w_hh"] = xp.matmul(xp.matrix_transpose(da), share.h_in)
    if dgain_x is not None:
        grads["g_xh"] = sum_rows(dgain_x, xp=xp)
    if share.dgain is not None:
        grads["g_hh"] = sum_rows(share.dgain, xp=xp)
    return grads


def _projected_back(
    params: Params, xs: Array, share: Share, *, xp: Namespace
) -> tuple[Array, Array | None]:
    """Apply `linear_back` to the input product, whose normalisation is recomputed."""
    gain = params.get("g_xh")
    norm = None if gain is None else linear(xs, params["w_xh"], gain, xp=xp)[1]
    return linear_back(share.dz, gain, norm, xp=xp)
