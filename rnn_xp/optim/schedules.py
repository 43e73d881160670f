"""Learning rates that change during training.

A schedule is any callable ``schedule(step) -> float`` that gives the rate of the next update from
the number of updates done. It remembers nothing, so that a run is resumed with nothing but the
step. A plain float is the constant schedule. A schedule of one's own is best a frozen dataclass as
well, since two runs are recognised as the same by how their optimisers are shown.

`ReduceOnPlateau` is none of these: it looks at the loss, not at the step, and what it has seen is
part of the optimiser's state.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from rnn_xp.optim.checks import Saved, integer, is_number, number

__all__ = [
    "Cosine",
    "Plateau",
    "ReduceOnPlateau",
    "Schedule",
    "Step",
    "WarmUp",
    "check_rate",
    "rate_at",
]

Schedule: TypeAlias = Callable[[int], float]
"""The learning rate of the next update, given the number of updates done."""


def check_rate(owner: object, name: str) -> None:
    """Check a field that holds a learning rate: a number > 0 or a schedule."""
    value = getattr(owner, name)
    if isinstance(value, type):
        raise ValueError(
            f"{type(owner).__name__}: {name} must be a number or a schedule such as "
            f"Cosine(0.01, 1000), got the class {value.__name__}."
        )
    if not callable(value):
        number(owner, name, "(0, inf)")


def rate_at(rate: float | Schedule, step: int) -> float:
    """Return the rate of the next update after so many.

    Raises
    ------
    ValueError
        If a schedule gives anything but a finite number >= 0.
    """
    if not callable(rate):
        return rate
    value = rate(step)
    if not (is_number(value) and 0.0 <= value < math.inf):
        raise ValueError(
            f"{rate!r} gave the learning rate {value!r} for step {step}; a schedule must give "
            "finite numbers >= 0."
        )
    return float(value)


@dataclass(frozen=True)
class Step:
    """A rate that falls by a factor at regular intervals.

    ::

        rate = initial * factor ** (step // every)

    Parameters
    ----------
    initial : float
        > 0.
    every : int
        Updates between two falls, >= 1.
    factor : float
        In (0, 1).

    Examples
    --------
    >>> schedule = Step(0.8, every=2, factor=0.5)
    >>> [schedule(step) for step in range(5)]
    [0.8, 0.8, 0.4, 0.4, 0.2]
    """

    initial: float
    every: int
    factor: float = 0.1

    def __post_init__(self) -> None:
        number(self, "initial", "(0, inf)")
        integer(self, "every", 1)
        number(self, "factor", "(0, 1)")

    def __call__(self, step: int) -> float:
        """Return the rate of the next update after so many."""
        return self.initial * self.factor ** (step // self.every)


@dataclass(frozen=True)
class Cosine:
    """A rate that falls along half a wave of the cosine, and then stays.

    ::

        rate = final + (initial - final) * (1 + cos(pi * step / total)) / 2      step < total
        rate = final                                                             from then on

    Parameters
    ----------
    initial : float
        > 0.
    total : int
        Updates that the fall takes, >= 1. The last of them, after ``total - 1`` others, is still
        above ``final``.
    final : float
        From 0 to ``initial``.

    References
    ----------
    .. [1] I. Loshchilov, F. Hutter, "SGDR: stochastic gradient descent with warm restarts", ICLR
           2017, equation 5; here without restarts.

    Examples
    --------
    >>> schedule = Cosine(1.0, total=4, final=0.5)
    >>> [round(schedule(step), 3) for step in range(6)]
    [1.0, 0.927, 0.75, 0.573, 0.5, 0.5]
    """

    initial: float
    total: int
    final: float = 0.0

    def __post_init__(self) -> None:
        number(self, "initial", "(0, inf)")
        integer(self, "total", 1)
        number(self, "final", f"[0, {self.initial!r}]")

    def __call__(self, step: int) -> float:
        """Return the rate of the next update after so many."""
        if step >= self.total:
            return self.final
        height = 0.5 * (1.0 + math.cos(math.pi * step / self.total))
        return self.final + (self.initial - self.final) * height


@dataclass(frozen=True)
class WarmUp:
    """A rate that rises on a straight line, and then follows another schedule.

    ::

        rate = then(0) * (step + 1) / steps      step < steps
        rate = then(step - steps)                from then on

    So the first update has the rate ``then(0) / steps``, the last of the warm-up has ``then(0)``,
    and so has the one after it, with which ``then`` begins to count.

    Parameters
    ----------
    steps : int
        Updates that the rise takes, >= 1.
    then : float or callable
        The rate afterwards, or its schedule.

    Examples
    --------
    >>> schedule = WarmUp(4, then=Step(0.8, every=2, factor=0.5))
    >>> [round(schedule(step), 3) for step in range(8)]
    [0.2, 0.4, 0.6, 0.8, 0.8, 0.8, 0.4, 0.4]
    """

    steps: int
    then: float | Schedule

    def __post_init__(self) -> None:
        integer(self, "steps", 1)
        if isinstance(self.then, ReduceOnPlateau):
            raise ValueError(
                "WarmUp: then must be a number or a schedule of the step, but ReduceOnPlateau "
                "looks at the loss, and would count the epochs of the warm-up. Use one of the two."
            )
        check_rate(self, "then")

    def __call__(self, step: int) -> float:
        """Return the rate of the next update after so many."""
        if step >= self.steps:
            return rate_at(self.then, step - self.steps)
        return rate_at(self.then, 0) * (step + 1) / self.steps


class Plateau(NamedTuple):
    """What `ReduceOnPlateau` remembers.

    Attributes
    ----------
    best : float or None
        The lowest loss so far; None before the first.
    wait : int
        Epochs in a row that brought no lower one.
    rest : int
        Epochs of the cooldown still to come.
    scale : float
        What the falls so far have left of the learning rate, from 1 on.
    """

    best: float | None = None
    wait: int = 0
    rest: int = 0
    scale: float = 1.0


@dataclass(frozen=True)
class ReduceOnPlateau:
    """A rate that falls by a factor when the loss has stopped to.

    An epoch is an improvement if ``loss < best - tolerance * |best|``. After more than ``patience``
    epochs in a row without one, the rate becomes ``max(factor * rate, minimum)``; during the next
    ``cooldown`` epochs none is counted. The loss is that of validation, if there is any.

    Parameters
    ----------
    initial : float
        > 0.
    factor : float
        In (0, 1).
    patience : int
        Epochs without improvement that are put up with, >= 0.
    tolerance : float
        By which share of it a loss must be below the best to count as lower; in [0, 1).
    cooldown : int
        Epochs that do not count after a fall, >= 0.
    minimum : float
        From 0 to ``initial``.

    Notes
    -----
    Equal to ``torch.optim.lr_scheduler.ReduceLROnPlateau`` with a relative threshold, but for two
    things: a negative loss, too, must fall to be an improvement, and there is no ``eps`` below
    which falls are left out.

    Examples
    --------
    >>> from rnn_xp.optim import SGD
    >>> opt = SGD(ReduceOnPlateau(0.8, patience=1))
    >>> state, rates = opt.init({}), []
    >>> for loss in (5.0, 4.0, 4.0, 4.0, 3.0):
    ...     state = opt.observe(state, loss)
    ...     rates.append(opt.rate(state))
    >>> rates
    [0.8, 0.8, 0.8, 0.4, 0.4]
    """

    initial: float
    factor: float = 0.5
    patience: int = 10
    tolerance: float = 1e-4
    cooldown: int = 0
    minimum: float = 0.0

    def __post_init__(self) -> None:
        number(self, "initial", "(0, inf)")
        number(self, "factor", "(0, 1)")
        integer(self, "patience", 0)
        number(self, "tolerance", "[0, 1)")
        integer(self, "cooldown", 0)
        number(self, "minimum", f"[0, {self.initial!r}]")

    def rate(self, memory: Plateau) -> float:
        """Return the rate of the next update."""
        return max(self.initial * memory.scale, self.minimum)

    def observe(self, memory: Plateau, loss: float) -> Plateau:
        """Return the memory after an epoch with this loss."""
        best, wait, rest, scale = memory
        limit = math.inf if best is None else best - self.tolerance * abs(best)
        if loss < limit:
            best, wait = float(loss), 0
        else:
            wait += 1
        if rest:
            rest, wait = rest - 1, 0
        if wait > self.patience:
            scale, wait, rest = self.factor * scale, 0, self.cooldown
        return Plateau(best, wait, rest, scale)

    @staticmethod
    def unpack(saved: Saved, memory: Any) -> Plateau:
        """Check a memory from a file, given as a dict."""
        saved.names("plateau", memory, Plateau._fields)
        best, scale = memory["best"], memory["scale"]
        saved.require(
            best is None or (type(best) is float and math.isfinite(best)),
            f"best must be a finite float or null, got {best!r}",
        )
        saved.require(
            type(scale) is float and 0.0 <= scale <= 1.0,
            f"scale must be a float from 0 to 1, got {scale!r}",
        )
        wait, rest = (saved.count(name, memory[name]) for name in ("wait", "rest"))
        return Plateau(best, wait, rest, scale)
