"""What may watch a training run: called with every epoch's loss, changing nothing.

A callback is any callable ``callback(epoch, epochs, loss)``: ``epoch`` counts from 1, ``epochs``
is how many there will be at most, ``loss`` is a float. What it raises ends the training.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, TextIO, TypeAlias

__all__ = ["Callback", "Progress"]

Callback: TypeAlias = Callable[[int, int, float], None]


class Progress:
    """Show progress: a status line on a terminal, a line now and then elsewhere.

    Use it as a context manager so that the status line is finished even if training is not.

    Parameters
    ----------
    lines : int
        Where the output is not a terminal: about how many lines in all; 0 for none.
    file : text stream, optional
        Standard error by default.

    Examples
    --------
    >>> import sys
    >>> with Progress(lines=2, file=sys.stdout) as progress:
    ...     for epoch in range(1, 5):
    ...         progress(epoch, 4, 1.0 / epoch)  # doctest: +ELLIPSIS
    epoch 2/4  loss 0.5  ... s
    epoch 4/4  loss 0.25  ... s
    """

    def __init__(self, lines: int = 10, file: TextIO | None = None) -> None:
        self.lines = lines
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

    def __call__(self, epoch: int, epochs: int, loss: float) -> None:
        """Report one epoch."""
        if self.file.isatty():
            if self._bar is None:
                from tqdm import tqdm

                self._bar = tqdm(total=epochs, unit="epoch", file=self.file)
            self._bar.set_postfix(loss=f"{loss:.4g}", refresh=False)
            self._bar.update(epoch - self._bar.n)
        elif self.lines and (epoch == epochs or epoch % max(1, epochs // self.lines) == 0):
            seconds = time.perf_counter() - self._start
            print(f"epoch {epoch}/{epochs}  loss {loss:.4g}  {seconds:.1f} s", file=self.file)
