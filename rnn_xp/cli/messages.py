"""What the command line prints: lines that fit the terminal, and errors in its own words."""

from __future__ import annotations

import contextlib
import re
import shutil
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rnn_xp._checks import Argument, ParameterError
from rnn_xp.backend import Backend, BackendError
from rnn_xp.kernels import kernels_of
from rnn_xp.training.watch import DivergenceError

__all__ = ["say", "told", "while_compiling"]

_LABEL = 9  # columns of the word in front of a line, such as "verdict  "

# Arguments whose option has another name.
_OPTIONS = {
    "fraction": "train-fraction",
    "id_column": "id",
    "kind": "scaler",
    "label_column": "label",
    "name": "backend",
    "num_layers": "layers",
    "max_iter": "epochs",
    "n_estimators": "networks",
    "n_seeds": "seeds",
    "random_state": "seed",
    "time_column": "time",
}


def say(text: object) -> None:
    """Print lines; those wider than the terminal are broken between words.

    Parameters
    ----------
    text : object
        Its text may have several lines.
    """
    width = shutil.get_terminal_size().columns
    for line in str(text).splitlines():
        wrapped = textwrap.wrap(
            line, max(width, 2 * _LABEL), subsequent_indent=" " * _LABEL,
            break_long_words=False, break_on_hyphens=False, replace_whitespace=False,
        )  # fmt: skip
        print("\n".join(wrapped))


@dataclass(frozen=True)
class _Option:
    """An argument of the library, formatted as an option of the command line."""

    argument: Argument

    def __format__(self, spec: str) -> str:
        name, value = self.argument.name, self.argument.value
        option = "--" + _OPTIONS.get(name, name).replace("_", "-")
        if name == "reset_after" and value is False:
            return "--reset-before"
        if spec == "value":
            return "none" if value is None else str(value)
        if spec == "name" or value is ... or value is True:
            return option
        if value is False:
            return f"no {option}"
        return f"{option} {'none' if value is None else value}"


def told(error: Exception) -> str:
    """Return the text of an error, with its arguments written as options.

    >>> told(ParameterError("Pass {0} to drop them.", Argument("missing", "drop")))
    'Pass --missing drop to drop them.'
    >>> told(ParameterError("Network: {0:name} must be >= 1.", Argument("num_layers", 0)))
    '--layers must be >= 1.'
    >>> told(FileNotFoundError(2, "No such file or directory", "nowhere/out.csv"))
    'nowhere/out.csv: No such file or directory.'
    """
    if isinstance(error, ParameterError):
        # Whose argument it is, such as "Network: ", is of no interest here.
        return re.sub(r"^[A-Z]\w*: (?=(no )?--)", "", error.told(_Option))
    if isinstance(error, BackendError):
        return re.sub(
            r"\b(name|device|dtype)='([^']*)'",
            lambda match: str(format(_Option(Argument(match[1], match[2])))),
            str(error),
        )
    if isinstance(error, DivergenceError):
        return str(error).replace("clip_norm=", "--clip-norm")
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}."
    return str(error)


@contextlib.contextmanager
def while_compiling(backend: Backend) -> Iterator[None]:
    """Say so once, on standard error, when numba compiles a kernel in the block."""
    if kernels_of(backend).name != "numba":
        yield
        return
    from numba.core import event

    class Teller(event.Listener):  # type: ignore[misc]
        told = False

        def on_start(self, event: Any) -> None:
            if not self.told:
                print("compiling kernels (once, about 20 s)", file=sys.stderr, flush=True)
            self.told = True

        def on_end(self, event: Any) -> None:
            pass

    with event.install_listener("numba:compile", Teller()):
        yield
