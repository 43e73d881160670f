"""`Backend`, which is opened from a library, a device and a precision, or from an array.

An error names the request, its origin (argument or environment variable), and the repair.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from rnn_xp._checks import readable
from rnn_xp._typing import Array, Namespace
from rnn_xp.backend.adapters import ADAPTERS, Adapter, adapter_named, adapter_of
from rnn_xp.backend.adapters.standard import TO_HOST
from rnn_xp.backend.arrays import (
    array_namespace,
    device_of,
    dtype_name,
    float_dtype,
    to_numpy,
)
from rnn_xp.backend.libraries import Library, UnusableError, first_line, load

__all__ = ["DTYPES", "PRODUCTS", "Backend", "BackendError", "Setting", "backend_of", "open_backend"]

DTYPES = ("float32", "float64")
"""The precisions in which a backend computes."""

PRODUCTS = ("fp32", "tf32")
"""The precisions to which the factors of matrix products in float32 may be rounded."""


class BackendError(RuntimeError):
    """The backend, device or dtype asked for is not available; the message says which ones are.

    Examples
    --------
    >>> from rnn_xp.backend import get_backend
    >>> try:  # doctest: +NORMALIZE_WHITESPACE
    ...     get_backend("tf")
    ... except BackendError as error:
    ...     print(error)
    name='tf' is not known. Choose one of: numpy, cupy, torch, jax, dpnp, mlx, array_api_strict,
    auto.
    """


@dataclasses.dataclass(frozen=True)
class Backend:
    """A library, one of its devices and a floating dtype, with which new arrays are created.

    `rnn_xp.get_backend` makes one. It can be copied and pickled: a copy is opened again by name.

    Attributes
    ----------
    name : str
        The library, one of ``"numpy"``, ``"cupy"``, ``"torch"``, ``"jax"``, ``"dpnp"``, ``"mlx"``
        and ``"array_api_strict"``; for arrays of another library, the module of its namespace.
    xp : Namespace
        Its Array API namespace, as array_api_compat gives it.
    device : object
        The library's own device object.
    dtype : object
        The library's own dtype object, float32 or float64.

    Examples
    --------
    >>> from rnn_xp.backend import get_backend
    >>> backend = get_backend("numpy", dtype="float64")
    >>> backend.xp.zeros(2, dtype=backend.dtype, device=backend.device)
    array([0., 0.])
    """

    name: str
    xp: Namespace
    device: Any
    dtype: Any

    def __str__(self) -> str:
        return f"{self.name} {self.version} ({self.device_name}, {self.dtype_name})"

    def __reduce__(self) -> tuple[Any, ...]:
        # A module cannot be pickled: keep the three names, and open the backend again.
        origin = f"copy of {self}"
        name = Setting(self.name, origin)
        device = Setting(self.device_name, origin)
        dtype = Setting(self.dtype_name, origin)
        return open_backend, (name, device, dtype)

    @property
    def adapter(self) -> Adapter:
        """The adapter of the library, see `rnn_xp.backend.adapters`."""
        return adapter_named(self.name)

    @property
    def device_name(self) -> str:
        """Name of the device, as RNN_XP_DEVICE takes it: ``cpu``, ``cuda:0``, ``device1``."""
        return self.adapter.device_name(self.device)

    @property
    def device_kind(self) -> str:
        """Kind of the device, without its number: ``cpu``, ``cuda NVIDIA H200``."""
        return self.adapter.device_kind(self.device)

    @property
    def is_accelerator(self) -> bool:
        """True if launches and reads by the host are expensive on the device, as on a GPU."""
        return self.adapter.is_accelerator(self.device)

    @property
    def dtype_name(self) -> str:
        """Name of the dtype: ``float32`` or ``float64``."""
        return dtype_name(self.dtype)

    @property
    def version(self) -> str:
        """Version of the library."""
        return self.adapter.version()

    def asarray(self, host: Any, *, copy: bool = True) -> Array:
        """Bring host values to this backend's device.

        Parameters
        ----------
        host : array_like
            A NumPy array, a number, a nested list of numbers, or whatever has values that the host
            can read. Floating values are cast to ``dtype``; integers and booleans keep their kind.
        copy : bool
            If False and the backend is NumPy, an array that needs no cast is returned as it is, and
            stays read-only if it was. Otherwise the result shares no memory with `host`.

        Returns
        -------
        Array
            An array of this library, on this device.

        Raises
        ------
        TypeError
            If the values are not real numbers or are a masked array, or if no integer dtype of the
            device holds them.

        Examples
        --------
        >>> from rnn_xp.backend import get_backend
        >>> backend = get_backend("numpy", dtype="float32")
        >>> backend.asarray([0.5, 1])
        array([0.5, 1. ], dtype=float32)
        >>> backend.asarray([1, 2]).dtype
        dtype('int64')
        """
        values = self._values(host)
        dtype = self._host_dtype(values)
        return self.adapter.asarray(values, dtype, self.device, copy, xp=self.xp)

    def to_numpy(self, array: Array) -> np.ndarray:
        """Bring an array back to the host; see the function `rnn_xp.backend.to_numpy`.

        Parameters
        ----------
        array : Array
            An array on any device.

        Returns
        -------
        numpy.ndarray
            A copy, or a view if the values are already on the host.

        Raises
        ------
        TypeError
            If `array` is not an array.

        Examples
        --------
        >>> from rnn_xp.backend import get_backend
        >>> backend = get_backend("numpy")
        >>> backend.to_numpy(backend.asarray([1, 2]))
        array([1, 2])
        """
        return to_numpy(array)

    def synchronize(self) -> None:
        """Wait until the device has finished; with JAX, until every live array is computed.

        Examples
        --------
        >>> from rnn_xp.backend import get_backend
        >>> get_backend("numpy").synchronize()
        """
        self.adapter.synchronize(self.device)

    def _values(self, host: Any) -> np.ndarray:
        """Return the values of any array, list or number as a NumPy array."""
        host = readable("asarray", host)
        try:
            values = np.asarray(host)
        except ValueError as error:  # such as of lists of unequal length
            raise ValueError(f"asarray: {error}") from None
        except Exception as error:  # arrays of other devices and libraries, by errors of their own
            if hasattr(host, "__array_namespace__") or hasattr(host, "__dlpack__"):
                return to_numpy(host)
            raise TypeError(
                f"asarray: numpy.asarray does not take a {type(host).__qualname__} "
                f"({first_line(error)}). Give its values as a NumPy array or a list."
            ) from None
        own = next((name for name in TO_HOST if hasattr(host, name)), "")
        return np.asarray(getattr(host, own)()) if values.dtype == object and own else values

    def _host_dtype(self, values: np.ndarray) -> np.dtype[Any]:
        """Choose the dtype in which `values` leave the host."""
        if values.dtype.kind == "f":
            return np.dtype(self.dtype_name)
        if values.dtype.kind not in "biu":
            raise TypeError(
                f"real numbers are required; given dtype {values.dtype}. "
                "Convert them first, for instance with numpy.asarray(x, dtype='float64')."
            )
        known = self.adapter.dtypes(self.xp, self.device)
        for name in (values.dtype.name, "int64", "int32"):
            if name in known and np.array_equal(values.astype(name), values):
                return np.dtype(name)
        raise TypeError(f"no integer dtype of {self} holds these {values.dtype} values")


class Setting(NamedTuple):
    """A choice and its origin.

    Attributes
    ----------
    value : object
        The chosen name; None for the default.
    origin : str
        The argument or environment variable with its value, as error messages show it.

    Examples
    --------
    >>> Setting("cuda", "RNN_XP_DEVICE=cuda").value
    'cuda'
    """

    value: Any
    origin: str


def open_backend(
    name: Setting, device: Setting, dtype: Setting, products: Setting | None = None
) -> Backend:
    """Open the backend that settings describe; an error says how to repair them.

    Parameters
    ----------
    name : Setting
        One of `rnn_xp.backend.adapters.ADAPTERS`.
    device : Setting
        Name of a device, or None for the library's own default.
    dtype : Setting
        One of `DTYPES`.
    products : Setting, optional
        One of `PRODUCTS`; by default "fp32".

    Returns
    -------
    Backend

    Raises
    ------
    BackendError
        If the library is missing or not usable, or has no such device, dtype or products.

    Examples
    --------
    >>> default = "the default"
    >>> backend = open_backend(
    ...     Setting("numpy", default), Setting(None, default), Setting("float32", default)
    ... )
    >>> backend.device_name
    'cpu'
    """
    try:
        library = load(name.value)
    except UnusableError as error:
        raise _unusable(name, error) from error.__cause__
    place = _find_device(name.value, library, device)
    native = library.devices[place]
    adapter, xp = adapter_named(name.value), library.namespace
    adapter.use(native)
    tf32 = products is not None and products.value == "tf32"
    if not adapter.round_products(native, tf32):
        raise BackendError(
            f"{'' if products is None else products.origin} needs a GPU of cupy (CUDA), torch "
            f"(CUDA), jax or mlx; backend {name.value} ({name.origin}) is on {place}. Choose such "
            "a GPU, or leave the variable out."
        )
    if dtype.value not in adapter.dtypes(xp, native):
        raise _no_such_dtype(name.value, library, place, dtype)
    # As arrays report it: jax.numpy.float32, for one, is not itself a dtype.
    reported = xp.zeros(1, dtype=getattr(xp, dtype.value), device=native).dtype
    return Backend(name.value, xp, native, reported)


def backend_of(array: Array) -> Backend:
    """Return the backend to which an existing array belongs.

    Parameters
    ----------
    array : Array
        An array of dtype float32 or float64.

    Returns
    -------
    Backend

    Raises
    ------
    TypeError
        If `array` is not an array, has another dtype, or is being traced by JAX.

    Examples
    --------
    >>> import numpy as np
    >>> backend = backend_of(np.zeros(2))
    >>> backend.name, backend.dtype_name
    ('numpy', 'float64')
    """
    xp = array_namespace(array)
    device = device_of(array)
    adapter = adapter_of(xp)
    name = adapter.name
    if device is None and name in ADAPTERS:
        raise TypeError("a concrete array is required; given one that is being traced")
    dtype = float_dtype(array=array)
    if dtype_name(dtype) == adapter.lacks:
        raise TypeError(
            f"an array of {name} is {adapter.lacks}, in which {name} does not compute here. "
            f"{adapter.dtype_hint}, or cast the arrays."
        )
    if dtype_name(dtype) not in DTYPES:
        raise TypeError(f"float32 or float64 is required; array is {dtype_name(dtype)}")
    return Backend(name, xp, device, dtype)


def _find_device(name: str, library: Library, asked: Setting) -> str:
    """Return the name of the requested device, or of the default device, if it is present."""
    wanted = library.default_device if asked.value is None else str(asked.value)
    adapter = adapter_named(name)
    for spelling in adapter.spellings(wanted):
        if spelling in library.devices:
            return spelling
    raise BackendError(
        f"{name} has no device {asked.value!r} here ({asked.origin}). "
        f"Choose one of: {', '.join(library.devices)}. For a GPU, {adapter.gpu_hint}."
    )


def _unusable(name: Setting, error: UnusableError) -> BackendError:
    """Return the error that the library is not usable, with the repair."""
    adapter = adapter_named(name.value)
    repair = adapter.repair() if error.version else f"Install it with: {adapter.install}"
    others = ", ".join(other for other in ADAPTERS if other != name.value)
    return BackendError(
        f"backend {name.value} was asked for ({name.origin}), but {error.reason}. "
        f"{repair}, or choose another: {others}."
    )


def _no_such_dtype(name: str, library: Library, device: str, dtype: Setting) -> BackendError:
    """Return the error that the device lacks this precision, with the repair."""
    others = [other for other in library.devices if other != device]
    hint = adapter_named(name).dtype_hint
    repairs = [hint] if hint else []
    if others and not repairs:
        repairs = [f"Choose another device of: {', '.join(others)}"]
    repair = ", or ".join([*repairs, "choose the dtype float32"])
    return BackendError(
        f"{name} on {device} has no {dtype.value} ({dtype.origin}). "
        f"{repair[0].upper()}{repair[1:]}."
    )
