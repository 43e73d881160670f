"""Find the library, device and dtype of arrays, and bring arrays to the host.

Nothing here is configured: the arrays alone decide. ``array_api_compat`` is imported on first use.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from rnn_xp._checks import refuse_masked
from rnn_xp._typing import Array, Namespace
from rnn_xp.backend.adapters import ADAPTERS, adapter_of
from rnn_xp.backend.adapters.standard import TO_HOST

__all__ = [
    "array_namespace",
    "detached",
    "device_of",
    "dtype_name",
    "float_dtype",
    "is_traced",
    "library_name",
    "require_arrays",
    "to_numpy",
]

_COMPLETED = {adapter.completes: adapter for adapter in ADAPTERS.values() if adapter.completes}
_FLOATING = ("float32", "float64", "complex64", "complex128")


def array_namespace(*arrays: Array) -> Namespace:
    """Return the namespace that all arrays share.

    Parameters
    ----------
    *arrays : Array or None
        At least one array; ``None`` among them is ignored.

    Returns
    -------
    Namespace
        The Array API namespace as array_api_compat gives it, completed for MLX.

    Raises
    ------
    TypeError
        If there is no array, if the arrays belong to different libraries, if one is masked or a
        ``numpy.matrix``, or if its library has no Array API namespace.

    Examples
    --------
    >>> import numpy as np
    >>> xp = array_namespace(np.zeros(2), None, np.ones(3))
    >>> xp.__name__
    'array_api_compat.numpy'
    """
    import array_api_compat

    present = [array for array in arrays if array is not None]
    for array in present:
        if type(array) is not np.ndarray:  # no subclass: asked at every call
            _refuse_subclass(array)
    try:
        xp = array_api_compat.array_namespace(*present)
    except TypeError:
        raise TypeError(_refusal(present)) from None
    incomplete = _COMPLETED.get(xp.__name__)
    return xp if incomplete is None else incomplete.namespace()


def require_arrays(owner: str, **arrays: Any) -> Namespace:
    """Return the namespace that all arrays share; refuse by its name what is no array.

    Parameters
    ----------
    owner : str
        Whose arguments they are, as error messages show it.
    **arrays : object
        The arguments, at least one; ``None`` is refused as well.

    Returns
    -------
    Namespace

    Raises
    ------
    TypeError
        If an argument is no array, or see `array_namespace`.

    Examples
    --------
    >>> require_arrays("Network", x=[[1.0]])  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    TypeError: Network: x must be an array, got list. Convert it first, for instance with ...
    """
    for name, array in arrays.items():
        if not hasattr(array, "shape"):
            repair = "Convert it first, for instance with get_backend(name)"
            raise TypeError(
                f"{owner}: {name} must be an array, got None."
                if array is None
                else f"{owner}: {name} must be an array, got {_describe_type(array)}. {repair}"
                f".asarray({_on_host(array, name)})."
            )
    return array_namespace(*arrays.values())


def device_of(array: Array, *, rows: bool = False) -> Any:
    """Return the device of an array, ready for ``device=``.

    Parameters
    ----------
    array : Array
        An array of any library.
    rows : bool
        If True, the device is for an array with as many rows. It matters only for a JAX array that
        is split over devices: the other array is then split in the same way along its first axis,
        and otherwise it is whole on each of them.

    Returns
    -------
    object
        The library's own device object; None for an array that JAX is tracing. For a JAX array
        on several devices it is a sharding.

    Examples
    --------
    >>> import numpy as np
    >>> device_of(np.zeros(2))
    'cpu'
    """
    import array_api_compat

    try:
        place = array_api_compat.device(array)
    except AttributeError:  # arrays of MLX, for one, have none
        return adapter_of(array_namespace(array)).device_of(array)
    if not hasattr(place, "device_set"):
        return place
    return adapter_of(array_namespace(array)).beside(place, rows)


def float_dtype(**arrays: Array) -> Any:
    """Return the floating dtype that all arrays share; the error names two that differ.

    The dtype is float32 or float64; complex64 and complex128 are accepted as well, because the
    complex-step test runs the same code on complex arrays.

    Parameters
    ----------
    **arrays : Array or None
        At least one array, under the name that error messages use for it; ``None`` among them is
        ignored.

    Returns
    -------
    dtype
        The library's own dtype object.

    Raises
    ------
    TypeError
        If there is no array, if the arrays belong to different libraries, if one of them is not
        floating, or if their dtypes differ.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.zeros(2, dtype="float32")
    >>> float_dtype(x=x, mask=None)
    dtype('float32')
    >>> float_dtype(x=x, y=np.zeros(2))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    TypeError: one floating dtype is required; x is float32, but y is float64. Nothing is cast ...
    """
    present = {name: array for name, array in arrays.items() if array is not None}
    array_namespace(*present.values())
    first = next(iter(present))
    dtype = present[first].dtype
    for name, array in present.items():
        shown = f"{name} is {dtype_name(array.dtype)}"
        if dtype_name(array.dtype) not in _FLOATING:
            raise TypeError(f"float32 or float64 is required; {shown}. xp.astype converts it.")
        if array.dtype != dtype:
            raise TypeError(
                f"one floating dtype is required; {first} is {dtype_name(dtype)}, but {shown}. "
                f"Nothing is cast silently: use xp.astype({name}, {first}.dtype), or the reverse."
            )
    return dtype


def to_numpy(array: Array) -> np.ndarray:
    """Bring an array of any library to the host.

    Parameters
    ----------
    array : Array
        An array on any device. A torch tensor that records gradients is detached.

    Returns
    -------
    numpy.ndarray
        A copy, or a view if the values are already on the host.

    Raises
    ------
    TypeError
        If `array` is not an array, such as a list.

    Examples
    --------
    >>> import numpy as np
    >>> to_numpy(np.asarray([1.0, 2.0]))
    array([1., 2.])
    """
    return adapter_of(array_namespace(array)).to_numpy(array)


def detached(array: Array) -> Array:
    """Return an array without its history of gradients.

    Parameters
    ----------
    array : Array
        An array of any library.

    Returns
    -------
    Array
        A torch tensor is detached from its graph and shares its memory; any other array is
        returned as it is.

    Examples
    --------
    >>> import numpy as np
    >>> array = np.zeros(2)
    >>> detached(array) is array
    True
    """
    return adapter_of(array_namespace(array)).detached(array)


def is_traced(*arrays: Array) -> bool:
    """Return True if a library traces the arrays, so that host values would be constants.

    Parameters
    ----------
    *arrays : Array
        Arrays of one library, at least one.

    Returns
    -------
    bool
        True inside a function that JAX or ``torch.jit.trace`` compiles, or that JAX or torch maps
        over a batch.

    Examples
    --------
    >>> import numpy as np
    >>> is_traced(np.zeros(2))
    False
    """
    return adapter_of(array_namespace(*arrays)).is_traced(arrays)


def library_name(xp: Namespace) -> str:
    """Return the name of the library behind a namespace.

    Parameters
    ----------
    xp : Namespace
        The result of `array_namespace`.

    Returns
    -------
    str
        The name under which the library is imported, such as ``"numpy"`` or ``"jax"``.

    Examples
    --------
    >>> import numpy as np
    >>> library_name(array_namespace(np.zeros(2)))
    'numpy'
    """
    module = str(xp.__name__).removeprefix("array_api_compat.")
    return module.partition(".")[0]


def dtype_name(dtype: Any) -> str:
    """Return the name of a dtype, without the name of its library.

    Parameters
    ----------
    dtype : dtype
        A dtype of any library; ``torch.float32``, for instance, prints with a prefix.

    Returns
    -------
    str
        For instance ``"float32"``.

    Examples
    --------
    >>> import numpy as np
    >>> dtype_name(np.dtype("float32"))
    'float32'
    """
    return _numpy_name(dtype) if isinstance(dtype, np.dtype) else str(dtype).rpartition(".")[2]


@functools.cache
def _numpy_name(dtype: np.dtype[Any]) -> str:
    return str(dtype)  # which NumPy puts together anew each time


def _refuse_subclass(array: Any) -> None:
    """Refuse what looks like an array of NumPy and computes otherwise."""
    refuse_masked("arrays", array)
    if isinstance(array, np.matrix):
        raise TypeError(
            "arrays are required; given a numpy.matrix, whose operator * is a product of matrices. "
            "Give numpy.asarray(x)."
        )


def _refusal(arrays: Sequence[Any]) -> str:
    """Return the error that arrays have no namespace, or not the same one, with the repair."""
    import array_api_compat

    if not arrays:
        return "an array is required; given none."
    foreign = [array for array in arrays if not array_api_compat.is_array_api_obj(array)]
    kinds = " and ".join(dict.fromkeys(map(_describe_type, foreign or arrays)))
    if not foreign:
        return (
            f"arrays of one library are required; given {kinds}. Bring them together first, for "
            "instance with get_backend(name).asarray(to_numpy(x))."
        )
    return (
        f"an array with an Array API namespace is required; given {kinds}. Convert it first, for "
        f"instance with get_backend(name).asarray({_on_host(foreign[0], 'x')})."
    )


def _on_host(array: Any, name: str) -> str:
    """Return the expression that makes a NumPy array of an object of this name."""
    own = next((method for method in TO_HOST if hasattr(array, method)), "")
    return f"{name}.{own}()" if own else f"numpy.asarray({name})"


def _describe_type(array: Any) -> str:
    kind = type(array)
    library = kind.__module__.partition(".")[0]
    return kind.__qualname__ if library == "builtins" else f"{library}.{kind.__qualname__}"
