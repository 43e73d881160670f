"""`fit`: from host data to trained parameters."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rnn_xp._typing import Array, Loss, Optimizer, Params
from rnn_xp.backend import Backend
from rnn_xp.distributed import Comm, Ranks, Serial, agree
from rnn_xp.engines.blocks import default_block_rows
from rnn_xp.engines.cuda_fused import fastest
from rnn_xp.engines.memory import workers_within
from rnn_xp.engines.portable import PortableEngine
from rnn_xp.engines.threads import count_workers, one_blas_thread
from rnn_xp.losses import resolve_loss, takes_classes
from rnn_xp.network import Network
from rnn_xp.training import inputs as training_data
from rnn_xp.training import ranks as training_ranks
from rnn_xp.training import state as training_state
from rnn_xp.training.callbacks import Callback
from rnn_xp.training.loop import Loop, Watch
from rnn_xp.training.state import TrainingState, all_finite

__all__ = ["FitResult", "fit"]


@dataclass(frozen=True)
class FitResult:
    """What `fit` returns.

    Attributes
    ----------
    params : Params
        The last parameters, on the backend that trained them.
    best_params : Params or None
        With validation: those of the lowest validation loss.
    best_epoch : int or None
        With validation: the epoch, counted from 1, that left them.
    history : dict of str to list of float
        ``history["loss"][k]`` is the loss before update k (with minibatches: epoch k's mean over
        its batches), ``history["validation_loss"][k]`` that of the parameters epoch k left.
    stopped : str
        Why training ended before the last epoch; empty if it did not.
    evaluations : int
        How many times a loss and its gradient were computed, line searches included.
    seconds : float
        Wall time of the epochs.
    backend : Backend
    engine : str
        What computed the epochs: "portable", or "cuda_fused", see `rnn_xp.engines.cuda_fused`.
    engine_reason : str
        On CuPy, why it was not the fused engine, or not with a CUDA graph; empty if it was.
    block_rows, workers, ranks : int
        Workers are those of this rank.
    state : TrainingState
        To go on from with ``fit(resume=)``.
    """

    params: Params
    best_params: Params | None
    best_epoch: int | None
    history: dict[str, list[float]]
    stopped: str
    evaluations: int
    seconds: float
    backend: Backend
    engine: str
    engine_reason: str
    block_rows: int
    workers: int
    ranks: int
    state: TrainingState


def fit(
    net: Network,
    x: Array,
    y: Array,
    *,
    optimizer: Optimizer,
    epochs: int,
    loss: str | Loss = "mse",
    batch_size: int | None = None,
    sample_weight: Array | None = None,
    lengths: Array | None = None,
    mask: Array | None = None,
    reset: Array | None = None,
    truncate: tuple[int, int] | None = None,
    validation: float | tuple[Array, Array] | Mapping[str, Array] | None = None,
    gap: int | None = None,
    patience: int | None = None,
    tolerance: float = 0.0,
    params: Params | None = None,
    opt_state: Any = None,
    resume: FitResult | TrainingState | str | Path | None = None,
    seed: int = 0,
    workers: int | None = None,
    memory_budget: int | None = None,
    block_rows: int | None = None,
    backend: Backend | None = None,
    callbacks: Sequence[Callback] = (),
    comm: Comm | None = None,
    reduction: str = "exact",
    sharded: bool = False,
) -> FitResult:
    """Train a network.

    NumPy data go to the selected backend; arrays of another library stay where they are and
    decide. Equal seed, backend, device, kind of CPU and versions give equal bits, whatever the
    number of workers and ranks and the memory, and however often training was interrupted and
    resumed.

    Parameters
    ----------
    net : Network
    x : array (N, T, I)
        For one_to_many (N, 1, I).
    y : array (N, O) or (N, T, O); class indices (N,) or (N, T)
    optimizer : Optimizer
        Such as ``rnn_xp.optim.lbfgs()`` for a full batch or ``rnn_xp.optim.adam(0.01)``.
    epochs : int
        Passes over the data, >= 1. With a full batch each is one update.
    loss : str or callable
        See `rnn_xp.Network.value_and_grad`.
    batch_size : int, optional
        Rows per update, 1..N; the full batch by default. Smaller batches are drawn anew in every
        epoch, by (seed, epoch) alone.
    sample_weight : array (N,) or (N, T), optional
        Non-negative.
    lengths, mask, reset : arrays, optional
        See `rnn_xp.Network`.
    truncate : (int, int), optional
        (k1, k2) of truncated backpropagation through time: an update after every k1 steps, whose
        gradient reaches back k2 >= k1 steps. Rows are then streams that run side by side, and the
        batch is full.
    validation : float, (x, y) or mapping, optional
        What `FitResult.best_params` and `patience` go by. A share in (0, 1): the last rows of the
        data are not trained on. Otherwise data of their own, as a pair or by the names of the
        arguments here: x, y, sample_weight, lengths, mask, reset.
    gap : int, optional
        With a share: rows left out between training and validation. T + O - 1 by default, so that
        windows of one series (whose O outputs are steps ahead) share no value across the gap.
    patience : int, optional
        End training after so many epochs without a lower validation loss, or, without validation,
        without a lower loss.
    tolerance : float
        By which share a loss must be lower for ``patience`` to count it; >= 0.
    params : Params, optional
        Where to start; ``net.init(seed)`` by default.
    opt_state : optional
        Where the optimiser starts, such as another result's ``state.opt_state``; afresh by default.
    resume : FitResult, TrainingState or path, optional
        Go on from a result, or from the file or folder of a `rnn_xp.callbacks.Checkpoint`, to the
        same bits as if never interrupted. ``epochs`` counts those already done; everything else
        must be as it was.
    seed : int
        Non-negative. Of the initial weights, the order of minibatches, and dropout, whose masks
        are a function of (seed, update, block).
    workers : int, optional
        Threads of each rank, on NumPy only; all its cores by default.
    memory_budget : int, optional
        Bytes that activations may take; limits how many threads work at once. Never changes a bit.
    block_rows : int, optional
        Rows of a block. By default 1040 on a CPU, or half of an update's rows where these are no
        more than 1040 and have 16,384 numbers or more in their state; 65,536 on an accelerator. A
        part of the definition of the result, since sums of other blocks are rounded differently.
    backend : Backend, optional
        `rnn_xp.get_backend` by default.
    callbacks : sequence of callable
        Each is called with an `rnn_xp.callbacks.Epoch` after every epoch.
    comm : Comm, optional
        Ranks to share the work with, such as `rnn_xp.distributed.mpi` finds; all of them make the
        same call, but may have other callbacks and, if ``sharded``, have other rows. With the full
        batch each brings its own rows to the backend, and of data that are mapped from files
        (`rnn_xp.open_shards`, ``numpy.load(mmap_mode="r")``) reads no other, besides a thousand by
        which all know that they have the same, and those to validate on.
    reduction : str
        How ranks add up: "exact", to the bits of a single one, or "fast", see
        `rnn_xp.distributed.reduction`.
    sharded : bool
        Whether the data given are the rows of this rank alone, which no other can read; those of
        all ranks follow each other. For the full batch, and a ``validation`` that all have. If
        every rank but the last has a multiple of ``block_rows`` rows, the result is that of
        all rows on a single rank, to the bit; otherwise blocks end with each rank's rows.

    Returns
    -------
    FitResult

    Raises
    ------
    ValueError, TypeError
        For shapes, sizes or values that cannot be trained on, or a state of another run.
    CheckpointError
        If the file to resume from is damaged.
    DivergenceError
        If the loss stops being finite, or is over ten times its lowest for 100 epochs (a
        loss below a thousandth of the first counts as that); it carries the last good parameters.

    Warns
    -----
    UserWarning
        If a run is resumed where its bits may differ: another library, version or kind of CPU.

    Examples
    --------
    >>> import rnn_xp as rx
    >>> x, y = rx.make_windows([i % 7 / 7 for i in range(100)], seq_length=10)
    >>> net = rx.Network(input_size=1, hidden_size=8, output_size=1)
    >>> result = rx.fit(net, x, y, optimizer=rx.optim.lbfgs(), epochs=30)
    >>> result.history["loss"][-1] < 0.01 * result.history["loss"][0]
    True
    """
    function = resolve_loss(loss, net.output_activation)
    full_batch_only = training_data.check_optimizer(optimizer)
    backend = training_data.resolve_backend(x, backend)
    epochs = training_data.whole("epochs", epochs, 1)
    seed = training_data.whole("seed", seed, 0)
    watch = _watch(patience, tolerance)
    everyone = Ranks(Serial() if comm is None else comm, reduction)
    ranks = everyone if everyone.comm.size > 1 else None
    if sharded:
        training_ranks.check_sharded(x, batch_size, validation)
    if callable(callbacks):
        raise TypeError(f"fit: callbacks must be a list of them, got {callbacks!r}.")
    training_data.check_shapes(net, x, y, takes_classes(function))
    arrays = {"x": x, "y": y, "sample_weight": sample_weight}
    arrays |= {"lengths": lengths, "mask": mask, "reset": reset}
    trained, held_out_rows = training_data.split_validation(net, function, x, y, validation, gap)
    counts = [len(trained)]  # rows of each shard
    if ranks is not None:
        training_ranks.agree_on_data(
            ranks, arrays, sharded=sharded, batch_size=batch_size, validation=validation
        )
        if sharded:
            counts = ranks.comm.gather(np.asarray(counts))[:, 0].tolist()
    rows = sum(counts)
    if batch_size is not None:
        batch_size = training_data.whole("batch_size", batch_size, 1, rows)
        batch_size = None if batch_size == rows else batch_size
    if truncate is not None:
        training_data.check_truncation(net, truncate, batch_size, lengths)
    noisy = bool(net.dropout or net.recurrent_dropout)
    if full_batch_only and (batch_size or truncate or noisy):
        raise ValueError(
            f"{type(optimizer).__name__} needs the full batch, without truncation or dropout: its "
            "line search compares losses, which must be those of one function. Leave these out, "
            "or use rnn_xp.optim.adam()."
        )
    resume = _read_state(resume, net, optimizer, backend)
    if block_rows is None:
        recorded = resume.run.get("block_rows") if resume is not None else None
        block_rows = recorded or default_block_rows(backend, batch_size or rows, net.hidden_size)
    block_rows = training_data.whole("block_rows", block_rows, 1)
    part, shares = trained, None
    if ranks is not None and batch_size is None:
        part, shares = training_ranks.part_of_rank(ranks, trained, block_rows, counts)
    data = training_data.enter(net, function, backend, **arrays, rows=part)
    held_out = None
    if held_out_rows:
        held_out = training_data.enter(net, function, backend, **arrays, rows=held_out_rows)
    elif validation is not None:
        held_out = training_data.enter_validation(net, function, backend, validation)
    workers = None if workers is None else training_data.whole("workers", workers, 1)
    workers = count_workers(workers, backend, everyone.comm.sharing)
    if memory_budget is not None:
        budget = training_data.whole("memory_budget", memory_budget, 1)
        steps = (data.y if net.topology == "one_to_many" else data.x).shape[1]
        itemsize = 4 if backend.dtype_name == "float32" else 8
        workers = workers_within(budget, net, steps, min(block_rows, rows), itemsize, workers)
    portable = PortableEngine(
        net=net,
        loss=function,
        optimizer=optimizer,
        backend=backend,
        data=data,
        block_rows=block_rows,
        batches=None if batch_size is None else training_data.shuffled(rows, batch_size, seed),
        truncate=truncate,
        noise=training_data.seeded(seed) if noisy else None,
        workers=workers,
        ranks=ranks,
        shares=shares,
    )
    engine = fastest(portable)
    where = {**training_state.whereabouts(backend), "engine": engine.name}
    if ranks is not None and reduction != "exact":
        where["reduction"] = f"{reduction} on {ranks.comm.size} ranks"
    run = {
        "optimizer": _name(optimizer),
        "loss": _name(loss),
        "seed": seed,
        "rows": rows,
        "batch_size": batch_size,
        "truncate": None if truncate is None else [int(k) for k in truncate],
        "block_rows": block_rows,
        "dtype": backend.dtype_name,
        "data": training_ranks.digest(portable.blocks, rows, ranks),
        "validation": None,
        "where": where,
    }
    if held_out is not None:
        blocks = portable.cut(held_out)
        run["validation"] = training_ranks.digest(blocks, held_out.x.shape[0], ranks)
    if any(count % block_rows for count in counts[:-1]):
        run["rows of each shard"] = counts  # where blocks end that are not full
    if resume is None:
        run["fresh"] = watch.fresh = params is None
        params = net.init(seed, backend) if params is None else dict(params)
        if not all_finite(params):
            raise ValueError("fit: the given params have values that are not finite.")
        start = TrainingState(
            net=net,
            optimizer=optimizer,
            run=run,
            epoch=0,
            params=params,
            opt_state=optimizer.init(params) if opt_state is None else _going_on(opt_state),
            history={"loss": []} if held_out is None else {"loss": [], "validation_loss": []},
        )
    else:
        if params is not None or opt_state is not None:
            raise ValueError("fit: resume= brings its own params and opt_state; leave these out.")
        start = training_state.check_same(resume, net, run)
        watch.fresh = bool(start.run.get("fresh", True))
    if ranks is not None:
        settings = {"epochs": epochs, "patience": patience, "tolerance": tolerance}
        agree(ranks.comm, {**training_state.description(start), **settings})
    totals = {"training": portable.total_of_data}
    if held_out is not None:
        totals["validation"] = portable.total(held_out)
    for what, total in totals.items():
        if not float(total) > 0.0:
            raise ValueError(
                f"fit: nothing counts in the {what} rows: all is masked, or of weight 0."
            )
    loop = Loop(engine, start, epochs, callbacks, held_out, watch)
    # Overflow is reported once, as a DivergenceError, and not by a warning from each operation.
    quiet = np.errstate(over="ignore", invalid="ignore", under="ignore")
    with quiet, one_blas_thread(backend), engine.running():
        state = loop.train()
    return FitResult(
        params=state.params,
        best_params=None if state.best is None else state.best.params,
        best_epoch=None if state.best is None else state.best.epoch,
        history=state.history,
        stopped=loop.stopped,
        evaluations=state.evaluations,
        seconds=state.seconds,
        backend=backend,
        engine=engine.name,
        engine_reason=engine.reason,
        block_rows=engine.block_rows,
        workers=engine.workers,
        ranks=everyone.comm.size,
        state=state,
    )


def _watch(patience: int | None, tolerance: float) -> Watch:
    if patience is not None:
        patience = training_data.whole("patience", patience, 1)
    if not 0.0 <= tolerance < 1.0:
        raise ValueError(f"fit: tolerance must be in [0, 1), a share, got {tolerance!r}.")
    return Watch(patience, tolerance)


def _name(thing: Any) -> str:
    """Name a loss or an optimiser in the description of a run, alike in every process."""
    name = thing if isinstance(thing, str) else getattr(thing, "__qualname__", None) or repr(thing)
    return re.sub(r" at 0x[0-9a-f]+", "", name)


def _read_state(
    resume: Any, net: Network, optimizer: Optimizer, backend: Backend
) -> TrainingState | None:
    """Take the state to resume from whatever holds one."""
    resume = resume.state if isinstance(resume, FitResult) else resume
    if isinstance(resume, str | Path):
        path = Path(resume) / "last.safetensors" if Path(resume).is_dir() else resume
        return training_state.load(path, net, optimizer, backend)
    if not isinstance(resume, TrainingState | None):
        raise TypeError(
            "fit: resume must be a path, a result of fit or its state, got "
            f"{type(resume).__name__}."
        )
    return resume


def _going_on(opt_state: Any) -> Any:
    """Return an optimiser's state that has forgotten why an earlier training ended."""
    return opt_state._replace(message="") if getattr(opt_state, "message", "") else opt_state
