"""The contract of jacobian, per_sample_grads, jvp, hvp and gnvp over the full product.

    every cell  x  every topology and feed  x  every option

on NumPy against the complex step through the forward pass, and against the derivatives that JAX
takes of the library's forward pass, which know nothing of its backward; every library against
NumPy. float64, 1e-11 relative. Without `--full` every pair of cell, topology and option.
"""

from __future__ import annotations

import importlib

import numpy as np
import pytest
from problems import N
from product import PAIRWISE, PRODUCT, ids, make
from products import (
    RELATIVE,
    check_hvp_and_gnvp,
    check_jacobian_and_jvp,
    check_per_sample_grads,
    close,
    direction,
    loss_weight,
)

from rnn_xp.network.sequence import map_state

pytestmark = pytest.mark.usefixtures("mingru")

METHODS = ("jacobian", "per_sample_grads", "jvp", "hvp", "gnvp")


def record(request, names, library, methods=METHODS):
    for method in methods:
        request.node.user_properties.append(("contract", (*names[:2], method, library)))


def results(p, v, beside):
    """What the five methods return."""
    state = {k: a for k, a in beside.items() if k == "x" or "state" in p.arrays}
    loss = (p.params, p.x, p.y)
    weighted = {"sample_weight": p.weight}
    return {
        "jacobian": p.net.jacobian(p.params, p.x, **p.options()),
        "per_sample_grads": p.net.per_sample_grads(*loss, **weighted, **p.options(steps=False)),
        "jvp": p.net.jvp(p.params, p.x, {**v, **state}, **p.options()),
        "hvp": p.net.hvp(*loss, v, **weighted, **p.options(steps=False)),
        "gnvp": p.net.gnvp(*loss, v, **weighted, **p.options(steps=False)),
    }


@pytest.mark.cover("pairs")
@pytest.mark.parametrize("names", PRODUCT, ids=ids)
class TestAgainstTheComplexStep:
    def test_jacobian_and_jvp(self, names, request):
        check_jacobian_and_jvp(make(*names))
        record(request, names, "numpy", ("jacobian", "jvp"))

    def test_per_sample_grads(self, names, request):
        check_per_sample_grads(make(*names))
        record(request, names, "numpy", ("per_sample_grads",))

    def test_hvp_and_gnvp(self, names, request):
        check_hvp_and_gnvp(make(*names))
        record(request, names, "numpy", ("hvp", "gnvp"))

    def test_a_sample_alone_has_the_terms_that_it_has_in_the_batch(self, names):
        p = make(*names)
        p.noisy = False  # a row alone would have a mask of its own
        terms = p.net.per_sample_grads(
            p.params, p.x, p.y, "mse", p.weight, total=1.0, **p.options(steps=False)
        )
        for n in range(N):
            row = slice(n, n + 1)
            arrays = {
                k: map_state(lambda s, row=row: s[:, row], a) if k == "state" else a[row]
                for k, a in p.arrays.items()
            }
            one = p.net.per_sample_grads(
                p.params, p.x[row], p.y[row], "mse", p.weight[row], total=1.0, **arrays
            )
            for name, term in one.items():
                close(term[0], terms[name][n], max(1e-3, np.abs(terms[name]).max()))


@pytest.mark.full
@pytest.mark.parametrize("names", PRODUCT, ids=ids)
@pytest.mark.parametrize("case", ["jax-cpu-f64"], indirect=True)
def test_against_the_derivatives_that_jax_takes(names, case, request):
    against_jax(make(*names, steps=3), case)
    record(request, names, "jax", ("jacobian", "jvp", "hvp", "gnvp"))


@pytest.mark.parametrize(
    "names",
    [  # every cell; JAX needs seconds to compile a Hessian
        ("rnn-tanh", "many-to-one", "layer-norm"),
        ("rnn-relu", "one-to-many-zeros", "h0"),
        ("gru", "many-to-many", "bidirectional"),
        ("gru-reset-before", "many-to-one-mean", "plain"),
        ("lstm", "one-to-many-feedback", "plain"),
        ("mingru", "many-to-one-max", "lengths"),
    ],
    ids=ids,
)
@pytest.mark.full
@pytest.mark.parametrize("case", ["jax-cpu-f64"], indirect=True)
def test_each_cell_against_the_derivatives_that_jax_takes(names, case):
    against_jax(make(*names, steps=2), case)


