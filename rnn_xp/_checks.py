"""Checks of single arguments, with the same words everywhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Argument", "ParameterError", "choice"]


@dataclass(frozen=True)
class Argument:
    """An argument that an error speaks of.

    In a format ``{:name}`` is its name alone and ``{:value}`` its value alone.

    Attributes
    ----------
    name : str
    value : object
        Its value; an ellipsis if the error is about the argument without one.

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

    The text names the arguments as Python does. Another door, such as the command line, names them
    in its own way with `told`.

    Parameters
    ----------
    reason : str
        Format of the text, in which ``{0}`` is the first of the arguments, see `Argument`.
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
        """Name of the argument that the error is about first."""
        return self.arguments[0].name

    def told(self, tell: Callable[[Argument], Any]) -> str:
        """Return the text with the arguments written as ``tell`` returns them.

        Parameters
        ----------
        tell : callable
            Turns an `Argument` into an object that is formatted in its place.

        Returns
        -------
        str
        """
        return self.reason.format(*map(tell, self.arguments))

    def within(self, part: str) -> ParameterError:
        """Return the same error with words before it that say where it arose.

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
    """Return what a name stands for.

    Raises
    ------
    ValueError
        If the name is none of the valid ones, which the message lists.

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
