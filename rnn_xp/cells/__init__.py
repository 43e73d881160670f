"""Recurrent cells: one step forward and, directly below it, one step backward.

`CELLS` is the only list of cells: `rnn_xp.Network`, the estimators and the command line take the
names in it. Everything else about a cell is declared by the cell itself, see `rnn_xp.cells.cell`.
A cell of your own is added by one line, ``CELLS["mine"] = MyCell``, in every process that uses it.
"""

from rnn_xp.cells.cell import Cell
from rnn_xp.cells.gru import GRUCell, GRUResetBeforeCell, GRUState
from rnn_xp.cells.lstm import LSTMCell, LSTMState
from rnn_xp.cells.rnn import RNNCell, RNNState

__all__ = [
    "CELLS",
    "Cell",
    "GRUCell",
    "GRUResetBeforeCell",
    "GRUState",
    "LSTMCell",
    "LSTMState",
    "RNNCell",
    "RNNState",
]

CELLS: dict[str, type[Cell]] = {"rnn": RNNCell, "gru": GRUCell, "lstm": LSTMCell}
