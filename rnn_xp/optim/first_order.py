"""The common part of all optimisers that use one gradient per update.

An update does, in this order::

    g = gradient, cut to [-clip_value, clip_value]       if clip_value is given
    g = g * clip_norm / |g|                              if clip_norm is given and |g| > clip_norm
    g = g + weight_decay * p                             or, decoupled: p = p * (1 - rate * decay)
    p = p - step                                         by the optimiser's own rule

Scalars such as the rate and bias corrections are Python floats, never NumPy scalars, so that
float32 parameters stay float32 on every library. Only ``jax.jit(optimizer.update)`` traces the
state's numbers as arrays, whose dtype JAX adapts to the parameters in the same way.
"""

from __future__ import annotations

import abc
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar, NamedTuple

from rnn_xp._typing import Array, Namespace, Params, ValueAndGrad
from rnn_xp.backend import array_namespace
from rnn_xp.kernels import pointwise
from rnn_xp.optim.base import Optimizer
from rnn_xp.optim.checks import Saved, flag, number
from rnn_xp.optim.clipping import clip_entries, clip_to_norm
from rnn_xp.optim.schedules import Plateau, ReduceOnPlateau, Schedule, check_rate, rate_at

__all__ = ["FirstOrder", "FirstOrderState"]


class FirstOrderState(NamedTuple):
    """State of an optimiser that uses one gradient per update.

    Attributes
    ----------
    step : int
        Number of past updates.
    slots : dict of str to Params
        The memory of the rule, such as ``{"m": {...}, "v": {...}}``; each slot is a dict like the
        parameters.
    plateau : Plateau or None
        The memory of the `ReduceOnPlateau` that gives the rate; None for any other rate.
    """

    step: int
    slots: dict[str, Params]
    plateau: Plateau | None


