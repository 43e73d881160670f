"""Ranks that train together, and the tree of sums that gives them the bits of a single one.

`rnn_xp.fit` takes a `Comm`; under ``mpiexec`` the command line makes one itself::

    from rnn_xp.distributed import mpi     # needs mpi4py: pip install "rnn-xp[mpi]"

    comm = mpi()
    result = rnn_xp.fit(net, x, y, optimizer=..., epochs=100, comm=comm)
"""

from rnn_xp.distributed.agreement import agree, fingerprint
from rnn_xp.distributed.comm import Comm, CommError, Serial
from rnn_xp.distributed.gpus import take_own_gpu
from rnn_xp.distributed.reduction import Empty, Ranks
from rnn_xp.distributed.simulated import Simulated, simulate
from rnn_xp.distributed.tree import Shares, Subtree, aligned, fold, join, share, tree_sum
from rnn_xp.distributed.world import MPI, launched_ranks, mpi

__all__ = [
    "MPI",
    "Comm",
    "CommError",
    "Empty",
    "Ranks",
    "Serial",
    "Shares",
    "Simulated",
    "Subtree",
    "agree",
    "aligned",
    "fingerprint",
    "fold",
    "join",
    "launched_ranks",
    "mpi",
    "share",
    "simulate",
    "take_own_gpu",
    "tree_sum",
]
