"""The network: the pass through layers and time, its adjoint, and the public class."""

from rnn_xp.network.network import Network

__all__ = ["Network"]