def against_jax(p, case):
    jax = importlib.import_module("jax")
    there = p.on(case)
    v, beside = direction(p)
    weight, total = map(case.array, loss_weight(p))

    def forward(params, x, state):
        options = there.options() | ({} if state is None else {"state": state})
        return there.net.vjp(params, x, **options)[0]

    def loss(pred):
        return jax.numpy.sum(weight * (pred - there.y) ** 2) / total

    def all_of_it(params, x, state, v, dx, dstate):
        def of_params(at):
            return forward(at, x, state)

        jvp = jax.jvp(forward, (params, x, state), (v, dx, dstate))
        jacobian = jax.jacrev(of_params)(params)
        _, hvp = jax.jvp(jax.grad(lambda at: loss(of_params(at))), (params,), (v,))
        pred, back = jax.vjp(of_params, params)
        _, dpred = jax.jvp(of_params, (params,), (v,))
        _, upstream = jax.jvp(jax.grad(loss), (pred,), (dpred,))
        return {"jvp": jvp, "jacobian": jacobian, "hvp": hvp, "gnvp": back(upstream)[0]}

    state = there.arrays.get("state")
    dstate = None if state is None else map_state(case.array, beside["state"])
    arguments = (
        there.params, there.x, state, {k: case.array(a) for k, a in v.items()},
        case.array(beside["x"]), dstate,
    )  # fmt: skip
    lowered = jax.jit(all_of_it).lower(*arguments)
    # What runs once is not worth optimising.
    compiled = lowered.compile({"xla_backend_optimization_level": 0})
    expected = compiled(*arguments)
    found = results(p, v, beside)
    for name in p.net.shapes:
        for method in ("jacobian", "hvp", "gnvp"):
            close(found[method][name], expected[method][name], size_of(expected[method]))
    for mine, theirs in zip(found["jvp"], expected["jvp"], strict=True):
        close(mine, theirs)


def size_of(arrays):
    return max(float(np.abs(np.asarray(a)).max()) for a in arrays.values())


@pytest.mark.cover("values")
@pytest.mark.parametrize("names", PAIRWISE, ids=ids)
@pytest.mark.parametrize(
    "case",
    [
        "strict-cpu-f64",
        "strict-device1-f32",
        "numpy-frozen-f64",
        "numpy-f32",
        "jax-cpu-f64",
        pytest.param("torch-cpu-f64", marks=pytest.mark.torch),
        pytest.param("torch-cpu-f32", marks=pytest.mark.torch),
        pytest.param("dpnp-cpu-f64", marks=pytest.mark.libraries),
        pytest.param("mlx-cpu-f32", marks=pytest.mark.libraries),
    ],
    indirect=True,
)
def test_every_library_gives_what_numpy_gives(names, case, request):
    p = make(*names, steps=3)
    v, beside = direction(p)
    there = p.on(case)
    arguments = (
        map_state(case.array, tuple(v.values())),
        {k: map_state(case.array, a) for k, a in beside.items()},
    )

    def run(params, x, y, weight, arrays, v, beside):
        there.params, there.x, there.y, there.weight, there.arrays = params, x, y, weight, arrays
        return results(there, dict(zip(p.net.shapes, v, strict=True)), beside)

    with case.guard():
        found = case.jit(run)(
            there.params, there.x, there.y, there.weight, there.arrays, *arguments
        )
    exact = case.dtype_name == "float64"
    for method, expected in results(p, v, beside).items():
        for name, array in enumerate(expected) if method == "jvp" else expected.items():
            actual = found[method][name]
            assert actual.dtype == case.dtype
            host = case.to_numpy(actual)
            size = size_of(dict(enumerate(expected)) if method == "jvp" else expected)
            worst = np.max(np.abs(host - array))
            assert worst <= (RELATIVE if exact else 2e-4) * size, (method, name, worst / size)
    record(request, names, case.backend.name)
