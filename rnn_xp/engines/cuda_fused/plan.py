"""Configurations that the fused kernels support, and the sizes of their compilation and launch.

The kernels are specialised at run time: every size except N is a macro of ``kernels.cu``, which
verifies with ``static_assert`` that it counts memory as this module does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rnn_xp.engines.blocks import default_block_rows
from rnn_xp.engines.portable import PortableEngine
from rnn_xp.losses import cross_entropy, mse
from rnn_xp.network.configuration import Configuration
from rnn_xp.optim import SGD, Adam, Optimizer
from rnn_xp.optim.first_order import FirstOrder

__all__ = ["SUPPORTED", "Plan", "has_kernel", "make_plan", "unsupported"]

_MAX_HIDDEN, _MAX_INPUTS, _MAX_OUTPUTS = 128, 32, 8
# By the kernel that a cell declares: rows of M for each hidden unit, and arrays that a step keeps;
# see kernels.cu.
_CELLS: dict[str, tuple[int, int]] = {
    "rnn-tanh": (1, 0),
    "rnn-relu": (1, 0),
    "gru": (4, 4),
    "lstm": (4, 5),
}


def _plain_network(engine: PortableEngine) -> bool:
    net = engine.net
    return net.num_layers == 1 and not (net.bidirectional or net.layer_norm or net.linear_lags)


def has_kernel(optimizer: Optimizer) -> bool:
    """Return True if the updates of an optimiser have a kernel.

    These are Adam and SGD without momentum, both without weight decay and clipping.
    """
    if type(optimizer) not in (Adam, SGD) or not isinstance(optimizer, FirstOrder):
        return False
    if isinstance(optimizer, SGD) and optimizer.momentum:
        return False
    clips = optimizer.clip_value is not None or optimizer.clip_norm is not None
    return not (clips or optimizer.weight_decay)


def _kernel(net: Configuration) -> str:
    return net.layers.cells[0].kernel or ""


def _whole_batch(engine: PortableEngine) -> bool:
    return engine.batches is None and engine.truncate is None and engine.noise is None


SUPPORTED: tuple[tuple[str, Callable[[PortableEngine], bool]], ...] = (
    ("the backend cupy", lambda e: e.backend.name == "cupy"),
    ("the dtype float32", lambda e: e.backend.dtype_name == "float32"),
    ("one layer in one direction, without layer normalisation and linear_lags", _plain_network),
    ("the cell rnn, gru or lstm", lambda e: e.net.cell in ("rnn", "gru", "lstm")),
    ("of the GRUs the one with reset_after=True", lambda e: _kernel(e.net) in _CELLS),
    (f"hidden_size <= {_MAX_HIDDEN}", lambda e: e.net.hidden_size <= _MAX_HIDDEN),
    (f"input_size <= {_MAX_INPUTS}", lambda e: e.net.input_size <= _MAX_INPUTS),
    (f"output_size <= {_MAX_OUTPUTS}", lambda e: e.net.output_size <= _MAX_OUTPUTS),
    (
        "the topology many_to_one with read='last', or many_to_many",
        lambda e: e.net.topology != "one_to_many" and e.net.read == "last",
    ),
    ("output_activation='identity'", lambda e: e.net.output_activation == "identity"),
    ("the loss mse or cross_entropy", lambda e: e.loss in (mse, cross_entropy)),
    ("the full batch, without truncation and dropout", _whole_batch),
    ("an optimiser that needs nothing but gradients", lambda e: not e.optimizer.needs),
    ("no sample_weight, lengths, mask or reset", lambda e: not any(_given(e))),
    ("a single rank", lambda e: e.ranks is None),
    (
        "block_rows left alone: its own blocks have 2 to 64 rows",
        lambda e: (
            e.block_rows == default_block_rows(e.backend, e.data.x.shape[0], e.net.hidden_size)
        ),
    ),
)
"""Requirements of the fused engine: each as a sentence and as a test of the portable engine."""


def _given(engine: PortableEngine) -> list[bool]:
    return [array is not None for array in engine.data[2:]]


def unsupported(engine: PortableEngine) -> str:
    """Return the first requirement that a training does not meet; empty if it meets all."""
    needed = next((needed for needed, holds in SUPPORTED if not holds(engine)), "")
    return needed and f"the fused kernels need {needed}"


# Rows of a block, and the number of blocks that share the N rows: the 8317 rows of the reference
# workload are 130 blocks of 64, which the 132 multiprocessors of an H100 compute at once. With
# fewer rows in all, a block has the fewest rows for which that holds, but not so few that it would
# spend its time reading weights. These numbers are part of the definition of the result, and the
# same on every device.
_ROWS, _MAX_BLOCKS = (2, 4, 8, 16, 32, 64), 132
# Threads of a block, and of a block with so few rows that groups of threads share a sum's terms.
_MAX_THREADS, _MAX_SLICED_THREADS, _SLICED_ROWS = 256, 384, 4


@dataclass(frozen=True)
class Plan:
    """Compilation and launch of the kernels for one training.

    Attributes
    ----------
    macros : dict of str to str or int
        Macros for the compiler.
    entries : int
        Number of entries of M, J*K: the parameters, and some zeros.
    blocks, threads : int
        Number of blocks of ``train``, and number of threads in each.
    shared_bytes : int
        Dynamic shared memory of a block of ``train``.
    partial : int
        Number of floats in a block's row of partial sums.
    weights : int
        Number of floats of the placed weights.
    workspace : int
        Number of floats of a block's workspace.
    """

    macros: dict[str, str | int]
    entries: int
    blocks: int
    threads: int
    shared_bytes: int
    partial: int
    weights: int
    workspace: int

    @property
    def options(self) -> tuple[str, ...]:
        """Command-line options for the compiler."""
        return ("-std=c++17", *(f"-D{name}={value}" for name, value in self.macros.items()))

    def grid(self, each: int) -> tuple[int]:
        """Return the grid of a kernel whose blocks handle ``each`` entries of M and the loss."""
        return (-(-self.partial // each),)


def make_plan(
    net: Configuration, rows: int, steps: int, classes: bool, shared_limit: int
) -> Plan | None:
    """Choose sizes, and the memory for the history and the weights.

    Both are placed in shared memory if they fit, otherwise in global memory. If dM does not fit in
    the registers of the threads at once, the history is in global memory. Blocks of few rows hold
    in shared memory as many weights of a product as fit, and the two current steps of the history.
    The placement changes no bit of the result.

    Parameters
    ----------
    net : Network
        A network that `SUPPORTED` allows.
    rows, steps : int
        N and T.
    classes : bool
        If True, the loss is the cross-entropy; otherwise it is the mean squared error.
    shared_limit : int
        Bytes of shared memory that a block may have on the device.

    Returns
    -------
    Plan or None
        None if the device has too little shared memory.

    Examples
    --------
    >>> import rnn_xp as rx
    >>> plan = make_plan(rx.Network(hidden_size=50), 8317, 10, False, shared_limit=232448)
    >>> plan.blocks, plan.macros["ROWS"], plan.threads, plan.macros["HISTORY_SHARED"]
    (130, 64, 200, 1)
    """
    size, inputs, outputs = net.hidden_size, net.input_size, net.output_size
    kernel = _kernel(net)
    gates, kept = _CELLS[kernel]
    j, k = gates * size + outputs, size + inputs + 1
    hp, op, kp = _up(size), _up(outputs), _up(k)
    gp = gates * hp
    jp = gp + op
    pairs = (size + 1) // 2
    block_rows = next((n for n in _ROWS if n * _MAX_BLOCKS >= rows), _ROWS[-1])
    sliced = block_rows <= _SLICED_ROWS
    if sliced:
        row_groups = next(n for n in (8, 6) if pairs * n <= _MAX_SLICED_THREADS)
    else:
        choices = (n for n in (64, 32, 16, 8, 4) if n <= block_rows)
        row_groups = next(n for n in choices if pairs * n <= _MAX_THREADS)
    threads = pairs * row_groups

    tiles = -(-jp // 8) * -(-kp // 8)
    collect_after = tiles > threads
    weights = kp * gp + jp * hp + outputs * kp
    history, deltas = (steps + 1) * block_rows * kp, block_rows * jp
    reduction = 64 * threads + block_rows

    def shared(history_shared: bool, weights_shared: bool) -> int:
        held = history * history_shared + deltas * (not collect_after)
        return 4 * (max(held, reduction) + weights * weights_shared)

    if sliced:
        used = block_rows * (2 * kp + jp + row_groups * (gp + op))
        history_shared = False
        weights_shared = max(0, min(max(kp * gp, jp * hp), shared_limit // 4 - used)) // 4 * 4
        shared_bytes = 4 * max(used + weights_shared, reduction)
    else:
        history_shared = not collect_after and shared(True, False) <= shared_limit
        weights_shared = int(shared(history_shared, True) <= shared_limit)
        shared_bytes = shared(history_shared, bool(weights_shared))
    if shared_bytes > shared_limit:
        return None
    workspace = history * (not history_shared) + deltas * (steps + 1) * collect_after
    workspace += steps * block_rows * kept * hp
    macros: dict[str, str | int] = {
        "CELL": kernel.upper().replace("-", "_"),
        "HIDDEN": size,
        "INPUTS": inputs,
        "OUTPUTS": outputs,
        "STEPS": steps,
        "EVERY_STEP": int(net.topology == "many_to_many"),
        "CROSS_ENTROPY": int(classes),
        "ROWS": block_rows,
        "ROW_GROUPS": row_groups,
        "HISTORY_SHARED": int(history_shared),
        "WEIGHTS_SHARED": weights_shared,  # for sliced blocks: number of floats at a time
        "PLAN_THREADS": threads,
        "PLAN_SHARED_BYTES": shared_bytes,
        "PLAN_PARTIAL": j * k + 1,
        "PLAN_WEIGHTS": weights,
        "PLAN_WORKSPACE": f"{workspace}LL",
    }
    blocks = min(-(-rows // block_rows), _MAX_BLOCKS)
    return Plan(macros, j * k, blocks, threads, shared_bytes, j * k + 1, weights, workspace)


def _up(size: int) -> int:
    """Round up to a multiple of 4, as float4 loads require."""
    return -(-size // 4) * 4
