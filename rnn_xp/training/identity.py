"""The identity of a run: its description, its platform, and checks when it is resumed."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rnn_xp.backend import Backend
from rnn_xp.distributed import fingerprint
from rnn_xp.kernels import kernels_of
from rnn_xp.training.state import TrainingState

__all__ = ["check_same", "check_settings", "description", "name_of", "whereabouts"]

_DIGESTS = ("data", "validation")  # known only once the data are in
_FREE = ("where", "fresh")  # what may differ in a resumed run
_REPAIR = (
    "A resumed run must be the same run; to start another from its weights, give params= instead."
)


def name_of(thing: Any) -> str:
    """Return a name for a loss or an optimiser that is the same in every process."""
    name = thing if isinstance(thing, str) else getattr(thing, "__qualname__", None) or repr(thing)
    return re.sub(r" at 0x[0-9a-f]+", "", name)


def whereabouts(backend: Backend) -> dict[str, Any]:
    """Describe the platform, on which the bits of a result depend beyond the run's definition."""
    where: dict[str, Any] = {
        "backend": f"{backend.name} {backend.version}",
        "device": backend.device_kind,
        "kernels": str(kernels_of(backend)),
        "rnn_xp": _own_version(),
    }
    if backend.is_accelerator and (products := os.environ.get("RNN_XP_MATMUL", "").strip()):
        where["products"] = products
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

    loaded = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
    # SciPy brings another, which computes nothing here, once something has imported it.
    libraries = [pool for pool in loaded if "numpy" in Path(pool["filepath"]).parent.name] or loaded
    keys = ("internal_api", "version", "architecture")
    return tuple(" ".join(str(pool.get(key)) for key in keys) for pool in libraries)


def description(state: TrainingState) -> dict[str, Any]:
    """Describe a training and its start, so that ranks can verify that they share both."""
    memory: dict[str, Any] = {}
    values: dict[str, Any] = {}
    # A state that cannot be packed is not compared; the optimiser's settings are.
    with contextlib.suppress(TypeError):
        memory, values = state.optimizer.pack(state.opt_state)
    return {
        **state.run,
        "network": dataclasses.asdict(state.net),
        "epochs done": state.epoch,
        "optimizer's values": values,
        "arrays of the start": fingerprint(state.on_host(memory)),
    }


def check_settings(was: Mapping[str, Any], settings: Mapping[str, Any], validated: bool) -> None:
    """Check that the settings of a run are those of the run to resume, before any data move.

    Parameters
    ----------
    was : mapping
        The description of the run to resume.
    settings : mapping
        The part of this run's description that is known without the data.
    validated : bool
        True if this run has validation.

    Raises
    ------
    ValueError
        If the settings differ.
    """
    for key in sorted((settings.keys() | was.keys()) - {*_FREE, *_DIGESTS}):
        if was.get(key) != settings.get(key):
            raise ValueError(
                f"fit: the run to resume has {key} {was.get(key)!r}, but this one has "
                f"{settings.get(key)!r}. {_REPAIR}"
            )
    if (was.get("validation") is not None) != validated:
        with_or_without = "without" if validated else "with"
        raise ValueError(
            f"fit: the run to resume was trained {with_or_without} validation, unlike this one. "
            f"{_REPAIR}"
        )


def check_same(state: TrainingState, run: Mapping[str, Any]) -> TrainingState:
    """Check that a run has the data of the run to resume, and return the updated state.

    The settings have been compared by `check_settings`.

    Raises
    ------
    ValueError
        If the data differ.

    Warns
    -----
    UserWarning
        If the run continues on another platform, so that its bits may differ.
    """
    for key in _DIGESTS:
        if state.run.get(key) != run.get(key):
            raise ValueError(
                f"fit: the run to resume has other values in its {key} than this one. {_REPAIR}"
            )
    was, now = state.run.get("where"), run["where"]
    if was != now:
        warnings.warn(
            f"the run was trained with {was} and continues with {now}: its bits may differ from "
            "the bits of an uninterrupted run.",
            stacklevel=4,
        )
    return dataclasses.replace(state, run={**state.run, **run})
