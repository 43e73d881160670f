"""Dropout in functions that a library compiles or maps: masks are arguments, never constants."""

from __future__ import annotations

import random

import numpy as np
import pytest
from problems import Problem, flat

import rnn_xp as rx

NETWORKS = {
    "stack": {"num_layers": 3, "bidirectional": True, "dropout": 0.4, "recurrent_dropout": 0.3},
    "between": {"cell": "lstm", "num_layers": 2, "dropout": 0.4, "topology": "many_to_many"},
    "feedback": {
        "topology": "one_to_many", "feed": "feedback", "num_layers": 2, "dropout": 0.4,
        "recurrent_dropout": 0.3, "inputs": 2, "outputs": 2,
    },
}  # fmt: skip


def generator():
    return np.random.default_rng(11)


@pytest.mark.parametrize("name", NETWORKS)
def test_masks_that_are_given_are_those_that_the_generator_draws(name):
    p = Problem(with_=("state", "rng"), **NETWORKS[name])
    masks = p.net.dropout_masks(generator(), p.x, **p.steps)
    pred, _, back = p.net.vjp(p.params, p.x, p.state, rng=masks, **p.steps)
    expected, _, right = p.net.vjp(p.params, p.x, p.state, rng=generator(), **p.steps)
    assert np.array_equal(pred, expected)
    grads, wanted = flat(back(p.dpred)), flat(right(p.dpred))
    assert all(np.array_equal(grads[key], wanted[key]) for key in wanted)
    undropped, _, _ = p.net.vjp(p.params, p.x, p.state, **p.steps)
    assert not np.allclose(pred, undropped)


def test_names_and_shapes_of_masks():
    net = rx.Network(hidden_size=4, **NETWORKS["stack"])
    masks = net.dropout_masks(generator(), np.ones((2, 5, 1), dtype="float32"))
    shapes = {name: mask.shape for name, mask in masks.items()}
    assert shapes == {
        "layer1.input": (5, 2, 8), "layer2.input": (5, 2, 8),
        "layer0.recurrent": (2, 4), "layer0.reverse.recurrent": (2, 4),
        "layer1.recurrent": (2, 4), "layer1.reverse.recurrent": (2, 4),
        "layer2.recurrent": (2, 4), "layer2.reverse.recurrent": (2, 4),
    }  # fmt: skip
    assert {mask.dtype.name for mask in masks.values()} == {"float32"}
    assert set(np.unique(masks["layer1.input"])) == {0.0, np.float32(1.0 / 0.6)}
    assert rx.Network(hidden_size=4).dropout_masks(generator(), np.ones((2, 5, 1))) == {}


@pytest.mark.parametrize(
    "change",
    [
        lambda masks: {},
        lambda masks: masks | {"layer9.recurrent": masks["layer0.recurrent"]},
        lambda masks: masks | {"layer0.recurrent": masks["layer0.recurrent"][:1]},
    ],
    ids=["missing", "unknown", "shape"],
)
def test_masks_of_another_network_are_refused(change):
    net = rx.Network(hidden_size=4, recurrent_dropout=0.5)
    x = np.ones((2, 5, 1), dtype="float32")
    masks = change(net.dropout_masks(generator(), x))
    with pytest.raises(ValueError, match=r"masks in rng= must have .*'layer0.recurrent': \(2, 4\)"):
        net.vjp(net.init(), x, rng=masks)


REFUSED = r"rng is a generator, and the function is being compiled or mapped.*rng=masks"


@pytest.fixture(params=["jax", pytest.param("torch", marks=pytest.mark.torch)])
def library(request):
    return pytest.importorskip(request.param, reason=f"{request.param} is not installed")


def small(name):
    backend = rx.get_backend(name, dtype="float64")
    net = rx.Network(hidden_size=3, recurrent_dropout=0.5)
    x = backend.asarray(np.random.default_rng(0).standard_normal((4, 2, 1)))
    return net, net.init(0, backend), x


def mapped(library):
    return library.vmap if library.__name__ == "jax" else library.func.vmap


