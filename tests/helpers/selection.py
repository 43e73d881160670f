"""Which tests run: all with `--full`, else those that show every kind of thing; and what is absent.

    @pytest.mark.full             only with --full
    @pytest.mark.full("jax")      the same, of those whose parameters say so
    @pytest.mark.cover("pairs")   else enough for every pair of parameters to occur somewhere
    @pytest.mark.cover("values")  else enough for every value of each parameter to occur somewhere
    @pytest.mark.cover("values", "cell", "task")  the same, of these parameters alone

Of a module or a class marked so the name of the test is one of the parameters; of a backend its
library, device and dtype are. What is chosen is
computed from the parameters there are: a new cell or option joins by itself.
"""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Hashable, Iterable, Mapping
from typing import Any

import pytest
from covering import Row, covering

INSTALL = {
    "torch": "make test-torch",
    "mpi4py": "make test-mpi",
    **dict.fromkeys(("dpnp", "mlx"), "make test-libraries"),
}
LIBRARY = {"torch": "torch", "mpi": "mpi4py"}  # of the markers that mean one
LEFT_OUT = pytest.StashKey[dict[str, int]]()


Cases = Mapping[str, tuple[str, str, str]]
"""Library, device and dtype of each case of the fixture `case`."""


def needed(item: Any, cases: Cases) -> str:
    """Library of the backend a test runs on, or of its marker; empty if it needs none."""
    params = item.callspec.params if hasattr(item, "callspec") else {}
    for case in (params.get("case"), params.get("tier")):
        if isinstance(case, str) and case in cases:
            return cases[case][0]
        if case == "cupy":  # its own kernels
            return case
    return next((LIBRARY[name] for name in LIBRARY if item.get_closest_marker(name)), "")


def drop_absent(items: list[Any], cases: Cases) -> dict[str, int]:
    """Take out tests of libraries that are not installed. Returns how many, by library."""
    names = [needed(item, cases) for item in items]
    absent = {name for name in {*names} - {""} if importlib.util.find_spec(name) is None}
    items[:] = [item for item, name in zip(items, names, strict=True) if name not in absent]
    return {name: names.count(name) for name in sorted(absent)}


def row_of(item: Any, cases: Cases) -> Row:
    """The test and its parameters as factors; backends, tuples of words and records as several."""
    row: dict[str, Hashable] = {}
    fields: dict[str, Any]
    call = getattr(item, "callspec", None)
    for name, value in call.params.items() if call else ():
        if name == "case" and isinstance(value, str) and value in cases:
            fields = dict(zip(("library", "device", "dtype"), cases[value], strict=True))
        elif dataclasses.is_dataclass(value) and not isinstance(value, type):
            fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
            fields["kind"] = type(value).__name__
        elif isinstance(value, tuple) and all(isinstance(word, str) for word in value):
            fields = {str(k): word for k, word in enumerate(value)}
        else:
            fields = {"": value}
        for field, part in fields.items():
            row[f"{name}.{field}".rstrip(".")] = part if hashable(part) else call.indices[name]
    return row | {"test": item.originalname} if row else row


def hashable(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def cost(item: Any) -> float:
    """How long a test takes beside others, roughly: JAX compiles."""
    return 4.0 if "jax" in item.nodeid else 1.0


def left_to_full(item: Any, words: tuple[str, ...]) -> bool:
    """Return True if a mark `full` means this test: without words, or with one of its name."""
    _, _, params = item.nodeid.partition("[")
    return not words or any(word in params for word in words)


def chosen(items: Iterable[Any], cases: Cases) -> set[Any]:
    """What runs without `--full`."""
    kept: set[Any] = set()
    groups: dict[Any, list[Any]] = {}
    for item in items:
        if any(left_to_full(item, mark.args) for mark in item.iter_markers("full")):
            continue
        node, mark = next(item.iter_markers_with_node("cover"), (None, None))
        if mark is None:
            kept.add(item)
        elif node is item:  # the mark of a function: all its parameters together
            key = (item.parent.nodeid, item.originalname)
            groups.setdefault((key, mark.args), []).append(item)
        else:
            groups.setdefault((node.nodeid, mark.args), []).append(item)
    for (_, (what, *names)), members in groups.items():
        rows = [
            {name: v for name, v in row_of(item, cases).items() if not names or name in names}
            for item in members
        ]
        few = covering(rows, what, costs=[cost(item) for item in members])
        kept |= {members[k] for k in few}
        kept |= {item for item, row in zip(members, rows, strict=True) if not row}
    return kept


def select(config: pytest.Config, items: list[Any], cases: Cases) -> None:
    """Leave in `items` what is to run; a hook of collection calls it.

    Parameters
    ----------
    config
        Has the option `--full`, and keeps for the summary how many tests were left out and why.
    items
        All tests, changed in place.
    cases
        Those of the fixture `case`.
    """
    config.stash[LEFT_OUT] = drop_absent(items, cases)
    run = chosen(items, cases)
    rest = [item for item in items if item not in run]
    for item in rest:
        item.add_marker("full")
    if rest and not config.option.full:
        config.stash[LEFT_OUT]["full"] = len(rest)
        config.hook.pytest_deselected(items=rest)
        items[:] = [item for item in items if item in run]


def left_out(config: pytest.Config) -> str:
    """Say how many tests were left out, for which reasons, and how to run them."""
    counts = dict(config.stash.get(LEFT_OUT, {}))
    full = counts.pop("full", 0)
    reasons = [f"{full} of the full products (make test-all)"] if full else []
    for name, count in counts.items():
        cure = INSTALL.get(name, "")
        reasons.append(f"{count} as {name} is not installed ({cure or f'pip install {name}'})")
    return "left out: " + ", ".join(reasons) if reasons else ""
