"""From named arrays to a model: which arrays are recurrent, which the readout, in what order.

An array that has no place in the model is refused by its name: what it did would be lost.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnn_xp.interchange.reading.content import widened
from rnn_xp.interchange.reading.dialects import ANCHORS, Module, recurrent
from rnn_xp.interchange.reading.folding import folded
from rnn_xp.interchange.reading.stack import CELLS, Direction, Stack

__all__ = ["of_places", "understand"]

_Arrays = dict[str, NDArray[Any]]

# What a training keeps beside the weights, and what has no influence on a prediction.
_BESIDE = re.compile(
    r"(^|\.)(opt_state|optimizers?|optimizer_(weights|states?|state_dict)|lr_schedulers?|rngs|"
    r"seed_generators?|loops|num_batches_tracked)(\.|$)|^step$"
)
_REVERSE = re.compile(r"backward|reverse|(?<=cell_)bw(?=\.|$)")
_TWICE = re.compile(r"(.*?)(\d+)\.cell(_fw|_bw)?\.((?:weight|bias)_(?:ih|hh))")


def understand(arrays: _Arrays, rnn: str | None, readout: str | None) -> Stack:
    """Find the layers and the readout.

    Parameters
    ----------
    arrays : dict of str to ndarray
        Arrays of a file; names have parts that are joined by dots.
    rnn : str, optional
        Names of the recurrent modules from the input on, such as "lstm" or "enc.0, enc.1"; two
        directions of a layer are joined by a plus, "forward + backward".
    readout : str, optional
        Name of the module of the readout.

    Returns
    -------
    Stack

    Raises
    ------
    ValueError
        If there are no such modules, several of them, or arrays without a place; they are named.
    """
    rest, paddle = _plain(arrays)
    rest, kinds = folded(rest)
    modules = _modules(rest)
    if not modules:
        shown = ", ".join(sorted(rest)[:4]) or "none"
        raise ValueError(
            "has no weights of an RNN, GRU or LSTM under the names of PyTorch, Keras, Flax, "
            f"Equinox, MLX or Paddle; its arrays: {shown}. names= gives them other names."
        )
    transposed = paddle or modules[0].library in ("Keras", "Flax")
    head = _head(rest, readout, transposed)
    if rnn is not None:
        layers, names = _chosen(modules, rnn)
    else:
        layers, names = _ordered(modules, head[0].shape[1])
    _check_joined(layers, names, head[0].shape[1])
    used = {part for name in names for part in name.split(" + ")}
    others = [module.name for module in modules if module.name not in used]
    left = sorted([*rest, *(f"{name}.*" for name in others)])
    notes = {}
    if left and (rnn is None or readout is None):
        raise ValueError(_homeless(left, rest))
    if left:
        notes["ignored"] = ", ".join(left)
    if len(modules) > 1 and rnn is None:
        notes["layers"] = ", ".join(names)
    if kinds:
        notes["folded"] = ", ".join(f"{name} ({kind})" for name, kind in sorted(kinds.items()))
    first = next(module for module in modules if module.name in used)
    if wrong := [m.name for m in modules if m.name in used and m.cell != first.cell]:
        raise ValueError(f"{first.name} and {wrong[0]} are different cells; all must be the same.")
    says: dict[str, Any] = {}
    if first.cell == "gru" and first.reset_after is None:
        notes["reset_after"] = "True"
    elif first.reset_after is False:
        says["reset_after"] = False
    return Stack(first.cell, layers, names, *head, says=says, notes=notes)


def _plain(arrays: _Arrays) -> tuple[_Arrays, bool]:
    """Return the arrays of weights under plain names, and True if they are Paddle's."""
    plain: _Arrays = {}
    for name, array in arrays.items():
        parts = [part for part in re.split(r"[./]|\['?\"?|'?\"?\]", name) if part]
        name = ".".join(parts).removesuffix(".value")
        if not _BESIDE.search(name) and array.dtype.kind in "fiub":
            if name in plain:
                raise ValueError(f"has two arrays named {name}.")
            plain[name] = widened(array, array.dtype.name)
    paddle = False
    for name in list(plain):
        if match := _TWICE.fullmatch(name):  # Paddle lists each weight twice
            tail = "_reverse" if match[3] == "_bw" else ""
            twin = plain.get(f"{match[1]}{match[4]}_l{match[2]}{tail}")
            if twin is not None and np.array_equal(twin, plain[name], equal_nan=True):
                paddle = True
                del plain[name]
    return _of_vars(plain), paddle


