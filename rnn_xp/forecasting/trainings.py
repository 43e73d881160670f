"""The trainings of a forecaster: one of each network for its epochs, and one on all windows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rnn_xp._typing import Params
from rnn_xp.backend import Backend
from rnn_xp.forecasting.prepared import Prepared
from rnn_xp.forecasting.training import train
from rnn_xp.training.callbacks import Callback
from rnn_xp.training.result import FitResult

__all__ = ["Trained", "train_networks"]


@dataclass(frozen=True)
class Trained:
    """Results of all trainings, in the order of the seeds.

    Attributes
    ----------
    results : list of FitResult
        Trainings that are validated, or that validation was switched off for.
    refits : list of FitResult
        Trainings on all windows after that; empty if there were none.
    whole : Prepared
        The data of the refits.
    """

    results: list[FitResult]
    refits: list[FitResult]
    whole: Prepared

    @property
    def networks(self) -> tuple[Params, ...]:
        """Parameters with the lowest validation loss; without validation the last ones."""
        return tuple(r.params if r.best_params is None else r.best_params for r in self.results)

    @property
    def refitted(self) -> tuple[Params, ...]:
        """Parameters of the refits, or `networks` if there were none."""
        return tuple(result.params for result in self.refits) or self.networks


def train_networks(
    prepared: Prepared, backend: Backend, stop: Callback | None, training: Mapping[str, Any]
) -> Trained:
    """Train the networks of a forecaster, see `rnn_xp.Forecaster.fit_prepared`.

    After the validated training has chosen a number of epochs, the refit begins anew from the same
    seed, because the windows are others: a training that went on from the first one's end would
    have seen the first windows for twice as long as the last ones.
    """
    settings = prepared.settings
    seeds = range(settings.random_state, settings.random_state + settings.n_seeds)
    always = [] if stop is None else [stop]
    first = {**training, "callbacks": [*always, *(training.get("callbacks") or ())]}
    results = [
        train(settings, prepared.net, prepared.trained, prepared.validated, backend, seed, **first)
        for seed in seeds
    ]
    if not settings.refit or prepared.validated is None:
        return Trained(results, [], prepared)
    again = {**training, "callbacks": always, "resume": None}
    whole = prepared.whole()
    refits = [
        train(
            settings, whole.net, whole.trained, None, backend, seed, epochs=result.best_epoch,
            **again,
        )
        for seed, result in zip(seeds, results, strict=True)
    ]  # fmt: skip
    return Trained(results, refits, whole)
