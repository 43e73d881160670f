"""The list of the functions that the probe tries is that of the functions that the code uses."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import numpy as np
import pytest

import rnn_xp
from rnn_xp.backend import array_namespace
from rnn_xp.backend.functions import FUNCTIONS, try_functions

ROOT = Path(rnn_xp.__file__).parent
ELSEWHERE = (  # their xp is not the namespace of arrays that are given
    "backend/adapters/",
    "backend/functions.py",
    "interchange/onnx_training.py",
)
ATTRIBUTES = {"__name__", "__array_namespace_info__", "linalg"}


def is_namespace(node):
    """True for ``xp``, ``self.backend.xp`` and ``array_namespace(...)``."""
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id == "array_namespace"
    return getattr(node, "id", None) == "xp" or getattr(node, "attr", None) == "xp"


def names_used(source):
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and is_namespace(node.value):
            yield node.attr
        elif (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Attribute)
            and node.value.attr == "linalg"
            and is_namespace(node.value.value)
        ):
            yield f"linalg.{node.attr}"


def used():
    return {
        name
        for path in ROOT.rglob("*.py")
        if not str(path.relative_to(ROOT)).startswith(ELSEWHERE)
        for name in names_used(path.read_text(encoding="utf-8"))
    } - ATTRIBUTES


def test_every_function_that_is_used_is_tried_and_no_other():
    operators = {"arithmetic", "comparison", "slices", "a number for the host"}
    assert operators <= set(FUNCTIONS)
    assert used() == set(FUNCTIONS) - operators


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("xp.sin(x)", "sin"),
        ("self.backend.xp.sin(x)", "sin"),
        ("array_namespace(a, b).sin(x)", "sin"),
        ("xp.linalg.pinv(x)", "linalg.pinv"),
    ],
)
def test_a_function_is_noticed_however_the_namespace_is_reached(source, name):
    assert name in names_used(source)
    assert name not in FUNCTIONS


@pytest.mark.full("jax", "dpnp")
def test_all_functions_work_where_the_tests_run(case):
    reasons = try_functions(case.array([0.5]), case.tolerance)
    extensions = {name for name in FUNCTIONS if name.startswith("linalg.")}
    left_out = extensions if case.backend.name == "array_api_strict" else set()
    assert {name: why for name, why in reasons.items() if why and name not in left_out} == {}


class Without:
    """NumPy's namespace with one function missing or wrong."""

    def __init__(self, name, replacement=None):
        self.name, self.replacement = name, replacement
        self.__name__ = "without"

    def __getattr__(self, name):
        if name == self.name and self.replacement is None:
            raise AttributeError(f"module 'without' has no attribute '{name}'")
        return self.replacement if name == self.name else getattr(array_namespace(np.ones(1)), name)


@pytest.mark.parametrize(
    ("replacement", "reason"),
    [
        (None, "AttributeError: module 'without' has no attribute 'tanh'"),
        (np.sinh, r"differs from NumPy's by \de[-+]\d\d"),
        (lambda x: np.tanh(x).astype("float32"), "is float32, and NumPy's is float64"),
        (lambda x: np.tanh(x)[0], r"has the shape \(3,\), and NumPy's has \(3, 3\)"),
        (lambda x: x > 0, "is bool, and NumPy's is float64"),
        (lambda x: np.full_like(x, np.nan), "has values that are not finite"),
    ],
)
def test_the_reason_says_what_is_wrong_with_a_function(replacement, reason, monkeypatch):
    namespace = Without("tanh", replacement)
    numpy = array_namespace(np.ones(1))
    answers = iter([namespace])
    monkeypatch.setattr(
        "rnn_xp.backend.functions.array_namespace", lambda *arrays: next(answers, numpy)
    )
    reasons = try_functions(np.ones(1), 1e-12)
    assert re.fullmatch(reason, reasons["tanh"])
    assert [name for name, why in reasons.items() if why] == ["tanh"]
