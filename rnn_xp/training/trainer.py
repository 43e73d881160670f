"""`fit`: from host data to trained parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rnn_xp._typing import Array, Loss, Params
from rnn_xp.backend import Backend
from rnn_xp.distributed import Comm, agree
from rnn_xp.engines.blocks import Batch
from rnn_xp.engines.choice import fastest
from rnn_xp.engines.threads import one_blas_thread
from rnn_xp.network import Network
from rnn_xp.optim import Optimizer
from rnn_xp.training.callbacks import Callback
from rnn_xp.training.checks import whole
from rnn_xp.training.identity import description
from rnn_xp.training.inputs import read_batch
from rnn_xp.training.loop import Loop
from rnn_xp.training.plan import make_plan
from rnn_xp.training.probing import admit
from rnn_xp.training.result import FitResult
from rnn_xp.training.state import TrainingState
from rnn_xp.training.watch import Watch

__all__ = ["fit"]


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

    NumPy arrays, lists and shards are moved to the selected backend. Arrays of another library
    stay on their device, and training runs there.

    All settings and shapes are checked before any data are moved, so an argument that cannot work
    fails at once and costs nothing.

    The same seed, backend, device, kind of CPU and versions give the same bits. The number of
    threads, the number of ranks, the memory budget, and interruptions after which training was
    resumed do not change them.

    Parameters
    ----------
    net : Network
        The network to train. It is not changed; the trained parameters are in the result.
    x : array (N, T, I)
        The input sequences; (N, 1, I) for the topology one_to_many.
    y : array (N, O) or (N, T, O)
        The targets: (N, O) for many_to_one, otherwise (N, T, O). A loss for classes, such as
        "cross_entropy", takes class indices of shape (N,) or (N, T) instead.
    optimizer : Optimizer
        The update rule, such as ``rnn_xp.optim.adam(0.01)``, or ``rnn_xp.optim.lbfgs()`` for full
        batches. For your own, derive a class from `rnn_xp.optim.Optimizer`.
    epochs : int
        Number of passes over the data, >= 1. With the full batch each pass is one update.
    loss : str or callable
        The name of a loss of `rnn_xp.losses`, or a function as described in
        `rnn_xp.Network.value_and_grad`. On a GPU its Python code may run once for many updates,
        see docs/guide/gpu.md.
    batch_size : int, optional
        Number of rows in an update, from 1 to N; by default all N (the full batch). Smaller batches
        are shuffled anew in every epoch, in an order that depends on ``seed`` and the epoch only.
    sample_weight : array (N,) or (N, T), optional
        Non-negative weights of the rows, or of the steps of each row.
    lengths : array (N,), optional
        The number of valid steps of each row, see `rnn_xp.Network`.
    mask : array (N, T) of bool, optional
        False for steps to skip, see `rnn_xp.Network`.
    reset : array (N, T) of bool, optional
        True for steps before which the state is set to its initial value, see `rnn_xp.Network`.
    truncate : (int, int), optional
        (k1, k2) for truncated backpropagation through time: there is an update after every k1
        steps, and its gradient reaches back k2 >= k1 steps. The rows are then parallel streams
        whose states carry over from update to update, and the full batch is required.
    validation : float, (x, y) or mapping, optional
        The data on which ``FitResult.best_params`` are chosen and that ``patience`` watches. A
        float in (0, 1) is the share of the rows, taken from the end, that are not trained on.
        Separate data are given as a pair (x, y), or as a mapping with the keys x, y, and
        optionally sample_weight, lengths, mask and reset.
    gap : int, optional
        If ``validation`` is a share: number of rows to leave out before the validation rows. By
        default T + O - 1, so that windows of one series, with O steps ahead as outputs, have no
        value in common across the gap; T if the targets are classes.
    patience : int, optional
        Number of epochs without an improvement after which training ends, >= 1. The validation loss
        is watched if there is validation, otherwise the training loss. By default training does
        not end early.
    tolerance : float
        Minimum relative improvement for ``patience``, in [0, 1).
    params : Params, optional
        The initial parameters; by default ``net.init(seed)``.
    opt_state : object, optional
        The initial state of the optimiser, such as ``result.state.opt_state``; by default the
        optimiser's own.
    resume : FitResult, TrainingState or path, optional
        A training to continue: a result, its state, or the file or folder of a
        `rnn_xp.callbacks.Checkpoint`. The result has the same bits as an uninterrupted training.
        ``epochs`` counts from the beginning, including epochs that were completed before. Data and
        settings must be the same; ``epochs``, ``patience``, ``tolerance``, ``callbacks`` and
        whatever does not change the bits may differ.
    seed : int
        Seeds the initial parameters, the order of minibatches, and dropout, whose masks depend on
        the seed, the update and the block only; >= 0.
    workers : int, optional
        Number of threads of each rank, >= 1, on NumPy only; by default one for each available core.
    memory_budget : int, optional
        Maximum memory for activations, in bytes. It limits the number of threads that compute at
        once, and how much of a long sequence they keep: steps are computed again where that is
        faster than fewer threads, or where one block would not fit. The data, the parameters and
        the optimiser's state need further memory.
    block_rows : int, optional
        Number of rows of a block, the unit of work of a thread. By default 1040 on a CPU (or half
        the rows of an update, if there are no more than 1040 and their states hold 16,384 numbers
        or more) and 65,536 on an accelerator. Different blocks round sums differently, so this is
        part of the definition of the result.
    backend : Backend, optional
        The backend for data from the host; by default `rnn_xp.get_backend` selects it.
    callbacks : sequence of callable
        Functions that are called with an `rnn_xp.callbacks.Epoch` after every epoch, in this order.
    comm : Comm, optional
        The ranks that share the work, such as `rnn_xp.distributed.mpi` returns. All of them must
        make the same call, but their callbacks may differ, and their rows if ``sharded``. With the
        full batch, each rank moves only its own rows to the backend. From memory-mapped files
        (`rnn_xp.open_shards`, ``numpy.load(mmap_mode="r")``) it reads no other rows, except a
        sample of 1000 with which the ranks verify that they share the same data, and the
        validation rows.
    reduction : {"exact", "fast"}
        How gradients of different ranks are added: "exact" gives the bits of a single rank, see
        `rnn_xp.distributed.reduction`.
    sharded : bool
        If True, the given rows are those of this rank alone, and the ranks' rows follow each other.
        It requires the full batch, and validation data that are the same on all ranks. The result
        equals that of a single rank to the bit if the number of rows of every rank but the last is
        a multiple of ``block_rows``; otherwise each rank's rows end with a short block.

    Returns
    -------
    FitResult
        The trained parameters, the losses of all epochs, and the state to resume from.

    Raises
    ------
    ValueError, TypeError
        If shapes, settings or values cannot be trained on, or if ``resume`` is another run.
    CheckpointError
        If the file to resume from is damaged or belongs to another network.
    DivergenceError
        If the loss or the parameters are no longer finite, or if the loss exceeds ten times its
        lowest value for 100 epochs (where a lowest value below a thousandth of the first loss
        counts as a thousandth of it). The error carries the last good parameters.
    CommError
        If the ranks were started with different data or settings.

    Warns
    -----
    UserWarning
        If a run is resumed where its bits may differ: with another library, version or kind of CPU.

    Examples
    --------
    >>> import rnn_xp as rx
    >>> x, y = rx.make_windows([i % 7 / 7 for i in range(100)], seq_length=10)
    >>> net = rx.Network(input_size=1, hidden_size=8, output_size=1)
    >>> result = rx.fit(net, x, y, optimizer=rx.optim.lbfgs(), epochs=30)
    >>> result.history["loss"][-1] < 0.01 * result.history["loss"][0]
    True

    The same training in two parts:

    >>> half = rx.fit(net, x, y, optimizer=rx.optim.lbfgs(), epochs=15)
    >>> whole = rx.fit(net, x, y, optimizer=rx.optim.lbfgs(), epochs=30, resume=half)
    >>> whole.history == result.history
    True
    """
    epochs = whole("epochs", epochs, 1)
    watch = _watch(patience, tolerance)
    if callable(callbacks):
        raise TypeError(f"fit: callbacks must be a list of them, got {callbacks!r}.")
    source = read_batch(Batch(x, y, sample_weight, lengths, mask, reset))
    plan = make_plan(
        net, source, optimizer=optimizer, loss=loss, batch_size=batch_size, truncate=truncate,
        validation=validation, gap=gap, params=params, opt_state=opt_state, resume=resume,
        seed=seed, workers=workers, memory_budget=memory_budget, block_rows=block_rows,
        backend=backend, comm=comm, reduction=reduction, sharded=sharded,
    )  # fmt: skip
    admit(plan.backend, fit)
    start = plan.start()
    data, held_out = plan.enter(source)
    portable = plan.engine(data)
    engine = fastest(portable)
    start = plan.identify(start, plan.describe(portable, engine, held_out))
    watch.fresh = bool(start.run.get("fresh", True))
    if plan.ranks is not None:
        settings = {"epochs": epochs, "patience": patience, "tolerance": tolerance}
        agree(plan.ranks.comm, {**description(start), **settings})
    _check_total("training", portable.total_of_data)
    if held_out is not None:
        _check_total("validation", portable.total(held_out))
    loop = Loop(engine, start, epochs, callbacks, held_out, watch)
    # Overflow is reported once, as a DivergenceError, and not by a warning from each operation.
    quiet = np.errstate(over="ignore", invalid="ignore", under="ignore")
    with quiet, one_blas_thread(plan.backend), engine.running():
        state = loop.train()
    return FitResult(
        params=state.params,
        best_params=None if state.best is None else state.best.params,
        best_epoch=None if state.best is None else state.best.epoch,
        history=state.history,
        stopped=loop.stopped,
        evaluations=state.evaluations,
        seconds=state.seconds,
        backend=plan.backend,
        engine=engine.name,
        engine_reason=engine.reason,
        block_rows=engine.block_rows,
        workers=engine.workers,
        ranks=1 if plan.ranks is None else plan.ranks.comm.size,
        state=state,
    )


def _watch(patience: int | None, tolerance: float) -> Watch:
    if patience is not None:
        patience = whole("patience", patience, 1)
    if not 0.0 <= tolerance < 1.0:
        raise ValueError(f"fit: tolerance must be in [0, 1), a share, got {tolerance!r}.")
    return Watch(patience, tolerance)


def _check_total(what: str, total: Any) -> None:
    """Refuse data whose total weight is zero."""
    if not float(total) > 0.0:
        raise ValueError(f"fit: nothing counts in the {what} rows: all is masked, or of weight 0.")
