"""Where a training run stands: all that is needed to go on as if it had never stopped.

Nothing random has a memory of its own: the order of minibatches is a function of (seed, epoch) and
dropout's masks are one of (seed, update, block). So parameters, the optimiser's state and the
number of epochs done are the whole state, and the description of the run says what they belong to.

A file holds the arrays under these names::

    layer0.w_xh ...             parameters
    optimizer.m.layer0.w_xh ... what the optimiser remembers
    best.layer0.w_xh ...        the parameters with the lowest validation loss
    history.loss ...            one value per epoch, float64
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rnn_xp import checkpoint
from rnn_xp._typing import Array, Optimizer, Params
from rnn_xp.backend import Backend, array_namespace, to_numpy
from rnn_xp.checkpoint import CheckpointError
from rnn_xp.distributed import fingerprint
from rnn_xp.kernels import kernels_of
from rnn_xp.network import Network

__all__ = [
    "SCHEMA",
    "Best",
    "TrainingState",
    "all_finite",
    "check_same",
    "check_schema",
    "description",
    "load",
    "save",
    "save_best",
    "whereabouts",
]

SCHEMA = 1
"""Version of the metadata in files with parameters."""

_HISTORY = ("loss", "validation_loss")


class Best(NamedTuple):
    """The parameters with the lowest validation loss so far, and the epoch that left them."""

    epoch: int
    loss: float
    params: Params


@dataclasses.dataclass(frozen=True)
class TrainingState:
    """State of a training run between two epochs.

    Attributes
    ----------
    net : Network
    optimizer : Optimizer
    run : dict
        What the run is, so that it is not continued as another: loss, seed, batch size, block
        size, a digest of the data, and where it ran. Anything JSON can hold.
    epoch : int
        Epochs done.
    params, opt_state : as of the optimiser
    history : dict of str to list of float
    best : Best or None
        With validation only.
    evaluations : int
    seconds : float
        What it took so far, resumed runs added up.
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
        """Whether all parameters are; the loss is that of the parameters before them."""
        return all_finite(self.params)


def all_finite(params: Params) -> bool:
    """Whether every value of every array is finite."""
    xp = array_namespace(*params.values())
    return all(bool(xp.all(xp.isfinite(p))) for p in params.values())


def whereabouts(backend: Backend) -> dict[str, Any]:
    """What the bits of a result depend on, beyond the definition of the run."""
    where: dict[str, Any] = {
        "backend": f"{backend.name} {backend.version}",
        "device": backend.device_kind,
        "kernels": str(kernels_of(backend)),
        "rnn_xp": _own_version(),
    }
    return {**where, "blas": list(_blas())} if backend.name == "numpy" else where


@functools.cache  # in a process it never changes, and asking takes as long as a small fit
def _own_version() -> str | None:
    from importlib import metadata  # takes as long to import as all of this package

    with contextlib.suppress(metadata.PackageNotFoundError):  # a checkout that is not installed
        return metadata.version("rnn-xp")
    return None


@functools.cache
def _blas() -> tuple[str, ...]:
    from threadpoolctl import threadpool_info

    found = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
    # SciPy brings another, which computes nothing here, once something has imported it.
    libraries = [pool for pool in found if "numpy" in Path(pool["filepath"]).parent.name] or found
    keys = ("internal_api", "version", "architecture")
    return tuple(" ".join(str(pool.get(key)) for key in keys) for pool in libraries)


def description(state: TrainingState) -> dict[str, Any]:
    """Tell a training and its state from others, as ranks do that are to share one."""
    arrays, values = _on_host(state)
    return {
        **state.run,
        "network": dataclasses.asdict(state.net),
        "epochs done": state.epoch,
        "optimizer's values": values,
        "arrays of the start": fingerprint(arrays),
    }


