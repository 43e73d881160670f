"""Evaluations of the full batch: their number, the results of the latest ones, and means."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from rnn_xp._typing import Array, Params
from rnn_xp.optim import Optimizer

__all__ = ["Evaluations", "FullBatch", "ValueAndGrads", "WeightedMean"]

ValueAndGrads: TypeAlias = tuple[Array, Params]
"""A loss () and its gradient."""


@dataclass(frozen=True)
class FullBatch:
    """The loss over all rows, as an `rnn_xp._typing.Objective`.

    Attributes
    ----------
    gradient : callable
        ``gradient(params) -> (loss, gradient)``.
    value, curvature, curvature_factor, curvature_product : callable, optional
        The methods of an `rnn_xp._typing.Objective`; None where an engine does not offer them.
    """

    gradient: Callable[[Params], ValueAndGrads]
    value: Callable[[Params], Array] | None = None
    curvature: Callable[[Params], Array] | None = None
    curvature_factor: Callable[[Params, int, int], Array] | None = None
    curvature_product: Callable[[Params, Params], Params] | None = None

    def __call__(self, params: Params) -> ValueAndGrads:
        """Return the loss and its gradient."""
        return self.gradient(params)


class Evaluations:
    """The evaluations that an engine has made.

    Attributes
    ----------
    count : int
        Number of times the loss and its gradient have been computed, as the engine counts it.
    """

    def __init__(self) -> None:
        self.count = 0
        self._latest: list[tuple[Params, ValueAndGrads]] = []

    def value_and_grad(
        self, params: Params, gradient: Callable[[Params], ValueAndGrads]
    ) -> ValueAndGrads:
        """Return loss and gradient, which are computed only for a dict that has not been seen."""
        for seen, result in self._latest:
            if seen is params:
                return result
        result = gradient(params)
        self._latest.append((params, result))
        return result

    def update(
        self,
        optimizer: Optimizer,
        params: Params,
        opt_state: Any,
        batch: FullBatch,
    ) -> tuple[Params, Any, Array]:
        """Perform one update with the full batch.

        Parameters
        ----------
        optimizer : Optimizer
        params : Params
        opt_state : object
            The optimiser's state.
        batch : FullBatch

        Returns
        -------
        params : Params
        opt_state : object
        value : Array ()
            The loss before the update.
        """
        self._latest = [entry for entry in self._latest if entry[0] is params]
        remembered = functools.partial(self.value_and_grad, gradient=batch.gradient)
        value_and_grad = dataclasses.replace(batch, gradient=remembered)
        value, grads = value_and_grad(params)
        params, opt_state = optimizer.update(
            grads, opt_state, params, value=value, value_and_grad=value_and_grad
        )
        return params, opt_state, value


class WeightedMean:
    """A mean of losses, weighted by their total weights."""

    def __init__(self) -> None:
        self.sum: Any = 0.0
        self.total: Any = 0.0

    def add(self, value: Array, total: Any) -> None:
        """Add a loss () with its total weight."""
        self.sum, self.total = self.sum + value * total, self.total + total

    @property
    def value(self) -> Array:
        """The mean () of the losses added so far."""
        return self.sum / self.total
