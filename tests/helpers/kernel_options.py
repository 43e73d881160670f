"""Passes through kernels with every option, and the portable code's numbers for them."""

from __future__ import annotations

import importlib

import array_api_compat.numpy as xp
import numpy as np
from problems import flat

from rnn_xp.network import pipeline
from rnn_xp.network.call import Options
from rnn_xp.network.passes import LayersPass
from rnn_xp.network.sequence import map_state

DTYPES = {"numpy": "float64", "numba": "float32"}
ROUNDING = {"float64": 1e-12, "float32": 1e-5}
"""Of the largest entry of an array, or of 1. Normalisation divides by deviations that may be small,
which is why it has 5 times as much; so has the portable code in float32."""

OPTIONS = {  # of the network, and of the call
    "lengths": ({}, ("lengths",)),
    "mask": ({}, ("mask",)),
    "reset": ({}, ("reset",)),
    "state": ({}, ("state",)),
    "recurrent dropout": ({"recurrent_dropout": 0.4}, ("rng",)),
    "layer norm": ({"layer_norm": True}, ()),
    "lengths and mask": ({}, ("lengths", "mask")),
    "lengths and state": ({}, ("lengths", "state")),
    "lengths, reset and state": ({}, ("lengths", "reset", "state")),
    "all": (
        {"recurrent_dropout": 0.4, "layer_norm": True},
        ("lengths", "mask", "reset", "state", "rng"),
    ),
}
ONE_TO_MANY = {option: row for option, row in OPTIONS.items() if "lengths" not in row[1]} | {
    "plain": ({}, ()),
    "mask and reset": ({}, ("mask", "reset")),
    "all but lengths": (OPTIONS["all"][0], ("mask", "reset", "state", "rng")),
}
OUTPUTS = ("identity", "tanh", "sigmoid", "softmax")
STACKS = {
    "one layer": {},
    "two layers": {"num_layers": 2},
    "two directions": {"bidirectional": True},
    "two layers and directions": {"num_layers": 2, "bidirectional": True, "dropout": 0.3},
    "residual": {"num_layers": 2, "residual": True},
}


def make_workspace(kind):
    """A workspace in whose memory nothing is found that somebody computed before."""
    workspace = importlib.import_module(f"rnn_xp.kernels.{kind}").Workspace(DTYPES[kind])
    empty = workspace._empty

    def poisoned(size):
        buffer = empty(size)
        buffer[...] = 999.0
        return buffer

    workspace._empty = poisoned
    return workspace


def cast(problem, dtype):
    """Give all arrays of a problem a dtype; float32 numbers are exact in float64."""

    def to(a):
        return np.asarray(a, dtype) if np.asarray(a).dtype.kind == "f" else a

    problem.params = {name: to(p) for name, p in problem.params.items()}
    for name in ("x", "y", "dpred"):
        setattr(problem, name, to(getattr(problem, name)))
    problem.state, problem.dstate = map_state(to, problem.state), map_state(to, problem.dstate)
    problem.arrays = {name: map_state(to, a) for name, a in problem.arrays.items()}
    return problem


def enlarge(problem):
    """Give a problem outputs so large and so different that their exponentials overflow."""
    problem.params["readout.b_y"] += 200.0 * np.arange(len(problem.params["readout.b_y"]))


def masks(problem):
    """The masks of dropout, in the problem's precision."""
    rng = np.random.default_rng(11)
    return problem.net.dropout_masks(rng, problem.x, **problem.steps) if problem.noisy else None


def adjoint(problem, workspace=None, with_final=True):
    """All that a pass returns, and the gradients of everything from those of everything."""
    net = problem.net
    options = Options(**problem.arrays, rng=masks(problem), **problem.steps, workspace=workspace)
    forward = pipeline.run(net, problem.params, problem.x, options, xp=xp)
    made = {"pred": pipeline.prediction(net, forward)}
    made |= {f"final.{k}": a for k, a in pipeline.final_state(net, forward)._asdict().items()}
    made = {name: a.copy() for name, a in made.items()}
    dstate = problem.dstate if with_final else None
    back = pipeline.run_back(
        net, problem.params, forward, problem.dpred, dstate, wrt_input=True
    )  # fmt: skip
    grads = dict(back.grads) | {"x": back.dx}
    if "state" in problem.arrays or workspace is None:
        grads |= flat({"state": pipeline.join_states(net, back.dstate, xp=xp)})
    computed = (
        isinstance(forward, LayersPass)
        and workspace is not None
        and (
            forward.stack.whole is not None
            or all(kernel is not None for layer in forward.stack.layers for kernel in layer.kernels)
        )
    )
    return made | {f"d{name}": grad for name, grad in grads.items()}, computed


def assert_close(found, exact, portable, dtype):
    """Within the rounding of the dtype or, where a problem amplifies it, near the portable code's.

    Layer normalisation divides by a deviation, so that a small one makes large errors of small
    ones, in the portable code as well.
    """

    def error(made, name):
        return np.abs(made[name] - exact[name]).max() / max(np.abs(exact[name]).max(), 1.0)

    bound = max(ROUNDING[dtype], 5.0 * max(error(portable, name) for name in found))
    assert found.keys() <= exact.keys()
    for name, array in found.items():
        assert array.dtype == dtype, name
        assert array.shape == exact[name].shape, name
        assert error(found, name) <= bound, name


def compare(kind, build, **options):
    """Compare a pass through the kernels with the portable code in float64."""
    dtype = DTYPES[kind]
    exact, _ = adjoint(cast(cast(build(), dtype), "float64"), **options)
    portable, _ = adjoint(cast(build(), dtype), **options)
    found, computed = adjoint(cast(build(), dtype), make_workspace(kind), **options)
    assert_close(found, exact, portable, dtype)
    return computed
