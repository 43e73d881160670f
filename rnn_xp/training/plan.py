"""The plan of a training: all decisions that follow from settings and shapes alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rnn_xp._typing import Engine, Loss, Params
from rnn_xp.backend import Backend
from rnn_xp.backend.arrays import detached
from rnn_xp.distributed import Comm, Ranks, Serial, Shares
from rnn_xp.engines.blocks import Batch, default_block_rows
from rnn_xp.engines.memory import workers_within
from rnn_xp.engines.portable import PortableEngine
from rnn_xp.engines.threads import count_workers
from rnn_xp.losses import resolve_loss, takes_classes
from rnn_xp.network import Network
from rnn_xp.optim import Optimizer
from rnn_xp.training import checks, identity, inputs
from rnn_xp.training import ranks as training_ranks
from rnn_xp.training.checks import whole
from rnn_xp.training.files import SavedState
from rnn_xp.training.result import FitResult
from rnn_xp.training.state import TrainingState

__all__ = ["Plan", "make_plan"]


@dataclass(frozen=True)
class Plan:
    """The decisions about a training, made before any data move.

    Attributes
    ----------
    net : Network
    loss : callable
    optimizer : Optimizer
    backend : Backend
        The library and device of the training.
    seed : int
    trained : range
        The rows of the given data that this rank brings in to train on.
    held_out : range, Batch or None
        The rows of the given data to validate on, or separate data; None without validation.
    rows : int
        Number of rows to train on, over all ranks.
    batch_size : int or None
        Number of rows of a minibatch; None for the full batch.
    truncate : (int, int) or None
        See `rnn_xp.fit`.
    block_rows : int
        Number of rows of a block.
    workers : int
        Number of threads of this rank.
    block_budget : int or None
        Memory of each thread for activations, in bytes; None without a limit.
    ranks : Ranks or None
        The ranks that share the work; None for a single one.
    shares : callable or None
        The blocks of each rank if it brings in its own rows only.
    settings : mapping
        The part of the run's description that is known without the data.
    saved : TrainingState, SavedState or None
        The state to resume from, with the same settings; None for a new run.
    params : Params or None
        The initial parameters of a new run; None for random ones.
    opt_state : object
        The initial state of the optimiser of a new run; None for its own.
    """

    net: Network
    loss: Loss
    optimizer: Optimizer
    backend: Backend
    seed: int
    trained: range
    held_out: range | Batch | None
    rows: int
    batch_size: int | None
    truncate: tuple[int, int] | None
    block_rows: int
    workers: int
    block_budget: int | None
    ranks: Ranks | None
    shares: Shares | None
    settings: Mapping[str, Any]
    saved: TrainingState | SavedState | None
    params: Params | None
    opt_state: Any

    def start(self) -> TrainingState:
        """Return the state that training starts from, on the backend."""
        if isinstance(self.saved, SavedState):
            return self.saved.to_device(self.optimizer)
        if self.saved is not None:
            return self.saved
        if self.params is None:
            params = self.net.init(self.seed, self.backend)
        else:
            params = {name: detached(array) for name, array in self.params.items()}
        columns = ("loss",) if self.held_out is None else ("loss", "validation_loss")
        return TrainingState(
            net=self.net,
            optimizer=self.optimizer,
            run={},
            epoch=0,
            params=params,
            opt_state=self.optimizer.init(params)
            if self.opt_state is None
            else self.optimizer.restart(self.opt_state),
            history={name: [] for name in columns},
        )

    def enter(self, source: Batch) -> tuple[Batch, Batch | None]:
        """Bring the data to the backend.

        Parameters
        ----------
        source : Batch
            All data, as they were given to `rnn_xp.fit`.

        Returns
        -------
        data : Batch
            The rows that this rank trains on.
        held_out : Batch or None
            The rows to validate on.
        """
        arrays, held_out = source._asdict(), self.held_out
        data = inputs.enter(self.net, self.loss, self.backend, **arrays, rows=self.trained)
        if isinstance(held_out, range):
            return data, inputs.enter(self.net, self.loss, self.backend, **arrays, rows=held_out)
        if held_out is None:
            return data, None
        with checks.of_validation():
            return data, inputs.enter(self.net, self.loss, self.backend, **held_out._asdict())

    def engine(self, data: Batch) -> PortableEngine:
        """Return the portable engine, which defines the correct result of this training."""
        noisy = self.net.dropout or self.net.recurrent_dropout
        return PortableEngine(
            net=self.net,
            loss=self.loss,
            optimizer=self.optimizer,
            backend=self.backend,
            data=data,
            block_rows=self.block_rows,
            batches=None
            if self.batch_size is None
            else inputs.shuffled(self.rows, self.batch_size, self.seed),
            truncate=self.truncate,
            noise=inputs.seeded(self.seed) if noisy else None,
            workers=self.workers,
            block_budget=self.block_budget,
            ranks=self.ranks,
            shares=self.shares,
        )

    def describe(
        self, portable: PortableEngine, engine: Engine, held_out: Batch | None
    ) -> dict[str, Any]:
        """Describe the run completely: settings, digests of the data, and where it runs."""
        where = {**identity.whereabouts(self.backend), "engine": engine.name}
        if self.ranks is not None and self.ranks.reduction != "exact":
            where["reduction"] = f"{self.ranks.reduction} on {self.ranks.comm.size} ranks"
        data = training_ranks.digest(portable.blocks, self.rows, self.ranks)
        validation = None
        if held_out is not None:
            blocks = portable.cut(held_out)
            validation = training_ranks.digest(blocks, held_out.x.shape[0], self.ranks)
        return {**self.settings, "data": data, "validation": validation, "where": where}

    def identify(self, start: TrainingState, run: dict[str, Any]) -> TrainingState:
        """Return the state with the run's description, checked against the run to resume."""
        if self.saved is not None:
            return identity.check_same(start, run)
        return dataclasses.replace(start, run={**run, "fresh": self.params is None})


