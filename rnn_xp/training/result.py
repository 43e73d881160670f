"""`FitResult`: what `rnn_xp.fit` returns."""

from __future__ import annotations

from dataclasses import dataclass

from rnn_xp._typing import Params
from rnn_xp.backend import Backend
from rnn_xp.training.state import TrainingState

__all__ = ["FitResult"]


@dataclass(frozen=True, repr=False)
class FitResult:
    """The result of `rnn_xp.fit`.

    Attributes
    ----------
    params : Params
        The parameters after the last update, on the backend that trained them.
    best_params : Params or None
        The parameters with the lowest validation loss; None without validation.
    best_epoch : int or None
        The epoch, counted from 1, that produced ``best_params``; None without validation.
    history : dict of str to list of float
        ``history["loss"][k]`` is the loss before update k; with minibatches, the mean over the
        batches of epoch k. ``history["validation_loss"][k]`` is the validation loss after epoch k.
    stopped : str
        The reason why training ended before the last epoch; empty if it did not.
    evaluations : int
        Number of times the loss and its gradient were computed, line searches included.
    seconds : float
        Wall time of the epochs.
    backend : Backend
        The library and device of the training.
    engine : str
        The engine that computed the epochs: "portable", "cuda_graph" or "cuda_fused", see
        `rnn_xp.engines.choice`.
    engine_reason : str
        On CuPy, the reason why a faster engine or a CUDA graph was not used; otherwise empty.
    block_rows : int
        Number of rows of a block.
    workers : int
        Number of threads of this rank.
    ranks : int
        Number of ranks.
    state : TrainingState
        The state to continue from with ``fit(resume=)``.
    """

    params: Params
    best_params: Params | None
    best_epoch: int | None
    history: dict[str, list[float]]
    stopped: str
    evaluations: int
    seconds: float
    backend: Backend
    engine: str
    engine_reason: str
    block_rows: int
    workers: int
    ranks: int
    state: TrainingState

    def __repr__(self) -> str:
        """Summarise the result in one line, without ``history`` and ``params``."""
        epochs = len(self.history["loss"])
        losses = [f"{name} {column[-1]:.4g}" for name, column in self.history.items() if column]
        ended = f", stopped: {self.stopped}" if self.stopped else ""
        return f"<FitResult after {epochs} epochs: {', '.join(losses)}{ended}>"