def _of_vars(arrays: _Arrays) -> _Arrays:
    """Give the numbered variables of Keras 3 their names."""
    renamed: _Arrays = {}
    for name, array in arrays.items():
        match = re.fullmatch(r"(.*?)\.?vars\.([012])", name)
        if match is None:
            renamed[name] = array
            continue
        second = arrays.get(f"{match[1]}.vars.1" if match[1] else "vars.1")
        cell = second is not None and second.ndim == 2 and f"{match[1]}.vars.0" in arrays
        names = ("kernel", "recurrent_kernel", "bias") if cell else ("kernel", "bias", "")
        renamed[f"{match[1]}.{names[int(match[2])]}".strip(".")] = array
    return renamed


def _modules(rest: _Arrays) -> list[Module]:
    """Take the recurrent modules out of the arrays."""
    modules: list[Module] = []
    for anchor in ANCHORS:
        for key in [key for key in rest if key == anchor or key.endswith(f".{anchor}")]:
            prefix = key.removesuffix(anchor)
            if key not in rest or (anchor == "h.kernel" and f"{prefix}i.kernel" not in rest):
                continue
            inside = {
                name.removeprefix(prefix): array
                for name, array in rest.items()
                if name.startswith(prefix)
            }
            all_names = [prefix + name for name in inside]
            modules.append(recurrent(prefix.rstrip(".") or anchor, anchor, inside))
            for name in all_names:
                if name.removeprefix(prefix) not in inside:
                    del rest[name]
    return modules


def _head(rest: _Arrays, readout: str | None, transposed: bool) -> tuple[Any, Any]:
    """Take the readout out of the arrays: w_hy (O, D*H) and b_y (O,)."""
    found = {}
    for name, array in rest.items():
        module, _, leaf = name.rpartition(".")
        if leaf in ("weight", "kernel") and array.ndim == 2:
            found[module] = leaf
    if readout is not None:
        if readout not in found:
            raise ValueError(
                f"has no Linear or Dense named {readout!r}; it has {', '.join(found) or 'none'}."
            )
        found = {readout: found[readout]}
    if not found:
        raise ValueError(
            "exactly one Linear or Dense is required, found none. A network here ends in a "
            "readout: save the whole model, and not its recurrent layers alone."
        )
    if len(found) > 1:
        raise ValueError(
            f"exactly one Linear or Dense is required, found {len(found)}: "
            f"{', '.join(sorted(found)[:6])}. A network here has one readout; readout= says which, "
            "and ignores the others."
        )
    (module, leaf), *_ = found.items()
    prefix = f"{module}." if module else ""
    weight = rest.pop(prefix + leaf)
    weight = weight.T if transposed else weight
    bias = rest.pop(f"{prefix}bias", np.zeros(len(weight), weight.dtype))
    if bias.shape != weight.shape[:1]:
        raise ValueError(
            f"{prefix}bias has shape {bias.shape}, but the readout has {len(weight)} outputs."
        )
    return weight, bias


def _chosen(modules: list[Module], rnn: str) -> tuple[list[tuple[Direction, ...]], list[str]]:
    """Return the layers that a caller names."""
    by_name = {module.name: module for module in modules}
    layers: list[tuple[Direction, ...]] = []
    names: list[str] = []
    for word in rnn.split(","):
        parts = [part.strip() for part in word.split("+")]
        for part in parts:
            if part not in by_name:
                raise ValueError(
                    f"has no recurrent module named {part!r}; it has {', '.join(by_name)}."
                )
        if len(parts) == 1:
            layers += by_name[parts[0]].layers
            names += [parts[0]] * len(by_name[parts[0]].layers)
            continue
        both = [layer for part in parts for layer in by_name[part].layers]
        if len(parts) != 2 or len(both) != 2 or any(len(layer) != 1 for layer in both):
            raise ValueError(f"{word.strip()!r} are not the two directions of one layer.")
        layers.append((*both[0], *both[1]))
        names.append(" + ".join(parts))
    return layers, names