@dataclass(frozen=True)
class FirstOrder(Optimizer):
    """An optimiser that uses one gradient per update.

    A subclass declares its hyperparameters as further fields, its memory in `_slots`, and its
    formula for one array in `_rule`.

    Parameters
    ----------
    learning_rate : float, callable or ReduceOnPlateau
        A constant rate > 0, or a schedule of the rate, see `rnn_xp.optim.schedules`.
    weight_decay : float
        The decay, >= 0. The gradient of ``weight_decay / 2 * |p|**2`` is added.
    decay_biases : bool
        If True, arrays with fewer than two axes (biases and the gains of layer normalisation)
        decay as well.
    clip_value : float, optional
        Maximum size of every entry of the gradient, > 0.
    clip_norm : float, optional
        Maximum norm of the gradient, with all arrays taken as one vector, > 0.
    """

    learning_rate: float | Schedule | ReduceOnPlateau
    _: KW_ONLY
    weight_decay: float = 0.0
    decay_biases: bool = False
    clip_value: float | None = None
    clip_norm: float | None = None

    decoupled_decay: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not isinstance(self.learning_rate, ReduceOnPlateau):
            check_rate(self, "learning_rate")
        number(self, "weight_decay", "[0, inf)")
        flag(self, "decay_biases")
        for name in ("clip_value", "clip_norm"):
            if getattr(self, name) is not None:
                number(self, name, "(0, inf)")

    @abc.abstractmethod
    def _slots(self) -> dict[str, float]:
        """Return the names of the memory's slots, with their initial values."""

    @abc.abstractmethod
    def _rule(
        self, g: Array, slots: dict[str, Array], rate: float, t: int, *, xp: Namespace
    ) -> tuple[Array, dict[str, Array]]:
        """Return (step to subtract, new slots) for one array in the t-th update, t >= 1.

        The formula may use the functions that `rnn_xp.kernels.pointwise` supports.
        """

    @property
    def watches_loss(self) -> bool:
        """True if a `ReduceOnPlateau` gives the rate; the loss is then read after every epoch."""
        return isinstance(self.learning_rate, ReduceOnPlateau)

    def init(self, params: Params) -> FirstOrderState:
        """Return the state before the first update."""
        slots = {
            slot: {name: array_namespace(p).full_like(p, value) for name, p in params.items()}
            for slot, value in self._slots().items()
        }
        return FirstOrderState(0, slots, Plateau() if self.watches_loss else None)

    def update(
        self,
        grads: Params,
        state: FirstOrderState,
        params: Params,
        *,
        value: Array | None = None,
        value_and_grad: ValueAndGrad | None = None,
    ) -> tuple[Params, FirstOrderState]:
        """Return the new parameters and the new state; ``value_and_grad`` is not used."""
        if state.slots.keys() != self._slots().keys():
            raise ValueError(
                f"{type(self).__name__}: the state has {sorted(state.slots)}, but this optimiser "
                f"remembers {sorted(self._slots())}. Take the state from its own init or update."
            )
        xp = array_namespace(*params.values())
        grads = {name: grads[name] for name in params}
        if self.clip_value is not None:
            grads = clip_entries(grads, self.clip_value)
        if self.clip_norm is not None:
            grads = clip_to_norm(grads, self.clip_norm)
        updated: dict[str, Sequence[Array]] = {}
        for names, entry in self.rules(state, params):
            memories = [[state.slots[slot][name] for slot in self._slots()] for name in names]
            operands = [(params[n], grads[n], *m) for n, m in zip(names, memories, strict=True)]
            updated |= zip(names, pointwise(entry, operands, xp=xp), strict=True)
        new = {name: updated[name][0] for name in params}
        slots = {
            slot: {name: updated[name][at] for name in params}
            for at, slot in enumerate(self._slots(), start=1)
        }
        return new, self.advanced(state, slots)

    def rules(
        self, state: FirstOrderState, params: Params
    ) -> Sequence[tuple[list[str], Callable[..., tuple[Array, ...]]]]:
        """Return what the next update computes: names of arrays, and a function of their entries.

        The function takes an array, its gradient and its slots, and returns the new array and the
        new slots; `rnn_xp.kernels.pointwise` can run it.
        """
        rate, t = self.rate(state), state.step + 1
        parts = []
        for decays in (False, True):
            names = [name for name, p in params.items() if self._decays(p) is decays]
            if names:
                parts.append((names, functools.partial(self._entry, rate, t, decays)))
        return parts

    def advanced(
        self, state: FirstOrderState, slots: dict[str, Params], updates: int = 1
    ) -> FirstOrderState:
        """Return the state after so many updates, which ended with these slots."""
        plateau = state.plateau or Plateau()  # a state from before the schedule has none
        return FirstOrderState(state.step + updates, slots, plateau if self.watches_loss else None)

    def _decays(self, p: Array) -> bool:
        return bool(self.weight_decay) and (self.decay_biases or p.ndim >= 2)

    def _entry(
        self, rate: float, t: int, decays: bool, p: Array, g: Array, *memory: Array, xp: Namespace
    ) -> tuple[Array, ...]:
        """Return the new array and its new memory, computed entry by entry."""
        if decays and self.decoupled_decay:
            p = p * (1.0 - rate * self.weight_decay)
        elif decays:
            g = g + self.weight_decay * p
        step, after = self._rule(g, dict(zip(self._slots(), memory, strict=True)), rate, t, xp=xp)
        return (p - step, *(after[slot] for slot in self._slots()))

    def rate(self, state: FirstOrderState) -> float:
        """Return the learning rate of the next update."""
        if isinstance(self.learning_rate, ReduceOnPlateau):
            return self.learning_rate.rate(state.plateau or Plateau())
        return rate_at(self.learning_rate, state.step)

    def observe(self, state: FirstOrderState, loss: float) -> FirstOrderState:
        """Return the state after an epoch with this loss, which a `ReduceOnPlateau` remembers."""
        if not isinstance(self.learning_rate, ReduceOnPlateau):
            return state
        plateau = self.learning_rate.observe(state.plateau or Plateau(), loss)
        return state._replace(plateau=plateau)

    def restart(self, state: FirstOrderState) -> FirstOrderState:
        """Return the state with plain numbers, which may come from a compiled update as arrays."""
        plateau = state.plateau
        if plateau is not None:
            best = None if plateau.best is None else float(plateau.best)
            wait, rest, scale = int(plateau.wait), int(plateau.rest), float(plateau.scale)
            plateau = Plateau(best, wait, rest, scale)
        return FirstOrderState(int(state.step), state.slots, plateau)

    def pack(self, state: FirstOrderState) -> tuple[dict[str, Array], dict[str, Any]]:
        """Return the state as arrays such as ``"m.layer0.w_xh"``, and as values for JSON."""
        arrays = {
            f"{slot}.{name}": array
            for slot, memory in state.slots.items()
            for name, array in memory.items()
        }
        state = self.restart(state)
        plateau = None if state.plateau is None else state.plateau._asdict()
        return arrays, {"step": state.step, "plateau": plateau}

    def unpack(
        self, arrays: Mapping[str, Array], values: Mapping[str, Any], params: Params
    ) -> FirstOrderState:
        """Rebuild a state from what `pack` returned.

        Raises
        ------
        ValueError
            If anything is missing, unknown, or does not fit these parameters.
        """
        saved = Saved(type(self).__name__, arrays, values, ("step", "plateau"))
        step = saved.count("step", values["step"])
        like = {
            f"{slot}.{name}": (tuple(p.shape), p.dtype)
            for slot in self._slots()
            for name, p in params.items()
        }
        taken = saved.take(like)
        slots = {slot: {name: taken[f"{slot}.{name}"] for name in params} for slot in self._slots()}
        memory, plateau = values["plateau"], None
        if self.watches_loss:
            plateau = ReduceOnPlateau.unpack(saved, memory)
        else:
            saved.require(memory is None, "its plateau is of a ReduceOnPlateau, which this has not")
        return FirstOrderState(step, slots, plateau)
