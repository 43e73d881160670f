"""Networks and weights for the tests of interchange, and how close outputs must be."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from problems import CELLS

import rnn_xp as rx


def random_params(net, seed, dtype="float32"):
    """Random weights and biases: every block of every gate is another.

    A relu has smaller ones. Its states would grow, and with them what float32 rounds off.
    """
    rng, scale = np.random.default_rng(seed), 0.25 if net.activation == "relu" else 0.5
    return {
        name: (scale * rng.standard_normal(shape)).astype(dtype)
        for name, shape in net.shapes.items()
    }


@st.composite
def batches(draw, name, layers, directions, lengths, smallest=1):
    """A network of small random sizes, its parameters, x (N, T, I) and lengths or None."""
    size = st.integers(1, 6)
    net = rx.Network(
        **CELLS[name], num_layers=layers, bidirectional=directions == 2,
        input_size=draw(size), hidden_size=draw(size), output_size=draw(size),
        topology=draw(st.sampled_from(["many_to_one", "many_to_many"])),
    )  # fmt: skip
    rows, steps, seed = draw(size), draw(st.integers(1, 9)), draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, steps, net.input_size)).astype(np.float32)
    given = rng.integers(smallest, steps + 1, rows) if lengths else None
    return net, random_params(net, seed), x, given


@st.composite
def networks(draw, cells=tuple(CELLS)):
    """Any network that the formats can express."""
    size = st.integers(1, 5)
    return rx.Network(
        **CELLS[draw(st.sampled_from(cells))],
        num_layers=draw(st.integers(1, 3)),
        bidirectional=draw(st.booleans()),
        input_size=draw(size),
        hidden_size=draw(size),
        output_size=draw(size),
    )


def counted(net, x, lengths):
    """Which entries of a prediction there are for all systems: not those of the padding."""
    if lengths is None or net.topology == "many_to_one":
        return np.s_[:]
    return np.arange(x.shape[1]) < lengths[:, None]


def assert_close(actual, desired, tolerance=1e-6):
    """Within the tolerance, relative to values above 1: a relu has no bound."""
    assert actual.shape == desired.shape
    assert actual.dtype == desired.dtype == np.float32
    scale = max(1.0, float(np.abs(desired).max(initial=0.0)))
    np.testing.assert_allclose(actual, desired, rtol=0, atol=tolerance * scale)


def same_bits(found, params):
    """Whether two dicts of parameters are equal to the last bit, signs of zeros included."""
    return found.keys() == params.keys() and all(
        (found[k].dtype, found[k].shape, found[k].tobytes()) == (p.dtype, p.shape, p.tobytes())
        for k, p in params.items()
    )