def _ordered(modules: list[Module], width: int) -> tuple[list[tuple[Direction, ...]], list[str]]:
    """Return the layers in the order of the numbers in their names.

    Modules are pairs of directions by the words forward and backward, or in their order if all have
    the same number of units and the readout sees twice as many values.
    """
    if len(modules) == 1:
        return modules[0].layers, [modules[0].name] * len(modules[0].layers)
    stems = {re.sub(r"_?\d+", "", _REVERSE.sub("forward", m.name)) for m in modules}
    names = ", ".join(sorted(module.name for module in modules))
    if len(stems) > 1 or any(len(module.layers) > 1 for module in modules):
        raise ValueError(
            f"has {len(modules)} recurrent modules, {names}: rnn= says which, from the input on, "
            "as in rnn='first, second'."
        )
    modules = sorted(modules, key=lambda module: _natural(module.name))
    parts = [module.layers[0] for module in modules]
    sizes = {part[0].w_hh.shape[1] for part in parts}
    worded = any(_REVERSE.search(module.name) for module in modules)
    if len(parts[0]) == 2 or not (worded or {2 * size for size in sizes} == {width}):
        return parts, [module.name for module in modules]
    if len(parts) % 2 or any(_REVERSE.search(module.name) for module in modules[::2]):
        raise ValueError(
            f"the modules {names} are no pairs of directions: rnn= says which, as in "
            "rnn='forward + backward'."
        )
    pairs = list(zip(modules[::2], modules[1::2], strict=True))
    layers = [(*one.layers[0], *two.layers[0]) for one, two in pairs]
    return layers, [f"{one.name} + {two.name}" for one, two in pairs]


def _check_joined(layers: list[tuple[Direction, ...]], names: list[str], width: int) -> None:
    """Refuse two directions of which the next layer, or the readout, sees one or the sum."""
    widths = [*(layer[0].w_xh.shape[-1] for layer in layers[1:]), width]
    for name, layer, seen in zip(names, layers, widths, strict=True):
        hidden = layer[0].w_hh.shape[-1]
        if len(layer) == 2 and seen == hidden:
            raise ValueError(
                f"{name}: the layer after these two directions sees {seen} values, but "
                f"{2 * hidden} are required, those of both side by side; in Keras "
                "merge_mode='concat', and not 'sum', 'ave' or 'mul'."
            )


def _natural(name: str) -> list[Any]:
    """Return a key that sorts a name without a number first, and forward before backward."""
    key: list[Any] = []
    for part in _REVERSE.sub("forward~", name).split("."):
        match = re.fullmatch(r"(.*?)_?(\d*)", part)
        stem, number = (match[1], match[2]) if match else (part, "")
        key.append((stem.replace("~", ""), int(number or -1), "~" in stem))
    return key


def _homeless(left: list[str], rest: _Arrays) -> str:
    """Return a message on arrays without a place; what one of them is known to be is said."""
    kinds = {name: _kind(name, rest) for name in left}
    name = next((name for name, kind in kinds.items() if kind), left[0])
    what = kinds[name] or "no part of a recurrent layer or its readout"
    more = f" ({len(left)} such)" if len(left) > 1 else ""
    return (
        f"{name} is {what}{more}. A network here has recurrent layers and one readout; rnn= and "
        "readout= together say which, and ignore the rest."
    )


def _kind(name: str, rest: _Arrays) -> str:
    leaf, array = name.rpartition(".")[2], rest.get(name)
    if array is None:
        return "another recurrent module"
    if leaf.startswith("running_"):
        return "part of a batch normalisation"
    if leaf in ("weight", "scale", "gamma", "beta") and array.ndim == 1:
        return "part of a layer or batch normalisation"
    return ""


def of_places(arrays: _Arrays) -> _Arrays:
    """Name arrays that have places only, in the order of Equinox: cells, then a Linear."""
    queue, named = list(arrays.values()), {}
    count = 0
    while queue:
        if len(queue) > 1 and _starts_a_cell(queue[0], queue[1]):
            rows, hidden = queue[1].shape
            named[f"cell{count}.weight_ih"], named[f"cell{count}.weight_hh"] = queue[:2]
            del queue[:2]
            if queue and queue[0].shape == (rows,):
                named[f"cell{count}.bias"] = queue.pop(0)
                if rows == 3 * hidden and queue and queue[0].shape == (hidden,):
                    named[f"cell{count}.bias_n"] = queue.pop(0)
            count += 1
        elif queue[0].ndim == 2 and count:
            name = f"linear{len(named)}"
            named[f"{name}.weight"] = queue.pop(0)
            if queue and queue[0].ndim == 1:
                named[f"{name}.bias"] = queue.pop(0)
        else:
            named[f"array{len(arrays) - len(queue)}"] = queue.pop(0)
    return named


def _starts_a_cell(first: NDArray[Any], second: NDArray[Any]) -> bool:
    if first.ndim != 2 or second.ndim != 2 or len(first) != len(second) or not second.shape[1]:
        return False
    return len(second) % second.shape[1] == 0 and len(second) // second.shape[1] in CELLS
