"""One mistake at a time, put into the code that runs."""

from __future__ import annotations

import importlib
import inspect
import types

import extending

from rnn_xp.cells import CELLS as KINDS
from rnn_xp.network import configuration, pipeline

METHODS = ("PerSample", "SecondOrder")


def plant(monkeypatch, where, old, new):
    """Put a module with one change into place.

    ``where`` is a module, of the package `network` if it names no other, or one of its classes;
    or the cell of docs/guide/extending.md.
    """
    if where == "extending.MinGRUCell":
        start = extending.CELL_SOURCE.index("class MinGRUCell")
        before, after = extending.CELL_SOURCE[:start], extending.CELL_SOURCE[start:]
        assert old in after, f"{old!r} is not in {where} any more"
        changed = extending.execute(before + after.replace(old, new, 1))
        monkeypatch.setitem(KINDS, "mingru", changed.MinGRUCell)
        return
    name, _, owner = where.rpartition(".")
    if not owner[0].isupper():
        name, owner = where, ""
    module = importlib.import_module(f"rnn_xp.{name if '.' in name else f'network.{name}'}")
    source = inspect.getsource(module)
    start = source.index(f"class {owner}") if owner else 0
    assert source.find(old, start) >= 0, f"{old!r} is not in {where} any more"
    changed = types.ModuleType(module.__name__)
    exec(source[:start] + source[start:].replace(old, new, 1), changed.__dict__)
    if name.startswith("cells.") and owner:  # built by the name of the cell
        cell = name.rpartition(".")[2]
        monkeypatch.setitem(KINDS, cell, getattr(changed, KINDS[cell].__name__))
    elif owner in METHODS:  # inherited by the network
        for method, function in vars(getattr(changed, owner)).items():
            if inspect.isfunction(function) and not method.startswith("__"):
                monkeypatch.setattr(getattr(module, owner), method, function)
    elif owner:  # built by name in configuration
        monkeypatch.setattr(configuration, owner, getattr(changed, owner))
    elif name == "topology":
        monkeypatch.setattr(pipeline, "last_steps_back", changed.last_steps_back)
        for table, entries in (
            ("_READS", ("LAST", "MEAN", "MAX")),
            ("_FEEDS", ("ZEROS", "REPEAT")),
        ):
            for entry in entries:
                found = getattr(changed, ("READ_" if table == "_READS" else "") + entry)
                monkeypatch.setitem(getattr(configuration, table), entry.lower(), found)
    else:  # called as module.function
        for function in (f for f in vars(module) if inspect.isfunction(getattr(module, f))):
            if getattr(module, function).__module__ == module.__name__:
                monkeypatch.setattr(module, function, getattr(changed, function))
