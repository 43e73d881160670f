"""Run a command and turn every outcome into an exit status."""

from __future__ import annotations

import argparse
import sys

from rnn_xp.backend import BackendError
from rnn_xp.cli.messages import told
from rnn_xp.cli.ranks import end_all, let_the_first_speak
from rnn_xp.distributed import CommError
from rnn_xp.testing import GradientError
from rnn_xp.training.watch import DivergenceError

__all__ = ["run"]

# Errors that a user can repair; anything else is a fault of ours and shows its traceback.
_USER_ERRORS = (BackendError, CommError, ValueError, TypeError, OSError)


_ONCE = ("--data", "--column")  # a second one would silently replace the first


def run(parser: argparse.ArgumentParser, words: list[str]) -> int:
    """Parse the arguments and run the command; return the exit status, see `rnn_xp.cli.main`."""
    try:
        _check_once(words)
        arguments = parser.parse_args(words, argparse.Namespace(argv=words))
        return int(arguments.run(arguments))
    except BrokenPipeError:
        raise
    except SystemExit as error:  # of a parser
        end_all(error.code if isinstance(error.code, int) else 1)
        raise
    except (DivergenceError, GradientError) as error:
        print(f"rnn-xp: {told(error)}", file=sys.stderr)
        return 1
    except _USER_ERRORS as error:
        let_the_first_speak()
        print(f"rnn-xp: error: {told(error)}", file=sys.stderr)
        end_all(2)
        return 2
    except KeyboardInterrupt as error:
        print("; ".join(["rnn-xp: interrupted", *map(str, error.args)]), file=sys.stderr)
        end_all(130)
        return 130


def _check_once(words: list[str]) -> None:
    for option in _ONCE:
        if sum(word.partition("=")[0] == option for word in words) > 1:
            raise ValueError(
                f"{option} is given more than once, but a network is trained on one column of one "
                "file. In Python, other columns can be features: Forecaster.fit(past=...)."
            )
