"""The loop over epochs: reads of the device, validation, early stopping, divergence, callbacks."""

from __future__ import annotations

import dataclasses
import functools
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from rnn_xp._typing import Params
from rnn_xp.distributed import Ranks
from rnn_xp.engines.blocks import Batch
from rnn_xp.engines.cuda_fused import Engine
from rnn_xp.kernels.rows import on_accelerator
from rnn_xp.training.callbacks import Callback, Epoch
from rnn_xp.training.state import Best, TrainingState, all_finite

__all__ = ["DivergenceError", "Loop", "Watch"]

_READ_EVERY = 10  # epochs between two reads of an accelerator
# A loss so far above its lowest for so long has diverged. Adam's loss leaps now and then and comes
# back within some tens of epochs; and what it does far below where it began is no harm.
_TIMES_LOWEST, _HIGH_EPOCHS, _FLOOR = 10.0, 100, 1e-3  # the floor as a share of the first loss


class DivergenceError(FloatingPointError):
    """The loss or the parameters are no longer finite, or the loss has left its lowest far behind.

    Attributes
    ----------
    epoch : int
        The epoch, counted from 1, at which training was stopped.
    params : Params
        The last good parameters: those of the latest finite loss, or of the lowest.
    history : dict of str to list of float
        Up to there.
    """

    def __init__(
        self, epoch: int, params: Params, history: dict[str, list[float]], what: str
    ) -> None:
        self.epoch, self.params, self.history = epoch, params, history
        super().__init__(
            f"training diverged: {what} at epoch {epoch}. Scale the data, lower the learning rate, "
            "or clip the gradient with clip_norm=; the last good parameters are kept."
        )


@dataclass
class Watch:
    """Judges the losses, one epoch after the other.

    Parameters
    ----------
    patience : int, optional
        Epochs without a new lowest after which training ends.
    tolerance : float
        By which share a loss must be below the lowest to count as new.
    fresh : bool
        Whether the first loss is that of initial parameters, which says how high is high.
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
        """Take one epoch's losses."""
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
        """What is wrong; empty if nothing is."""
        if self.high < _HIGH_EPOCHS:
            return ""
        return (
            f"the loss has been over {_TIMES_LOWEST:g} times its lowest, {self.lowest:.4g} of "
            f"epoch {self.lowest_epoch}, for {self.high} epochs"
        )

    def exhausted(self, of: str) -> str:
        """Why patience is at its end; empty if it is not."""
        if self.patience is None or self.epochs - self.best_epoch < self.patience:
            return ""
        return (
            f"no lower {of} than {self.best:.6g} of epoch {self.best_epoch} in {self.patience} "
            "epochs"
        )


class _Point(NamedTuple):
    """Between two epochs."""

    params: Params
    opt_state: Any
    epoch: int


