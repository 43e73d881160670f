"""The rules that the source code itself obeys, read from its syntax trees.

Every check is a function from one parsed module to a list of violations, so that the tests at the
end can hand it a module that breaks the rule.
"""

from __future__ import annotations

import ast
import dataclasses
import graphlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from levels import LEVELS

import rnn_xp

ROOT = Path(rnn_xp.__file__).parent

LIBRARIES = {"cupy", "torch", "jax", "dpnp", "mlx", "array_api_strict"}
MAY_NAME_LIBRARIES = {
    *("backend.adapters", "kernels", "engines", "distributed", "interchange", "cli"),
}
PORTABLE = {"cells", "losses", "optim", "kernels.portable", "network"}
# Random numbers are drawn by NumPy, alike on all backends.
ON_HOST = {"network.initializers", "network.streams"}
MAY_IMPORT_NUMPY = {
    *ON_HOST,
    *("backend.adapters", "backend.arrays", "backend.functions", "backend.handle"),
    *("kernels.numpy", "kernels.numba"),
    *("data", "testing", "distributed", "checkpoint"),
    *(name for name, level in LEVELS.items() if level >= LEVELS["training"]),
    "interchange",
}
FACADES = {"callbacks"}  # another address of what lives in a package
MAX_LINES = 400
MAX_FUNCTION_LINES = 70  # of its body, without the docstring


@dataclasses.dataclass(frozen=True)
class Module:
    """A parsed source file; `name` is dotted and without the leading ``rnn_xp.``."""

    name: str
    source: str
    is_package: bool = False

    @property
    def tree(self) -> ast.Module:
        return ast.parse(self.source)

    @property
    def top(self) -> str:
        return self.name.partition(".")[0]

    def belongs_to(self, names: set[str]) -> bool:
        return any(self.name == name or self.name.startswith(f"{name}.") for name in names)


def read_modules() -> list[Module]:
    modules = []
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package else parts)
        modules.append(Module(name, path.read_text(encoding="utf-8"), is_package))
    return modules


MODULES = read_modules()
NAMES = {module.name for module in MODULES}


def imports(module: Module) -> Iterator[tuple[str, str]]:
    """Yield ("numpy", "") for ``import numpy``, ("a.b", "c") for ``from a.b import c``; absolute.

    Imports inside functions count, and so does ``importlib.import_module("...")``.
    """
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = ["rnn_xp", *module.name.split(".")] if module.name else ["rnn_xp"]
                keep = len(package) - node.level + (1 if module.is_package else 0)
                base = ".".join([*package[:keep], *([node.module] if node.module else [])])
            yield from ((base, alias.name) for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else ""
            called = node.func.id if isinstance(node.func, ast.Name) else called
            if called in ("import_module", "__import__"):
                yield str(node.args[0].value), ""


def check_levels(module: Module) -> list[str]:
    if module.top not in LEVELS:
        return [f"{module.name} has no level: add it to LEVELS, where the design puts it"]
    found = []
    for base, name in imports(module):
        if base.partition(".")[0] != "rnn_xp":
            continue
        target = base.removeprefix("rnn_xp").removeprefix(".") or name
        other = target.partition(".")[0]
        if other not in LEVELS:
            # Of the package itself only the command line, above all else, may import names.
            if module.top != "cli" or other in NAMES:
                found.append(f"{module.name} imports {other or 'rnn_xp'}, which has no level")
            continue
        here, there = LEVELS[module.top], LEVELS[other]
        if there >= here and other != module.top:
            found.append(f"{module.name} (level {here}) imports {target} (level {there})")
    return found


def check_libraries(module: Module) -> list[str]:
    """No branch on a library: neither an import of it nor its name as a value."""
    if module.belongs_to(MAY_NAME_LIBRARIES):
        return []
    found = [
        f"{module.name} imports {base}"
        for base, _ in imports(module)
        if base.partition(".")[0] in LIBRARIES
    ]
    return found + [
        f"{module.name}:{node.lineno} names {node.value!r}"
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Constant) and node.value in LIBRARIES
    ]


def check_numpy(module: Module) -> list[str]:
    if module.belongs_to(MAY_IMPORT_NUMPY):
        return []
    return [
        f"{module.name} imports {base}"
        for base, _ in imports(module)
        if base.partition(".")[0] == "numpy"
    ]


