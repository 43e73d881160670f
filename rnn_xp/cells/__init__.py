"""Recurrent cells: one step forward and, directly below it, one step backward."""

from rnn_xp.cells.rnn import RNNCell, RNNState

__all__ = ["RNNCell", "RNNState"]
