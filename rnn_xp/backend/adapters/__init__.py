"""The array libraries that can compute, one file for each; nothing else knows them by name.

A library is added by a subclass of `Adapter` that says what is different there, and by its place in
`ADAPTERS`. Importing this package imports none of the libraries but NumPy.
"""

from rnn_xp.backend.adapters.array_api_strict import StrictAdapter
from rnn_xp.backend.adapters.base import Adapter
from rnn_xp.backend.adapters.cupy import CupyAdapter
from rnn_xp.backend.adapters.dpnp import DpnpAdapter
from rnn_xp.backend.adapters.jax import JaxAdapter
from rnn_xp.backend.adapters.numpy import NumpyAdapter
from rnn_xp.backend.adapters.torch import TorchAdapter

__all__ = [
    "ADAPTERS",
    "Adapter",
    "CupyAdapter",
    "DpnpAdapter",
    "JaxAdapter",
    "NumpyAdapter",
    "StrictAdapter",
    "TorchAdapter",
]

ADAPTERS: dict[str, Adapter] = {
    adapter.name: adapter
    for adapter in (
        NumpyAdapter(),
        CupyAdapter(),
        TorchAdapter(),
        JaxAdapter(),
        DpnpAdapter(),
        StrictAdapter(),
    )
}
"""Every library by its name, in the order in which they are reported."""