def defined_names(module: Module) -> set[str]:
    """Collect what a module defines; for a package, also what it lifts from its own submodules."""
    found: set[str] = set()
    pending: list[ast.stmt] = list(module.tree.body)
    while pending:
        node = pending.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {
                name.id for each in targets for name in ast.walk(each) if isinstance(name, ast.Name)
            }
        elif isinstance(node, ast.If | ast.Try | ast.With):
            pending += [
                child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt)
            ]
    if module.name in FACADES:
        return {name for _, name in imports(module) if name != "annotations"}
    if module.is_package:
        own = f"rnn_xp.{module.name}"
        found |= {
            name
            for base, name in imports(module)
            if (base == own or base.startswith(f"{own}."))
            and f"{base}.{name}".removeprefix("rnn_xp.") not in NAMES
        }
    return {name for name in found if not name.startswith("_") and name != ""}


def check_exports(module: Module) -> list[str]:
    listed: list[str] = []
    for node in module.tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(each, ast.Name) and each.id == "__all__" for each in targets):
            listed = list(ast.literal_eval(node.value))
    defined = defined_names(module)
    found = [f"{module.name}: {name} is public, but not in __all__" for name in defined - {*listed}]
    found += [f"{module.name}: __all__ lists {name}, not defined" for name in {*listed} - defined]
    found += [f"{module.name}: __all__ lists {n} twice" for n in {*listed} if listed.count(n) > 1]
    return sorted(found)


def check_size(module: Module) -> list[str]:
    lines = len(module.source.splitlines())
    return [f"{module.name} has {lines} lines, over {MAX_LINES}"] if lines > MAX_LINES else []


def check_functions(module: Module) -> list[str]:
    found = []
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            lines = body[-1].end_lineno - body[0].lineno + 1 if body else 0
            if lines > MAX_FUNCTION_LINES:
                found.append(
                    f"{module.name}.{node.name} has {lines} lines, over {MAX_FUNCTION_LINES}"
                )
    return found


def check_no_assert(module: Module) -> list[str]:
    """``python -O`` removes them, so that no check of a user's input may be one."""
    return [
        f"{module.name}:{node.lineno} asserts"
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Assert)
    ]


def check_portable(module: Module) -> list[str]:
    """No ``@`` (it fails on complex arrays of some libraries) and no writing into arrays.

    And neither clip nor sign of array_api_compat, which for CuPy reads by a mask: the host waits.
    """
    if not module.belongs_to(PORTABLE) or module.belongs_to(ON_HOST):
        return []
    found = []
    for node in ast.walk(module.tree):
        where = f"{module.name}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Attribute) and node.attr in ("clip", "sign"):
            found.append(f"{where} uses {node.attr}, for which CuPy waits")
        if isinstance(node, ast.BinOp | ast.AugAssign) and isinstance(node.op, ast.MatMult):
            found.append(f"{where} uses @; write xp.matmul")
        if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Subscript):
            found.append(f"{where} updates a subscript in place")
        if isinstance(node, ast.Assign):
            found += [
                f"{where} writes into a slice"
                for target in node.targets
                if isinstance(target, ast.Subscript) and slices(target.slice)
            ]
    return found


def slices(index: ast.expr) -> bool:
    """Tell an index of an array, with ``:`` or ``...``, from the key of a dict."""
    parts = index.elts if isinstance(index, ast.Tuple) else [index]
    return any(
        isinstance(part, ast.Slice) or (isinstance(part, ast.Constant) and part.value is ...)
        for part in parts
    )


CHECKS = [
    *(check_levels, check_libraries, check_numpy, check_exports),
    *(check_size, check_functions, check_no_assert, check_portable),
]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_every_module_obeys(check):
    top_may = (check_levels, check_exports)  # the package itself is above all levels
    assert [
        text for module in MODULES if module.name or check not in top_may for text in check(module)
    ] == []


def test_modules_were_found():
    assert {"backend", "_typing", ""} <= NAMES
    backend = {name for name in NAMES if name.startswith("backend.")}
    assert {name for name in backend if not name.startswith("backend.adapters.")} == {
        *("backend.adapters", "backend.arrays", "backend.libraries"),
        *("backend.functions", "backend.handle", "backend.selection"),
    }
    adapters = {f"backend.adapters.{name}" for name in LIBRARIES | {"base", "numpy", "standard"}}
    assert {name for name in backend if name.startswith("backend.adapters.")} == adapters


def test_imports_form_no_cycle():
    graph: dict[str, set[str]] = {}
    for module in MODULES:
        for base, name in imports(module):
            for target in (base, f"{base}.{name}"):
                target = target.removeprefix("rnn_xp").strip(".")
                if target in NAMES - {"", module.name} and not module.is_package:
                    graph.setdefault(module.name, set()).add(target)
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which shows the cycle