def check_same(state: TrainingState, net: Network, run: Mapping[str, Any]) -> TrainingState:
    """Check that a run is the one a state was taken from, and let it go on as described now.

    Raises
    ------
    ValueError
        If it is another.

    Warns
    -----
    UserWarning
        If it is the same, but somewhere else, so that its bits may differ.
    """
    if state.net != net:
        raise ValueError(f"fit: the state to resume from is of another network, {state.net!r}.")
    digests = ("data", "validation")  # which tell nobody anything, so all else comes first
    keys = sorted((run.keys() | state.run.keys()) - {"where", "fresh", *digests})
    for key in (*keys, *digests):
        was, now = state.run.get(key), run.get(key)
        if was != now:
            what = f"has {key} {was!r}, but this one has {now!r}"
            if key in digests:
                what = f"has other values in its {key} than this one"
            raise ValueError(
                f"fit: the run to resume {what}. A resumed run must be the same run; to start "
                "another from its weights, give params= instead."
            )
    was, now = state.run.get("where"), run["where"]
    if was != now:
        warnings.warn(
            f"the run was trained with {was} and goes on with {now}: its bits may differ from "
            "those of an uninterrupted run.",
            stacklevel=3,
        )
    return dataclasses.replace(state, run={**state.run, **run})


def save(path: str | Path, state: TrainingState, about: Mapping[str, Any] | None = None) -> None:
    """Write a state to a file, atomically.

    Parameters
    ----------
    path : path
    state : TrainingState
    about : mapping, optional
        More for the file's metadata, such as the scaler of the data.

    Raises
    ------
    TypeError
        If the optimiser has no ``pack``.
    ValueError
        If a value is not finite: such a state is not worth keeping.
    OSError
    """
    if not hasattr(state.optimizer, "pack"):
        raise TypeError(
            f"{type(state.optimizer).__name__} cannot be kept in a file: it needs the methods "
            "pack and unpack, see rnn_xp.optim."
        )
    arrays, values = _on_host(state)
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


def _on_host(state: TrainingState) -> tuple[dict[str, Any], dict[str, Any]]:
    """All arrays of a state by their names in a file, and the optimiser's other values."""
    optimizer: Any = state.optimizer
    memory, values = optimizer.pack(state.opt_state) if hasattr(optimizer, "pack") else ({}, {})
    arrays = dict(state.params)
    arrays |= {f"optimizer.{name}": array for name, array in memory.items()}
    if state.best is not None:
        arrays |= {f"best.{name}": array for name, array in state.best.params.items()}
    host = {name: to_numpy(array) for name, array in arrays.items()}
    host |= {f"history.{name}": np.asarray(column) for name, column in state.history.items()}
    return host, values


def save_best(
    path: str | Path, state: TrainingState, about: Mapping[str, Any] | None = None
) -> None:
    """Write the parameters with the lowest validation loss, atomically; arguments as of `save`."""
    if state.best is None:
        raise ValueError("there are no best parameters without validation.")
    arrays = {name: to_numpy(param) for name, param in state.best.params.items()}
    best = {"epoch": state.best.epoch, "validation_loss": state.best.loss}
    checkpoint.save(path, arrays, {**_head(state, about), "best": best})


def _head(state: TrainingState, about: Mapping[str, Any] | None) -> dict[str, Any]:
    return {"schema": SCHEMA, "network": dataclasses.asdict(state.net), **(about or {})}


def check_schema(path: str | Path, about: Mapping[str, Any]) -> None:
    """Refuse the metadata of another version."""
    if about.get("schema") != SCHEMA:
        raise CheckpointError(
            f"{path} has schema {about.get('schema')!r}, but this version reads {SCHEMA}."
        )


