"""The loop over epochs: reads of the device, validation, early stopping, divergence, callbacks."""

from __future__ import annotations

import dataclasses
import functools
import math
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from rnn_xp._typing import Engine, Params
from rnn_xp.distributed import Ranks
from rnn_xp.engines.blocks import Batch
from rnn_xp.kernels.rows import on_accelerator
from rnn_xp.optim import NotFiniteError, Optimizer
from rnn_xp.training.callbacks import Callback, Epoch
from rnn_xp.training.state import Best, TrainingState, all_finite
from rnn_xp.training.watch import DivergenceError, Watch

__all__ = ["Loop"]

_READ_EVERY = 10  # epochs between two reads of an accelerator


class _Point(NamedTuple):
    """A moment between two epochs."""

    params: Params
    opt_state: Any
    epoch: int


class Loop:
    """The epochs of one training.

    Parameters
    ----------
    engine : Engine
        The engine that computes the epochs.
    start : TrainingState
        The state before the first epoch to train.
    epochs : int
        Number of the last epoch to train, counted from 1 and including the epochs of ``start``.
    callbacks : sequence of Callback
    validation : Batch, optional
        The rows to validate on.
    watch : Watch
        The judge of the losses.
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
        self._ranks: Ranks | None = engine.ranks
        self._optimizer: Optimizer = engine.optimizer
        self._told = start.epoch
        self._lowest = (math.inf, start.params)  # the lowest loss read here, and whose it is
        self._began = time.perf_counter()
        for row in zip(*self.history.values(), strict=True):
            watch.see(*row)

    def train(self) -> TrainingState:
        """Train to the last epoch, or until there is a reason to stop; return the final state.

        Raises
        ------
        DivergenceError
        """
        chunk = self._epochs_per_read()
        here = before = _Point(self.start.params, self.start.opt_state, self.start.epoch)
        self.stopped = self._reason(here) if here.epoch else ""
        while here.epoch < self.epochs and not self.stopped:
            after, values, broken_by = self._run(here, min(chunk, self.epochs - here.epoch))
            finite = all(map(math.isfinite, values))
            # No further loss is computed with the parameters of the very last update.
            broken = after.epoch == self.epochs and not all_finite(after.params)
            if chunk > 1 and (broken or not finite):
                # Go back far enough to meet the last good parameters, and find the epoch.
                chunk, here = 1, here if finite else before
                continue
            if not finite:
                what = str(broken_by or "the loss is not finite").removesuffix(".")
                raise self._diverged(here.epoch + 1, before.params, what) from broken_by
            after = self._judge(values, here, after)
            stops = self._tell(here, after)
            if broken or (stops and not all_finite(after.params)):
                what = "the updated parameters are not finite"
                raise self._diverged(after.epoch, here.params, what)
            before, here = here, after
        return self._state(here, self.best)

    def _run(self, here: _Point, k: int) -> tuple[_Point, list[float], NotFiniteError | None]:
        """Run k epochs; return the point after them, their losses, and an optimiser's error."""
        try:
            params, opt_state, losses = self.engine.run(here.params, here.opt_state, k, here.epoch)
        except NotFiniteError as error:
            return here._replace(epoch=here.epoch + k), [math.nan], error
        values = [float(value) for value in self.engine.backend.to_numpy(losses)]
        return _Point(params, opt_state, here.epoch + k), values, None

    def _epochs_per_read(self) -> int:
        """Return how many epochs to run between two reads of the losses.

        A read waits for the device, so losses are read rarely there, unless something must decide
        after every epoch.
        """
        decides = (
            self._optimizer.full_batch_only  # a line search reads anyway
            or self._optimizer.watches_loss
            or self.validation is not None
            or self.watch.patience is not None
        )
        return 1 if decides or not on_accelerator(self.engine.backend) else _READ_EVERY

    def _judge(self, values: list[float], here: _Point, after: _Point) -> _Point:
        """Record the losses of the epochs between two points, and act on them."""
        if values[0] < self._lowest[0]:
            self._lowest = (values[0], here.params)  # those before the update
        known = len(self.history["loss"]) - here.epoch  # those replayed are recorded already
        validation_loss = self._validate(after)
        for value in values[known:]:
            self.history["loss"].append(value)
            self.watch.see(value, validation_loss)
        if self.watch.diverged:
            raise self._diverged(after.epoch, self._lowest[1], self.watch.diverged)
        if self._optimizer.watches_loss:
            judged = values[-1] if validation_loss is None else validation_loss
            opt_state = self._optimizer.observe(after.opt_state, judged)
            after = after._replace(opt_state=opt_state)
        self.stopped = self._reason(after)
        return after

    def _validate(self, after: _Point) -> float | None:
        """Return the validation loss after an epoch; keep the parameters if it is the lowest."""
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
        """Return the reason why training ends at this point; empty if it does not."""
        of = "loss" if self.validation is None else "validation loss"
        reason = self._optimizer.message(point.opt_state) or self.watch.exhausted(of)
        return reason or ("" if self._ranks is None else self._ranks.stopped)

    def _tell(self, here: _Point, after: _Point) -> bool:
        """Call the callbacks for the epochs between two points; return True if training ends."""
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
        validated = self.history.get("validation_loss")
        return dataclasses.replace(
            epoch,
            validation_loss=None if validated is None else validated[-1],
            improved=self.best is not None and self.best.epoch == number,
            learning_rate=self._optimizer.rate(after.opt_state),
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
