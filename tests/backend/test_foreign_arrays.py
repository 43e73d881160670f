"""Whatever may be given in place of an array: computed with, or refused with the remedy."""

from __future__ import annotations

import numpy as np
import pytest

import rnn_xp as rx
from benchmarks.foreign_arrays import FOREIGN, HOST, make
from rnn_xp.backend import array_namespace, backend_of, float_dtype, to_numpy

NET = rx.Network(hidden_size=3)
TARGETS = HOST[:, -1]
SLOW = {"cubed.Array", "ndonnx.Array without values"}  # a probe of a minute
LATER = "torch.Tensor on meta", "ndonnx.Array without values"  # shapes now, values never
BARE = ("has no attribute", "object is not", "unsupported operand", "indices must")

pytestmark = pytest.mark.filterwarnings("ignore:the matrix subclass")

kinds = pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=[pytest.mark.full, pytest.mark.libraries] if kind in SLOW else [])
        for kind in FOREIGN
    ],
)


def made(kind):
    pytest.importorskip(FOREIGN[kind].library, reason=f"{FOREIGN[kind].library} is not installed")
    return make(kind)[1]


def params_of(x):
    """The parameters where x is, if it is an array of a library to compute with."""
    try:
        return NET.init(0, backend_of(x))
    except TypeError:
        return NET.init(0, rx.get_backend())


@kinds
def test_computing_is_refused_with_the_conversion_or_gives_what_numpy_gives(kind):
    x, foreign = made(kind), FOREIGN[kind]
    params = params_of(x)
    if foreign.compute:
        with pytest.raises((TypeError, ValueError), match=foreign.compute):
            NET.forward(params, x)
        return
    pred, _ = NET.forward(params, x)
    assert tuple(pred.shape)[1:] == (1,)
    if kind not in LATER:
        want, _ = NET.forward({name: to_numpy(p) for name, p in params.items()}, HOST)
        np.testing.assert_allclose(to_numpy(pred), want, rtol=1e-4, atol=1e-6)


@kinds
def test_training_is_refused_with_the_remedy_or_trains(kind):
    x, foreign = made(kind), FOREIGN[kind]
    options = {"optimizer": rx.optim.adam(0.05), "epochs": 2}
    if foreign.fit:
        with pytest.raises((TypeError, ValueError), match=foreign.fit):
            rx.fit(NET, x, TARGETS, **options)
        return
    result = rx.fit(NET, x, TARGETS, **options)
    want = rx.fit(NET, HOST, TARGETS, **options, backend=rx.get_backend("numpy"))
    assert result.history["loss"] == pytest.approx(want.history["loss"], rel=1e-5)


def doors(x, params):
    """Calls that take arrays, each with the object in one place."""
    from rnn_xp.cells import RNNState

    adam = {"optimizer": rx.optim.adam(0.05), "epochs": 1}
    numbers = NET.init(0, rx.get_backend("numpy"))
    yield lambda: array_namespace(x)
    yield lambda: to_numpy(x)
    yield lambda: float_dtype(x=x)
    yield lambda: rx.get_backend().asarray(x)
    yield lambda: NET.predict(params, x)
    yield lambda: NET.value_and_grad(params, x, x)
    yield lambda: NET.value_and_grad(numbers, HOST, x)
    yield lambda: NET.vjp(params, x)
    yield lambda: NET.jacobian(params, x)
    yield lambda: NET.per_sample_grads(params, x, TARGETS)
    yield lambda: NET.hvp(params, x, TARGETS, params)
    yield lambda: NET.grad_per_step(params, x, TARGETS)
    yield lambda: NET.forward(numbers, HOST, lengths=x)
    yield lambda: NET.forward(numbers, HOST, mask=x)
    yield lambda: NET.forward(numbers, HOST, state=RNNState(x))
    yield lambda: NET.forward({**numbers, "layer0.w_hh": x}, HOST)
    yield lambda: NET.forward(x, HOST)
    yield lambda: NET.dropout_masks(np.random.default_rng(0), x)
    yield lambda: rx.fit(NET, HOST, x, **adam)
    yield lambda: rx.fit(NET, HOST, TARGETS, sample_weight=x, **adam)
    yield lambda: rx.fit(NET, HOST, TARGETS, params={**numbers, "layer0.w_hh": x}, **adam)
    yield lambda: rx.fit(NET, HOST, TARGETS, params=x, **adam)
    yield lambda: rx.losses.mse(x, x)
    yield lambda: rx.losses.mse(HOST, x)
    yield lambda: rx.testing.check_gradients(NET, params, x, TARGETS)
    yield lambda: rx.make_windows(x, 2)
    yield lambda: rx.explain.walk(NET, params, x, TARGETS)


@kinds
def test_no_door_answers_with_a_bare_error(kind):
    """A refusal is a TypeError or a ValueError that is raised here, in words of its own."""
    x = made(kind)
    for number, call in enumerate(doors(x, params_of(x))):
        try:
            call()
        except (TypeError, ValueError, rx.BackendError) as error:
            said = str(error)
        except Exception as error:
            pytest.fail(f"door {number}: {type(error).__name__}: {error}")
        else:
            continue
        assert len(said) > 20, (number, said)
        assert not [words for words in BARE if words in said], (number, said)


@pytest.mark.parametrize("given", [None, "text", 3.0, {"x": HOST}, object(), iter(HOST)])
def test_what_is_no_array_at_all_is_refused_by_its_name(given):
    params = NET.init(0, rx.get_backend())
    with pytest.raises(TypeError, match=r"Network: x must be an array, got (None|str|float|dict|)"):
        NET.forward(params, given)
    with pytest.raises(TypeError, match=r"an array is required|an array with|: x must be an arr"):
        rx.fit(NET, given, TARGETS, optimizer=rx.optim.adam(), epochs=1)
    with pytest.raises(TypeError, match=r"loss: target must be an array, got "):
        NET.value_and_grad(params, HOST, given)
    with pytest.raises(TypeError, match=r"Network: params must be a dict of arrays|missing"):
        NET.forward([given], HOST)


def test_every_library_of_the_table_is_one_that_was_asked_for():
    libraries = {foreign.library.partition(".")[0] for foreign in FOREIGN.values()}
    assert libraries == {
        *("numpy", "pandas", "polars", "pyarrow", "xarray", "torch", "paddle", "tinygrad"),
        *("mindspore", "ndonnx", "sparse", "blosc2", "dask", "cubed"),
    }
