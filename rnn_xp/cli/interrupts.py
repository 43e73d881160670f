"""Ctrl-C, SIGTERM and a hang-up during training: finish the epoch, keep its state, then end."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from types import FrameType
from typing import Any

from rnn_xp.training.callbacks import Epoch

__all__ = ["Interrupts", "signal_in"]

_REASON = "interrupted by "


class Interrupts:
    """A callback that ends training after the epoch in which a first signal arrives.

    A second signal acts at once, as it would without this callback. Use it in a ``with`` block.
    Outside the main thread, where signals cannot be caught, it does nothing.

    Parameters
    ----------
    silent : bool
        If True, nothing is printed when a signal arrives.

    Attributes
    ----------
    signal : int
        Number of the signal that arrived; 0 if none did.
    """

    def __init__(self, *, silent: bool = False) -> None:
        self.signal = 0
        self.silent = silent
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for name in ("SIGINT", "SIGTERM", "SIGHUP"):
                number = getattr(signal, name, None)  # Windows has no SIGHUP
                # What is ignored on purpose, as under nohup, stays ignored.
                if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *error: object) -> None:
        self._restore()

    def __call__(self, epoch: Epoch) -> str | None:
        """End training if a signal has arrived."""
        return f"{_REASON}{self.name}" if self.signal else None

    @property
    def name(self) -> str:
        """Name of the signal that arrived."""
        return signal.Signals(self.signal).name

    def _handle(self, number: int, frame: FrameType | None) -> None:
        # A flag, because an exception could land between two halves of an update.
        self.signal = number
        self._restore()
        if self.silent:
            return
        # Not print, which may be what was interrupted; and whoever read this may be gone.
        text = f"\nrnn-xp: {self.name}: ending after this epoch; a second one ends at once\n"
        with contextlib.suppress(OSError):
            os.write(2, text.encode())

    def _restore(self) -> None:
        while self._before:
            number, handler = self._before.popitem()
            signal.signal(number, handler)


def signal_in(reason: str) -> int:
    """Return the number of the signal that ended a training; 0 if none did.

    Examples
    --------
    >>> signal_in("interrupted by SIGTERM"), signal_in("no lower loss")
    (15, 0)
    """
    name = reason.removeprefix(_REASON) if reason.startswith(_REASON) else ""
    return int(signal.Signals[name]) if name in signal.Signals.__members__ else 0
