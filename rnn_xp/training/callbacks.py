"""Callbacks, which watch a training and may end it.

A callback is any callable that takes an `Epoch`. It is called after every epoch, in the order of
``fit(callbacks=[...])``, and returns None, or a sentence that says why training should end here.
Later callbacks in the list find this sentence in ``epoch.stopped``. An exception ends training,
too.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, TextIO

from rnn_xp.training import files
from rnn_xp.training.state import Best, TrainingState

__all__ = ["Callback", "Checkpoint", "Epoch", "History", "Progress"]

_TIMES = 2 + len("0:00:00<0:00:00")  # of the status line
_BAR = 2 + 10 + 1  # a bar of fewer cells says nothing


@dataclass(frozen=True)
class Epoch:
    """An epoch that has ended, as callbacks see it.

    Attributes
    ----------
    number : int
        Number of this epoch, counted from 1.
    epochs : int
        Number of the last epoch, if training does not end early.
    loss : float
        The loss, as in ``FitResult.history["loss"]``.
    validation_loss : float or None
        The validation loss after this epoch; None without validation.
    improved : bool
        True if this validation loss is the lowest so far.
    learning_rate : float or None
        The learning rate of the next update; None if the optimiser has none, or ``state`` is None.
    stopped : str
        The reason why training ends early, with this epoch; empty if it does not.
    state : callable or None
        ``state()`` returns the `TrainingState` after this epoch. On an accelerator it is None for
        epochs after which the device is not read.
    """

    number: int
    epochs: int
    loss: float
    validation_loss: float | None = None
    improved: bool = False
    learning_rate: float | None = None
    stopped: str = ""
    state: Callable[[], TrainingState] | None = None

    @property
    def final(self) -> bool:
        """True if training ends with this epoch."""
        return bool(self.stopped) or self.number == self.epochs


class Callback(Protocol):
    """Any callable that takes an `Epoch`."""

    def __call__(self, epoch: Epoch) -> str | None:
        """Look at the epoch; return a sentence that says why training ends, or None to continue."""


class Progress:
    """Show progress: a status line on a terminal, otherwise a few lines.

    Use it as a context manager, so that the status line is closed even if training fails.

    Parameters
    ----------
    lines : int
        Approximate number of lines in total if the output is not a terminal; 0 for none.
    file : text stream, optional
        The output; standard error by default.
    name : str
        What is trained, at the start of each line; nothing by default.

    Examples
    --------
    >>> import sys
    >>> with Progress(lines=2, file=sys.stdout) as progress:
    ...     for number in range(1, 5):
    ...         progress(Epoch(number, 4, loss=1.0 / number))  # doctest: +ELLIPSIS
    epoch 2/4  loss 0.5  ... s
    epoch 4/4  loss 0.25  ... s
    """

    def __init__(self, lines: int = 10, file: TextIO | None = None, name: str = "") -> None:
        self.lines, self.name = lines, name and f"{name}  "
        self.file = sys.stderr if file is None else file
        self._bar: Any = None
        self._start = time.perf_counter()

    def __enter__(self) -> Progress:
        self._start = time.perf_counter()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def __call__(self, epoch: Epoch) -> None:
        """Report one epoch. If the output has been closed, training continues without it."""
        with contextlib.suppress(BrokenPipeError):
            self._show(epoch)

    def _show(self, epoch: Epoch) -> None:
        shown = {"loss": f"{epoch.loss:.4g}"}
        if epoch.validation_loss is not None:
            shown["validation"] = f"{epoch.validation_loss:.4g}"
        if self.file.isatty():
            if self._bar is None:
                from tqdm import tqdm

                # A resumed run does not begin with the first epoch.
                initial = epoch.number - 1
                self._bar = tqdm(total=epoch.epochs, initial=initial, file=self.file)
            self._bar.ncols = _columns(self.file)
            width = self._bar.ncols - len(self.name)
            self._bar.bar_format = self.name + _bar_format(epoch.epochs, shown, width)
            self._bar.update(epoch.number - self._bar.n)
        elif self.lines and (epoch.final or epoch.number % max(1, epoch.epochs // self.lines) == 0):
            seconds = time.perf_counter() - self._start
            words = "  ".join(f"{name} {value}" for name, value in shown.items())
            at = f"epoch {epoch.number}/{epoch.epochs}"
            print(f"{self.name}{at}  {words}  {seconds:.1f} s", file=self.file)


def _columns(file: TextIO) -> int:
    """Return the width of a terminal: COLUMNS if set, as for other programs, else its own."""
    columns = os.environ.get("COLUMNS", "")
    if columns.isdecimal() and int(columns):
        return int(columns)
    try:
        return os.get_terminal_size(file.fileno()).columns
    except (OSError, ValueError):  # no terminal with a size
        return 80


def _bar_format(epochs: int, shown: Mapping[str, str], columns: int) -> str:
    """Return tqdm's format of the status line: losses first, then times, and a bar if it fits."""
    losses = "  ".join(f"{name} {value}" for name, value in shown.items())
    count = "{n_fmt}/{total_fmt}"
    taken = 2 * len(str(epochs)) + 1 + 2 + len(losses)
    if columns - taken < _TIMES:
        return f"{count}  {losses}"
    if columns - taken - _TIMES < _BAR:
        return f"{count}  {losses}  {{elapsed}}<{{remaining}}"
    return f"{count} |{{bar}}| {losses}  {{elapsed}}<{{remaining}}"


