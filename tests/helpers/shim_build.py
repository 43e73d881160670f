"""CUDA kernels for the CPU: compiled by g++ over the shim in tests/engines/cuda."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

__all__ = ["CompileError", "build"]

SHIM = Path(__file__).parents[1] / "engines" / "cuda"
FLAGS = ("-ffp-contract=fast", "-std=c++17", "-fPIC", "-fno-gnu-unique", "-Wall", f"-I{SHIM}")


class CompileError(AssertionError):
    """g++ refused a source, or warned."""


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    if shutil.which("g++") is None:
        pytest.skip("g++ is not installed")
    return tempfile.TemporaryDirectory(prefix="rnn-xp-kernels-")


def _compile(output: str, *arguments: str) -> str:
    path = str(Path(_folder().name) / output)
    more = os.environ.get("CXXFLAGS", "").split()  # see `make sanitize`
    command = ["g++", *FLAGS, *more, *arguments, "-o", path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode or done.stderr:
        raise CompileError(done.stderr)
    return path


@functools.cache
def _scheduler() -> str:
    return _compile("shim.o", "-O2", "-c", str(SHIM / "cpu_shim.cpp"))


@functools.cache
def build(code: str, options: tuple[str, ...]) -> ctypes.CDLL:
    """Compile the kernels with options that name the optimisation; once in a session for each."""
    name = hashlib.sha256(repr((code, options)).encode()).hexdigest()[:16]
    source = Path(_folder().name) / f"{name}.cu"
    source.write_text(code)
    path = _compile(
        *(f"{name}.so", "-shared", "-Wno-unknown-pragmas", *options),
        *(f'-DKERNELS="{source}"', str(SHIM / "entry.cpp"), _scheduler()),
    )
    library = ctypes.CDLL(path)
    library.parameters.restype = ctypes.c_char_p
    library.launch.restype = ctypes.c_bool
    return library