def make_plan(
    net: Network,
    source: Batch,
    *,
    optimizer: Optimizer,
    loss: str | Loss,
    batch_size: int | None,
    truncate: tuple[int, int] | None,
    validation: Any,
    gap: int | None,
    params: Params | None,
    opt_state: Any,
    resume: FitResult | TrainingState | str | Path | None,
    seed: int,
    workers: int | None,
    memory_budget: int | None,
    block_rows: int | None,
    backend: Backend | None,
    comm: Comm | None,
    reduction: str,
    sharded: bool,
) -> Plan:
    """Check the arguments of `rnn_xp.fit` as far as possible without the data, and make the plan.

    Nothing is moved to a device. With several ranks, all of them must come here together.

    Parameters
    ----------
    net : Network
    source : Batch
        All data, as they were given to `rnn_xp.fit`.
    optimizer, loss, ... : object
        The arguments of `rnn_xp.fit`.

    Raises
    ------
    ValueError, TypeError, CheckpointError, CommError
        See `rnn_xp.fit`.
    """
    function = resolve_loss(loss, net.output_activation)
    classes = takes_classes(function)
    checks.check_optimizer(optimizer)
    checks.check_curvature(optimizer, function)
    backend = checks.resolve_backend(source.x, backend)
    seed = whole("seed", seed, 0)
    everyone = Ranks(Serial() if comm is None else comm, reduction)
    ranks = everyone if everyone.comm.size > 1 else None
    if sharded:
        training_ranks.check_sharded(source.x, batch_size, validation)
    checks.check_arrays(net, source, classes)
    trained, held_out = checks.plan_validation(net, source, classes, validation, gap)
    if ranks is not None:
        training_ranks.agree_on_data(ranks, source, sharded, batch_size, validation)
    counts = training_ranks.rows_of_shards(ranks, len(trained), sharded)
    rows = sum(counts)
    if batch_size is not None:
        batch_size = whole("batch_size", batch_size, 1, rows)
        batch_size = None if batch_size == rows else batch_size
    if truncate is not None:
        checks.check_truncation(net, truncate, batch_size, source.lengths)
    noisy = bool(net.dropout or net.recurrent_dropout)
    checks.check_full_batch(optimizer, batch_size, truncate, noisy)
    saved = _saved(resume, net, backend)
    if block_rows is None:
        recorded = None if saved is None else saved.run.get("block_rows")
        block_rows = recorded or default_block_rows(
            backend, batch_size or rows, net.hidden_size, checks.steps_of(net, source)
        )
    block_rows = whole("block_rows", block_rows, 1)
    settings = {
        "seed": seed,
        "rows": rows,
        "batch_size": batch_size,
        "block_rows": block_rows,
        **_settings(optimizer, loss, truncate, backend),
    }
    if any(count % block_rows for count in counts[:-1]):
        settings["rows of each shard"] = counts  # where blocks end that are not full
    _check_start(saved, settings, net, params, opt_state, validated=validation is not None)
    workers = None if workers is None else whole("workers", workers, 1)
    workers = count_workers(workers, backend, everyone.comm.sharing)
    again = truncate is None and not any(name.startswith("curvature") for name in optimizer.needs)
    block_budget = None
    if memory_budget is not None:
        largest = _largest_block(batch_size or rows, held_out, block_rows)
        workers = _within(memory_budget, net, source, largest, backend, workers, again=again)
        block_budget = memory_budget // workers if again else None
    part, shares = trained, None
    if ranks is not None and batch_size is None:
        part, shares = training_ranks.part_of_rank(ranks, trained, block_rows, counts)
    return Plan(
        net=net, loss=function, optimizer=optimizer, backend=backend, seed=seed, trained=part,
        held_out=held_out, rows=rows, batch_size=batch_size, truncate=truncate,
        block_rows=block_rows, workers=workers, block_budget=block_budget, ranks=ranks,
        shares=shares, settings=settings, saved=saved, params=params, opt_state=opt_state,
    )  # fmt: skip


