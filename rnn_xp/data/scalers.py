"""Scale the columns of a series to a range that suits a network, and back.

A scaler is fitted on the **training part only**: any knowledge of the test part would leak into
training. It consists of two numbers per column, so it fits into a JSON or TOML file beside the
weights::

    scaled = (value - offset) / scale          value = scaled * scale + offset

              offset    scale
    standard  mean      population standard deviation (divisor n)
    minmax    minimum   maximum - minimum
    none      0         1
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rnn_xp._checks import Argument, ParameterError, readable
from rnn_xp.data.windows import as_series

__all__ = ["Scaler", "fit_scaler", "parse_scaler", "range_warning"]

_Float64: TypeAlias = NDArray[np.float64]

_MEASURES: dict[str, Callable[[_Float64], tuple[_Float64, _Float64]]] = {
    "standard": lambda columns: (columns.mean(axis=0), columns.std(axis=0)),
    "minmax": lambda columns: (columns.min(axis=0), np.ptp(columns, axis=0)),
    "none": lambda columns: (np.zeros(columns.shape[1]), np.ones(columns.shape[1])),
}


@dataclass(frozen=True)
class Scaler:
    """A fitted scaler: one offset and one scale per column.

    ``dataclasses.asdict`` gives a dict that JSON can hold, and ``Scaler(**that_dict)`` an equal
    scaler.

    Parameters
    ----------
    kind : {"standard", "minmax", "none"}
        Method by which the numbers were determined.
    offset, scale : tuple of I floats
        One number per column, in the units of the column. Every scale is positive.

    Raises
    ------
    ValueError
        If the kind is unknown, the lengths differ, or a number is not finite or a scale not
        positive.

    Examples
    --------
    >>> scaler = fit_scaler("minmax", [10.0, 20.0, 30.0])
    >>> scaler
    Scaler(kind='minmax', offset=(10.0,), scale=(20.0,))
    >>> scaler.transform([10.0, 40.0]).tolist()
    [0.0, 1.5]
    >>> scaler.inverse_target([[0.5, 1.0]]).tolist()
    [[20.0, 30.0]]
    """

    kind: str
    offset: tuple[float, ...]
    scale: tuple[float, ...]

    def __post_init__(self) -> None:
        _check_kind(self.kind)
        # Files give lists; tuples compare equal and can be hashed.
        object.__setattr__(self, "offset", tuple(float(v) for v in self.offset))
        object.__setattr__(self, "scale", tuple(float(v) for v in self.scale))
        if not self.offset or len(self.offset) != len(self.scale):
            raise ValueError(
                "offset and scale must have the same length, one number per column, "
                f"got {len(self.offset)} and {len(self.scale)}."
            )
        if not all(math.isfinite(v) for v in self.offset) or not all(
            math.isfinite(v) and v > 0 for v in self.scale
        ):
            raise ValueError(
                "offset must be finite and scale finite and positive, "
                f"got offset={self.offset} and scale={self.scale}."
            )

    def transform(self, values: ArrayLike) -> NDArray[np.float64]:
        """Scale values whose last axis is the columns.

        Parameters
        ----------
        values : (..., I), or (n,) if the scaler has one column
            A series in original units, or windows cut from it.

        Returns
        -------
        float64 array
            Scaled values of the same shape, without units.

        Raises
        ------
        ValueError
            If the last axis is not the columns the scaler was fitted on.
        """
        array = self._columns_last(values)
        scaled: _Float64 = (array - np.asarray(self.offset)) / np.asarray(self.scale)
        return scaled

    def inverse(self, values: ArrayLike) -> NDArray[np.float64]:
        """Undo `transform`.

        Parameters
        ----------
        values : (..., I), or (n,) if the scaler has one column
            Scaled values, whose last axis is the columns. Predictions all belong to column 0: use
            `inverse_target` for them.

        Returns
        -------
        float64 array
            Values of the same shape, in original units.

        Raises
        ------
        ValueError
            If the last axis is not the columns the scaler was fitted on.
        """
        array = self._columns_last(values)
        original: _Float64 = array * np.asarray(self.scale) + np.asarray(self.offset)
        return original

    def inverse_target(self, values: ArrayLike) -> NDArray[np.float64]:
        """Undo the scaling of targets or predictions, which all belong to column 0.

        Parameters
        ----------
        values : array of any shape, usually (N, horizon)
            Scaled values of column 0.

        Returns
        -------
        float64 array
            Values of the same shape, in original units.
        """
        return _float64(values) * self.scale[0] + self.offset[0]

    def _columns_last(self, values: ArrayLike) -> _Float64:
        """Return the values as float64; their last axis must be the scaler's columns."""
        array = _float64(values)
        width = len(self.offset)
        if (array.ndim == 1 and width == 1) or (array.ndim > 1 and array.shape[-1] == width):
            # (n,) against (1,) broadcasts to (n,): the one column.
            return array
        raise ValueError(
            f"the scaler was fitted on {width} column(s), so the last axis must have length "
            f"{width}, got shape {array.shape}. For predictions use inverse_target."
        )


