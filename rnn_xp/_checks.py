"""Checks of single arguments, which use the same words everywhere.

NumPy numbers and booleans are accepted wherever Python's are, and are converted.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = [
    "Argument",
    "ParameterError",
    "choice",
    "flag",
    "index_of",
    "install",
    "number",
    "readable",
    "refuse_masked",
    "whole",
]


@dataclass(frozen=True)
class Argument:
    """An argument that an error message names.

    In a format string, ``{:name}`` stands for the name only and ``{:value}`` for the value only.

    Attributes
    ----------
    name : str
    value : object
        The value; an ellipsis if the message should name the argument only.

    Examples
    --------
    >>> argument = Argument("horizon", 3)
    >>> f"{argument}, {argument:name}"
    'horizon=3, horizon'
    """

    name: str
    value: Any = ...

    def __format__(self, spec: str) -> str:
        if spec == "name":
            return self.name
        if spec == "value":
            return repr(self.value)
        return f"{self.name}=" if self.value is ... else f"{self.name}={self.value!r}"


class ParameterError(ValueError):
    """An argument that cannot be used, with the reason.

    The text names arguments as Python does. Another interface, such as the command line, can name
    them in its own way with `told`.

    Parameters
    ----------
    reason : str
        Format string of the text, in which ``{0}`` is the first argument, see `Argument`.
    *arguments : Argument

    Attributes
    ----------
    reason : str
    arguments : tuple of Argument

    Examples
    --------
    >>> error = ParameterError("{0:name} must be >= 1, got {0:value}.", Argument("steps", 0))
    >>> print(error)
    steps must be >= 1, got 0.
    >>> error.name
    'steps'
    """

    def __init__(self, reason: str, *arguments: Argument) -> None:
        super().__init__(reason, *arguments)
        self.reason, self.arguments = reason, arguments

    def __str__(self) -> str:
        return self.reason.format(*self.arguments)

    @property
    def name(self) -> str:
        """Name of the first argument of the error."""
        return self.arguments[0].name

    def told(self, tell: Callable[[Argument], Any]) -> str:
        """Return the text with the arguments written as ``tell`` returns them.

        Parameters
        ----------
        tell : callable
            ``tell(argument)`` returns the object to format in place of an `Argument`.

        Returns
        -------
        str
        """
        return self.reason.format(*map(tell, self.arguments))

    def within(self, part: str) -> ParameterError:
        """Return the same error with a prefix that says where it arose.

        Parameters
        ----------
        part : str

        Returns
        -------
        ParameterError
        """
        return ParameterError(part.replace("{", "{{").replace("}", "}}") + self.reason,
                              *self.arguments)  # fmt: skip


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


def index_of(given: Any) -> int | None:
    """Return an integer as a Python int, and None for anything else.

    Booleans are none, nor are those of NumPy, which up to 2.2 lets them be an index.

    Examples
    --------
    >>> import numpy as np
    >>> index_of(np.int64(5)), index_of(np.True_), index_of(5.0)
    (5, None, None)
    """
    if isinstance(given, bool) or getattr(getattr(given, "dtype", None), "kind", "") == "b":
        return None
    try:
        return operator.index(given)
    except TypeError:
        return None


def whole(name: str, given: Any, least: int = 1, *, owner: str = "") -> int:
    """Return an integer argument as a Python int.

    Parameters
    ----------
    name : str
        Name of the argument, as the message shows it.
    given : int
        A Python or NumPy integer. Booleans and floats such as 5.0 are refused.
    least : int
        Smallest valid value.
    owner : str
        Words before the message that say whose argument it is, such as ``"Network: "``.

    Raises
    ------
    ParameterError
        If the argument is not an integer or is too small.

    Examples
    --------
    >>> import numpy as np
    >>> whole("hidden_size", np.int64(5))
    5
    >>> whole("hidden_size", 5.0)
    Traceback (most recent call last):
        ...
    rnn_xp._checks.ParameterError: hidden_size must be an integer >= 1, got 5.0.
    """
    value = index_of(given)
    if value is None or value < least:
        raise ParameterError(
            f"{owner}{{0:name}} must be an integer >= {least}, got {{0:value}}.",
            Argument(name, given),
        )
    return value


def number(name: str, given: Any, valid: str = "a number") -> int | float:
    """Return a real number as a Python int or float.

    Parameters
    ----------
    name : str
        Name of the argument, as the message shows it.
    given : int or float
        A Python or NumPy real number. Booleans are refused.
    valid : str
        The requirement, as the message states it; the caller checks the range.

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


def install(extra: str) -> str:
    """Return the command that installs an extra: in a checkout from there, otherwise by name.

    Parameters
    ----------
    extra : str
        An extra of this package, such as "plot".

    Returns
    -------
    str
    """
    checkout = os.path.exists(os.path.join(os.path.dirname(__file__), "..", "pyproject.toml"))
    return f"pip install -e '.[{extra}]'" if checkout else f"pip install 'rnn-xp[{extra}]'"


def refuse_masked(what: str, values: Any) -> None:
    """Refuse a NumPy masked array, because conversions to plain arrays drop its mask.

    It is refused even if nothing is masked, so that whether data are accepted does not depend on
    their values.

    Parameters
    ----------
    what : str
        Name of the values, as the message shows it.
    values : object

    Raises
    ------
    TypeError
        If the values are a masked array, or a list or tuple with one in it.

    Examples
    --------
    >>> import numpy as np
    >>> refuse_masked("x", np.zeros(2))
    >>> refuse_masked("x", np.ma.zeros(2))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    TypeError: x: a masked array would lose its mask. Give values.filled(numpy.nan) where ...
    """
    if isinstance(values, list | tuple):
        for each in values:
            if not isinstance(each, int | float):
                refuse_masked(what, each)
    elif any(kind.__name__ == "MaskedArray" for kind in type(values).__mro__):
        raise TypeError(
            f"{what}: a masked array would lose its mask. Give values.filled(numpy.nan) where NaN "
            "stands for missing values, such as to a Forecaster with missing='mask'; elsewhere "
            "values.filled(0), and mask= for steps or sample_weight= for rows to leave out."
        )


def readable(what: str, values: Any) -> Any:
    """Return values that NumPy can read without loss.

    Parameters
    ----------
    what : str
        Name of the values, as the message shows it.
    values : object

    Returns
    -------
    object
        Tensors that record gradients are detached, also those in lists and tuples; anything else
        is returned as it is.

    Raises
    ------
    TypeError
        If the values are a masked array, see `refuse_masked`, or a tensor without values.

    Examples
    --------
    >>> readable("x", [1.0, 2.0])
    [1.0, 2.0]
    """
    refuse_masked(what, values)
    return _detached(what, values)


def _detached(what: str, values: Any) -> Any:
    if isinstance(values, list | tuple):
        return [each if isinstance(each, int | float) else _detached(what, each) for each in values]
    if getattr(values, "is_meta", False):
        raise TypeError(
            f"{what}: a tensor on torch's device meta has a shape and no values. Give it where "
            "its values are, such as on cpu."
        )
    return values.detach() if getattr(values, "requires_grad", False) else values


def _scalar(given: Any) -> Any:
    """Convert a NumPy scalar to a Python one; return anything else unchanged."""
    return given.item() if getattr(given, "shape", None) == () else given
