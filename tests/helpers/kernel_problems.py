"""Networks for the kernels, with each use of what a layer puts out."""

from __future__ import annotations

import functools
import importlib

import cupy_stand_in
import numpy as np

import rnn_xp as rx
from rnn_xp.network.sequence import map_state

CELLS = {
    "rnn-tanh": {"cell": "rnn"},
    "rnn-relu": {"cell": "rnn", "activation": "relu"},
    "gru": {"cell": "gru"},
    "gru-before": {"cell": "gru", "reset_after": False},
    "lstm": {"cell": "lstm"},
}
CUDA_CELLS = {cell: CELLS[cell] for cell in CELLS if cell != "gru-before"}
"""Those that CuPy has kernels for; it leaves the others to the portable code."""
# Each use of what a layer puts out, and all that kernels leave to the portable code.
USES = {
    "last": {},
    "mean": {"read": "mean"},
    "max": {"read": "max"},
    "every step": {"topology": "many_to_many"},
    "one step in": {"topology": "one_to_many"},
    "repeated": {"topology": "one_to_many", "feed": "repeat"},
    "stack": {"num_layers": 3},
    "two directions": {"bidirectional": True, "num_layers": 2},
    "two directions, every step": {"bidirectional": True, "topology": "many_to_many"},
    "residual": {"num_layers": 2, "residual": True},
    "dropout": {"num_layers": 2, "dropout": 0.4},
    "recurrent dropout": {"recurrent_dropout": 0.4},
    "layer norm": {"layer_norm": True},
    "feedback": {"topology": "one_to_many", "feed": "feedback"},
}
# Some kernels know these, by the names in KNOWN.
LEFT = ("recurrent dropout", "layer norm", "feedback")
KNOWN = {"recurrent dropout": "keep", "layer norm": "norm", "feedback": "feedback"}


def is_left(use, workspace, cell):
    """Return True if the kernels leave a use or a cell to the portable code."""
    unknown = use in LEFT and KNOWN.get(use) not in workspace.knows
    return unknown or workspace.kernel(cell) is None


class Tier:
    """The kernels of a library, and what turns NumPy's arrays into its own and back."""

    def __init__(self, name):
        self.name, self.array, self.host = name, np.asarray, np.asarray
        if name == "stand-in":
            self.module = cupy_stand_in.load("cupy")
            return
        self.module = importlib.import_module(f"rnn_xp.kernels.{name}")
        if name == "cupy":
            cupy = importlib.import_module("cupy")
            self.array, self.host = cupy.asarray, cupy.asnumpy

    def workspace(self, dtype="float64"):
        """A workspace that remembers which kernels it lent."""

        class Recorder(self.module.Workspace):
            def kernel(self, name):
                kernel = super().kernel(name)
                self.lent += [] if kernel is None else [name]
                return kernel

        workspace = Recorder(dtype)
        workspace.lent = []
        return workspace


class Problem:
    def __init__(
        self, tier=None, seed=0, rows=3, steps=5, inputs=2, hidden=4, dtype="float64", **options
    ):
        rng = np.random.default_rng(seed)
        feedback = options.get("feed") == "feedback"
        outputs = inputs if feedback else 3
        self.net = rx.Network(input_size=inputs, hidden_size=hidden, output_size=outputs, **options)
        self.params = {k: rng.standard_normal(s).astype(dtype) for k, s in self.net.shapes.items()}
        entering = 1 if self.net.topology == "one_to_many" else steps
        shape = (rows, outputs) if self.net.topology == "many_to_one" else (rows, steps, outputs)
        self.x = rng.standard_normal((rows, entering, inputs)).astype(dtype)
        self.y = rng.standard_normal(shape).astype(dtype)
        self.tier = tier

    def value_and_grad(self, workspace=None, **options):
        """On the host; given a workspace, on the tier's own arrays and back."""
        rng = np.random.default_rng(7) if self.net.dropout or self.net.recurrent_dropout else None
        compute = functools.partial(self.net.value_and_grad, rng=rng, workspace=workspace)
        if workspace is None:
            return compute(self.params, self.x, self.y, **options)
        there, host = self.tier.array, self.tier.host
        value, grads = compute(
            {k: there(p) for k, p in self.params.items()}, there(self.x), there(self.y),
            **{k: map_state(there, a) for k, a in options.items()},
        )  # fmt: skip
        return host(value), {k: host(grad) for k, grad in grads.items()}
