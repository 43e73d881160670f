"""Recurrent networks with explicit, proven backpropagation through time on any Array API library.

>>> import rnn_xp as rx
>>> rx.num_windows(8327, seq_length=10)
8317
"""

import importlib
from typing import TYPE_CHECKING, Any

from rnn_xp import losses, optim
from rnn_xp.backend import Backend, BackendError, get_backend
from rnn_xp.cells import GRUState, LSTMState, RNNState
from rnn_xp.data.windows import make_windows, num_windows
from rnn_xp.network import Network

if TYPE_CHECKING:
    from rnn_xp import callbacks, interchange, testing
    from rnn_xp.checkpoint import CheckpointError
    from rnn_xp.data import datasets
    from rnn_xp.data.shards import open_shards
    from rnn_xp.estimators import RecurrentClassifier as RecurrentClassifier
    from rnn_xp.estimators import RecurrentRegressor as RecurrentRegressor
    from rnn_xp.estimators import SequenceLabeler as SequenceLabeler
    from rnn_xp.forecasting import Forecaster as Forecaster
    from rnn_xp.forecasting import baselines, from_long, metrics
    from rnn_xp.network.online import Stream
    from rnn_xp.training import DivergenceError, FitResult, backends, fit

# Without the estimators, so that a star import asks for no scikit-learn.
__all__ = [
    "Backend",
    "BackendError",
    "CheckpointError",
    "DivergenceError",
    "FitResult",
    "Forecaster",
    "GRUState",
    "LSTMState",
    "Network",
    "RNNState",
    "Stream",
    "__version__",
    "backends",
    "baselines",
    "callbacks",
    "datasets",
    "fit",
    "from_long",
    "get_backend",
    "interchange",
    "losses",
    "make_windows",
    "metrics",
    "num_windows",
    "open_shards",
    "optim",
    "testing",
]

__version__ = "0.1.0"

_MODULES = {
    *("baselines", "callbacks", "datasets", "explain", "interchange", "metrics", "plotting"),
    "testing",
}
# Imported on first use: whoever only computes needs neither training nor files.
_LATER = {
    "CheckpointError": "checkpoint",
    "DivergenceError": "training",
    "FitResult": "training",
    "RecurrentClassifier": "estimators",
    "RecurrentRegressor": "estimators",
    "SequenceLabeler": "estimators",
    "Forecaster": "forecasting",
    "from_long": "forecasting",
    "Stream": "network.online",
    "backends": "training",
    "baselines": "forecasting",
    "datasets": "data",
    "fit": "training",
    "metrics": "forecasting",
    "open_shards": "data.shards",
    "plotting": "forecasting",
    **dict.fromkeys(("callbacks", "explain", "interchange", "testing"), ""),
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = f"{__name__}.{_LATER[name]}".rstrip(".")
    if name in _MODULES:
        value = importlib.import_module(f"{home}.{name}")
    else:
        value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*__all__, *_LATER, "__doc__", "__file__", "__name__", "__path__"})
