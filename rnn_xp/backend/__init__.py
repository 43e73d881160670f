"""The one door between host and device: which library, which device, which precision.

Computation follows the arrays it is given; this package decides only where *new* arrays are born.
Three choices, each taken from the argument, else the environment variable, else the default::

    name    RNN_XP_BACKEND   numpy | cupy | torch | jax | dpnp | ... | auto            numpy
    device  RNN_XP_DEVICE    cpu, cuda, cuda:1, ... (array_api_strict: device1, ...)   the library's
    dtype   RNN_XP_DTYPE     float32 | float64                                         float32

A choice that is not available raises `BackendError`; nothing falls back to another library, device
or precision. Every array library but NumPy is imported on first use.

>>> backend = get_backend("numpy", dtype="float64")
>>> x = backend.asarray([1, 2.5])
>>> backend.to_numpy(x * 2)
array([2., 5.])

The modules, each of which imports only those above it:

- `adapters` has an object for each library, which knows everything that is peculiar to it;
- `arrays` asks existing arrays what they are, and brings them to the host;
- `functions` tries every function that is used here;
- `libraries` tries a library, lists its devices, and says what is missing;
- `handle` holds `Backend` and opens one;
- `selection` reads the three choices from arguments and environment.
"""

from rnn_xp.backend.arrays import array_namespace, device_of, float_dtype, to_numpy
from rnn_xp.backend.handle import Backend, BackendError, backend_of
from rnn_xp.backend.libraries import BackendStatus, backends
from rnn_xp.backend.selection import get_backend

__all__ = [
    "Backend",
    "BackendError",
    "BackendStatus",
    "array_namespace",
    "backend_of",
    "backends",
    "device_of",
    "float_dtype",
    "get_backend",
    "to_numpy",
]