def compiled(library, function, *examples):
    if library.__name__ == "jax":
        return library.jit(function)
    return library.jit.trace(lambda x: function(x), examples, check_trace=False)


@pytest.mark.filterwarnings("ignore:.*:Warning")
def test_a_generator_is_refused_where_the_input_is_compiled_or_mapped(library):
    net, params, x = small(library.__name__)

    def predict(x):
        return net.vjp(params, x, rng=generator())[0]

    predict(x)
    with pytest.raises(TypeError, match=REFUSED):
        compiled(library, predict, x)(x)
    with pytest.raises(TypeError, match=REFUSED):
        mapped(library)(lambda row: predict(row[None, ...])[0])(x)


def test_a_generator_is_refused_where_only_the_weights_are_mapped(library):
    net, params, x = small(library.__name__)
    twice = {name: rx.backend.array_namespace(x).stack([p, p]) for name, p in params.items()}
    with pytest.raises(TypeError, match=REFUSED):
        mapped(library)(lambda p: net.vjp(p, x, rng=generator())[0])(twice)


def test_a_generator_does_no_harm_where_nothing_is_dropped(library):
    _, params, x = small(library.__name__)
    plain = rx.Network(hidden_size=3)
    pred = mapped(library)(lambda row: plain.vjp(params, row[None, ...], rng=generator())[0])(x)
    assert pred.shape == (4, 1, 1)


def test_mapped_rows_take_masks_of_their_own(library):
    net, params, x = small(library.__name__)
    masks = net.dropout_masks(generator(), x)

    def predict(row, masks):
        masks = {name: mask[None, ...] for name, mask in masks.items()}
        return net.vjp(params, row[None, ...], rng=masks)[0][0]

    pred = mapped(library)(predict)(x, masks)
    expected = net.vjp(params, x, rng=generator())[0]
    np.testing.assert_allclose(rx.backend.to_numpy(pred), rx.backend.to_numpy(expected), rtol=1e-12)


def test_a_compiled_step_takes_new_masks_at_every_call():
    jax = pytest.importorskip("jax", reason="jax is not installed")
    net, params, x = small("jax")
    y, rng, same = x[:, 0, :], generator(), generator()
    step = jax.jit(lambda p, masks: net.value_and_grad(p, x, y, rng=masks)[0])
    losses = [float(step(params, net.dropout_masks(rng, x))) for _ in range(3)]
    expected = [float(net.value_and_grad(params, x, y, rng=same)[0]) for _ in range(3)]
    np.testing.assert_allclose(losses, expected, rtol=1e-12)
    assert len(set(losses)) == 3


@pytest.mark.full  # torch takes ten seconds to import its compiler
@pytest.mark.torch
@pytest.mark.filterwarnings("ignore:.*:Warning")
def test_torch_compile_draws_anew_at_every_call():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    net, params, x = small("torch")
    rng, same = generator(), generator()
    compiled = torch.compile(lambda x: net.vjp(params, x, rng=rng)[0].sum(), backend="eager")
    values = [float(compiled(x)) for _ in range(3)]
    assert values == pytest.approx(
        [float(net.vjp(params, x, rng=same)[0].sum()) for _ in range(3)], rel=1e-12
    )
    assert len(set(values)) == 3


def test_a_source_of_numbers_that_is_not_a_generator_is_refused():
    net = rx.Network(hidden_size=4, **NETWORKS["between"])
    x = np.ones((2, 5, 1), dtype="float32")
    for call in (net.dropout_masks, lambda rng, x: net.vjp(net.init(0), x, rng=rng)):
        with pytest.raises(TypeError, match=r"rng must be a numpy\.random\.Generator.*got int"):
            call(0, x)
        for other in (random.Random(0), np.random.RandomState(0), np.random, "seed"):
            with pytest.raises(TypeError, match=r"rng must be a numpy\.random\.Generator"):
                call(other, x)
    plain = rx.Network(hidden_size=4)  # though nothing would be drawn from it
    with pytest.raises(TypeError, match=r"rng must be a numpy\.random\.Generator"):
        plain.vjp(plain.init(0), x, rng="seed")
