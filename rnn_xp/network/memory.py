"""Memory that a block of rows needs, counted from sizes, and what of it fits in a budget.

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
from rnn_xp.network.pieces import PIECE, Keep, cut, order

__all__ = ["block_bytes", "fewest_bytes", "keep_within", "relative_time"]


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
    norm, feedback = net.layer_norm, net.feedback
    size, directions, upper = net.hidden_size, net.directions, net.num_layers - 1
    width, stack = directions * size, directions * net.num_layers
    every_step = net.topology != "many_to_one"

    # For each row and step. The cell's own arrays, of one layer and direction.
    footprint, gates = net.layers.cells[0].footprint, net.layers.cells[0].gates * size
    share, joined = (
        (arrays + norm * footprint.norm) * size for arrays in (footprint.share, footprint.rows)
    )
    # At the end: the input again, row by row, and the adjoint of the normalisation.
    collecting = net.input_size + norm * _NORM_TEMPORARIES * gates

    kept, out = _kept(net), net.output_size * every_step
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


def keep_within(
    net: Configuration, steps: int, rows: int, itemsize: int, budget: int
) -> Keep | None:
    """Return what a pass over some rows may keep within a budget, so that it is fastest.

    Parameters
    ----------
    net, steps, rows, itemsize
        See `block_bytes`.
    budget : int
        Number of bytes for activations.

    Returns
    -------
    Keep or None
        None if everything can be kept.

    Raises
    ------
    ValueError
        If the budget is too small.

    Examples
    --------
    >>> import rnn_xp as rx
    >>> net = rx.Network(hidden_size=50)
    >>> all_of_it = block_bytes(net, 100_000, rows=1, itemsize=4)
    >>> keep_within(net, 100_000, 1, 4, all_of_it), keep_within(net, 100_000, 1, 4, all_of_it // 10)
    (None, Keep(tapes=89, states=1000))
    """
    if block_bytes(net, steps, rows, itemsize) <= budget:
        return None
    fewest, count = fewest_bytes(net, steps, rows, itemsize), len(cut(net, steps))
    if budget < fewest:
        again = " although pieces of it are computed again" if count > 1 else ""
        raise ValueError(
            f"Network: memory_budget={budget} bytes is too little: {rows} rows of {steps} steps "
            f"need about {fewest} bytes{again}. Give at least that, or fewer rows at once."
        )
    tape, state = _tape_bytes(net, rows, itemsize), _state_bytes(net, rows, itemsize)
    spare = budget - fewest
    # A tape saves the state before it. All states first, and tapes of what is left.
    tapes = 1 + max(0, spare - count * state) // tape
    return Keep(min(tapes, count), min(count, spare // state))


def fewest_bytes(net: Configuration, steps: int, rows: int, itemsize: int) -> int:
    """Estimate the least memory that a pass needs, with one tape and no states between pieces."""
    pieces = cut(net, steps)
    if len(pieces) == 1:
        return block_bytes(net, steps, rows, itemsize)
    # Of all steps there are the predictions, piece by piece and joined, their loss, and masks.
    out = net.output_size * (net.topology != "many_to_one")
    whole = rows * steps * ((_LOSS + 2) * out + _MASKS) + 2 * net.num_parameters
    return (
        block_bytes(net, PIECE, rows, itemsize)
        + itemsize * whole
        + 2 * _state_bytes(net, rows, itemsize)
        + len(pieces) * _OBJECTS
    )


def relative_time(net: Configuration, steps: int, keep: Keep | None) -> float:
    """Return the time of a pass that keeps less, divided by that of one that keeps everything.

    Going back counts as much as going forward twice.

    Examples
    --------
    >>> import rnn_xp as rx
    >>> round(relative_time(rx.Network(hidden_size=4), 1000, Keep(tapes=1, states=10)), 2)
    1.3
    """
    count = len(cut(net, steps))
    if keep is None or count == 1:
        return 1.0
    forward = sum(
        (stop if last else first) - start for start, first, stop, last in order(count, keep)
    )
    return (forward + 2 * count) / (3 * count)


def _kept(net: Configuration) -> int:
    """Return the numbers that a forward pass keeps for each row and step.

    Tapes, the time-major input, the inputs of the upper layers with their dropout masks, the output
    of the top layer where it differs from h, and h at the steps that are read.
    """
    size, upper, stack = net.hidden_size, net.num_layers - 1, net.directions * net.num_layers
    footprint, width = net.layers.cells[0].footprint, net.directions * size
    keep = footprint.keep * bool(net.recurrent_dropout)
    tape = (footprint.tape + footprint.apart + keep) * size
    tape += net.layer_norm * (footprint.norm_tape * size + 2)  # 2: inverse deviations
    kept = stack * tape + net.input_size + _MASKS + upper * width * (2 if net.dropout else 1)
    every_step = net.topology != "many_to_one"
    return kept + width * (net.residual or net.feedback) + width * (every_step and not net.feedback)


def _tape_bytes(net: Configuration, rows: int, itemsize: int) -> int:
    """Return the memory of a further piece that waits for the backward pass."""
    objects = PIECE * net.num_layers * net.directions * _OBJECTS
    return PIECE * rows * _kept(net) * itemsize + objects


def _state_bytes(net: Configuration, rows: int, itemsize: int) -> int:
    fields = len(net.state_type._fields)
    return fields * net.num_layers * rows * net.hidden_size * itemsize + _OBJECTS
