"""Learning rates that change during training.

A schedule is any callable ``schedule(step) -> float`` that returns the rate for update ``step`` +
1, that is, after ``step`` updates. It has no memory, so a run can be resumed with nothing but the
step. A plain float is the constant schedule. A schedule of your own should be a frozen dataclass as
well, because the ``repr`` of the optimiser identifies a run.

Under ``jax.jit`` the step is an array without a value, so a schedule that is to be compiled must
be a formula in which no ``if`` looks at the step. Those of this module are such formulas.

`ReduceOnPlateau` is not a schedule: it depends on the loss and not on the step, and its memory is
part of the optimiser's state.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, NamedTuple, TypeAlias

from rnn_xp.backend import array_namespace
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
"""A function that returns the learning rate of the next update after ``step`` updates."""

_OF_NUMBERS = SimpleNamespace(
    cos=math.cos, maximum=max, minimum=min, where=lambda condition, a, b: a if condition else b
)


def _functions(number: Any) -> Any:
    """Return the functions of a number: those of Python, or those of the library of an array."""
    return array_namespace(number) if hasattr(number, "dtype") else _OF_NUMBERS


def check_rate(owner: object, name: str) -> None:
    """Check that a field is a learning rate: a number > 0, or a schedule."""
    value = getattr(owner, name)
    if isinstance(value, type):
        raise ValueError(
            f"{type(owner).__name__}: {name} must be a number or a schedule such as "
            f"Cosine(0.01, 1000), got the class {value.__name__}."
        )
    if not callable(value):
        number(owner, name, "(0, inf)")


def rate_at(rate: float | Schedule, step: int) -> float:
    """Return the rate for update ``step`` + 1.

    Raises
    ------
    ValueError
        If a schedule returns anything but a finite number >= 0.
    """
    if not callable(rate):
        return rate
    value = rate(step)
    if hasattr(step, "dtype"):  # in a compiled update there is no value to look at
        return value
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
        The rate of the first updates, > 0.
    every : int
        Number of updates between two falls, >= 1.
    factor : float
        The factor of each fall, in (0, 1).

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
        """Return the rate for update ``step`` + 1."""
        return self.initial * self.factor ** (step // self.every)


@dataclass(frozen=True)
class Cosine:
    """A rate that falls along half a cosine wave and then stays constant.

    ::

        rate = final + (initial - final) * (1 + cos(pi * step / total)) / 2      step < total
        rate = final                                                             from then on

    Parameters
    ----------
    initial : float
        The rate of the first update, > 0.
    total : int
        Number of updates of the fall, >= 1. The last of these updates still has a rate above
        ``final``.
    final : float
        The rate after the fall, from 0 to ``initial``.

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
        """Return the rate for update ``step`` + 1."""
        xp = _functions(step)
        height = 0.5 * (1.0 + xp.cos(math.pi * step / self.total))
        falling = self.final + (self.initial - self.final) * height
        rate: float = xp.where(step >= self.total, self.final, falling)
        return rate


@dataclass(frozen=True)
class WarmUp:
    """A rate that rises linearly and then follows another schedule.

    ::

        rate = then(0) * (step + 1) / steps      step < steps
        rate = then(step - steps)                from then on

    The first update therefore has the rate ``then(0) / steps``. The last update of the warm-up has
    the rate ``then(0)``, and so does the next update, which is the first one that ``then`` counts.

    Parameters
    ----------
    steps : int
        Number of updates of the rise, >= 1.
    then : float or callable
        The rate after the rise, or its schedule.

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
        """Return the rate for update ``step`` + 1."""
        xp = _functions(step)
        after = rate_at(self.then, xp.maximum(step - self.steps, 0))
        rising = rate_at(self.then, 0) * (step + 1) / self.steps
        rate: float = xp.where(step >= self.steps, after, rising)
        return rate


class Plateau(NamedTuple):
    """The memory of a `ReduceOnPlateau`.

    Attributes
    ----------
    best : float or None
        The lowest loss so far; None before the first epoch.
    wait : int
        Number of epochs in a row without an improvement.
    rest : int
        Number of epochs until the cooldown ends.
    scale : float
        The product of the factors of all falls so far.
    """

    best: float | None = None
    wait: int = 0
    rest: int = 0
    scale: float = 1.0


@dataclass(frozen=True)
class ReduceOnPlateau:
    """A rate that falls by a factor when the loss stops falling.

    An epoch is an improvement if ``loss < best - tolerance * |best|``. After more than ``patience``
    epochs in a row without an improvement, the rate becomes ``max(factor * rate, minimum)``, and
    the next ``cooldown`` epochs are not counted. The loss is the validation loss if there is
    validation, otherwise the training loss.

    Parameters
    ----------
    initial : float
        The rate of the first epochs, > 0.
    factor : float
        The factor of each fall, in (0, 1).
    patience : int
        Number of epochs in a row without an improvement that do not yet cause a fall, >= 0.
    tolerance : float
        Minimum relative improvement, in [0, 1).
    cooldown : int
        Number of epochs after a fall that are not counted, >= 0.
    minimum : float
        The lowest rate, from 0 to ``initial``.

    Notes
    -----
    This equals ``torch.optim.lr_scheduler.ReduceLROnPlateau`` with a relative threshold, with two
    differences: a negative loss must also fall to be an improvement, and there is no ``eps`` below
    which falls are omitted.

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
        xp = _functions(memory.scale)
        rate: float = xp.maximum(self.initial * memory.scale, self.minimum)
        return rate

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
        """Rebuild a memory from the dict in a file, after checking it."""
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
