"""The state of a training between two epochs: all that is needed to continue it.

No random generator keeps a state: the order of minibatches is a function of (seed, epoch), and the
masks of dropout are a function of (seed, update, block). The parameters, the optimiser's state and
the number of epochs are therefore the complete state, and the description of the run identifies the
training to which it belongs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from rnn_xp._typing import Params
from rnn_xp.backend import array_namespace, to_numpy
from rnn_xp.network import Network
from rnn_xp.optim import Optimizer

__all__ = ["Best", "TrainingState", "all_finite"]


class Best(NamedTuple):
    """The parameters with the lowest validation loss so far, and the epoch that produced them."""

    epoch: int
    loss: float
    params: Params


@dataclasses.dataclass(frozen=True)
class TrainingState:
    """The state of a training between two epochs.

    Attributes
    ----------
    net : Network
    optimizer : Optimizer
    run : mapping
        The description of the run, in a form that JSON can hold: loss, seed, batch size, block
        size, a digest of the data, and the platform. It is compared when the run is resumed.
    epoch : int
        Number of completed epochs.
    params : Params
        The parameters after these epochs.
    opt_state : object
        The optimiser's state after these epochs.
    history : dict of str to list of float
        The losses of these epochs, as in `rnn_xp.FitResult`.
    best : Best or None
        The parameters with the lowest validation loss; None without validation.
    evaluations : int
        Number of times the loss and its gradient were computed, over all resumed parts.
    seconds : float
        Wall time of the epochs, over all resumed parts.
    """

    net: Network
    optimizer: Optimizer
    run: Mapping[str, Any]
    epoch: int
    params: Params
    opt_state: Any
    history: dict[str, list[float]]
    best: Best | None = None
    evaluations: int = 0
    seconds: float = 0.0

    @property
    def finite(self) -> bool:
        """True if all parameters are finite; the latest loss belongs to earlier parameters."""
        return all_finite(self.params)

    def on_host(self, memory: Mapping[str, Any]) -> dict[str, Any]:
        """Return all arrays of the state as NumPy arrays, by their names in a file.

        Parameters
        ----------
        memory : mapping of str to Array
            The optimiser's arrays, as its ``pack`` returns them.
        """
        arrays = dict(self.params)
        arrays |= {f"optimizer.{name}": array for name, array in memory.items()}
        if self.best is not None:
            arrays |= {f"best.{name}": array for name, array in self.best.params.items()}
        host = {name: to_numpy(array) for name, array in arrays.items()}
        return host | {
            f"history.{name}": np.asarray(column) for name, column in self.history.items()
        }


def all_finite(params: Params) -> bool:
    """Return True if every value of every array is finite."""
    xp = array_namespace(*params.values())
    return all(bool(xp.all(xp.isfinite(p))) for p in params.values())
