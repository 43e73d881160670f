"""Predictions in blocks of rows, without a tape.

Nothing goes back through a prediction, so rows are independent: a block goes through the network,
its predictions are kept, and everything else of it is dropped or overwritten by the next block.
"""

from __future__ import annotations

from rnn_xp._checks import whole
from rnn_xp._typing import Array, Namespace, Params
from rnn_xp.backend import Backend, backend_of, device_of
from rnn_xp.backend.arrays import dtype_name
from rnn_xp.backend.handle import DTYPES
from rnn_xp.kernels import kernels_of, make_workspace
from rnn_xp.kernels.rows import on_accelerator, rows_at_once, rows_in_cache
from rnn_xp.network import pieces
from rnn_xp.network.call import Options
from rnn_xp.network.configuration import Configuration

__all__ = ["backend_of_rows", "default_rows", "predict"]


def predict(
    net: Configuration,
    params: Params,
    x: Array,
    options: Options,
    block_rows: int | None,
    *,
    xp: Namespace,
) -> Array:
    """Predict all rows, block by block. Everything but ``block_rows`` has been checked.

    Parameters
    ----------
    net : Configuration
    params : Params
    x : Array (N, T, I), or (N, 1, I) for one_to_many
        N may be 0.
    options : Options
        Optional arguments; their workspace is ignored, and one is made here if the library has
        kernels.
    block_rows : int, optional
        Number of rows of a block; see `rnn_xp.kernels.rows` for the default.
    xp : Namespace

    Returns
    -------
    Array (N, O), or (N, T, O) if every step is read
        The predictions, which share no memory with a workspace.

    Raises
    ------
    ValueError
        If ``block_rows`` is not an integer >= 1.
    """
    rows, steps = x.shape[0], x.shape[1] if options.steps is None else options.steps
    backend = backend_of_rows(x)
    if block_rows is None:
        block_rows = _rows_of_block(net, x, steps)
    size = whole("Network: block_rows", block_rows)
    if not rows:
        shape = (net.output_size,) if net.topology == "many_to_one" else (steps, net.output_size)
        return xp.zeros((0, *shape), dtype=x.dtype, device=device_of(x))
    workspace = None if backend is None else make_workspace(backend)
    options = options._replace(workspace=workspace, tape=False)
    preds = []
    for start in range(0, rows, size):
        stop = min(start + size, rows)
        pred, _ = pieces.forward(net, params, x[start:stop, ...], options.rows(start, stop), xp=xp)
        preds.append(pred)
    return preds[0] if len(preds) == 1 else xp.concat(preds)


def _rows_of_block(net: Configuration, x: Array, steps: int) -> int:
    """Return the default number of rows of a block.

    Kernels on a CPU lay out the states of all steps, in memory that is new to every call.
    """
    backend = backend_of_rows(x)
    rows = default_rows(net, x, steps)
    if backend is None or backend.name != "numpy" or kernels_of(backend).name == "portable":
        return rows
    arrays = net.directions * len(net.state_type._fields)
    return min(rows, rows_in_cache(len(pieces.cut(net, steps)[-1]) * arrays * net.hidden_size))


def default_rows(net: Configuration, x: Array, steps: int) -> int:
    """Return the number of rows that are worth computing at once where x is."""
    backend = backend_of_rows(x)
    longest = len(pieces.cut(net, steps)[-1])  # what is computed at once
    states = longest * net.directions * net.hidden_size
    return rows_at_once(backend is None or on_accelerator(backend), states)


def backend_of_rows(x: Array) -> Backend | None:
    """Return the backend of the rows; None while JAX traces, and for complex numbers."""
    if device_of(x) is None or dtype_name(x.dtype) not in DTYPES:
        return None
    return backend_of(x)
