"""Files that hold the state of a training, or the best parameters.

A file holds arrays under these names::

    layer0.w_xh ...             parameters
    optimizer.m.layer0.w_xh ... arrays of the optimiser's state
    best.layer0.w_xh ...        parameters with the lowest validation loss
    history.loss ...            one value for each epoch, float64
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rnn_xp import checkpoint
from rnn_xp._typing import Params
from rnn_xp.backend import Backend, to_numpy
from rnn_xp.checkpoint import CheckpointError
from rnn_xp.network import Network
from rnn_xp.optim import Optimizer
from rnn_xp.training.state import Best, TrainingState

__all__ = ["SCHEMA", "SavedState", "check_schema", "load", "save", "save_best"]

SCHEMA = 1
"""Version of the metadata in files with parameters."""

_HISTORY = ("loss", "validation_loss")


def save(path: str | Path, state: TrainingState, about: Mapping[str, Any] | None = None) -> None:
    """Write a state to a file, atomically.

    Parameters
    ----------
    path : path
    state : TrainingState
    about : mapping, optional
        Further metadata for the file, such as the scaler of the data.

    Raises
    ------
    TypeError
        If the optimiser's state cannot be packed, see `rnn_xp.optim.Optimizer.pack`.
    ValueError
        If a value is not finite, because such a state is not worth keeping.
    OSError
    """
    memory, values = state.optimizer.pack(state.opt_state)
    arrays = state.on_host(memory)
    best = None
    if state.best is not None:
        best = {"epoch": state.best.epoch, "loss": state.best.loss}
    training = {
        "run": dict(state.run),
        "epoch": state.epoch,
        "optimizer": values,
        "best": best,
        "evaluations": state.evaluations,
        "seconds": state.seconds,
    }
    checkpoint.save(path, arrays, {**_head(state, about), "training": training})


def save_best(
    path: str | Path, state: TrainingState, about: Mapping[str, Any] | None = None
) -> None:
    """Write the parameters with the lowest validation loss, atomically.

    The arguments are as for `save`.

    Raises
    ------
    ValueError
        If the state has no best parameters, because there was no validation.
    OSError
    """
    if state.best is None:
        raise ValueError("there are no best parameters without validation.")
    arrays = {name: to_numpy(param) for name, param in state.best.params.items()}
    best = {"epoch": state.best.epoch, "validation_loss": state.best.loss}
    checkpoint.save(path, arrays, {**_head(state, about), "best": best})


def _head(state: TrainingState, about: Mapping[str, Any] | None) -> dict[str, Any]:
    return {"schema": SCHEMA, "network": dataclasses.asdict(state.net), **(about or {})}


def check_schema(path: str | Path, about: Mapping[str, Any]) -> None:
    """Refuse metadata that another version of the format wrote."""
    if about.get("schema") != SCHEMA:
        raise CheckpointError(
            f"{path} has schema {about.get('schema')!r}, but this version reads {SCHEMA}."
        )


def load(path: str | Path, net: Network, optimizer: Optimizer, backend: Backend) -> TrainingState:
    """Read a state from a file onto a backend, whichever backend wrote it.

    Parameters
    ----------
    path : path
    net : Network
    optimizer : Optimizer
        Network and optimiser of the run.
    backend : Backend
        A backend of the run's dtype.

    Returns
    -------
    TrainingState

    Raises
    ------
    CheckpointError
        If the file is damaged, of another kind, or belongs to another network or optimiser.
    OSError
        If it cannot be opened.
    """
    return SavedState(path, net, backend).to_device(optimizer)


class SavedState:
    """The content of a file on the host, checked before any of it goes to a device.

    Parameters
    ----------
    path : path
    net : Network
        The network of the run.
    backend : Backend
        A backend of the run's dtype.

    Attributes
    ----------
    run : dict
        The description of the run.

    Raises
    ------
    CheckpointError
        If the file is damaged, of another kind, or has another network or dtype.
    OSError
        If it cannot be opened.
    """

    def __init__(self, path: str | Path, net: Network, backend: Backend) -> None:
        self.path, self.net, self.backend = path, net, backend
        arrays, about = checkpoint.load(path)
        check_schema(path, about)
        if not isinstance(about.get("training"), dict):
            raise CheckpointError(f"{path} holds a model, but no state of a training to resume.")
        if about.get("network") != dataclasses.asdict(net):
            raise CheckpointError(f"{path} is of another network: {about.get('network')}.")
        self._training: dict[str, Any] = about["training"]
        self._groups: dict[str, dict[str, Any]] = {"optimizer": {}, "best": {}, "history": {}}
        self._groups[""] = {}
        for name, array in arrays.items():
            first, _, rest = name.partition(".")
            if first in self._groups:
                self._groups[first][rest] = array
            else:
                self._groups[""][name] = array
        with self._explained():
            self._checked = self._check()
            self.run: dict[str, Any] = self._training["run"]

    def to_device(self, optimizer: Optimizer) -> TrainingState:
        """Return the state with its arrays on the backend.

        Raises
        ------
        CheckpointError
            If the optimiser's part does not fit this optimiser.
        """
        with self._explained():
            params, memory = (self._moved(self._groups[group]) for group in ("", "optimizer"))
            best: Best | None = self._checked["best"]
            if best is not None:
                best = best._replace(params=self._moved(best.params))
            opt_state = optimizer.unpack(memory, self._training["optimizer"], params)
            return TrainingState(
                **{**self._checked, "best": best},
                net=self.net,
                optimizer=optimizer,
                run=self.run,
                params=params,
                opt_state=opt_state,
            )

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Re-raise errors that the content causes as a `CheckpointError` for this file."""
        try:
            yield
        except CheckpointError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            what = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
            raise CheckpointError(
                f"{self.path} is no training state of this version: {what}."
            ) from error

    def _moved(self, arrays: Mapping[str, Any]) -> dict[str, Any]:
        return {name: self.backend.asarray(array) for name, array in arrays.items()}

    def _check(self) -> dict[str, Any]:
        """Check everything except the optimiser's part; return the fields that need no device."""
        training, epoch = self._training, self._whole("epoch")
        if not isinstance(training["run"], dict):
            raise CheckpointError(f"{self.path} does not describe its run.")
        self._groups[""] = self._params("", self._groups[""])
        self._check_dtypes("", self._groups["optimizer"])
        best = None
        if training["best"] is not None:
            at, loss = training["best"]["epoch"], training["best"]["loss"]
            if type(at) is not int or not 1 <= at <= epoch or type(loss) is not float:
                raise CheckpointError(f"{self.path}: no epoch can be the best: {at!r}, {loss!r}.")
            best = Best(at, loss, self._params("best.", self._groups["best"]))
        elif self._groups["best"]:
            raise CheckpointError(f"{self.path} has best parameters, but does not say of when.")
        seconds = training["seconds"]
        if type(seconds) is not float or not seconds >= 0.0:
            raise CheckpointError(f"{self.path}: seconds must be a number >= 0, got {seconds!r}.")
        training["optimizer"]  # is looked at by the optimiser alone, but must be there
        return {
            "epoch": epoch,
            "history": self._history(epoch),
            "best": best,
            "evaluations": self._whole("evaluations"),
            "seconds": seconds,
        }

    def _params(self, prefix: str, arrays: dict[str, Any]) -> Params:
        shapes = self.net.shapes
        for name in sorted(shapes.keys() | arrays.keys()):
            if name not in arrays:
                raise CheckpointError(f"{self.path} lacks {prefix}{name}.")
            if name not in shapes:
                raise CheckpointError(f"{self.path} has an unknown array, {prefix}{name}.")
            if arrays[name].shape != shapes[name]:
                raise CheckpointError(
                    f"{self.path}: {prefix}{name} has shape {arrays[name].shape}, but this "
                    f"network's has {shapes[name]}."
                )
        self._check_dtypes(prefix, arrays)
        return {name: arrays[name] for name in shapes}

    def _check_dtypes(self, prefix: str, arrays: Mapping[str, Any]) -> None:
        for name, array in arrays.items():
            if array.dtype != self.backend.dtype_name:
                raise CheckpointError(
                    f"{self.path}: {prefix}{name} is {array.dtype}, but the backend computes in "
                    f"{self.backend.dtype_name}. Select the run's own with "
                    f"RNN_XP_DTYPE={array.dtype}."
                )

    def _history(self, epoch: int) -> dict[str, list[float]]:
        columns = self._groups["history"]
        validated = self._training["run"].get("validation") is not None
        if validated != ("validation_loss" in columns) or (epoch and validated) != bool(
            self._groups["best"]
        ):
            raise CheckpointError(
                f"{self.path}: validation losses and best parameters go together."
            )
        for name, column in columns.items():
            if name not in _HISTORY or column.shape != (epoch,) or column.dtype != np.float64:
                raise CheckpointError(
                    f"{self.path}: history.{name} must be one of {', '.join(_HISTORY)}, with one "
                    f"float64 for each of {epoch} epochs, got {column.dtype} {column.shape}."
                )
        if "loss" not in columns:
            raise CheckpointError(f"{self.path} lacks history.loss.")
        return {name: columns[name].tolist() for name in _HISTORY if name in columns}

    def _whole(self, name: str) -> int:
        value = self._training[name]
        if type(value) is not int or value < 0:
            raise CheckpointError(f"{self.path}: {name} must be an integer >= 0, got {value!r}.")
        return value
