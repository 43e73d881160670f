"""What a block of rows needs in memory, counted from sizes, and how many blocks a budget holds.

Backpropagation through time keeps every step's activations until its adjoint is done, so the
memory of a block is a number of floats for each row and step. They are counted here array by
array as the code makes them: by the cell, `sequence`, `layers` and `pipeline`. The peak is reached
in the backward pass, in one of two moments of a layer and direction::

    tapes of all layers | gradients of the outputs | the previous direction's rows | shares, rows
    tapes of all layers | gradients of the outputs | rows | temporaries of `collect`, dx

Counted are the largest arrays that any batch can cause, with mask, lengths and reset; a plain one
needs less, of the cell "rnn" down to 0.6 of it. `tests/engines/test_memory.py` holds the count to
what is measured.
"""

from __future__ import annotations

from typing import NamedTuple

from rnn_xp.network.configuration import Configuration

__all__ = ["block_bytes", "workers_within"]


class _Cell(NamedTuple):
    """Arrays of H columns that a step of a cell leaves, for each row.

    Attributes
    ----------
    gates : int
        G.
    tape : int
        Cache and new state, each array once: h_in is the h of the step before.
    apart : int
        More of them if mask and reset choose between states, so that what enters a step is no
        longer what left the step before.
    share : int
        What `step_back` adds to the cache.
    rows : int
        The whole share, h_in included, which `sequence.stack_rows` copies.
    norm : int
        What layer normalisation adds to share and rows: dgain, and da where it was dz itself.
        (To the tape it adds n, of G, and the inverse deviations, at most 2 columns.)
    """

    gates: int
    tape: int
    apart: int
    share: int
    rows: int
    norm: int


_CELLS = {
    # tape: h; apart: h, h_in; share: dz; rows: dz, h_in
    "rnn": _Cell(gates=1, tape=1, apart=2, share=1, rows=2, norm=2),
    # tape: i, f, g, o, c, tanh_c, h; apart: c_prev, h_in; share: dz; rows: dz, h_in
    "lstm": _Cell(gates=4, tape=7, apart=2, share=4, rows=5, norm=8),
    # tape: r, z, n, q, h; apart: h_prev; share: dz, da, dq; rows: dz, da, dq, h_in
    "gru": _Cell(gates=3, tape=5, apart=1, share=7, rows=8, norm=3),
    # tape: r, z, n, s, h; apart: h_prev; share: dz, da (2), da_n; rows: dz, da, da_n, h_in, s
    "gru_before": _Cell(gates=3, tape=5, apart=1, share=6, rows=8, norm=3),
}
# In the normalisation's adjoint at once: n, dn, dn - mean, n * along, and their difference.
_NORM_TEMPORARIES = 5
# Losses hold up to so many arrays like the prediction at once; the backward pass keeps some.
_LOSS, _LOSS_KEPT = 8, 4
# Mask, reset and the weights of the losses, in floats.
_MASKS = 2
# A step's arrays before they are part of its share or tape, in units of G*H, and of H.
_STEP_GATES, _STEP = 3, 4
# Python's objects of a step of a layer: tuples, array headers, lists.
_OBJECTS = 6000


def block_bytes(net: Configuration, steps: int, rows: int, itemsize: int) -> int:
    """Estimate the peak memory of a block of rows, forward and backward, from sizes alone.

    Parameters
    ----------
    net : Network
    steps : int
        T; with truncated backpropagation too, the state before the last segment needs them.
    rows : int
        Of the block.
    itemsize : int
        Bytes of a float.

    Returns
    -------
    int
        Not less than what NumPy holds at the peak beside the data, and seldom twice as much.

    Examples
    --------
    >>> import rnn_xp as rx
    >>> net = rx.Network(hidden_size=50)
    >>> block_bytes(net, steps=10, rows=1040, itemsize=4) // 2**20  # MiB
    14
    """
    name = net.cell if net.reset_after else "gru_before"
    cell, norm, feedback = _CELLS[name], net.layer_norm, net.feedback
    size, directions, upper = net.hidden_size, net.directions, net.num_layers - 1
    width, stack = directions * size, directions * net.num_layers
    every_step = net.topology != "many_to_one"

    # Per row and step. Of one layer and direction, as `_Cell` explains; h_in is an array of its
    # own with recurrent dropout, which in the other cells takes the place of the reset one.
    keep = bool(net.recurrent_dropout) and name.startswith("gru")
    gates = cell.gates * size
    tape = (cell.tape + cell.apart + keep) * size + norm * (gates + 2)
    share, joined = ((n + norm * cell.norm) * size for n in (cell.share, cell.rows))
    # At the end of it: the input again, row by row, and the normalisation's adjoint.
    collecting = net.input_size + norm * _NORM_TEMPORARIES * gates

    # Of the forward pass: tapes, the input time-major, what enters the upper layers and its mask
    # of dropout, the top's output where it is not h alone, and h at the steps that are read.
    kept = stack * tape + net.input_size + _MASKS + upper * width * (2 if net.dropout else 1)
    kept += width * (net.residual or feedback) + (0 if feedback else width * every_step)
    out = net.output_size * every_step
    forward = kept + max(_LOSS * out, 2 * gates, width * every_step)

    # Of the backward pass: dL/dh of the top's steps, in lower layers their dx, once more where
    # it is not itself what is passed on; and the two moments of the module's docstring.
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

    # Not multiplied by T: initial and final states with their gradients, the arrays of the step
    # at hand, and of many_to_one a prediction with its loss.
    once = (3 * stack + _STEP) * size + _STEP_GATES * gates + _LOSS * (net.output_size - out)
    once += 2 * net.linear_lags * net.input_size
    floats = rows * (steps * max(forward, backward) + once) + 3 * net.num_parameters
    return int(itemsize * floats) + steps * stack * _OBJECTS


def workers_within(
    budget: int, net: Configuration, steps: int, rows: int, itemsize: int, workers: int
) -> int:
    """How many threads may compute blocks at once, in a given memory.

    Parameters
    ----------
    budget : int
        Bytes for the activations; data, parameters and the optimiser's state come on top.
    net, steps, rows, itemsize
        See `block_bytes`.
    workers : int
        How many there may be at most.

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
