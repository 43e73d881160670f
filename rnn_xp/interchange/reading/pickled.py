"""Pickles of arrays, read by a machine of its own: nothing that a file names is ever imported.

A pickle is a program. This module runs the part of it that builds dicts, lists, numbers and
tensors, on stand-ins: a name in the file such as ``torch._utils _rebuild_tensor_v2`` is looked up
in the tables below, and a name that they lack is refused. So a file cannot execute anything.

`read_zip` reads what ``torch.save`` writes, `read_plain` what it wrote before version 1.6 and the
``.pdparams`` of Paddle, in which arrays are NumPy's.
"""

from __future__ import annotations

import dataclasses
import math
import pickletools
import re
import warnings
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rnn_xp.checkpoint import CheckpointError
from rnn_xp.interchange.reading.content import dtype_of, widened

__all__ = ["read_plain", "read_zip", "weights"]

_Order = Literal["<", ">"]
_MAGIC = 0x1950A86A20F9469CFC6C  # of torch.save before 1.6
_STORAGES = {
    "Float": "float32", "Double": "float64", "Half": "float16", "BFloat16": "bfloat16",
    "Long": "int64", "Int": "int32", "Short": "int16", "Char": "int8", "Byte": "uint8",
    "Bool": "bool",
}  # fmt: skip
_INERT = {  # what checkpoints have beside their weights: it is read over
    *("pathlib PosixPath", "pathlib WindowsPath", "pathlib._local PosixPath", "torch device"),
    *("argparse Namespace", "collections defaultdict", "collections Counter", "builtins set"),
    *("lightning.fabric.utilities.data AttributeDict", "builtins dict", "builtins list"),
    *("lightning_fabric.utilities.data AttributeDict", "builtins int", "builtins float"),
    *("pytorch_lightning.utilities.parsing AttributeDict", "builtins complex"),
    *("numpy._core.multiarray scalar", "numpy.core.multiarray scalar"),
    *("pytorch_lightning.callbacks.model_checkpoint ModelCheckpoint", "datetime datetime"),
    *(f"torch {name}" for name in ("float16", "float32", "float64", "bfloat16", "int64", "bool")),
}


@dataclasses.dataclass
class _Name:
    """A name in the file, such as ``torch FloatStorage``; a stand-in that does nothing."""

    text: str


@dataclasses.dataclass
class _Inert:
    """An object that is read over."""


@dataclasses.dataclass
class _Pending:
    """A dtype or an array of NumPy, whose content follows in the file."""

    dtype: str = ""
    array: NDArray[Any] | None = None


@dataclasses.dataclass
class _Storage:
    """Numbers that tensors are views of."""

    dtype: str
    size: int
    load: Callable[[], bytes]


@dataclasses.dataclass
class _Later:
    """A tensor, which is made when the whole file is read."""

    make: Callable[[], NDArray[Any]]


def read_zip(data: bytes, member: Callable[[str], bytes], big_endian: bool) -> Any:
    """Read the object that ``torch.save`` wrote.

    Parameters
    ----------
    data : bytes
        The member data.pkl.
    member : callable
        Returns the bytes of a storage, by its key.
    big_endian : bool

    Returns
    -------
    dict, list, ndarray, ...

    Raises
    ------
    CheckpointError
        If the pickle asks for more than tensors. The message lacks the path.
    """

    def storage(identity: Any) -> _Storage:
        match identity:
            case ("storage", _Name(text), str(key), _, int(size)):
                return _Storage(_storage_dtype(text), size, lambda: member(key))
        raise CheckpointError("refers to a tensor in a way that PyTorch does not.")

    return _finish(_run(data, storage, ">" if big_endian else "<")[0])


def read_plain(data: bytes) -> Any:
    """Read a pickle that is a file of its own: of Paddle, or of PyTorch before 1.6.

    Raises
    ------
    CheckpointError
        If it asks for more than tensors. The message lacks the path.
    """
    value, end = _run(data, _no_storage, "<")
    if value != _MAGIC:
        return _finish(value)
    for _ in range(2):  # the version of the protocol, then facts about the machine
        _, end = _skip(data, end)
    sizes: dict[str, _Storage] = {}
    where: dict[str, int] = {}

    def storage(identity: Any) -> _Storage:
        match identity:
            case ("storage", _Name(text), str(key), _, int(size), None):
                kind = _storage_dtype(text)
                length = size * dtype_of(kind).itemsize
                sizes[key] = _Storage(kind, size, lambda: data[where[key] : where[key] + length])
                return sizes[key]
        raise CheckpointError("has tensors that are views of storages: save its state_dict again.")

    value, end = _run(data, storage, "<", end)
    keys, end = _skip(data, end)
    for key in keys if isinstance(keys, list) else []:
        if key not in sizes:
            raise CheckpointError("lists tensors that it does not have.")
        where[key] = end + 8  # after the number of entries
        end = where[key] + sizes[key].size * dtype_of(sizes[key].dtype).itemsize
    if sizes.keys() != where.keys() or end != len(data):
        raise CheckpointError("does not have as many bytes as its tensors need.")
    return _finish(value)


