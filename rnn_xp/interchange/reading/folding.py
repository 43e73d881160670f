"""Reparametrised weights of PyTorch, folded into the weights that they stand for.

::

    weight_norm        weight_g, weight_v                               g * v / |v|
      parametrized     parametrizations.weight.original0, original1
    pruning            weight_orig, weight_mask                         weight_orig * weight_mask
    spectral_norm      weight_orig, weight_u, weight_v                  weight / (u' W v)
      parametrized     parametrizations.weight.original, 0._u, 0._v

An orthogonal parametrisation does not say by which map it is to be computed, so it is refused.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["folded"]

_Arrays = dict[str, NDArray[Any]]


def folded(arrays: _Arrays) -> tuple[_Arrays, dict[str, str]]:
    """Fold reparametrised weights; other arrays are returned as they are.

    Parameters
    ----------
    arrays : dict of str to ndarray

    Returns
    -------
    arrays : dict of str to ndarray
    folded : dict of str to str
        Kind of the parametrisation, by the name of the weight.

    Raises
    ------
    ValueError
        If a parametrisation is of another kind; it is named.

    Examples
    --------
    >>> folded({"w_orig": np.asarray([1.0, 2.0]), "w_mask": np.asarray([1.0, 0.0])})
    ({'w': array([1., 0.])}, {'w': 'pruning'})
    """
    parts: dict[str, _Arrays] = {}
    rest: _Arrays = {}
    for name, array in arrays.items():
        if match := re.fullmatch(r"(.*?)parametrizations\.(\w+)\.(.+)", name):
            parts.setdefault(match[1] + match[2], {})[match[3]] = array
        else:
            rest[name] = array
    for tail in ("_orig", "_v"):  # first pruning and the old spectral_norm, then weight_norm
        for name in [name.removesuffix(tail) for name in rest if name.endswith(tail)]:
            group = {
                t: rest[name + t] for t in ("_orig", "_mask", "_g", "_u", "_v") if name + t in rest
            }
            if group.keys() in ({"_orig", "_mask"}, {"_orig", "_u", "_v"}, {"_g", "_v"}):
                parts[name] = group
                rest = {key: array for key, array in rest.items() if key not in
                        {name + t for t in group}}  # fmt: skip
    kinds: dict[str, str] = {}
    for name, group in parts.items():
        kinds[name], rest[name] = _fold(name, group)
    return rest, kinds


def _fold(name: str, group: _Arrays) -> tuple[str, NDArray[Any]]:
    match sorted(group):
        case ["_mask", "_orig"]:
            weight, mask = group["_orig"], group["_mask"]
            if mask.shape != weight.shape:
                raise ValueError(f"{name}_mask has shape {mask.shape}, not {weight.shape}.")
            return "pruning", weight * mask.astype(weight.dtype)
        case ["_g", "_v"]:
            return "weight_norm", _scaled(name, group["_g"], group["_v"])
        case ["original0", "original1"]:
            return "weight_norm", _scaled(name, group["original0"], group["original1"])
        case ["_orig", "_u", "_v"]:
            return "spectral_norm", _divided(name, group["_orig"], group["_u"], group["_v"])
        case ["0._u", "0._v", "original"]:
            return "spectral_norm", _divided(name, group["original"], group["0._u"], group["0._v"])
    raise ValueError(
        f"{name} is parametrised by {', '.join(sorted(group))}, as an orthogonal weight or one of "
        "another kind: the file does not say how it is computed. Remove it in PyTorch first: "
        "torch.nn.utils.parametrize.remove_parametrizations(module, name)."
    )


def _scaled(name: str, g: NDArray[Any], v: NDArray[Any]) -> NDArray[Any]:
    """Return g * v / |v|; the norm is over the axes along which g has one entry."""
    axes = tuple(at for at in range(v.ndim) if g.ndim != v.ndim or g.shape[at] == 1)
    norm = np.sqrt((v * v).sum(axis=axes, keepdims=True))
    if g.shape not in ((), norm.shape) or not norm.all():
        raise ValueError(f"{name}: g of shape {g.shape} and v of {v.shape} are no weight_norm.")
    result: NDArray[Any] = v * (g / norm)
    return result


def _divided(name: str, w: NDArray[Any], u: NDArray[Any], v: NDArray[Any]) -> NDArray[Any]:
    """Return w / (u' w v); u and v are those of the last step of training."""
    if w.ndim != 2 or u.shape != w.shape[:1] or v.shape != w.shape[1:]:
        raise ValueError(f"{name}: vectors of {u.shape} and {v.shape} do not fit {w.shape}.")
    sigma = u.dot(w.dot(v))
    if not sigma:
        raise ValueError(f"{name}: its largest singular value is zero.")
    result: NDArray[Any] = w / sigma
    return result
