"""Training: `fit`, from its arguments to a plan, to epochs, to a result."""

from rnn_xp.training.loop import DivergenceError
from rnn_xp.training.trainer import FitResult, fit

__all__ = ["DivergenceError", "FitResult", "fit"]
