"""Checks of single arguments, with the same words everywhere.

NumPy's numbers and booleans are accepted wherever Python's are, and become Python's.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

__all__ = ["choice", "flag", "number", "whole"]


def choice(name: str, given: Any, valid: Mapping[str, Any]) -> Any:
    """Return the object that a name stands for.

    Raises
    ------
    ValueError
        If the name is not one of the valid ones, which the message lists.

    Examples
    --------
    >>> choice("cell", "gru", {"rnn": 1, "gru": 3})
    3
    """
    try:
        return valid[given]
    except (KeyError, TypeError):
        names = ", ".join(repr(known) for known in valid)
        raise ValueError(f"{name}={given!r} is not known. Valid: {names}.") from None


def whole(name: str, given: Any, least: int = 1) -> int:
    """Return an integer argument as a Python int.

    Parameters
    ----------
    name : str
        Name of the argument, as the message shows it.
    given : int
        Any integer, such as NumPy's. Booleans and floats such as 5.0 are refused.
    least : int
        Smallest valid value.

    Raises
    ------
    ValueError
        If the argument is not an integer or is too small.

    Examples
    --------
    >>> import numpy as np
    >>> whole("hidden_size", np.int64(5))
    5
    >>> whole("hidden_size", 5.0)
    Traceback (most recent call last):
        ...
    ValueError: hidden_size must be an integer >= 1, got 5.0.
    """
    try:
        value = None if isinstance(given, bool) else operator.index(given)
    except TypeError:
        value = None
    if value is None or value < least:
        raise ValueError(f"{name} must be an integer >= {least}, got {given!r}.")
    return value


def number(name: str, given: Any, valid: str = "a number") -> int | float:
    """Return a real number as a Python int or float.

    Parameters
    ----------
    name : str
        Name of the argument, as the message shows it.
    given : int or float
        Any real number, such as NumPy's. Booleans are refused.
    valid : str
        Requirement, as the message shows it; the caller checks the range.

    Raises
    ------
    TypeError
        If the argument is not a real number.

    Examples
    --------
    >>> import numpy as np
    >>> number("dropout", np.float64(0.25))
    0.25
    >>> number("dropout", "0.25", "a number in [0, 1)")
    Traceback (most recent call last):
        ...
    TypeError: dropout must be a number in [0, 1), got '0.25'.
    """
    value = _scalar(given)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be {valid}, got {given!r}.")
    return value


def flag(name: str, given: Any) -> bool:
    """Return a boolean argument as a Python bool.

    Raises
    ------
    ValueError
        If the argument is neither Python's nor NumPy's True or False.

    Examples
    --------
    >>> import numpy as np
    >>> flag("bidirectional", np.True_)
    True
    """
    value = _scalar(given)
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be True or False, got {given!r}.")
    return value


def _scalar(given: Any) -> Any:
    """Make a NumPy scalar a Python one; anything else is returned as it is."""
    return given.item() if getattr(given, "shape", None) == () else given
