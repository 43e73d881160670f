"""The command line, ``rnn-xp COMMAND``: from training over forecasts to export.

Each command is a module with ``add_command(commands)``, which adds its parser; the parser's ``run``
is the command itself, a function of the parsed arguments that returns the exit status.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence

from rnn_xp import __version__
from rnn_xp.backend import BackendError
from rnn_xp.cli import backtest, bench, explain, interchange, ranks, show, train, use
from rnn_xp.distributed import CommError
from rnn_xp.testing import GradientError
from rnn_xp.training_loop import DivergenceError

__all__ = ["main"]

# Errors that a user can repair; anything else is a fault of ours and shows its traceback.
_USER_ERRORS = (BackendError, CommError, ValueError, TypeError, OSError)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments without the program's name; those of the process by default.

    Returns
    -------
    int
        Exit status: 0 done, 1 training diverged or a gradient is wrong, 2 bad input or backend,
        130 interrupted, 141 nobody reads the output.
    """
    given = list(sys.argv[1:] if argv is None else argv)
    try:
        try:
            return _run(given)
        finally:
            sys.stdout.flush()  # here, where a reader that is gone can be told from an error
    except BrokenPipeError:
        _drop_unread()
        ranks.end_all(141)
        return 141


def _run(given: list[str]) -> int:
    arguments = _parser().parse_args(given, argparse.Namespace(argv=given))
    try:
        return int(arguments.run(arguments))
    except BrokenPipeError:
        raise
    except SystemExit as error:  # of a parser
        ranks.end_all(error.code if isinstance(error.code, int) else 1)
        raise
    except (DivergenceError, GradientError) as error:
        print(f"rnn-xp: {error}", file=sys.stderr)
        return 1
    except _USER_ERRORS as error:
        ranks.let_the_first_speak()
        print(f"rnn-xp: error: {error}", file=sys.stderr)
        ranks.end_all(2)
        return 2
    except KeyboardInterrupt as error:
        print("; ".join(["rnn-xp: interrupted", *map(str, error.args)]), file=sys.stderr)
        ranks.end_all(130)
        return 130


def _drop_unread() -> None:
    """Let the interpreter flush what nobody reads to nowhere, without a complaint."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            with contextlib.suppress(OSError), open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), stream.fileno())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rnn-xp",
        description="Recurrent networks with explicit backpropagation through time.",
        epilog="example: rnn-xp train --epochs 100",
    )
    parser.add_argument("--version", action="version", version=f"rnn-xp {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for module in (train, use, backtest, explain, interchange, show, bench):
        module.add_command(commands)
    return parser
