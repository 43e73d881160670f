"""How libraries name and lay out the weights of one recurrent module.

::

    library         names in the module                       gates      biases
    PyTorch         weight_ih_l0, weight_hh_l0, bias_ih_l0..  r,z,n      2
      its cells     weight_ih, weight_hh, bias_ih, bias_hh    i,f,g,o    2
    Paddle          as PyTorch; a Linear is (in, out)
    Equinox         weight_ih, weight_hh, bias, bias_n        as above   1, and n's own
    MLX             Wx, Wh (Wxh, Whh), bias or b, bhn         as above   1, and n's own
    Keras           kernel, recurrent_kernel, bias            z,r,h      see `keras`
                                                              i,f,c,o
    Flax linen      ii, if, ig, io, hi, ...; ir, iz, in, ...  by name    at i* and at h*
    Flax nnx        dense_i, dense_h; if_ for if              r,z,n      at either
                                                              i,f,g,o
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rnn_xp.interchange.reading.stack import Direction, cell_of, two_biases
from rnn_xp.interchange.tensors import reorder

__all__ = ["ANCHORS", "Module", "recurrent"]

_Arrays = dict[str, NDArray[Any]]
_KERAS_ORDERS = {"rnn": (0,), "gru": (1, 0, 2), "lstm": (0, 1, 2, 3)}
_LINEN = {"lstm": "ifgo", "gru": "rzn"}


class Module(NamedTuple):
    """A recurrent module of a file.

    Attributes
    ----------
    name : str
    library : str
        Library whose names it has.
    cell : str
    layers : list of tuple of Direction
        Several for PyTorch and Paddle; other libraries have a module for each direction.
    reset_after : bool, optional
        Kind of a GRU of Keras; None if the file does not say.
    """

    name: str
    library: str
    cell: str
    layers: list[tuple[Direction, ...]]
    reset_after: bool | None = True


def recurrent(name: str, anchor: str, arrays: _Arrays) -> Module:
    """Read one module; the arrays that belong to it are removed from the dict.

    Parameters
    ----------
    name : str
        Name of the module, for messages.
    anchor : str
        Key of `ANCHORS` that the arrays have.
    arrays : dict of str to ndarray
        Arrays by their names in the module.

    Returns
    -------
    Module

    Raises
    ------
    ValueError
        If shapes do not fit, or it has a part that no layer here has; it is named.
    """
    if any(array.ndim != 2 for key, array in arrays.items() if key == anchor):
        raise ValueError(
            f"{name}: {anchor} has shape {arrays[anchor].shape}, but two axes are required."
        )
    for key in arrays:
        if key.startswith("weight_hr_l") or key == "weight_ho":
            raise ValueError(
                f"{name}.{key} is a projection of the state (proj_size), which no layer here has."
            )
    try:
        module = ANCHORS[anchor](name, arrays)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    for key, array in arrays.items():
        if "." not in key and array.ndim == 1 and key[:2] == "w_" and key[-5:] == "_diag":
            raise ValueError(f"{name}.{key} is a peephole of the LSTM, which no layer here has.")
    return module


def _of_torch(name: str, arrays: _Arrays) -> Module:
    layers: list[tuple[Direction, ...]] = []
    cell = cell_of("weight_hh_l0", *arrays["weight_hh_l0"].shape)
    ends = ("", "_reverse") if "weight_hh_l0_reverse" in arrays else ("",)
    while f"weight_hh_l{len(layers)}" in arrays:
        tags = [f"_l{len(layers)}{end}" for end in ends]
        layers.append(tuple(_two(cell, arrays, tag) for tag in tags))
    return Module(name, "PyTorch", cell, layers)


def _two(cell: str, arrays: _Arrays, tag: str) -> Direction:
    w_xh, w_hh = (_required(arrays, f"{kind}{tag}") for kind in ("weight_ih", "weight_hh"))
    _same_rows(w_xh, w_hh, tag)
    names = [f"{kind}{tag}" for kind in ("bias_ih", "bias_hh")]
    if (names[0] in arrays) != (names[1] in arrays):
        raise ValueError(f"one of {' and '.join(names)} is missing; both are, with bias=False.")
    return two_biases(cell, w_xh, w_hh, *(arrays.pop(key, None) for key in names))


def _of_cell(name: str, arrays: _Arrays) -> Module:
    """Read a cell of PyTorch or Equinox."""
    cell = cell_of("weight_hh", *arrays["weight_hh"].shape)
    if "bias" in arrays or "bias_ih" not in arrays:
        w_xh, w_hh = _required(arrays, "weight_ih"), _required(arrays, "weight_hh")
        own = arrays.pop("bias_n", None) if cell == "gru" else None
        return _of_one(name, "Equinox", cell, w_xh, w_hh, arrays.pop("bias", None), own)
    return Module(name, "PyTorch", cell, [(_two(cell, arrays, ""),)])


def _of_mlx(name: str, arrays: _Arrays) -> Module:
    x, h = ("Wxh", "Whh") if "Whh" in arrays else ("Wx", "Wh")
    w_xh, w_hh = _required(arrays, x), _required(arrays, h)
    cell = cell_of(h, *w_hh.shape)
    bias = arrays.pop("b" if cell == "gru" else "bias", None)
    own = arrays.pop("bhn", None) if cell == "gru" else None
    return _of_one(name, "MLX", cell, w_xh, w_hh, bias, own)


def _of_one(
    name: str, library: str, cell: str, w_xh: Any, w_hh: Any, bias: Any, own: Any
) -> Module:
    """Read a layer with one bias and, in a GRU, the candidate's own (H,)."""
    _same_rows(w_xh, w_hh, "")
    second = None
    if own is not None:
        if own.shape != w_hh.shape[1:]:
            raise ValueError(f"the bias of the candidate has shape {own.shape}.")
        second = np.concatenate([np.zeros(2 * len(own), own.dtype), own])
    return Module(name, library, cell, [(two_biases(cell, w_xh, w_hh, bias, second),)])