def weights(tree: Any) -> dict[str, Any]:
    """Return the dict of weights in what a training saved.

    Parameters
    ----------
    tree : object
        A state_dict, or a dict that has one at a key such as "state_dict" or "model".

    Returns
    -------
    dict

    Raises
    ------
    CheckpointError
        If there is no dict of weights, or several that differ; their keys are named.

    Examples
    --------
    >>> list(weights({"epoch": 3, "model": {"fc.weight": np.ones((1, 2))}}))
    ['fc.weight']
    """
    found: dict[str, dict[str, Any]] = {}
    pending: list[tuple[str, Any, int]] = [("", tree, 0)]
    while pending:
        name, each, depth = pending.pop()
        if not isinstance(each, dict) or depth > 3:
            continue
        arrays = {key: a for key, a in each.items() if isinstance(a, np.ndarray)}
        if any(re.search(r"(^|[._])(weight|kernel|W[xh])", key) for key in arrays):
            found[name] = arrays
        else:
            pending += [(f"{name}.{key}".strip("."), a, depth + 1) for key, a in each.items()]
    if not found:
        raise CheckpointError("has no state_dict: no dict of tensors with names such as weight.")
    if len(found) > 1:
        raise CheckpointError(
            f"has {len(found)} dicts of weights, {', '.join(sorted(found))}. Save the one that is "
            "wanted alone."
        )
    return next(iter(found.values()))


def _skip(data: bytes, start: int) -> tuple[Any, int]:
    return _run(data, _no_storage, "<", start)


def _no_storage(identity: Any) -> _Storage:
    raise CheckpointError("refers to tensors outside the pickle.")


def _storage_dtype(name: str) -> str:
    kind = name.removeprefix("torch ").removesuffix("Storage")
    if kind not in _STORAGES:
        raise CheckpointError(f"has tensors of {name.replace(' ', '.')}, which are not read.")
    return _STORAGES[kind]


def _run(
    data: bytes, storage: Callable[[Any], _Storage], order: _Order, start: int = 0
) -> tuple[Any, int]:
    """Run the pickle that begins at an offset; return its object and the offset after it."""
    machine = _Machine(storage, order)
    view = data[start:] if start else data
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of escapes in damaged texts
        return _steps(machine, view, start)


def _steps(machine: _Machine, view: bytes, start: int) -> tuple[Any, int]:
    try:
        for opcode, argument, at in pickletools.genops(view):
            if opcode.name == "STOP":
                return machine.stack.pop(), start + (at or 0) + 1
            machine.step(opcode.name, argument)
    except CheckpointError:
        raise
    except (ValueError, IndexError, KeyError, TypeError, UnicodeError, AttributeError) as error:
        raise CheckpointError(f"is damaged: its pickle does not parse ({error}).") from error
    raise CheckpointError("is damaged: its pickle has no end.")


