"""Shared by all formats: checked tensors on the host, blocks of gates, and the bias rule."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rnn_xp._typing import Array
from rnn_xp.backend import to_numpy
from rnn_xp.network import Network

__all__ = ["Floats", "check_expressible", "host_params", "join_biases", "reorder", "take"]

Floats: TypeAlias = NDArray[np.floating[Any]]


def host_params(net: Network, params: Mapping[str, Array]) -> dict[str, Floats]:
    """Copy a network's parameters to the host, and check them.

    Parameters
    ----------
    net : Network
    params : Params
        Parameters of any library.

    Returns
    -------
    dict of str to ndarray

    Raises
    ------
    ValueError
        If a parameter is missing, unknown, not finite or of the wrong shape or dtype; it is named.
    """
    return take("params", params, net.shapes)


def take(
    what: str, given: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, Floats]:
    """Copy tensors of the given names and shapes to the host, and check them.

    Parameters
    ----------
    what : str
        Description of the tensors, for messages.
    given : mapping of str to array
        Tensors of any library. Half precision becomes float32, which loses nothing.
    shapes : mapping of str to tuple of int
        The required names, all of them and no others, with their shapes.

    Returns
    -------
    dict of str to ndarray
        Copies, in the order of ``shapes``, all float32 or all float64.

    Raises
    ------
    ValueError
        If a tensor is missing, unknown, not finite or of the wrong shape or dtype; it is named.
    """
    if missing := [name for name in shapes if name not in given]:
        raise ValueError(f"{what}: {missing[0]} is missing; given: {_some(given)}.")
    if unknown := [name for name in given if name not in shapes]:
        raise ValueError(f"{what}: {unknown[0]} is not known; expected: {_some(shapes)}.")
    taken: dict[str, Floats] = {}
    for name, shape in shapes.items():
        host = _host(what, name, given[name])
        if host.shape != shape:
            raise ValueError(f"{what}: {name} must have shape {shape}, got {host.shape}.")
        if host.dtype == np.float16:
            host = host.astype(np.float32)
        first = next(iter(taken.values()), host)
        if host.dtype not in (np.float32, np.float64) or host.dtype != first.dtype:
            raise ValueError(
                f"{what}: {name} is {host.dtype}, but all must be float32, or all float64."
            )
        if not np.isfinite(host).all():
            raise ValueError(f"{what}: {name} has values that are not finite.")
        taken[name] = np.array(host, order="C", copy=True)
    return taken


def check_expressible(
    net: Network, form: str, cells: Collection[str] | None = None, **lacks: str
) -> None:
    """Refuse a network that a format cannot express.

    Parameters
    ----------
    net : Network
    form : str
        Name of the format.
    cells : collection of str, optional
        Names of the cells that the format has; all cells by default.
    **lacks : str
        Options that the format does not have, each with the reason or a repair. A network may
        leave such an option at its default.

    Raises
    ------
    ValueError
        If the network has another cell, or uses one of the options; it is named.
    """
    if cells is not None and net.cell not in cells:
        raise ValueError(
            f"{form} cannot express cell={net.cell!r}: it has the cells "
            f"{', '.join(map(repr, cells))} only."
        )
    for option, repair in lacks.items():
        value, default = getattr(net, option), Network.__dataclass_fields__[option].default
        if value != default:
            raise ValueError(f"{form} cannot express {option}={value!r}: {repair}.")


def reorder(array: Floats, order: Sequence[int]) -> Floats:
    """Reorder the blocks of gates along the first axis: new block j is old block ``order[j]``.

    Examples
    --------
    >>> reorder(np.asarray([1.0, 2.0, 3.0]), (1, 0, 2)).tolist()
    [2.0, 1.0, 3.0]
    """
    blocks = np.split(array, len(order))
    return np.concatenate([blocks[j] for j in order])


def join_biases(first: Floats, second: Floats) -> Floats:
    """Add two biases; where the second is zero, the first keeps its bits.

    >>> join_biases(np.asarray([-0.0, 1.0]), np.asarray([0.0, 2.0])).tolist()
    [-0.0, 3.0]
    """
    return np.where(second == 0, first, first + second)


def _host(what: str, name: str, array: Any) -> NDArray[Any]:
    try:
        return to_numpy(array)
    except TypeError as error:  # no array, or a dtype that NumPy lacks, such as bfloat16
        raise ValueError(f"{what}: {name} cannot become a NumPy array: {error}") from error


def _some(names: Mapping[str, Any]) -> str:
    listed = list(map(str, names))
    return ", ".join(listed[:8]) + (", ..." if len(listed) > 8 else "") if listed else "none"