def _of_keras(name: str, arrays: _Arrays) -> Module:
    kernel, w_hh = _required(arrays, "kernel").T, _required(arrays, "recurrent_kernel").T
    cell, bias = cell_of("recurrent_kernel", *w_hh.shape), arrays.pop("bias", None)
    _same_rows(kernel, w_hh, "")
    order, after = _KERAS_ORDERS[cell], True if bias is None or bias.ndim == 2 else cell != "gru"
    if bias is not None and bias.shape != ((2,) * (cell == "gru" and after) + w_hh.shape[:1]):
        raise ValueError(f"a bias of shape {bias.shape} does not fit {len(w_hh)} rows.")
    rows = [None, None] if bias is None else list(bias) if bias.ndim == 2 else [bias, None]
    first, second = (None if row is None else reorder(row, order) for row in rows)
    direction = two_biases(cell, reorder(kernel, order), reorder(w_hh, order), first, second)
    if not after:
        direction = direction._replace(b_hn=None)
    known = None if cell == "gru" and bias is None else after
    return Module(name, "Keras", cell, [(direction,)], known)


def _of_linen(name: str, arrays: _Arrays) -> Module:
    cell = "lstm" if "hf.kernel" in arrays else "gru" if "hr.kernel" in arrays else "rnn"
    gates = _LINEN.get(cell, " ")
    if "if_.kernel" in arrays:
        arrays["if.kernel"] = arrays.pop("if_.kernel")
    w_xh, w_hh = (
        np.concatenate([_required(arrays, f"{(side + gate).strip()}.kernel").T for gate in gates])
        for side in "ih"
    )
    _same_rows(w_xh, w_hh, "")
    size = w_hh.shape[1]
    if w_hh.shape[0] != size * len(gates):
        raise ValueError(f"recurrent kernels are not square: {w_hh.shape}.")
    biases = []
    for side in "ih":
        keys = [f"{(side + gate).strip()}.bias" for gate in gates]
        parts = [arrays.pop(key, np.zeros(size, w_hh.dtype)) for key in keys]
        biases.append(np.concatenate(parts))
    return Module(name, "Flax", cell, [(two_biases(cell, w_xh, w_hh, *biases),)])


def _of_nnx(name: str, arrays: _Arrays) -> Module:
    w_xh, w_hh = _required(arrays, "dense_i.kernel").T, _required(arrays, "dense_h.kernel").T
    cell = cell_of("dense_h", *w_hh.shape)
    _same_rows(w_xh, w_hh, "")
    biases = (arrays.pop(f"dense_{side}.bias", None) for side in "ih")
    return Module(name, "Flax", cell, [(two_biases(cell, w_xh, w_hh, *biases),)])


ANCHORS: dict[str, Callable[[str, _Arrays], Module]] = {
    "weight_hh_l0": _of_torch,
    "weight_hh": _of_cell,
    "Wh": _of_mlx,
    "Whh": _of_mlx,
    "recurrent_kernel": _of_keras,
    "dense_h.kernel": _of_nnx,
    "hf.kernel": _of_linen,
    "hr.kernel": _of_linen,
    "h.kernel": _of_linen,
}
"""Readers of a module by the name of an array that shows of which library it is."""


def _required(arrays: _Arrays, name: str) -> NDArray[Any]:
    if name not in arrays:
        raise ValueError(f"{name} is missing.")
    array = arrays.pop(name)
    if array.ndim != 2:
        raise ValueError(f"{name} has shape {array.shape}, but two axes are required.")
    return array


def _same_rows(w_xh: NDArray[Any], w_hh: NDArray[Any], tag: str) -> None:
    if w_xh.shape[0] != w_hh.shape[0]:
        raise ValueError(
            f"input weights{tag} of shape {w_xh.shape} and recurrent ones of shape {w_hh.shape} "
            "do not fit each other."
        )