class History:
    """Record every epoch, even if training ends with an error and returns no history.

    Attributes
    ----------
    epochs : list of Epoch
        The epochs, without their states, which would keep all parameters in memory.

    Examples
    --------
    >>> history = History()
    >>> history(Epoch(1, 2, loss=0.5))
    >>> history.epochs[0].loss
    0.5
    """

    def __init__(self) -> None:
        self.epochs: list[Epoch] = []

    def __call__(self, epoch: Epoch) -> None:
        """Record one epoch."""
        self.epochs.append(replace(epoch, state=None))


class Checkpoint:
    """Save the state of the training in a folder, so that it can be resumed after an interruption.

    ``last.safetensors`` is all that ``rnn_xp.fit(..., resume=path)`` needs to continue, with the
    same bits as an uninterrupted run. With validation, ``best.safetensors`` holds the parameters
    with the lowest validation loss. At any moment a reader finds either the complete old file or
    the complete new one. Place it in the list after callbacks that may end training.

    Parameters
    ----------
    folder : path
        The folder of the files; it is created if it does not exist.
    every : int, optional
        Number of epochs between two writes; by default ``seconds`` determines when to write.
    seconds : float, optional
        Minimum time between two writes if ``every`` is not given. A write takes a few milliseconds,
        so the default of 20 costs almost nothing and loses little. The final epoch is always
        written. On an accelerator, writes wait until the device is read.
    about : mapping, optional
        Further metadata for the files, such as the scaler of the data.

    Examples
    --------
    >>> import tempfile
    >>> import rnn_xp as rx
    >>> x, y = rx.make_windows([i % 7 / 7 for i in range(100)], seq_length=10)
    >>> net, optimizer = rx.Network(hidden_size=4), rx.optim.adam(0.01)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     checkpoint = Checkpoint(folder)
    ...     half = rx.fit(net, x, y, optimizer=optimizer, epochs=5, callbacks=[checkpoint])
    ...     whole = rx.fit(net, x, y, optimizer=optimizer, epochs=10, resume=checkpoint.last)
    >>> len(half.history["loss"]), len(whole.history["loss"])
    (5, 10)
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        every: int | None = None,
        seconds: float = 20.0,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        if every is not None and every < 1:
            raise ValueError(f"Checkpoint: every must be >= 1, got {every!r}.")
        if not seconds >= 0.0:
            raise ValueError(f"Checkpoint: seconds must be >= 0, got {seconds!r}.")
        # Now and not at the first write: a folder that cannot be used should cost no training.
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise type(error)(
                f"Checkpoint: cannot write into the folder {folder}: {error.strerror}."
            ) from error
        self.last = Path(folder) / "last.safetensors"
        self.best = Path(folder) / "best.safetensors"
        self.every, self.seconds, self.about = every, seconds, about
        self._written = time.monotonic()
        self.saved_epoch: int | None = None
        self._best: Best | None = None

    def __call__(self, epoch: Epoch) -> None:
        """Write the files that are due."""
        if self.saved_epoch is None or epoch.number <= self.saved_epoch:
            # A training begins: the first that this object sees, or another one.
            self._written, self._best = time.monotonic(), None
            self.saved_epoch = epoch.number - 1
        if epoch.state is None or not (epoch.final or self._due(epoch)):
            return
        state = epoch.state()
        if not state.finite:  # the next loss will say so, and the file before this is worth more
            return
        if state.best is not None and state.best is not self._best:
            files.save_best(self.best, state, self.about)
            self._best = state.best
        files.save(self.last, state, self.about)
        self._written, self.saved_epoch = time.monotonic(), epoch.number

    def _due(self, epoch: Epoch) -> bool:
        if self.every is None:
            return time.monotonic() - self._written >= self.seconds
        return epoch.number // self.every > (self.saved_epoch or 0) // self.every
