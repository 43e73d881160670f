"""Random networks and data for the gradient tests, and the table of everything they must hold for.

Sizes are small and distinct (T=5, N=3, I=2, H=4, O=2), so that no transposed or mixed-up axis can
hide; weights are random, biases too, since a bias of zero would hide one that is never used.
"""

from __future__ import annotations

import copy

import numpy as np

import rnn_xp as rx
from rnn_xp.network.sequence import map_state

T, N, I, H, O = 5, 3, 2, 4, 2  # noqa: E741  (the field's letters)

CELLS = {
    "rnn-tanh": {"cell": "rnn"},
    "rnn-relu": {"cell": "rnn", "activation": "relu"},
    "gru": {"cell": "gru"},
    "gru-reset-before": {"cell": "gru", "reset_after": False},
    "lstm": {"cell": "lstm"},
}

EXAMPLES = {"mingru": {"cell": "mingru"}}  # of docs/guide/extending.md; needs the fixture `mingru`

TOPOLOGIES = {
    "many-to-one": {"topology": "many_to_one"},
    "many-to-one-mean": {"topology": "many_to_one", "read": "mean"},
    "many-to-one-max": {"topology": "many_to_one", "read": "max"},
    "many-to-many": {"topology": "many_to_many"},
    "one-to-many-zeros": {"topology": "one_to_many"},
    "one-to-many-repeat": {"topology": "one_to_many", "feed": "repeat"},
    "one-to-many-feedback": {"topology": "one_to_many", "feed": "feedback"},
}

OPTIONS = {  # of the network, and of the call
    "plain": ({}, ()),
    "two-layers": ({"num_layers": 2}, ()),
    "bidirectional": ({"bidirectional": True}, ()),
    "two-layers-bidirectional": ({"num_layers": 2, "bidirectional": True}, ()),
    "lengths": ({}, ("lengths",)),
    "mask": ({}, ("mask",)),
    "h0": ({}, ("state",)),
    "reset": ({}, ("state", "reset")),
    "dropout": ({"num_layers": 2, "dropout": 0.4, "recurrent_dropout": 0.3}, ("rng",)),
    "layer-norm": ({"layer_norm": True}, ()),
    "residual": ({"num_layers": 2, "residual": True}, ()),
    "linear-path": ({"linear_lags": 3}, ("state",)),
    "linear-path-mask": ({"linear_lags": 2, "bidirectional": True}, ("mask",)),
    "everything": (
        {
            "num_layers": 3,
            "layer_norm": True,
            "residual": True,
            "dropout": 0.3,
            "recurrent_dropout": 0.3,
            "output_activation": "softmax",
        },
        ("state", "mask", "reset", "rng"),
    ),
}


def excluded(topology: str, option: str) -> str:
    """Why a combination does not exist, in the words of its error; empty if it does."""
    if option.startswith("linear-path") and not topology.startswith("many-to-one"):
        return "needs topology='many_to_one'"
    if topology == "one-to-many-feedback" and "bidirectional" in option:
        return "feed='feedback' needs bidirectional=False"
    if topology.startswith("one-to-many") and option == "lengths":
        return "lengths= have no meaning for one_to_many"
    return ""


