"""Files that hold a fitted estimator, without pickle: settings, networks, scaling, classes.

The parameters of the first network have their own names; those of further networks begin with
``network1.`` and so on. Losses are kept as ``history.loss`` and ``history.validation_loss``.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from sklearn.utils.validation import check_is_fitted

from rnn_xp import checkpoint
from rnn_xp._typing import Params
from rnn_xp.backend import Backend, get_backend, to_numpy
from rnn_xp.checkpoint import CheckpointError
from rnn_xp.network import Network

__all__ = ["Member", "Saved"]

_SCHEMA = 1
_FITTED = ("_channels_first", "_flat", "_ragged", "n_features_in_", "n_outputs_", "patch_size_")


class Member(NamedTuple):
    """One network of an estimator: what it predicts with, and what its training goes on from."""

    params: Params
    last_params: Params
    opt_state: Any
    losses: list[float]
    validation_losses: list[float]


class Saved:
    """How an estimator is written to a file and read from it."""

    _members: list[Member]

    def save(self, path: str | Path) -> None:
        """Write the fitted estimator to a file, atomically.

        It holds what predictions need, and the losses of the training. The solver's state is not
        kept, nor are settings that are objects: a solver, a backend, a random state.

        Parameters
        ----------
        path : path

        Raises
        ------
        TypeError
            If classes are neither text nor numbers.
        OSError
        """
        check_is_fitted(self)
        arrays: dict[str, Any] = {}
        for k, member in enumerate(self._members):
            arrays |= {_prefix(k) + name: to_numpy(p) for name, p in member.params.items()}
            arrays[_prefix(k) + "history.loss"] = np.asarray(member.losses)
            if member.validation_losses:
                losses = np.asarray(member.validation_losses)
                arrays[_prefix(k) + "history.validation_loss"] = losses
        scaling = getattr(self, "scaling_", None)
        if scaling is not None:
            arrays |= dict(zip(("scaling.mean", "scaling.deviation"), scaling, strict=True))
        classes = getattr(self, "classes_", None)
        about = {
            "estimator": _SCHEMA,
            "kind": type(self).__name__,
            "parameters": {k: v for k, v in self.get_params(deep=False).items() if _is_plain(v)},  # type: ignore[attr-defined]
            "network": dataclasses.asdict(self.net_),  # type: ignore[attr-defined]
            "networks": len(self._members),
            "dtype": self._origin[2],  # type: ignore[attr-defined]
            "fitted": {name: getattr(self, name) for name in _FITTED if hasattr(self, name)},
            "classes": None if classes is None else [classes.dtype.str, classes.tolist()],
        }
        if not _is_plain(about["classes"]):
            raise TypeError(f"classes must be text or numbers to be saved, got {classes}.")
        checkpoint.save(path, arrays, about)

    @classmethod
    def load(cls, path: str | Path, backend: Backend | None = None) -> Self:
        """Read an estimator that `save` wrote.

        Parameters
        ----------
        path : path
            The file, or a folder with a ``model.safetensors``.
        backend : Backend, optional
            What is to compute its predictions, NumPy by default, in the dtype of the training.

        Returns
        -------
        estimator
            It predicts the same; `fit` with ``warm_start=True`` goes on from its weights with a
            new state of the solver.

        Raises
        ------
        CheckpointError
            If the file is damaged, or holds another kind of model.
        """
        path = Path(path)
        path = path / "model.safetensors" if path.is_dir() else path
        arrays, about = checkpoint.load(path)
        if about.get("kind") != cls.__name__ or about.get("estimator") != _SCHEMA:
            what = about["kind"] if "estimator" in about else "another kind of model"
            raise CheckpointError(f"{path} holds {what}, and no {cls.__name__} of this version.")
        try:
            return cls._loaded(arrays, about, backend)
        except (KeyError, TypeError, ValueError) as error:
            what = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
            raise CheckpointError(f"{path} does not fit its own description: {what}.") from error

    @classmethod
    def _loaded(
        cls, arrays: dict[str, Any], about: dict[str, Any], backend: Backend | None
    ) -> Self:
        model = cls(**about["parameters"])
        net, dtype = Network(**about["network"]), about["dtype"]
        place = get_backend("numpy", dtype=dtype) if backend is None else backend
        members = []
        for k in range(int(about["networks"])):
            named = {name: arrays.pop(_prefix(k) + name) for name in net.shapes}
            if {name: array.shape for name, array in named.items()} != net.shapes:
                raise ValueError("shapes do not match its network")
            params = {name: place.asarray(array) for name, array in named.items()}
            losses, held_out = (
                arrays.pop(f"{_prefix(k)}history.{name}", np.empty(0)).tolist()
                for name in ("loss", "validation_loss")
            )
            members.append(Member(params, params, None, losses, held_out))
        scaling = tuple(arrays.pop(f"scaling.{name}", None) for name in ("mean", "deviation"))
        if arrays:
            raise ValueError(f"{min(arrays)!r} is not known")
        if about["classes"] is not None:
            kind, values = about["classes"]
            model.classes_ = np.array(values, dtype=kind)  # type: ignore[attr-defined]
        for name in _FITTED:
            if name in about["fitted"]:
                setattr(model, name, about["fitted"][name])
        model.scaling_ = None if scaling[0] is None else scaling  # type: ignore[attr-defined]
        model._on_host = True  # type: ignore[attr-defined]
        model._keep(net, members, net.output_size, place)  # type: ignore[attr-defined]
        return model


def _is_plain(value: Any) -> bool:
    """Return True if JSON gives the value back as it was."""
    try:
        return bool(json.loads(json.dumps(value)) == value)
    except (TypeError, ValueError):
        return False


def _prefix(number: int) -> str:
    return f"network{number}." if number else ""