class _Machine:
    """The stack, the marks and the memo of a pickle."""

    def __init__(self, storage: Callable[[Any], _Storage], order: _Order) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.storage, self.order = storage, order

    def step(self, name: str, argument: Any) -> None:
        stack = self.stack
        match name:
            case "PROTO" | "FRAME":
                pass
            case "MARK":
                self.marks.append(len(stack))
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[name])
            case "EMPTY_DICT" | "EMPTY_LIST" | "EMPTY_TUPLE" | "EMPTY_SET":
                stack.append(() if name == "EMPTY_TUPLE" else [] if name == "EMPTY_LIST" else {})
            case "TUPLE":
                stack.append(tuple(self._marked()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                stack.append(tuple(self._pop(int(name[-1]))))
            case "LIST" | "DICT":
                items = self._marked()
                stack.append(items if name == "LIST" else _put({}, items))
            case "APPEND" | "APPENDS":
                items = self._pop(1) if name == "APPEND" else self._marked()
                if isinstance(stack[-1], list):
                    stack[-1].extend(items)
            case "ADDITEMS":
                self._marked()  # of a set, which is read over
            case "SETITEM" | "SETITEMS":
                items = self._pop(2) if name == "SETITEM" else self._marked()
                if isinstance(stack[-1], dict):
                    _put(stack[-1], items)
            case "BINPUT" | "LONG_BINPUT" | "PUT":
                self.memo[argument] = stack[-1]
            case "MEMOIZE":
                self.memo[len(self.memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET" | "GET":
                stack.append(self.memo[argument])
            case "GLOBAL" | "STACK_GLOBAL":
                stack.append(_known(argument or " ".join(self._pop(2))))
            case "BINPERSID":
                stack.append(self.storage(stack.pop()))
            case "REDUCE" | "NEWOBJ":
                called, arguments = self._pop(2)
                stack.append(_call(called, arguments, self.order))
            case "BUILD":
                state = stack.pop()
                stack[-1] = _build(stack[-1], state)
            case "POP" | "POP_MARK":
                _ = self._pop(1) if name == "POP" else self._marked()
            case _ if argument is not None:  # a number, a string or bytes
                stack.append(argument)
            case _:
                raise CheckpointError(f"has a pickle with the operation {name}, which is not run.")

    def _pop(self, count: int) -> list[Any]:
        if len(self.stack) < count:
            raise ValueError("it takes more than there is")
        items = self.stack[-count:]
        del self.stack[-count:]
        return items

    def _marked(self) -> list[Any]:
        at = self.marks.pop()
        items = self.stack[at:]
        del self.stack[at:]
        return items


def _put(items: dict[Any, Any], pairs: list[Any]) -> dict[Any, Any]:
    for key, value in zip(pairs[::2], pairs[1::2], strict=True):
        if isinstance(key, str | int):  # others have no place in a name; a deep tuple has no hash
            items[key] = value
    return items


def _known(name: str) -> _Name:
    """Return a stand-in for a name in the file, or refuse it."""
    tensors = name.startswith("torch ") and name.endswith("Storage")
    if name in _CALLS or name in _INERT or tensors or name == "numpy ndarray":
        return _Name(name)
    raise CheckpointError(
        f"asks for {name.replace(' ', '.')}, which no file of weights needs; nothing of it was "
        "run. If it is a whole model, open it where its code is and save its state_dict: "
        "torch.save(model.state_dict(), path)."
    )


def _call(called: Any, arguments: Any, order: _Order) -> Any:
    if not isinstance(called, _Name) or not isinstance(arguments, tuple):
        raise ValueError("it calls what is no name")
    function = _CALLS.get(called.text)
    return _Inert() if function is None else function(order, *arguments)


def _build(value: Any, state: Any) -> Any:
    """Give a dtype or an array of NumPy its content; the states of others are read over."""
    if not isinstance(value, _Pending):
        return value
    match state:
        case (int(), str(order), *_) if value.dtype:
            letter = value.dtype[1:] if value.dtype[:1] in "<>|=" else value.dtype
            return _Pending(order.replace("=", "<") + letter)
        case (int(), tuple(shape), _Pending(kind, None), bool(fortran), bytes(content)):
            flat = np.frombuffer(content, dtype_of(kind))
            array = flat.reshape(shape, order="F" if fortran else "C")
            return _Pending(kind, array)
    raise ValueError("an array of NumPy has no plain numbers")


def _tensor(order: _Order, storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> _Later:
    """Return a tensor, which is a view of a storage; its numbers may follow later in the file."""
    if not isinstance(storage, _Storage) or len(size) != len(stride) or len(size) > 32:
        raise ValueError("a tensor is no view of a storage")
    if not all(type(n) is int and 0 <= n < 1 << 40 for n in (offset, *size, *stride)):
        raise ValueError("a tensor has no sizes")
    count = math.prod(size)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if count and (last >= storage.size or count > storage.size):
        raise ValueError("a tensor reaches beyond its storage")

    def make() -> NDArray[Any]:
        dtype = dtype_of(storage.dtype, order)
        content = storage.load()
        if len(content) != storage.size * dtype.itemsize:
            raise CheckpointError("is damaged: a tensor has not as many bytes as it needs.")
        flat = np.frombuffer(content, dtype)[offset if count else 0 :]
        steps = [step * dtype.itemsize for step in stride]
        view = np.lib.stride_tricks.as_strided(flat, size, steps, writeable=False)
        return widened(np.array(view), storage.dtype)

    return _Later(make)


def _codes(order: _Order, text: Any, encoding: Any, *_: Any) -> bytes:
    return str(text).encode("latin1")


_CALLS: Mapping[str, Callable[..., Any]] = {
    "collections OrderedDict": lambda order, pairs=(): _put({}, [v for two in pairs for v in two]),
    "torch._utils _rebuild_tensor_v2": _tensor,
    "torch._utils _rebuild_parameter": lambda order, tensor, *_: tensor,
    "torch._utils _rebuild_parameter_with_state": lambda order, tensor, *_: tensor,
    "torch Size": lambda order, sizes=(): tuple(sizes),
    "_codecs encode": _codes,
    "numpy dtype": lambda order, kind, *_: _Pending(str(kind)),
    "numpy._core.multiarray _reconstruct": lambda order, *_: _Pending(),
    "numpy.core.multiarray _reconstruct": lambda order, *_: _Pending(),
}


def _finish(value: Any, depth: int = 0, left: list[int] | None = None) -> Any:
    """Return dicts of arrays without what was read over, in bounded depth and number."""
    left = [1_000_000] if left is None else left
    left[0] -= 1
    if depth > 12 or left[0] < 0:
        raise CheckpointError("nests or repeats its content more often than weights do.")
    if isinstance(value, _Later):
        return value.make()
    if isinstance(value, _Pending):
        return None if value.array is None else np.array(value.array)
    if isinstance(value, dict):
        return {str(key): _finish(each, depth + 1, left) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finish(each, depth + 1, left) for each in value]
    return value if isinstance(value, np.ndarray | str | int | float) else None
