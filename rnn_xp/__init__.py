"""Recurrent networks with explicit, proven backpropagation through time on any Array API library.

>>> import rnn_xp as rx
>>> rx.num_windows(8327, seq_length=10)
8317
"""

from rnn_xp import callbacks, datasets, losses, optim, testing
from rnn_xp.backend import Backend, BackendError, backends, get_backend
from rnn_xp.cells import GRUState, LSTMState, RNNState
from rnn_xp.checkpoint import CheckpointError
from rnn_xp.network import Network
from rnn_xp.trainer import FitResult, fit
from rnn_xp.training_loop import DivergenceError
from rnn_xp.windows import make_windows, num_windows

__all__ = [
    "Backend",
    "BackendError",
    "CheckpointError",
    "DivergenceError",
    "FitResult",
    "GRUState",
    "LSTMState",
    "Network",
    "RNNState",
    "__version__",
    "backends",
    "callbacks",
    "datasets",
    "fit",
    "get_backend",
    "losses",
    "make_windows",
    "num_windows",
    "optim",
    "testing",
]

__version__ = "0.1.0"
