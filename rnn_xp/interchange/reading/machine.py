"""A machine that runs the part of a pickle that builds dicts, lists, numbers and tensors.

It works on stand-ins: a name in the file such as ``torch._utils _rebuild_tensor_v2`` is looked up
in the tables below and never imported, and a name that they lack is refused.
"""

from __future__ import annotations

import dataclasses
import math
import pickletools
import warnings
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rnn_xp.checkpoint import CheckpointError
from rnn_xp.interchange.reading.content import dtype_of, widened

__all__ = ["Name", "Order", "Storage", "finished", "run"]

Order: TypeAlias = Literal["<", ">"]
"""Order of the bytes of a number."""

_MOST_VALUES, _MOST_BYTES = 1_000_000, 8 << 30
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
class Name:
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
class Storage:
    """Numbers that tensors are views of."""

    dtype: str
    size: int
    load: Callable[[], bytes]


@dataclasses.dataclass
class _Later:
    """A tensor, which is made when the whole file is read."""

    make: Callable[[], NDArray[Any]]


def run(
    data: bytes, storage: Callable[[Any], Storage], order: Order, start: int = 0
) -> tuple[Any, int]:
    """Run the pickle that begins at an offset.

    Parameters
    ----------
    data : bytes
    storage : callable
        Returns the storage to which a reference in the pickle points.
    order : {"<", ">"}
        Order of the bytes of the storages.
    start : int

    Returns
    -------
    value : object
        Its object; `finished` replaces the stand-ins in it.
    end : int
        Offset after the pickle.

    Raises
    ------
    CheckpointError
        If the pickle is damaged or asks for more than tensors. The message lacks the path.
    """
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

    def __init__(self, storage: Callable[[Any], Storage], order: Order) -> None:
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


def _known(name: str) -> Name:
    """Return a stand-in for a name in the file, or refuse it."""
    tensors = name.startswith("torch ") and name.endswith("Storage")
    if name in _CALLS or name in _INERT or tensors or name == "numpy ndarray":
        return Name(name)
    raise CheckpointError(
        f"asks for {name.replace(' ', '.')}, which no file of weights needs; nothing of it was "
        "run. If it is a whole model, open it where its code is and save its state_dict: "
        "torch.save(model.state_dict(), path)."
    )


def _call(called: Any, arguments: Any, order: Order) -> Any:
    if not isinstance(called, Name) or not isinstance(arguments, tuple):
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


def _tensor(order: Order, storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> _Later:
    """Return a tensor, which is a view of a storage; its numbers may follow later in the file."""
    if not isinstance(storage, Storage) or len(size) != len(stride) or len(size) > 32:
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


def _codes(order: Order, text: Any, encoding: Any, *_: Any) -> bytes:
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


def finished(value: Any) -> Any:
    """Replace stand-ins by arrays, in bounded depth, number and size.

    Parameters
    ----------
    value : object
        What `run` returned.

    Returns
    -------
    object
        Dicts and lists of arrays, texts and numbers; what was read over is None.

    Raises
    ------
    CheckpointError
        If it is nested, repeated or larger beyond what weights are.
    """
    return _finish(value, 0, [_MOST_VALUES, _MOST_BYTES])


def _finish(value: Any, depth: int, left: list[int]) -> Any:
    left[0] -= 1
    if depth > 12 or min(left) < 0:
        raise CheckpointError("nests or repeats its content more often than weights do.")
    if isinstance(value, _Later):
        array = value.make()
        left[1] -= array.nbytes
        return array
    if isinstance(value, _Pending):
        return None if value.array is None else np.array(value.array)
    if isinstance(value, dict):
        return {str(key): _finish(each, depth + 1, left) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finish(each, depth + 1, left) for each in value]
    return value if isinstance(value, np.ndarray | str | int | float) else None