class Loop:
    """The epochs of one fit.

    Parameters
    ----------
    engine : PortableEngine or FusedEngine
    start : TrainingState
        Where to go on from, or the state before the first epoch.
    epochs : int
        To train until, those of ``start`` included.
    callbacks : sequence of Callback
    validation : Batch, optional
    watch : Watch
    """

    def __init__(
        self,
        engine: Engine,
        start: TrainingState,
        epochs: int,
        callbacks: Sequence[Callback],
        validation: Batch | None,
        watch: Watch,
    ) -> None:
        self.engine, self.start, self.epochs = engine, start, epochs
        self.callbacks, self.validation, self.watch = callbacks, validation, watch
        self.history = {name: list(column) for name, column in start.history.items()}
        self.best = start.best
        self.stopped = ""
        self._ranks: Ranks | None = getattr(engine, "ranks", None)
        self._optimizer: Any = engine.optimizer  # what it has beyond the protocol is asked for
        self._told = start.epoch
        self._lowest = (math.inf, start.params)  # the lowest loss read here, and whose it is
        self._began = time.perf_counter()
        for row in zip(*self.history.values(), strict=True):
            watch.see(*row)

    def train(self) -> TrainingState:
        """Go on to the last epoch, or to where there is a reason to stop."""
        backend, chunk = self.engine.backend, self._epochs_per_read()
        here = before = _Point(self.start.params, self.start.opt_state, self.start.epoch)
        self.stopped = self._reason(here) if here.epoch else ""
        while here.epoch < self.epochs and not self.stopped:
            k = min(chunk, self.epochs - here.epoch)
            try:
                params, opt_state, losses = self.engine.run(
                    here.params, here.opt_state, k, here.epoch
                )
                values = [float(value) for value in backend.to_numpy(losses)]
            except FloatingPointError:  # an optimiser found its gradient broken
                params, opt_state, values = here.params, here.opt_state, [math.nan]
            after = _Point(params, opt_state, here.epoch + k)
            finite = all(map(math.isfinite, values))
            # What the very last update leaves is seen by no further loss.
            broken = after.epoch == self.epochs and not all_finite(after.params)
            if chunk > 1 and (broken or not finite):
                # Go back far enough to meet the last good parameters, and find the epoch.
                chunk, here = 1, here if finite else before
                continue
            if not finite:
                raise self._diverged(here.epoch + 1, before.params, "the loss is not finite")
            after = self._judge(values, here, after)
            stops = self._tell(here, after)
            if broken or (stops and not all_finite(after.params)):
                what = "the updated parameters are not finite"
                raise self._diverged(after.epoch, here.params, what)
            before, here = here, after
        return self._state(here, self.best)

    def _epochs_per_read(self) -> int:
        """Each read waits for the device; but what decides after every epoch must have its loss."""
        decides = (
            getattr(self._optimizer, "full_batch_only", False)  # a line search reads anyway
            or getattr(self._optimizer, "watches_loss", False)
            or self.validation is not None
            or self.watch.patience is not None
        )
        return 1 if decides or not on_accelerator(self.engine.backend) else _READ_EVERY

    def _judge(self, values: list[float], here: _Point, after: _Point) -> _Point:
        """Record the losses of the epochs between two points, and draw the conclusions."""
        if values[0] < self._lowest[0]:
            self._lowest = (values[0], here.params)  # those before the update
        known = len(self.history["loss"]) - here.epoch  # those replayed are recorded already
        validation_loss = self._validate(after)
        for value in values[known:]:
            self.history["loss"].append(value)
            self.watch.see(value, validation_loss)
        if self.watch.diverged:
            raise self._diverged(after.epoch, self._lowest[1], self.watch.diverged)
        if getattr(self._optimizer, "watches_loss", False):
            judged = values[-1] if validation_loss is None else validation_loss
            opt_state = self._optimizer.observe(after.opt_state, judged)
            after = after._replace(opt_state=opt_state)
        self.stopped = self._reason(after)
        return after

    def _validate(self, after: _Point) -> float | None:
        """Validation loss of what an epoch left; the parameters are kept if it is the lowest."""
        if self.validation is None:
            return None
        loss = float(self.engine.loss_value(after.params, self.validation))
        if not math.isfinite(loss):
            raise self._diverged(after.epoch, self._lowest[1], "the validation loss is not finite")
        self.history["validation_loss"].append(loss)
        if self.best is None or loss < self.best.loss:
            self.best = Best(after.epoch, loss, after.params)
        return loss

    def _reason(self, point: _Point) -> str:
        """Why training ends here; empty if it does not."""
        of = "loss" if self.validation is None else "validation loss"
        reason = getattr(point.opt_state, "message", "") or self.watch.exhausted(of)
        return reason or ("" if self._ranks is None else self._ranks.stopped)

    def _tell(self, here: _Point, after: _Point) -> bool:
        """Call the callbacks for the epochs between two points; whether training ends here."""
        for number in range(max(here.epoch, self._told) + 1, after.epoch + 1):
            epoch = self._epoch(number, after)
            for callback in self.callbacks:
                reason = callback(epoch)
                if not isinstance(reason, str | None):
                    raise TypeError(
                        "a callback must return None, or a sentence that says why training ends; "
                        f"{callback!r} returned {reason!r}."
                    )
                if self._ranks is None:
                    self.stopped = self.stopped or reason or ""
                elif reason:  # the others must know first; they do after the next epoch
                    self._ranks.ask_to_stop(reason)
                if number == after.epoch:  # where training ends if it does
                    epoch = dataclasses.replace(epoch, stopped=self.stopped)
            self._told = number
        return bool(self.stopped)

    def _epoch(self, number: int, after: _Point) -> Epoch:
        epoch = Epoch(number, self.epochs, self.history["loss"][number - 1])
        if number < after.epoch:  # of those on the way, nothing but the loss was read
            return epoch
        optimizer, validated = self._optimizer, self.history.get("validation_loss")
        return dataclasses.replace(
            epoch,
            validation_loss=None if validated is None else validated[-1],
            improved=self.best is not None and self.best.epoch == number,
            learning_rate=optimizer.rate(after.opt_state) if hasattr(optimizer, "rate") else None,
            stopped=self.stopped,
            state=functools.partial(self._state, after, self.best),
        )

    def _state(self, point: _Point, best: Best | None) -> TrainingState:
        return dataclasses.replace(
            self.start,
            epoch=point.epoch,
            params=point.params,
            opt_state=point.opt_state,
            history={name: column[: point.epoch] for name, column in self.history.items()},
            best=best,
            evaluations=self.start.evaluations + self.engine.evaluations,
            seconds=self.start.seconds + time.perf_counter() - self._began,
        )

    def _diverged(self, epoch: int, params: Params, what: str) -> DivergenceError:
        return DivergenceError(epoch, params, self.history, what)