def _saved(resume: Any, net: Network, backend: Backend) -> TrainingState | SavedState | None:
    """Return the state to resume from, which stays where it is: in memory, or in a file."""
    resume = resume.state if isinstance(resume, FitResult) else resume
    if isinstance(resume, str | Path):
        path = Path(resume) / "last.safetensors" if Path(resume).is_dir() else resume
        return SavedState(path, net, backend)
    if not isinstance(resume, TrainingState | None):
        raise TypeError(
            "fit: resume must be a path, a result of fit or its state, got "
            f"{type(resume).__name__}."
        )
    return resume


def _settings(
    optimizer: Optimizer, loss: Any, truncate: tuple[int, int] | None, backend: Backend
) -> dict[str, Any]:
    """Describe the settings that are not numbers in a form that JSON can hold."""
    return {
        "optimizer": identity.name_of(optimizer),
        "loss": identity.name_of(loss),
        "truncate": None if truncate is None else [int(k) for k in truncate],
        "dtype": backend.dtype_name,
    }


def _check_start(
    saved: TrainingState | SavedState | None,
    settings: Mapping[str, Any],
    net: Network,
    params: Params | None,
    opt_state: Any,
    *,
    validated: bool,
) -> None:
    """Refuse to start from another network's parameters, or from the state of another run."""
    if saved is None:
        if params is not None:
            checks.check_params(net, params)
        return
    if params is not None or opt_state is not None:
        raise ValueError("fit: resume= brings its own params and opt_state; leave these out.")
    if saved.net != net:
        raise ValueError(f"fit: the state to resume from is of another network, {saved.net!r}.")
    identity.check_settings(saved.run, settings, validated)


def _largest_block(rows: int, held_out: range | Batch | None, block_rows: int) -> int:
    """Return the number of rows of the largest block, in an update or a validation."""
    if isinstance(held_out, Batch):
        rows = max(rows, int(np.shape(held_out.x)[0]))
    elif held_out is not None:
        rows = max(rows, len(held_out))
    return min(block_rows, rows)


def _within(
    memory_budget: int,
    net: Network,
    source: Batch,
    rows: int,
    backend: Backend,
    workers: int,
    *,
    again: bool,
) -> int:
    """Return the number of threads that a memory budget allows."""
    budget = whole("memory_budget", memory_budget, 1)
    itemsize = 4 if backend.dtype_name == "float32" else 8
    steps = checks.steps_of(net, source)
    return workers_within(budget, net, steps, rows, itemsize, workers, again=again)