def load(path: str | Path, net: Network, optimizer: Optimizer, backend: Backend) -> TrainingState:
    """Read a state from a file onto a backend, whichever wrote it.

    Parameters
    ----------
    path : path
    net, optimizer : those of the run
    backend : Backend
        Of the same dtype.

    Returns
    -------
    TrainingState

    Raises
    ------
    CheckpointError
        If the file is damaged, of another kind, or not of this network and optimiser.
    OSError
        If it cannot be opened.
    """
    arrays, about = checkpoint.load(path)
    check_schema(path, about)
    if not isinstance(about.get("training"), dict):
        raise CheckpointError(f"{path} holds a model, but no state of a training to go on from.")
    if about.get("network") != dataclasses.asdict(net):
        raise CheckpointError(f"{path} is of another network: {about.get('network')}.")
    try:
        return _Reader(path, arrays, about["training"], backend).read(net, optimizer)
    except CheckpointError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise CheckpointError(f"{path} is no training state of this version: {what}.") from error


class _Reader:
    """Takes a file's content apart, trusting none of it."""

    def __init__(
        self, path: str | Path, arrays: dict[str, Any], training: dict[str, Any], backend: Backend
    ) -> None:
        self.path, self.training, self.backend = path, training, backend
        self.groups: dict[str, dict[str, Any]] = {"optimizer": {}, "best": {}, "history": {}}
        self.groups[""] = {}
        for name, array in arrays.items():
            first, _, rest = name.partition(".")
            if first in self.groups:
                self.groups[first][rest] = array
            else:
                self.groups[""][name] = array

    def read(self, net: Network, optimizer: Any) -> TrainingState:
        training, epoch = self.training, self._whole("epoch")
        params = self._params(net, "", self.groups[""])
        memory = {name: self._array(name, a) for name, a in self.groups["optimizer"].items()}
        best = None
        if training["best"] is not None:
            at, loss = training["best"]["epoch"], training["best"]["loss"]
            if type(at) is not int or not 1 <= at <= epoch or type(loss) is not float:
                raise CheckpointError(f"{self.path}: no epoch can be the best: {at!r}, {loss!r}.")
            best = Best(at, loss, self._params(net, "best.", self.groups["best"]))
        elif self.groups["best"]:
            raise CheckpointError(f"{self.path} has best parameters, but does not say of when.")
        seconds = training["seconds"]
        if type(seconds) is not float or not seconds >= 0.0:
            raise CheckpointError(f"{self.path}: seconds must be a number >= 0, got {seconds!r}.")
        if not isinstance(training["run"], dict):
            raise CheckpointError(f"{self.path} does not describe its run.")
        return TrainingState(
            net=net,
            optimizer=optimizer,
            run=training["run"],
            epoch=epoch,
            params=params,
            opt_state=optimizer.unpack(memory, training["optimizer"], params),
            history=self._history(epoch),
            best=best,
            evaluations=self._whole("evaluations"),
            seconds=seconds,
        )

    def _params(self, net: Network, prefix: str, arrays: dict[str, Any]) -> Params:
        for name in sorted(net.shapes.keys() | arrays.keys()):
            if name not in arrays:
                raise CheckpointError(f"{self.path} lacks {prefix}{name}.")
            if name not in net.shapes:
                raise CheckpointError(f"{self.path} has an unknown array, {prefix}{name}.")
            if arrays[name].shape != net.shapes[name]:
                raise CheckpointError(
                    f"{self.path}: {prefix}{name} has shape {arrays[name].shape}, but this "
                    f"network's has {net.shapes[name]}."
                )
        return {name: self._array(f"{prefix}{name}", arrays[name]) for name in net.shapes}

    def _array(self, name: str, array: Any) -> Array:
        if array.dtype != self.backend.dtype_name:
            raise CheckpointError(
                f"{self.path}: {name} is {array.dtype}, but the backend computes in "
                f"{self.backend.dtype_name}. Select the run's own with RNN_XP_DTYPE={array.dtype}."
            )
        return self.backend.asarray(array)

    def _history(self, epoch: int) -> dict[str, list[float]]:
        columns = self.groups["history"]
        validated = self.training["run"].get("validation") is not None
        if validated != ("validation_loss" in columns) or (epoch and validated) != bool(
            self.groups["best"]
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
        value = self.training[name]
        if type(value) is not int or value < 0:
            raise CheckpointError(f"{self.path}: {name} must be an integer >= 0, got {value!r}.")
        return value
