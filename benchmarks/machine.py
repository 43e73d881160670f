"""What the benchmarks share: the machine in words, and options such as ``--only rnn,gru``."""

import argparse
import os
import platform
from pathlib import Path

from rnn_xp.kernels import kernels_of


def processor():
    """Name the processor and count its cores."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        model = lines[0].partition(":")[2].strip() if lines else model
    return f"{model}, {os.cpu_count()} cores"


def kernels(backend):
    """Name the kernels for a backend, and the vectors that compiled ones compute in."""
    named = str(kernels_of(backend))
    if kernels_of(backend).name == "numba":
        from rnn_xp.kernels.numba.product import VECTORS

        named += f", vectors of {VECTORS[0]} numbers"
    return named


def some_of(known):
    """Return the type of such an option, for argparse; what it gives is in the known order."""

    def parse(text):
        given = text.split(",")
        if unknown := [name for name in given if name not in known]:
            raise argparse.ArgumentTypeError(f"no {unknown[0]!r}. Choose from: {', '.join(known)}.")
        return [name for name in known if name in given]

    return parse
