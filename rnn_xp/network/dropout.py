"""Masks of dropout: drawn from a generator, or given by name.

A generator of the host draws anew at every call, but only once for a function that is compiled or
mapped over a batch, whose every later call would then drop the same entries. Such a function takes
the masks as an argument.
"""

from __future__ import annotations

import copy
import itertools
import math
from typing import Any

from rnn_xp._typing import Array, Namespace, Params
from rnn_xp.backend import device_of
from rnn_xp.backend.arrays import is_traced
from rnn_xp.network.configuration import Configuration
from rnn_xp.network.layers import Noise

__all__ = ["MasksOfPieces", "check_masks", "draw_masks", "mask_shapes", "noise"]


def draw_masks(
    net: Configuration, x: Array, steps: int, rng: Any, *, xp: Namespace
) -> dict[str, Array]:
    """Draw all masks in a fixed order: between layers first, then recurrent.

    Returns
    -------
    dict of str to Array
        Factors 0 or 1 / (1 - rate): ``"layer1.input"`` (T, N, D*H) of the input of a layer, and
        ``"layer0.recurrent"`` (N, H) of the state of a layer and direction.

    Raises
    ------
    TypeError
        If ``rng`` is not a generator of NumPy, such as a key of JAX.
    """
    _require_generator(rng)
    return _draw(net, mask_shapes(net, x.shape[0], steps), rng, x, xp=xp)


def check_masks(net: Configuration, x: Array, steps: int, masks: dict[str, Array]) -> None:
    """Check the names and shapes of masks that were given."""
    shapes = mask_shapes(net, x.shape[0], steps)
    if {name: tuple(mask.shape) for name, mask in masks.items()} != shapes:
        raise ValueError(
            f"Network: the masks in rng= must have the names and shapes {shapes}, got "
            f"{ {name: tuple(mask.shape) for name, mask in masks.items()} }. "
            "net.dropout_masks(rng, x) draws them."
        )


def noise(
    net: Configuration, params: Params, x: Array, steps: int, rng: Any, *, xp: Namespace
) -> Noise:
    """Return the masks that ``rng`` draws or is, by layer and direction.

    Raises
    ------
    TypeError
        If ``rng`` is neither a generator nor masks, or if a generator is to draw while a library
        traces the arrays.
    """
    masks = {}
    if isinstance(rng, dict):
        masks = rng
    elif rng is not None:
        _require_arrays_with_values(net, params, x)
        masks = draw_masks(net, x, steps, rng, xp=xp)
    between = [masks.get(f"layer{layer}.input") for layer in range(net.num_layers)]
    return Noise(between, [masks.get(f"{prefix}recurrent") for prefix in _prefixes(net)])


class MasksOfPieces:
    """The masks of the pieces of a sequence: the numbers that `draw_masks` draws for all of it.

    Those between layers are as large as the states of a layer, so they are drawn again when a piece
    is computed again, from the states of the generator that are kept for every piece.

    Parameters
    ----------
    net, params, x, rng : as for `noise`
    pieces : list of range
        The steps of each piece.
    xp : Namespace

    Raises
    ------
    TypeError
        As `noise` does.
    """

    def __init__(
        self,
        net: Configuration,
        params: Params,
        x: Array,
        pieces: list[range],
        rng: Any,
        *,
        xp: Namespace,
    ) -> None:
        self._net, self._x, self._pieces, self._xp = net, x, pieces, xp
        self._given = rng if isinstance(rng, dict) else None
        self._recurrent: dict[str, Array] = {}
        self._starts: dict[tuple[str, int], Any] = {}
        if rng is None or isinstance(rng, dict):
            return
        _require_arrays_with_values(net, params, x)
        _require_generator(rng)
        self._source = copy.deepcopy(rng)
        for name, shape in mask_shapes(net, x.shape[0], 1).items():
            if not name.endswith(".input"):
                self._recurrent |= _draw(net, {name: shape}, rng, x, xp=xp)
                continue
            for number, piece in enumerate(pieces):
                self._starts[name, number] = rng.bit_generator.state
                rng.random((len(piece), *shape[1:]))

    def __getitem__(self, number: int) -> dict[str, Array] | None:
        """Return the masks of a piece by name; None without dropout."""
        piece = self._pieces[number]
        if self._given is not None:
            return {
                name: mask[piece.start : piece.stop, ...] if name.endswith(".input") else mask
                for name, mask in self._given.items()
            }
        masks = dict(self._recurrent)
        for name, shape in mask_shapes(self._net, self._x.shape[0], len(piece)).items():
            if (name, number) in self._starts:
                self._source.bit_generator.state = self._starts[name, number]
                masks |= _draw(self._net, {name: shape}, self._source, self._x, xp=self._xp)
        return masks or None


def _draw(
    net: Configuration, shapes: dict[str, tuple[int, ...]], rng: Any, x: Array, *, xp: Namespace
) -> dict[str, Array]:
    """Draw masks one after another; those of one rate go to the device as one vector."""
    masks: dict[str, Array] = {}
    between = {name: shape for name, shape in shapes.items() if name.endswith(".input")}
    recurrent = {name: shape for name, shape in shapes.items() if name not in between}
    for rate, of_rate in ((net.dropout, between), (net.recurrent_dropout, recurrent)):
        if not of_rate:
            continue
        ends = [0, *itertools.accumulate(math.prod(shape) for shape in of_rate.values())]
        kept = xp.asarray(rng.random(ends[-1]) >= rate, device=device_of(x))
        factors = xp.astype(kept, x.dtype) * (1.0 / (1.0 - rate))
        for (name, shape), (first, last) in zip(
            of_rate.items(), itertools.pairwise(ends), strict=True
        ):
            masks[name] = xp.reshape(factors[first:last], shape)
    return masks


def _require_generator(rng: Any) -> None:
    if not all(hasattr(rng, name) for name in ("random", "bit_generator", "spawn")):
        raise TypeError(
            "Network: rng must be a numpy.random.Generator, such as numpy.random.default_rng(0), "
            f"or the masks of net.dropout_masks(rng, x), got {type(rng).__name__}."
        )


def _require_arrays_with_values(net: Configuration, params: Params, x: Array) -> None:
    if mask_shapes(net, x.shape[0], 1) and is_traced(x, *params.values()):
        raise TypeError(
            "Network: rng is a generator, and the function is being compiled or mapped, so all "
            "its calls would have one dropout mask. Draw the masks outside, masks = "
            "net.dropout_masks(rng, x), let the function take them as an argument, and give "
            "them as rng=masks."
        )


def _prefixes(net: Configuration) -> list[str]:
    return [
        net.layers.prefix(layer, direction)
        for layer in range(net.num_layers)
        for direction in range(net.directions)
    ]


def mask_shapes(net: Configuration, rows: int, steps: int) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of the masks of a network; none without dropout."""
    shapes: dict[str, tuple[int, ...]] = {}
    if net.dropout:
        by_step = (steps, rows, net.directions * net.hidden_size)
        shapes |= {f"layer{layer}.input": by_step for layer in range(1, net.num_layers)}
    if net.recurrent_dropout:
        by_row = (rows, net.hidden_size)
        shapes |= {f"{prefix}recurrent": by_row for prefix in _prefixes(net)}
    return shapes
