"""The judgement of losses: divergence, and patience."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from rnn_xp._typing import Params

__all__ = ["DivergenceError", "Watch"]

# A loss so far above its lowest for so long has diverged. Adam's loss leaps now and then and comes
# back within some tens of epochs; and what it does far below where it began is no harm.
_TIMES_LOWEST, _HIGH_EPOCHS, _FLOOR = 10.0, 100, 1e-3  # the floor as a share of the first loss


class DivergenceError(FloatingPointError):
    """Training diverged: a value is no longer finite, or the loss is far above its minimum.

    Parameters
    ----------
    epoch : int
        The epoch, counted from 1, at which training was stopped.
    params : Params
        The last good parameters: those with the latest finite loss, or with the lowest loss.
    history : dict of str to list of float
        The losses up to this epoch, as in `rnn_xp.FitResult`.
    what : str
        The cause, such as "the loss is not finite".

    Attributes
    ----------
    epoch, params, history, what
        As given.
    """

    def __init__(
        self, epoch: int, params: Params, history: dict[str, list[float]], what: str
    ) -> None:
        self.epoch, self.params, self.history, self.what = epoch, params, history, what
        super().__init__(
            f"training diverged: {what} at epoch {epoch}. Scale the data, lower the learning rate, "
            "or clip the gradient to a smaller norm with clip_norm=; the last good parameters are "
            "kept."
        )

    def __reduce__(self) -> tuple[Any, ...]:  # so that a pool of processes can return it
        return type(self), (self.epoch, self.params, self.history, self.what)


@dataclass
class Watch:
    """Judges the losses, one epoch after the other.

    Parameters
    ----------
    patience : int, optional
        Number of epochs without an improvement after which training ends; never by default.
    tolerance : float
        Minimum relative improvement.
    fresh : bool
        If True, training starts from initial parameters, and the scale of the first loss is used
        to recognise divergence. Otherwise a high loss does not count as divergence.
    """

    patience: int | None = None
    tolerance: float = 0.0
    fresh: bool = True
    epochs: int = 0
    first: float = math.nan
    lowest: float = math.inf  # training loss
    lowest_epoch: int = 0
    high: int = 0  # epochs in a row far above the lowest
    best: float = math.inf  # of the loss that patience waits for
    best_epoch: int = 0

    def see(self, loss: float, validation_loss: float | None = None) -> None:
        """Record the losses of the next epoch."""
        self.epochs += 1
        if self.epochs == 1:
            self.first = loss
        limit = _TIMES_LOWEST * max(self.lowest, _FLOOR * self.first)
        judged = self.fresh and self.lowest > 0.0  # a loss below zero has no such measure
        self.high = self.high + 1 if judged and loss > limit else 0
        if loss < self.lowest:
            self.lowest, self.lowest_epoch = loss, self.epochs
        waited_for = loss if validation_loss is None else validation_loss
        # The first one counts as new whatever it is.
        if not self.best_epoch or waited_for < self.best - self.tolerance * abs(self.best):
            self.best, self.best_epoch = waited_for, self.epochs

    @property
    def diverged(self) -> str:
        """The reason why the training has diverged; empty if it has not."""
        if self.high < _HIGH_EPOCHS:
            return ""
        return (
            f"the loss has been over {_TIMES_LOWEST:g} times its lowest, {self.lowest:.4g} of "
            f"epoch {self.lowest_epoch}, for {self.high} epochs"
        )

    def exhausted(self, of: str) -> str:
        """Return the reason why training ends for lack of improvement; empty if it does not.

        Parameters
        ----------
        of : str
            The name of the loss that patience waits for.
        """
        if self.patience is None or self.epochs - self.best_epoch < self.patience:
            return ""
        return (
            f"no lower {of} than {self.best:.6g} of epoch {self.best_epoch} in {self.patience} "
            "epochs"
        )
