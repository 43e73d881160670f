"""The command line, ``rnn-xp COMMAND``, and the folder that a run leaves.

Each command is in a module with ``add_command(commands)``, which adds its parser; the parser's
``run`` is the command itself, a function of the parsed arguments that returns the exit status. A
module is imported when one of its commands is called, because the list of commands needs only their
names.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

from rnn_xp import __version__

__all__ = ["main"]

_COMMANDS = {  # name: the module it is in, and what it does
    "train": ("train", "train a network on a series and compare it with the baselines"),
    "info": ("use", "show the network, the data and the scores of a run"),
    "evaluate": ("use", "judge a run again, or on other data"),
    "forecast": ("use", "forecast what follows a series, with a run's network"),
    "backtest": ("backtest", "forecast a series from successive origins, with intervals"),
    "classify": ("classify", "train, use and judge a classifier of sequences"),
    "explain": ("explain", "show the shapes and the gradient flow, and check the gradients"),
    "export": ("exporting", "write a trained network for PyTorch, Keras or ONNX"),
    "import": ("importing", "make a run from a model of another library"),
    "backends": ("show", "list the backends, and why one is not usable"),
    "datasets": ("show", "list the series that come with the package"),
    "bench": ("bench", "time an epoch of training on this machine and backend"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments without the program's name; by default the arguments of the process.

    Returns
    -------
    int
        Exit status: 0 for success, 1 if training diverged or a gradient is wrong, 2 for bad input
        or a bad backend, 130 if interrupted, 141 if nobody reads the output.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        try:
            return _run(words)
        finally:
            sys.stdout.flush()  # here, where a reader that is gone can be told from an error
    except BrokenPipeError:
        _drop_unread()
        importlib.import_module("rnn_xp.cli.ranks").end_all(141)
        return 141


def _run(words: list[str]) -> int:
    command = next((word for word in words if not word.startswith("-")), "")
    parser = _parser(command)
    if command not in _COMMANDS:
        parser.parse_args(words)  # help, the version or an error, each of which ends here
    return int(importlib.import_module("rnn_xp.cli.running").run(parser, words))


def _drop_unread() -> None:
    """Redirect output that nobody reads to nowhere, so that flushing it raises no error."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            with contextlib.suppress(OSError), open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), stream.fileno())


def _parser(command: str) -> argparse.ArgumentParser:
    """Make the parser: complete for one command's module, and the names of all others."""
    parser = argparse.ArgumentParser(
        prog="rnn-xp",
        description="Recurrent networks with explicit backpropagation through time.",
        epilog="example: rnn-xp train --epochs 100",
    )
    parser.add_argument("--version", action="version", version=f"rnn-xp {__version__}")
    commands = _Commands(parser.add_subparsers(required=True, metavar="COMMAND"))
    called, _ = _COMMANDS.get(command, ("", ""))
    for name, (module, _) in _COMMANDS.items():
        if module != called:
            commands.add_parser(name)
        elif name not in commands.added:
            importlib.import_module(f"rnn_xp.cli.{module}").add_command(commands)
    return parser


class _Commands:
    """The parsers of the commands, each with its line of help from the table above."""

    def __init__(self, parsers: Any) -> None:
        self.parsers, self.added = parsers, set[str]()

    def add_parser(self, name: str, **options: Any) -> argparse.ArgumentParser:
        self.added.add(name)
        parser: argparse.ArgumentParser = self.parsers.add_parser(
            name, help=_COMMANDS[name][1], **options
        )
        return parser
