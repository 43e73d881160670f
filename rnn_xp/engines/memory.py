"""Memory that a block of rows needs, counted from sizes, and how many blocks fit in a budget.

Backpropagation through time keeps the activations of every step until its adjoint is computed, so
the memory of a block is a number of floats for each row and step. They are counted here array by
array, as the cell (`rnn_xp.cells.cell.Footprint`), `sequence`, `layers` and `pipeline` create
them. The peak is reached in the backward pass, at one of two moments of a layer and direction::

    tapes of all layers | gradients of the outputs | the previous direction's rows | shares, rows
    tapes of all layers | gradients of the outputs | rows | temporaries of `collect`, dx

The count assumes the largest arrays that any batch can cause, with mask, lengths and reset. A batch
without them needs less: for the cell "rnn" as little as 0.6 of the estimate.
`tests/engines/test_memory.py` compares the count with measurements.
"""

from __future__ import annotations

from rnn_xp.network.configuration import Configuration

__all__ = ["block_bytes", "workers_within"]


# Alive at once in the adjoint of the normalisation: n, dn, dn - mean, n * along, their difference.
_NORM_TEMPORARIES = 5
# Arrays of the prediction's size that a loss holds at once, and that the backward pass keeps.
_LOSS, _LOSS_KEPT = 8, 4
# Mask, reset and the weights of the losses, in floats.
_MASKS = 2
# Arrays of a step before they are part of its share or tape: of G*H columns, and of H.
_STEP_GATES, _STEP = 3, 4
# Bytes of Python objects for each step of a layer: tuples, array headers, lists.
_OBJECTS = 6000


def block_bytes(net: Configuration, steps: int, rows: int, itemsize: int) -> int:
    """Estimate the peak memory of a block of rows, forward and backward, from sizes alone.

    Parameters
    ----------
    net : Network
    steps : int
        T of the whole sequence, even with truncated backpropagation, because the state before the
        last segment depends on all steps.
    rows : int
        Number of rows of the block.
    itemsize : int
        Bytes of one floating-point number.

    Returns
    -------
    int
        Number of bytes: at least NumPy's peak without the data, and seldom more than twice as much.

    Examples
    --------
    >>> import rnn_xp as rx
    >>> net = rx.Network(hidden_size=50)
    >>> block_bytes(net, steps=10, rows=1040, itemsize=4) // 2**20  # MiB
    14
    """
    cell, norm, feedback = net.layers.cells[0], net.layer_norm, net.feedback
    size, directions, upper = net.hidden_size, net.directions, net.num_layers - 1
    width, stack = directions * size, directions * net.num_layers
    every_step = net.topology != "many_to_one"

    # For each row and step. The cell's own arrays, of one layer and direction.
    footprint, gates = cell.footprint, cell.gates * size
    keep = footprint.keep * bool(net.recurrent_dropout)
    tape = (footprint.tape + footprint.apart + keep) * size
    tape += norm * (footprint.norm_tape * size + 2)  # 2: inverse deviations
    share, joined = (
        (arrays + norm * footprint.norm) * size for arrays in (footprint.share, footprint.rows)
    )
    # At the end: the input again, row by row, and the adjoint of the normalisation.
    collecting = net.input_size + norm * _NORM_TEMPORARIES * gates

    # Forward: tapes, the time-major input, the inputs of the upper layers with their dropout
    # masks, the output of the top layer where it differs from h, and h at the steps that are read.
    kept = stack * tape + net.input_size + _MASKS + upper * width * (2 if net.dropout else 1)
    kept += width * (net.residual or feedback) + (0 if feedback else width * every_step)
    out = net.output_size * every_step
    forward = kept + max(_LOSS * out, 2 * gates, width * every_step)

    # Backward: dL/dh of the top layer's steps; below it dx, and a copy of it where dx itself is not
    # passed on; and the two moments described in the module's docstring.
    backward = kept + _LOSS_KEPT * out
    if feedback:  # one cell of all layers, and so one share
        inputs = net.input_size + upper * size + size
        backward += stack * (share + joined) + inputs + collecting + 4 * net.output_size
    else:
        douts = width * (every_step or net.read != "last")
        if upper:
            copied = directions > 1 or net.dropout or net.residual
            top = douts + joined + max(width * (2 * directions - 1), collecting + width)
            douts += width * (2 if copied else 1)
        else:
            top = 0
        before = joined if stack > 1 else 0
        backward += max(top, douts + joined + max(share + before, collecting))

    # Independent of T: initial and final states with their gradients, the arrays of the current
    # step and, for many_to_one, the prediction with its loss.
    once = (3 * stack + _STEP) * size + _STEP_GATES * gates + _LOSS * (net.output_size - out)
    once += 2 * net.linear_lags * net.input_size
    floats = rows * (steps * max(forward, backward) + once) + 3 * net.num_parameters
    return int(itemsize * floats) + steps * stack * _OBJECTS


def workers_within(
    budget: int, net: Configuration, steps: int, rows: int, itemsize: int, workers: int
) -> int:
    """Return the number of threads that may compute blocks at once within a memory budget.

    Parameters
    ----------
    budget : int
        Number of bytes for activations; data, parameters and the optimiser's state are excluded.
    net, steps, rows, itemsize
        See `block_bytes`.
    workers : int
        Largest number of threads to return.

    Returns
    -------
    int

    Raises
    ------
    ValueError
        If the budget is too small for one block.
    """
    needed = block_bytes(net, steps, rows, itemsize)
    if budget < needed:
        raise ValueError(
            f"fit: memory_budget={budget} bytes is too little: one block of {rows} rows and "
            f"{steps} steps needs about {needed} bytes. Give at least that, or a smaller "
            "block_rows=, which is part of the definition of the result."
        )
    return min(workers, budget // needed)
