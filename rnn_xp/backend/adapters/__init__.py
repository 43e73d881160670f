"""The array libraries that can compute, one file for each; nothing else knows them by name.

A library is added by a subclass of `Adapter` that says what is different there, and by its place in
`ADAPTERS`. Any other library with an Array API namespace is taken to follow the standard; `fit`
probes it first. Importing this package imports none of the libraries but NumPy.
"""

from rnn_xp._typing import Namespace
from rnn_xp.backend.adapters.array_api_strict import StrictAdapter
from rnn_xp.backend.adapters.base import Adapter
from rnn_xp.backend.adapters.cupy import CupyAdapter
from rnn_xp.backend.adapters.dpnp import DpnpAdapter
from rnn_xp.backend.adapters.jax import JaxAdapter
from rnn_xp.backend.adapters.mlx import MlxAdapter
from rnn_xp.backend.adapters.numpy import NumpyAdapter
from rnn_xp.backend.adapters.standard import StandardAdapter
from rnn_xp.backend.adapters.torch import TorchAdapter

__all__ = [
    "ADAPTERS",
    "Adapter",
    "CupyAdapter",
    "DpnpAdapter",
    "JaxAdapter",
    "MlxAdapter",
    "NumpyAdapter",
    "StandardAdapter",
    "StrictAdapter",
    "TorchAdapter",
    "adapter_named",
    "adapter_of",
]

ADAPTERS: dict[str, Adapter] = {
    adapter.name: adapter
    for adapter in (
        NumpyAdapter(),
        CupyAdapter(),
        TorchAdapter(),
        JaxAdapter(),
        DpnpAdapter(),
        MlxAdapter(),
        StrictAdapter(),
    )
}
"""Every library by its name, in the order in which they are reported."""


def adapter_named(name: str) -> Adapter:
    """Return the adapter of a library, or of a module that is an Array API namespace.

    Parameters
    ----------
    name : str
        A name in `ADAPTERS`, or the name of a module such as ``"cubed.array_api"``.

    Examples
    --------
    >>> adapter_named("torch").name, adapter_named("cubed.array_api").name
    ('torch', 'cubed.array_api')
    """
    return ADAPTERS.get(name) or StandardAdapter(name)


def adapter_of(xp: Namespace) -> Adapter:
    """Return the adapter of a namespace, as `rnn_xp.backend.array_namespace` gives it.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> adapter_of(xp).name
    'numpy'
    """
    module = str(xp.__name__).removeprefix("array_api_compat.")
    return ADAPTERS.get(module.partition(".")[0]) or StandardAdapter(module)
