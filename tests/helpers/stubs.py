"""Modules that stand in for libraries which are not installed."""

from __future__ import annotations

import types


def stub(name, **attributes):
    module = types.ModuleType(name)
    module.__dict__.update({"__version__": "9.9", **attributes})
    return module
