"""The engine of CUDA graphs: a whole update of a network in kernels, captured once and replayed.

Where the fused engine does not compute a training, the kernels of layers do, in a dozen launches
and more for an update; CuPy's overhead for each is longer than most of them take. The update is
therefore captured: gather of the minibatch, forward pass, loss, backward pass, clipping, the
optimiser's rule. `supported` says of which trainings, `tables` has what differs between updates,
and `engine` captures and launches them.
"""

from rnn_xp.engines.cuda_graph.engine import GraphEngine
from rnn_xp.engines.cuda_graph.supported import SUPPORTED, unsupported

__all__ = ["SUPPORTED", "GraphEngine", "unsupported"]
