"""Training: `fit`, from its arguments to a plan, to epochs, to a result."""

from rnn_xp.training.libraries import backends
from rnn_xp.training.probing import Outcome, Probe
from rnn_xp.training.result import FitResult
from rnn_xp.training.trainer import fit
from rnn_xp.training.watch import DivergenceError

__all__ = ["DivergenceError", "FitResult", "Outcome", "Probe", "backends", "fit"]
