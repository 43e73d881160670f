"""Checks of hyperparameters, and of saved states.

The content of a file is not trusted: every name, shape, dtype and range is checked, and a
ValueError says which of them is wrong.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from numbers import Real
from typing import Any

from rnn_xp._checks import Argument, ParameterError, index_of
from rnn_xp._typing import Array

__all__ = ["Saved", "flag", "integer", "is_number", "number"]


def is_number(value: Any) -> bool:
    """Return True for real numbers of Python and NumPy, but not for bool."""
    return isinstance(value, Real) and not isinstance(value, bool)


def number(owner: object, name: str, interval: str) -> None:
    """Check a hyperparameter, and make it a Python float, which never changes an array's dtype.

    Parameters
    ----------
    owner : object
        A frozen dataclass, from whose ``__post_init__`` this is called.
    name : str
        Name of the field.
    interval : str
        The allowed interval, such as ``"[0, 1)"``.

    Raises
    ------
    ValueError
        If the value is not a number in the interval.
    """
    value = getattr(owner, name)
    low, high = map(float, interval[1:-1].split(","))
    inside = is_number(value) and (
        (low < value < high)
        or (value == low and interval[0] == "[")
        or (value == high and interval[-1] == "]")
    )
    if not inside:
        raise ParameterError(
            f"{type(owner).__name__}: {{0:name}} must be in {interval}, got {{0:value}}.",
            Argument(name, value),
        )
    object.__setattr__(owner, name, float(value))


def integer(owner: object, name: str, low: int) -> None:
    """Check that a hyperparameter is an integer >= ``low``, and convert it to a Python int."""
    value = getattr(owner, name)
    number = index_of(value)
    if number is None or number < low:
        raise ValueError(
            f"{type(owner).__name__}: {name} must be an integer >= {low}, got {value!r}."
        )
    object.__setattr__(owner, name, number)


def flag(owner: object, name: str) -> None:
    """Check that a hyperparameter is True or False."""
    value = getattr(owner, name)
    if not isinstance(value, bool):
        raise ValueError(f"{type(owner).__name__}: {name} must be True or False, got {value!r}.")


class Saved:
    """The arrays and values of a saved state.

    Parameters
    ----------
    owner : str
        Name of the optimiser, for messages.
    arrays : mapping of str to Array
        The saved arrays.
    values : mapping
        The saved values, as read from JSON.
    keys : iterable of str
        The keys that ``values`` must have, neither fewer nor more.

    Raises
    ------
    ValueError
        If the saved state does not fit. All methods raise this error as well.
    """

    def __init__(
        self, owner: str, arrays: Mapping[str, Array], values: Any, keys: Iterable[str]
    ) -> None:
        self.owner, self.arrays, self.values = owner, arrays, values
        self.names("values", values, keys)

    def names(self, what: str, mapping: Any, expected: Iterable[str]) -> None:
        """Check that a mapping has these keys, neither fewer nor more."""
        self.require(isinstance(mapping, Mapping), f"its {what} must be a mapping, got {mapping!r}")
        wanted = set(expected)
        missing, unknown = wanted - mapping.keys(), mapping.keys() - wanted
        self.require(not missing, f"it lacks {', '.join(sorted(missing))} of its {what}")
        self.require(not unknown, f"{', '.join(sorted(map(str, unknown)))} is unknown")

    def count(self, name: str, value: Any, most: int = sys.maxsize) -> int:
        """Check that a value is an integer from 0 to ``most``, and return it."""
        inside = type(value) is int and 0 <= value <= most
        self.require(inside, f"{name} must be an integer from 0 to {most}, got {value!r}")
        return int(value)

    def take(self, like: Mapping[str, tuple[tuple[int, ...], Any]]) -> dict[str, Array]:
        """Return the arrays with the given names, after a check of their shapes and dtypes."""
        self.names("arrays", self.arrays, like)
        for name, (shape, dtype) in like.items():
            array = self.arrays[name]
            actual = tuple(array.shape)
            self.require(actual == shape, f"{name} must have shape {shape}, got {actual}")
            self.require(array.dtype == dtype, f"{name} must have dtype {dtype}, got {array.dtype}")
        return {name: self.arrays[name] for name in like}

    def require(self, condition: bool, what: str) -> None:
        """Raise unless the condition holds."""
        if not condition:
            raise ValueError(
                f"{self.owner}: the saved state does not fit this optimiser and these "
                f"parameters: {what}."
            )
