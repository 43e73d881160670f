"""Gradients before the sum over samples: the methods of `rnn_xp.Network` that keep them apart.

A weight's gradient is a sum over samples, and the matrix product that contracts the batch axis is
that sum::

    dw_hh = sum_n J_n        J_n (H, H) = sum_t dz_t[n].T @ h_{t-1}[n]

Here the product is made for each sample on its own, over its T steps (`rnn_xp.network.sequence`),
after the same backward pass over the whole batch. So the terms J_n cost as many passes as their
sum.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from rnn_xp import losses
from rnn_xp._checks import whole
from rnn_xp._typing import Array, Loss, Namespace, Params, State
from rnn_xp.backend import device_of
from rnn_xp.network import pipeline
from rnn_xp.network.call import Options, check
from rnn_xp.network.configuration import Configuration
from rnn_xp.network.gradients import Gradients, loss_back, loss_options

__all__ = ["PerSample"]


@dataclass(frozen=True, kw_only=True)
class PerSample(Gradients):
    """The methods that keep samples apart; `rnn_xp.Network` documents their arguments."""

    def jacobian(
        self,
        params: Params,
        x: Array,
        state: State | None = None,
        lengths: Array | None = None,
        mask: Array | None = None,
        rng: Any = None,
        *,
        reset: Array | None = None,
        steps: int | None = None,
        in_blocks: int | None = None,
    ) -> Any:
        """Compute the derivative of every prediction of every sample by every parameter.

        One forward pass is followed by one backward pass over the whole batch for each output: O
        passes, or T*O if every step is read, whatever N is. `rnn_xp.Network.vjp` with
        ``per_sample=True`` gives the same rows one output at a time, beside the predictions.

        Parameters
        ----------
        params, x, state, lengths, mask, rng, reset, steps : see `rnn_xp.Network`
        in_blocks : int, optional
            Number of samples of a block. The blocks are then computed one by one, as they are
            asked for. Not supported with ``rng``, whose masks are drawn for a whole call.

        Returns
        -------
        dict of str to Array (N, O, *shape), or (N, T, O, *shape) where every step is read
            The keys of ``params``; units are those of a prediction divided by those of the
            parameter. With ``in_blocks`` it is an iterator over such dicts, each with the next
            samples in their order.

        Raises
        ------
        ValueError
            If ``in_blocks`` is not an integer >= 1, or is combined with ``rng``.

        Notes
        -----
        With P parameters, the result takes N * O * P numbers (T times as many if every step is
        read), and twice that while the outputs are stacked, if there are two or more. In blocks, N
        is the number of samples of a block, and the caller may hold one block while the next is
        computed; `per_sample_grads` says what the passes take beside.

        Examples
        --------
        >>> import numpy as np
        >>> import rnn_xp as rx
        >>> net = rx.Network(hidden_size=4)
        >>> params = net.init(seed=0)
        >>> x = np.ones((30, 5, 1), dtype=np.float32)
        >>> net.jacobian(params, x)["layer0.w_hh"].shape
        (30, 1, 4, 4)
        >>> [block["layer0.w_hh"].shape for block in net.jacobian(params, x, in_blocks=20)]
        [(20, 1, 4, 4), (10, 1, 4, 4)]
        """
        options = Options(state, lengths, mask, reset, rng, steps)
        xp = check(self, params, x, options)

        def block(start: int, stop: int) -> Params:
            rows = x[start:stop, ...]
            return _jacobian(self, params, rows, options.rows(start, stop), xp=xp)

        return _in_blocks("jacobian", block, x.shape[0], in_blocks, options)

    def per_sample_grads(
        self,
        params: Params,
        x: Array,
        y: Array,
        loss: str | Loss = "mse",
        sample_weight: Array | None = None,
        *,
        state: State | None = None,
        lengths: Array | None = None,
        mask: Array | None = None,
        reset: Array | None = None,
        rng: Any = None,
        total: Any = None,
        in_blocks: int | None = None,
    ) -> Any:
        """Split the gradient of `value_and_grad` into one term for each sample.

        Parameters
        ----------
        params, x, y, loss, sample_weight, state, lengths, mask, reset, rng, total
            As for `rnn_xp.Network.value_and_grad`. A sample's term has the weight that the sample
            has in the mean over all samples; ``total=1`` gives the gradient of each sample's own
            weighted sum of losses. There is no ``workspace``: kernels add the samples up.
        in_blocks : int, optional
            Number of samples of a block. The blocks are then computed one by one, as they are
            asked for. Not supported with ``rng``, whose masks are drawn for a whole call.

        Returns
        -------
        dict of str to Array (N, *shape)
            The keys of ``params``; units are those of the loss divided by those of the parameter.
            The sum over N is the gradient, up to rounding. With ``in_blocks`` it is an iterator
            over such dicts, each with the next samples in their order.

        Raises
        ------
        ValueError
            If ``in_blocks`` is not an integer >= 1, or is combined with ``rng``.

        Notes
        -----
        With P parameters, the result takes N * P numbers. In blocks of B samples the peak is about
        ``B * (2 * P + T * H * (L * D * tape + rows))`` numbers, whatever N is: two blocks, because
        the caller may hold one while the next is computed, and the pass of a block, with the cell's
        counts of arrays in `rnn_xp.cells.cell.Footprint`. For B = 1040 of the reference network
        (P = 2651, H = 50, T = 10) that is 28 MB in float32.

        Examples
        --------
        >>> import numpy as np
        >>> import rnn_xp as rx
        >>> net = rx.Network(hidden_size=4)
        >>> params = net.init(seed=0)
        >>> x, y = np.ones((30, 5, 1), dtype=np.float32), np.ones((30, 1), dtype=np.float32)
        >>> terms = net.per_sample_grads(params, x, y)
        >>> terms["layer0.w_hh"].shape
        (30, 4, 4)
        >>> _, grads = net.value_and_grad(params, x, y)
        >>> np.allclose(terms["layer0.w_hh"].sum(axis=0), grads["layer0.w_hh"])
        True
        """
        options = loss_options(self, y, Options(state, lengths, mask, reset, rng))
        check(self, params, x, options)
        if total is None:
            weight = pipeline.loss_weight(self, x, y, sample_weight, options)
            total = losses.total_weight(y, weight)

        def block(start: int, stop: int) -> Params:
            weight = None if sample_weight is None else sample_weight[start:stop, ...]
            _, result, _ = loss_back(
                self, params, x[start:stop, ...], y[start:stop, ...], loss, weight,
                options.rows(start, stop), total=total, terms="sample",
            )  # fmt: skip
            return result.grads

        return _in_blocks("per_sample_grads", block, x.shape[0], in_blocks, options)


def _jacobian(
    net: Configuration, params: Params, x: Array, options: Options, *, xp: Namespace
) -> Params:
    """Return dpred/dparams of one block of samples."""
    forward = pipeline.run(net, params, x, options, xp=xp)
    pred = pipeline.prediction(net, forward)
    read = tuple(pred.shape)[1:]  # (O,) or (T, O)
    count = pred.shape[1] * (pred.shape[2] if len(read) == 2 else 1)
    units = xp.reshape(xp.eye(count, dtype=pred.dtype, device=device_of(pred)), (count, 1, *read))
    passes = []
    for k in range(count):
        dpred = units[k, ...] + xp.zeros_like(pred)  # of every sample the same one output
        back = pipeline.run_back(net, params, forward, dpred, None, terms="sample")
        passes.append(back.grads)
    jacobian = {}
    for name, shape in net.shapes.items():
        rows = [grads.pop(name) for grads in passes]  # what has been stacked is not kept
        stacked = xp.stack(rows, axis=1) if count > 1 else rows[0]
        jacobian[name] = xp.reshape(stacked, (x.shape[0], *read, *shape))
    return jacobian


def _in_blocks(
    method: str,
    block: Callable[[int, int], Params],
    rows: int,
    size: int | None,
    options: Options,
) -> Params | Iterator[Params]:
    """Return all rows as one block, or an iterator over blocks of the given size."""
    if size is None:
        return block(0, rows)
    size = whole(f"Network.{method}: in_blocks", size)
    if options.rng is not None:
        raise ValueError(
            f"Network.{method}: in_blocks= is not supported with rng=, because the masks of "
            "dropout are drawn for the samples of a whole call. Call it once for each block, or "
            "leave in_blocks out."
        )
    return (block(start, min(start + size, rows)) for start in range(0, rows, size))