@pytest.mark.parametrize(
    ("check", "name", "source"),
    [
        (check_levels, "cells.gru", "from rnn_xp.network.sequence import run"),
        (check_levels, "cells.gru", "from ..network import Network"),
        (check_levels, "losses.names", "from ..training import fit"),
        (check_levels, "losses", "def f():\n    import rnn_xp.cli"),
        (check_levels, "losses", "import importlib\nimportlib.import_module('rnn_xp.cli')"),
        (check_levels, "losses", "from rnn_xp.cells.rnn import RNN"),
        (check_levels, "kernels.portable", "from rnn_xp import engines"),
        (check_levels, "network", "from rnn_xp import __version__"),
        (check_levels, "backend.arrays", "from rnn_xp.data.windows import as_series"),
        (check_levels, "utils", ""),
        (check_libraries, "network", "import torch"),
        (check_libraries, "backend", "import torch"),
        (check_libraries, "backend.handle", "slow = self.name == 'cupy'"),
        (check_libraries, "network.sequence", "from jax import numpy"),
        (check_libraries, "optim.adam", "slow = name == 'cupy'"),
        (check_libraries, "losses", "match name:\n    case 'torch': pass"),
        (check_numpy, "kernels.cupy", "import numpy as np"),
        (check_numpy, "backend.libraries", "import numpy as np"),
        (check_numpy, "engines.portable", "from numpy.typing import NDArray"),
        (check_exports, "losses", "def mse(): pass"),
        (check_exports, "losses", "__all__ = ['mse', 'mae']\ndef mse(): pass"),
        (check_exports, "losses", "__all__ = ['mse', 'mse']\ndef mse(): pass"),
        (check_exports, "losses", "if 1:\n    LIMIT = 3"),
        (check_size, "losses", "\n" * 401),
        (check_functions, "losses", "def f():\n" + "    x = 1\n" * 71),
        (check_no_assert, "runs", "def f(x):\n    assert x"),
        (check_portable, "cells.rnn", "z = x @ w"),
        (check_portable, "kernels.portable", "x @= w"),
        (check_portable, "network.sequence", "x[t] += 1"),
        (check_portable, "network", "x[t, ...] = 1"),
        (check_portable, "optim", "x[:] = 1"),
        (check_portable, "optim.clipping", "g = xp.clip(g, -1.0, 1.0)"),
        (check_portable, "losses", "dpred = xp.sign(error)"),
    ],
)
def test_a_violation_is_noticed(check, name, source):
    assert len(check(Module(name, source))) == 1


@pytest.mark.parametrize(
    ("check", "name", "source"),
    [
        (check_levels, "cells.gru", "from rnn_xp.cells.rnn import RNN\nfrom . import lstm"),
        (check_functions, "losses", "def f():\n    'Text.'\n" + "    x = 1\n" * 70),
        (check_levels, "forecasting.metrics", "from rnn_xp.data.windows import as_series"),
        (check_levels, "cli", "from rnn_xp import __version__, training"),
        (check_levels, "backend.handle", "from rnn_xp.backend.libraries import load"),
        (check_libraries, "backend.adapters.cupy", "import cupy"),
        (check_libraries, "kernels.cupy", "import cupy"),
        (check_libraries, "losses", "def f():\n    'Runs on torch and jax.'"),
        (check_numpy, "kernels.numpy", "import numpy as np"),
        (check_exports, "losses", "__all__ = ['mse']\nimport math\n_x = 1\ndef mse(): pass"),
        (check_portable, "network", "grads['w'] = 1\ngrads[name] = 2\nx += 1"),
        (check_portable, "kernels.numpy", "out[...] = x @ w"),
    ],
)
def test_what_is_allowed_passes(check, name, source):
    assert check(Module(name, source)) == []


def test_a_package_lists_what_it_lifts_from_its_modules():
    source = "from rnn_xp._typing import Array\nfrom rnn_xp.cells.rnn import RNNCell\n"
    assert check_exports(Module("cells", f"{source}__all__ = ['RNNCell']", is_package=True)) == []
    assert len(check_exports(Module("cells", source, is_package=True))) == 1


def test_importing_loads_no_library_writes_nothing_and_sets_nothing(tmp_path):
    home, work = tmp_path / "home", tmp_path / "work"
    home.mkdir()
    work.mkdir()
    code = f"""
import os, sys
before = dict(os.environ)
import rnn_xp
heavy = {sorted(LIBRARIES | {"array_api_compat", "matplotlib", "numba", "sklearn"})!r}
heavy += ["rnn_xp.training", "rnn_xp.data.datasets", "concurrent.futures", "hashlib", "pathlib"]
print([name for name in heavy if name in sys.modules])
print({{*before.items()}} ^ {{*os.environ.items()}})
"""
    path = os.pathsep.join([str(ROOT.parent), *sys.path])
    settings = {"HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        env={**os.environ, **settings},
        cwd=work,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["[]", "set()"]
    assert done.stderr == ""
    assert [*home.iterdir(), *work.iterdir()] == []
