"""Training of the networks of an ensemble, side by side on threads."""

from __future__ import annotations

import contextlib
import contextvars
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from rnn_xp._typing import Params
from rnn_xp.engines.threads import count_workers
from rnn_xp.estimators.arrays import Data
from rnn_xp.estimators.files import Member
from rnn_xp.network import Network
from rnn_xp.training.callbacks import Epoch, Progress
from rnn_xp.training.trainer import fit

__all__ = ["train_members"]


def train_members(
    net: Network, data: Data, starts: Sequence[tuple[int, Member | None]], *,
    workers: int | None, verbose: bool, **training: Any,
) -> list[tuple[Member, str]]:  # fmt: skip
    """Train networks side by side, one on a thread, each with its share of the workers.

    An update of few rows has work for one core only, and the bits of a network depend neither on
    the threads nor on what else is trained.

    Parameters
    ----------
    net : Network
    data : Data
    starts : sequence of (int, Member or None)
        The seed of each network, and what it goes on from.
    workers : int, optional
        Number of threads of all; by default the number of cores.
    verbose : bool
        If True, the progress of each is reported.
    **training : as for `rnn_xp.fit`

    Returns
    -------
    list of (Member, str)
        The networks, and why training ended before the last epoch.
    """
    cores, count = count_workers(workers, training["backend"]), len(starts)
    threads = min(cores, count)
    training["workers"] = workers if threads == 1 else cores // threads
    ending = threading.Event()

    def end(epoch: Epoch) -> str | None:
        return "the training of another network failed" if ending.is_set() else None

    def train(k: int) -> tuple[Member, str]:
        name = f"network {k + 1}/{count}" if count > 1 else ""
        with Progress(name=name) if verbose else contextlib.nullcontext() as shown:
            callbacks = [*([] if shown is None else [shown]), *([end] if threads > 1 else [])]
            return _train(net, data, *starts[k], callbacks=callbacks, **training)

    if threads == 1:
        return [train(k) for k in range(count)]
    with ThreadPoolExecutor(threads) as pool:
        # Threads work in the caller's context: NumPy keeps there what to do about overflow.
        futures = [pool.submit(contextvars.copy_context().run, train, k) for k in range(count)]
        try:
            return [future.result() for future in futures]
        except BaseException:  # such as Ctrl-C: nobody waits for the epochs of the others
            ending.set()
            for future in futures:
                future.cancel()
            raise


def _train(
    net: Network, data: Data, seed: int, before: Member | None, **training: Any
) -> tuple[Member, str]:
    """Train one network; return it, and why training ended before the last epoch."""
    result = fit(
        net, data.x, data.y, sample_weight=data.sample_weight, lengths=data.lengths,
        params=before.last_params if before else None,
        opt_state=before.opt_state if before else None,
        # Another order of minibatches than in the epochs before.
        seed=seed + (len(before.losses) if before else 0), **training,
    )  # fmt: skip
    losses, held_out = (result.history.get(name, []) for name in ("loss", "validation_loss"))
    best: Params | None = result.best_params
    member = Member(
        params=result.params if best is None else best,
        last_params=result.params,
        opt_state=result.state.opt_state,
        losses=[*(before.losses if before else []), *losses],
        validation_losses=[*(before.validation_losses if before else []), *held_out],
    )
    return member, result.stopped
