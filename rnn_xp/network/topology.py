"""Feeds and reads: the inputs of a sequence and the use of its states, each beside its adjoint.

::

    many_to_one    x (N, T, I)   the states are read once: `last`, `mean` or `max`
    many_to_many   x (N, T, I)   every state is read
    one_to_many    x (N, 1, I)   every state is read; the feed provides the inputs of steps 2, 3,
                                 ...: `zeros`, `repeat` (x again) or feedback (the prediction)

Arrays are time-major: a sequence is a list of T arrays (N, .), one direction of one layer. ``mask``
is bool (T, N, 1) or None. Feedback is not a feed: see `rnn_xp.network.feedback`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from rnn_xp._typing import Array, Namespace
from rnn_xp.backend import device_of
from rnn_xp.backend.adapters import adapter_of
from rnn_xp.network.layers import as_one

__all__ = [
    "READ_LAST",
    "READ_MAX",
    "READ_MEAN",
    "REPEAT",
    "ZEROS",
    "Feed",
    "Read",
    "last_steps",
    "last_steps_back",
    "last_steps_terms",
]


_CACHED = 1 << 19  # entries of arrays whose passes one after the other stay in a cache


class Read(NamedTuple):
    """Reduction of a sequence of states to one vector, with its adjoint.

    Attributes
    ----------
    forward : callable
        ``h, cache = forward(hs, mask, reverse, xp=xp)``: (N, H) from T arrays (N, H).
    backward : callable
        ``dhs = backward(dh, steps, cache, xp=xp)``: T gradients, None for steps that are not read.
    """

    forward: Callable[..., tuple[Array, Any]]
    backward: Callable[..., list[Array | None]]


def _last(
    hs: Sequence[Array], mask: Array | None, reverse: bool, *, xp: Namespace
) -> tuple[Array, int]:
    # Masked steps carry the state on: the last computed step holds that of the last unmasked one.
    end = 0 if reverse else len(hs) - 1
    return hs[end], end


def _last_back(dh: Array, steps: int, end: int, *, xp: Namespace) -> list[Array | None]:
    # Every other step reaches the loss through this one alone, so it has no part of its own.
    return [dh if t == end else None for t in range(steps)]


def _mean(hs: Any, mask: Array | None, reverse: bool, *, xp: Namespace) -> tuple[Array, Any]:
    # Weights 1 / count of the row's unmasked steps, 0 at masked ones; an empty row gives 0.
    if mask is None:
        share: Any = 1.0 / len(hs)
        if _each_call_counts(hs, xp):
            return xp.sum(hs, axis=0) * share, share
        return _sum([h * share for h in hs]), share
    counted = xp.astype(mask, hs[0].dtype)
    count = xp.sum(counted, axis=0)
    share = counted / xp.where(xp.real(count) > 0, count, xp.ones_like(count))
    if _each_call_counts(hs, xp):
        return xp.sum(hs * share, axis=0), share
    return _sum([h * share[t, ...] for t, h in enumerate(hs)]), share


def _mean_back(dh: Array, steps: int, share: Any, *, xp: Namespace) -> list[Array | None]:
    dhs = dh * share
    return [dhs] * steps if len(dhs.shape) == 2 else [dhs[t, ...] for t in range(steps)]


def _max(
    hs: Sequence[Array], mask: Array | None, reverse: bool, *, xp: Namespace
) -> tuple[Array, Array]:
    # For each unit the first step at which it is largest; an empty row gives 0, from step -1. A NaN
    # is larger than any number, and once chosen it stays: the first one in an unmasked step wins.
    few = len(hs) * hs[0].shape[0] * hs[0].shape[1] <= _CACHED
    if few or _each_call_counts(hs, xp):
        return _max_at_once(hs, mask, xp)
    best = xp.zeros_like(hs[0])
    chosen = xp.full(best.shape, -1, dtype=xp.int32, device=device_of(best))
    for t, h in enumerate(hs):
        now, before = xp.real(h), xp.real(best)
        larger = (~(now <= before) & ~xp.isnan(before)) | (chosen < 0)
        if mask is not None:
            larger = larger & mask[t, ...]
        best = xp.where(larger, h, best)
        chosen = xp.where(larger, xp.full_like(chosen, t), chosen)
    return best, chosen


def _max_at_once(
    hs: Sequence[Array], mask: Array | None, xp: Namespace
) -> tuple[Array, Array]:  # fmt: skip
    # The same in a number of calls that does not grow with the steps, which cost more than the
    # arithmetic if the rows are few.
    states, number = as_one(hs, xp=xp), _numbers(len(hs), hs[0], xp)
    size, beyond = xp.real(states), xp.full_like(number, len(hs))
    if mask is not None:
        least = xp.full((1, 1, 1), -math.inf, dtype=size.dtype, device=device_of(size))
        size, number = xp.where(mask, size, least), xp.where(mask, number, beyond)
    found = (size == xp.max(size, axis=0)) | xp.isnan(size)
    left = xp.max(xp.where(found, beyond - number, xp.zeros_like(number)), axis=0)
    chosen = xp.where(left > 0, len(hs) - left, xp.full_like(left, -1))
    best = xp.sum(xp.where(number == chosen, states, xp.zeros_like(states)), axis=0)
    return best, chosen


def _max_back(dh: Array, steps: int, chosen: Array, *, xp: Namespace) -> list[Array | None]:
    dhs = xp.where(_numbers(steps, dh, xp) == chosen, dh, xp.zeros_like(dh))
    return [dhs[t, ...] for t in range(steps)]


def _numbers(steps: int, like: Array, xp: Namespace) -> Array:
    """Return the numbers of the steps, (T, 1, 1)."""
    numbers = xp.arange(steps, dtype=xp.int32, device=device_of(like))
    return xp.reshape(numbers, (steps, 1, 1))


def _each_call_counts(hs: Any, xp: Namespace) -> bool:
    """Return True if the states are one array and calls are what costs, not passes over memory."""
    return not isinstance(hs, list) and adapter_of(xp).is_accelerator(device_of(hs))


READ_LAST = Read(_last, _last_back)
READ_MEAN = Read(_mean, _mean_back)
READ_MAX = Read(_max, _max_back)


class Feed(NamedTuple):
    """Expansion of one input to T inputs, with its adjoint.

    Attributes
    ----------
    forward : callable
        ``xs = forward(x, steps, xp=xp)``: (T, N, I) from (1, N, I).
    backward : callable
        ``dx = backward(dxs, xp=xp)``: (1, N, I) from (T, N, I).
    """

    forward: Callable[..., Array]
    backward: Callable[..., Array]


def _zeros(x: Array, steps: int, *, xp: Namespace) -> Array:
    return xp.where(_numbers(steps, x, xp) == 0, x, xp.zeros_like(x))


def _zeros_back(dxs: Array, *, xp: Namespace) -> Array:
    return dxs[0:1, ...]


def _repeat(x: Array, steps: int, *, xp: Namespace) -> Array:
    return xp.where(_numbers(steps, x, xp) >= 0, x, x)


def _repeat_back(dxs: Array, *, xp: Namespace) -> Array:
    return xp.sum(dxs, axis=0, keepdims=True)


ZEROS = Feed(_zeros, _zeros_back)
REPEAT = Feed(_repeat, _repeat_back)


def _sum(arrays: Sequence[Array]) -> Array:
    total = arrays[0]
    for array in arrays[1:]:
        total = total + array
    return total


def last_steps(xs: Array, lags: int, *, xp: Namespace) -> Array:
    """Concatenate the last steps of xs (T, N, I), the oldest first: (N, L*I)."""
    steps, rows, size = xs.shape
    last = xp.permute_dims(xs[steps - lags :, ...], (1, 0, 2))
    # A copy, since it enters two products; some libraries would copy it for each of them.
    return xp.asarray(xp.reshape(last, (rows, lags * size)), copy=True)


def last_steps_back(
    dwindow: Array, steps: int, size: int, mask: Array | None, *, xp: Namespace
) -> Array:
    """Adjoint of `last_steps` and of the zeros at masked steps: return dxs (T, N, I)."""
    rows, lags = dwindow.shape[0], dwindow.shape[1] // size
    last = xp.permute_dims(xp.reshape(dwindow, (rows, lags, size)), (1, 0, 2))
    if mask is not None:
        last = xp.where(mask[steps - lags :, ...], last, xp.zeros_like(last))
    before = xp.zeros((steps - lags, rows, size), dtype=last.dtype, device=device_of(last))
    return xp.concat([before, last])


def last_steps_terms(dw: Array, steps: int, size: int, *, xp: Namespace) -> Array:
    """Assign the columns of a gradient (O, L*I) to the steps that they multiply: (T, O, L*I)."""
    lag = xp.arange(dw.shape[1], device=device_of(dw)) // size
    step = xp.arange(steps, device=device_of(dw)) - (steps - dw.shape[1] // size)
    return xp.astype(step[:, None, None] == lag, dw.dtype) * dw
