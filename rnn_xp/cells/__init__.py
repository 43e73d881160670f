"""Recurrent cells: one step forward and, directly below it, one step backward."""

from rnn_xp.cells.gru import GRUCell, GRUResetBeforeCell, GRUState
from rnn_xp.cells.lstm import LSTMCell, LSTMState
from rnn_xp.cells.rnn import RNNCell, RNNState

__all__ = [
    "GRUCell",
    "GRUResetBeforeCell",
    "GRUState",
    "LSTMCell",
    "LSTMState",
    "RNNCell",
    "RNNState",
]