class Problem:
    """A network with random weights, data, initial state and upstream gradients, on the host."""

    def __init__(
        self, seed=0, steps=T, rows=N, inputs=I, hidden=H, outputs=O, with_=(), scale=0.7, **options
    ):
        self.net = rx.Network(input_size=inputs, hidden_size=hidden, output_size=outputs, **options)
        net, rng = self.net, np.random.default_rng(seed)
        self.params = {
            # Gains near 1: tiny ones would make gradients of the rounding's own size.
            name: rng.uniform(0.5, 1.5, shape)
            if name.rpartition(".")[2].startswith("g_")
            else scale * rng.standard_normal(shape)
            for name, shape in net.shapes.items()
        }
        one_to_many = net.topology == "one_to_many"
        self.x = rng.standard_normal((rows, 1 if one_to_many else steps, inputs))
        lead = (rows,) if net.topology == "many_to_one" else (rows, steps)
        self.y = rng.standard_normal((*lead, outputs))
        self.weight = rng.uniform(0.5, 2.0, lead)
        self.state = self._random_state(rng, rows)
        self.dpred = rng.standard_normal((*lead, outputs))
        self.dstate = self._random_state(rng, rows)
        mask = rng.random((rows, steps)) > 0.4
        mask[rows // 2] = False  # a row of nothing
        arrays = {
            "lengths": rng.permutation(np.arange(rows) % (steps + 1)),  # unsorted, with a 0
            "mask": mask,
            "reset": rng.random((rows, steps)) > 0.7,
            "state": self.state,
        }
        self.arrays = {name: arrays[name] for name in with_ if name != "rng"}
        self.noisy, self.masks = "rng" in with_, None
        self.steps = {"steps": steps} if one_to_many else {}

    def _random_state(self, rng, rows):
        shape = (self.net.num_layers * self.net.directions, rows, self.net.hidden_size)
        fields = self.net.state_type._fields
        return self.net.state_type(*(rng.standard_normal(shape) for _ in fields))

    def on(self, case):
        """The same numbers as arrays of a backend."""
        there = copy.copy(self)
        there.params = {k: case.array(p) for k, p in self.params.items()}
        for name in ("x", "y", "weight", "dpred"):
            setattr(there, name, case.array(getattr(self, name)))
        there.state = map_state(case.array, self.state)
        there.dstate = map_state(case.array, self.dstate)
        there.arrays = {k: map_state(case.array, a) for k, a in self.arrays.items()}
        if self.noisy and "jax" in case.id:  # a compiled function takes masks
            there.masks = self.net.dropout_masks(np.random.default_rng(11), there.x, **self.steps)
        return there

    def options(self, *, steps=True):
        """Arguments of a call; each time a new generator, so each time the same dropout."""
        rng = {"rng": self.masks or np.random.default_rng(11)} if self.noisy else {}
        return self.arrays | rng | (self.steps if steps else {})

    def vjp(self):
        """Gradients of everything, from random upstream gradients of everything."""
        _, _, back = self.net.vjp(self.params, self.x, **self.options())
        return flat(back(self.dpred, self.dstate))


def flat(grads):
    """Gradients with the fields of the state as entries of their own."""
    grads = dict(grads)
    return grads | {f"state.{k}": g for k, g in grads.pop("state")._asdict().items()}


def everything(problem, case=None):
    """A scalar of all that a network returns, and where to differentiate it, for the oracle.

    With a case, at the very numbers the backend computed with: float32 ones are exact in float64.
    """
    there = problem if case is None else problem.on(case)
    host = (lambda a: a) if case is None else case.to_numpy
    dpred, dstate = host(there.dpred), map_state(host, there.dstate)
    given = {k: map_state(host, a) for k, a in there.arrays.items()}
    state = given.get("state", map_state(np.zeros_like, map_state(host, there.state)))
    net = problem.net

    def function(at):
        options = problem.options() | given
        options["state"] = net.state_type(*(at[f"state.{k}"] for k in state._fields))
        pred, final, _ = net.vjp({k: at[k] for k in net.shapes}, at["x"], **options)
        total = np.sum(pred * dpred)
        return total + sum(np.sum(a * b) for a, b in zip(final, dstate, strict=True))

    arguments = {k: host(p) for k, p in there.params.items()} | {"x": host(there.x)}
    return function, arguments | {f"state.{k}": a for k, a in state._asdict().items()}


def windows(rows=60, seq_length=5):
    """Windows of two waves, and what follows each."""
    t = np.arange(rows + seq_length, dtype=float)
    return rx.make_windows(np.sin(t / 3.0) + 0.3 * np.cos(t), seq_length)
