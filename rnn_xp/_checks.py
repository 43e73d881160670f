"""Checks of single arguments, with the same words everywhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["choice"]


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