def fit_scaler(kind: str, train: ArrayLike) -> Scaler:
    """Fit a scaler on the training part of a series, in float64.

    Parameters
    ----------
    kind : {"standard", "minmax", "none"}
        Mean 0 and population standard deviation 1; minimum 0 and maximum 1; or unchanged.
    train : (n,) or (n, I)
        The training part only, in original units.

    Returns
    -------
    Scaler
        One offset and one scale per column.

    Raises
    ------
    TypeError
        If the values are not real numbers.
    ValueError
        If the kind is unknown, the series is empty or not finite, or a column is constant.

    Examples
    --------
    >>> fit_scaler("standard", [[1, 10], [3, 30]])
    Scaler(kind='standard', offset=(2.0, 20.0), scale=(1.0, 10.0))
    """
    _check_kind(kind)
    columns = _nonempty("train", train)
    constant = np.flatnonzero(columns.min(axis=0) == columns.max(axis=0))
    if kind != "none" and len(constant):
        several = columns.shape[1] > 1
        raise ParameterError(
            "the training part is constant "
            f"({columns[0, constant[0]]:g}), so it has no scale. "
            + ("Remove the column or use {0}." if several else "Use {0}."),
            Argument("kind", "none"),
        ).within(f"column {constant[0]} of " if several else "")
    offset, scale = _MEASURES[kind](columns)
    return Scaler(kind, tuple(offset.tolist()), tuple(scale.tolist()))


def parse_scaler(text: str) -> Scaler:
    """Parse a scaler that is written KIND:OFFSET:SCALE, with commas between columns.

    Parameters
    ----------
    text : str

    Returns
    -------
    Scaler

    Raises
    ------
    ValueError
        If the text has another form, or the numbers make no scaler.

    Examples
    --------
    >>> parse_scaler("standard:20,1.5:3,0.1")
    Scaler(kind='standard', offset=(20.0, 1.5), scale=(3.0, 0.1))
    """
    try:
        kind, *numbers = text.split(":")
        offset, scale = (tuple(float(n) for n in part.split(",")) for part in numbers)
        return Scaler(kind, offset, scale)
    except ValueError as error:
        raise ValueError(
            f"{text!r} is no scaler such as standard:20:3, with (value - 20) / 3 ({error})."
        ) from error


def range_warning(train: ArrayLike, test: ArrayLike, tolerance: float = 0.05) -> str | None:
    """Describe how far the test part leaves the range that the training part covers.

    A network with saturating units cannot follow a series far outside what it was trained on.

    Parameters
    ----------
    train, test : (n,) or (n, I)
        The two parts, in the same units and with the same columns.
    tolerance : float
        Fraction of the training range (maximum - minimum) by which the test part may exceed it.

    Returns
    -------
    str or None
        A sentence on the column that leaves the range the farthest, or None if none does. The
        caller decides how to warn.

    Raises
    ------
    ValueError
        If a part is empty or not finite, or the columns differ.

    Examples
    --------
    >>> range_warning([0.0, 10.0], [2.0, 10.4]) is None
    True
    >>> print(range_warning([0.0, 10.0], [2.0, 14.0]))
    The test part leaves the training range by 40 % of that range (training 0 .. 10, \
test 2 .. 14): forecasts out there are extrapolation.
    """
    inside, outside = _nonempty("train", train), _nonempty("test", test)
    if inside.shape[1] != outside.shape[1]:
        raise ValueError(
            f"train has {inside.shape[1]} column(s) and test {outside.shape[1]}: "
            "they must be two parts of one series."
        )
    low, high = inside.min(axis=0), inside.max(axis=0)
    excess = np.maximum(low - outside.min(axis=0), outside.max(axis=0) - high).clip(min=0)
    # A constant column has no range: any departure from it counts as infinite.
    share = np.full_like(excess, np.inf)
    np.divide(excess, high - low, out=share, where=high > low)
    share[excess == 0] = 0
    worst = int(np.argmax(share))
    if share[worst] <= tolerance:
        return None
    where = f" of column {worst}" if len(share) > 1 else ""
    return (
        f"The test part leaves the training range{where} by {100 * share[worst]:.0f} % "
        f"of that range (training {low[worst]:g} .. {high[worst]:g}, "
        f"test {outside[:, worst].min():g} .. {outside[:, worst].max():g}): "
        "forecasts out there are extrapolation."
    )


def _nonempty(name: str, values: ArrayLike) -> _Float64:
    """Check a part of a series and return it as (n, I) float64 with n >= 1."""
    columns = as_series(values, name).astype(np.float64, copy=False)
    if len(columns) == 0:
        raise ValueError(f"{name} is empty: at least 1 value is required.")
    return columns


def _float64(values: ArrayLike) -> _Float64:
    """Return the values as float64; complex numbers and objects raise TypeError."""
    array = np.asarray(readable("values", values))
    return array.astype(np.float64, casting="same_kind", copy=False)


def _check_kind(kind: str) -> None:
    if kind not in _MEASURES:
        raise ValueError(f"kind={kind!r} is not a scaler. Valid: {', '.join(_MEASURES)}.")
