"""What all optimisers must obey: a new one joins the table below. Their formulas are elsewhere."""

from __future__ import annotations

import copy
import itertools
import json
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from minimising import minimise, quadratic, rosenbrock

from rnn_xp import optim
from rnn_xp.optim.first_order import FirstOrder

pytestmark = pytest.mark.cover("pairs")  # of test, optimiser and backend


class Goal(NamedTuple):
    """A learning rate, and how near to the minimum it leads in so many updates."""

    rate: float
    updates: int
    tolerance: float


class Row(NamedTuple):
    make: Callable[[float], Any]
    quadratic: Goal
    rosenbrock: Goal  # from (-1.2, 1); the valley is slow without momentum


VALLEY = Goal(0.002, 2000, 1e-5)  # with a momentum of 0.9

OPTIMIZERS = {
    "sgd": Row(optim.sgd, Goal(0.015, 1500, 1e-6), Goal(0.002, 3000, 0.1)),
    "sgd-momentum": Row(lambda rate: optim.sgd(rate, 0.9), Goal(0.01, 500, 1e-6), VALLEY),
    "sgd-nesterov": Row(
        lambda rate: optim.sgd(rate, 0.98, nesterov=True),
        Goal(0.005, 1500, 1e-6),
        Goal(0.0005, 2500, 1e-6),
    ),
    "sgd-decay": Row(
        lambda rate: optim.sgd(rate, 0.9, weight_decay=0.5), Goal(0.01, 500, 1e-6), VALLEY
    ),
    "sgd-decay-biases": Row(
        lambda rate: optim.sgd(rate, 0.9, weight_decay=1e-6, decay_biases=True),
        Goal(0.01, 500, 1e-6),
        VALLEY,
    ),
    "sgd-clip-norm": Row(
        lambda rate: optim.sgd(rate, 0.9, clip_norm=5.0), Goal(0.01, 500, 1e-6), VALLEY
    ),
    "sgd-clip-value": Row(
        lambda rate: optim.sgd(rate, 0.9, clip_value=2.0), Goal(0.01, 500, 1e-6), VALLEY
    ),
    "adam": Row(optim.adam, Goal(0.05, 1500, 1e-6), Goal(0.05, 3000, 1e-6)),
    "adam-decay": Row(
        lambda rate: optim.adam(rate, weight_decay=0.5),
        Goal(0.05, 1500, 1e-6),
        Goal(0.05, 3000, 1e-6),
    ),
    "adam-plateau": Row(
        lambda rate: optim.adam(optim.ReduceOnPlateau(rate, 0.7, patience=20, cooldown=1)),
        Goal(0.1, 1500, 1e-6),
        Goal(0.1, 3000, 1e-6),
    ),
    "adam-everything": Row(
        lambda rate: optim.adam(
            optim.WarmUp(50, optim.Cosine(rate, 1450)), weight_decay=1e-9, clip_value=50.0,
            clip_norm=20.0,
        ),
        Goal(0.3, 1500, 1e-6),
        Goal(0.3, 1500, 1e-6),
    ),
    # Its decay is not that of the loss: it pulls the weights a little off the minimum.
    "adamw": Row(optim.adamw, Goal(0.05, 1500, 0.01), Goal(0.05, 3000, 1e-6)),
    "rmsprop": Row(
        lambda rate: optim.rmsprop(optim.Step(rate, 300, 0.5)),
        Goal(0.1, 2000, 1e-6),
        Goal(0.1, 3000, 0.05),
    ),
    "rmsprop-momentum": Row(
        lambda rate: optim.rmsprop(optim.Cosine(rate, 3000), momentum=0.9),
        Goal(0.001, 3000, 1e-3),
        Goal(0.001, 3000, 1e-6),
    ),
    "adagrad": Row(optim.adagrad, Goal(1.0, 700, 1e-6), Goal(1.0, 3000, 0.1)),
    "adagrad-initial": Row(
        lambda rate: optim.adagrad(rate, initial=0.5), Goal(1.0, 700, 1e-6), Goal(1.0, 3000, 0.1)
    ),
    "lbfgs": Row(lambda rate: optim.lbfgs(history=3), Goal(1.0, 60, 1e-6), Goal(1.0, 60, 1e-8)),
}  # fmt: skip
MADE = {name: row.make(0.05) for name, row in OPTIMIZERS.items()}
FIRST_ORDER = [name for name, optimizer in MADE.items() if isinstance(optimizer, FirstOrder)]
EXPORTED = {name: getattr(optim, name) for name in optim.__all__}
CLASSES = {kind for kind in EXPORTED.values() if hasattr(kind, "update")} - {optim.Optimizer}


def test_every_exported_optimiser_is_in_the_table():
    """Or in that of test_optim_second_order.py, whose optimisers need more than a gradient."""
    simple = {kind for kind in CLASSES if not kind.needs}
    assert {type(optimizer) for optimizer in MADE.values()} == simple


@pytest.mark.parametrize("kind", sorted(CLASSES, key=repr), ids=lambda kind: kind.__name__)
def test_has_a_lower_case_name(kind):
    lower = {name.replace("_", ""): value for name, value in EXPORTED.items() if name.islower()}
    assert EXPORTED[kind.__name__] is lower[kind.__name__.lower()] is kind


@pytest.mark.parametrize("name", OPTIMIZERS)
class TestEvery:
    def test_finds_the_minimum_of_a_quadratic(self, name):
        make, (rate, updates, tolerance), _ = OPTIMIZERS[name]
        optimizer, decay = make(rate), {}
        if name in FIRST_ORDER and not optimizer.decoupled_decay:
            decay = {"decay": optimizer.weight_decay, "decay_biases": optimizer.decay_biases}
        value_and_grad, params, best = quadratic(**decay)
        params, _, _, _ = minimise(optimizer, value_and_grad, params, updates)
        found = np.concatenate([params["a"].ravel(), params["b"]])
        np.testing.assert_allclose(found, best, atol=tolerance)

    def test_finds_the_end_of_rosenbrocks_valley(self, name):
        make, _, (rate, updates, tolerance) = OPTIMIZERS[name]
        start = {"p": np.asarray([-1.2, 1.0])}
        params, _, _, _ = minimise(make(rate), rosenbrock, start, updates)
        np.testing.assert_allclose(params["p"], [1.0, 1.0], atol=tolerance)

    def test_changes_nothing_and_keeps_library_shape_and_dtype(self, name, case):
        optimizer = MADE[name]
        host = {"w": [[1.0, -2.0, 3.0]], "b": [0.5]}
        params = {k: case.array(v) for k, v in host.items()}

        def value_and_grad(params):
            xp = case.xp
            value = sum(xp.sum(p * p) for p in params.values())
            return value, {k: 2.0 * p for k, p in params.items()}

        state, now = optimizer.init(params), params
        for _ in range(3):
            value, grads = value_and_grad(now)
            now, state = optimizer.update(
                grads, state, now, value=value, value_and_grad=value_and_grad
            )
        assert now.keys() == params.keys()
        for name_, p in params.items():
            assert np.array_equal(case.to_numpy(p), np.asarray(host[name_], case.dtype_name))
            assert now[name_].dtype == case.dtype
            assert now[name_].shape == p.shape
            assert not np.array_equal(case.to_numpy(now[name_]), case.to_numpy(p))
        for array in optimizer.pack(state)[0].values():  # to the very class: no scalar, no tracer
            assert (type(array), array.dtype) == (type(params["w"]), case.dtype)

    def test_gradients_state_and_parameters_given_are_left_alone(self, name):
        optimizer = MADE[name]
        value_and_grad, params, _ = quadratic()
        state = optimizer.init(params)
        for _ in range(3):  # the state is not empty from the second on
            value, grads = value_and_grad(params)
            given = (grads, state, params)
            before = copy.deepcopy(given)
            new, later = optimizer.update(*given, value=value, value_and_grad=value_and_grad)
            np.testing.assert_equal(given, before)
            params, state = new, later

    def test_is_compared_and_shown_by_its_hyperparameters(self, name):
        optimizer = MADE[name]
        assert optimizer == type(optimizer)(**vars(optimizer))
        assert optimizer == OPTIMIZERS[name].make(0.05)
        assert hash(optimizer) == hash(OPTIMIZERS[name].make(0.05))
        assert type(optimizer).__name__ in repr(optimizer)
        assert optimizer != OPTIMIZERS[name].make(0.06) or name == "lbfgs"

    def test_goes_on_from_a_saved_state_to_the_bit(self, name, case):
        optimizer = MADE[name]
        curve = case.array([[1.0, 30.0, 4.0]])
        params = {"w": case.array([[1.0, -2.0, 3.0]]), "b": case.array([0.5])}

        def value_and_grad(params):
            grads = {"w": curve * params["w"], "b": 2.0 * params["b"]}
            return case.xp.sum(params["w"] * grads["w"]) + case.xp.sum(params["b"] ** 2), grads

        half, state, _, _ = minimise(optimizer, value_and_grad, params, 6)
        arrays, values = optimizer.pack(state)
        values = json.loads(json.dumps(values, allow_nan=False))
        again = optimizer.unpack(dict(reversed(arrays.items())), values, half)
        packed = optimizer.pack(again)
        assert packed[1] == values
        assert packed[0].keys() == arrays.keys()
        ends = [minimise(optimizer, value_and_grad, half, 6, s) for s in (state, again)]
        assert ends[0][2] == ends[1][2]
        assert bits(case, optimizer, *ends[0][:2]) == bits(case, optimizer, *ends[1][:2])

    def test_a_saved_state_that_was_tampered_with_is_refused(self, name):
        optimizer = MADE[name]
        value_and_grad, params, _ = quadratic()
        params, state, _, _ = minimise(optimizer, value_and_grad, params, 5)
        arrays, values = optimizer.pack(state)
        optimizer.unpack(arrays, values, params)
        for bad_arrays, bad_values, what in tampered(arrays, values):
            message = f"{type(optimizer).__name__}: the saved state does not fit.*{re.escape(what)}"
            with pytest.raises(ValueError, match=message):
                optimizer.unpack(bad_arrays, bad_values, params)


def bits(case, optimizer, params, state):
    arrays, values = optimizer.pack(state)
    return {k: case.to_numpy(a).tobytes() for k, a in (arrays | params).items()}, values


NO_COUNT = (-1, True, False, 1.0, "3", None, [1], 2**64)
NO_FLOAT = (float("nan"), float("inf"), True, 1, "0.5", [0.5])
BAD_VALUES = {
    "step": NO_COUNT,
    "wait": NO_COUNT,
    "rest": NO_COUNT,
    "best": (*NO_FLOAT, -float("inf")),
    "scale": (*NO_FLOAT, -0.1, 1.1, None),
    "pairs": (*NO_COUNT, 4),  # of a history of 3
    "message": (None, 3, ["done"]),
}


def tampered(arrays, values):
    """Every way in which something may be wrong, and what the message must name."""
    for key in arrays:
        array, without = arrays[key], {k: a for k, a in arrays.items() if k != key}
        yield without, values, f"lacks {key}"
        yield without | {key: array[:-1]}, values, f"{key} must have shape"
        yield without | {key: array[None]}, values, f"{key} must have shape"
        yield without | {key: array.astype("float32")}, values, f"{key} must have dtype"
        yield without | {key: array.astype("int64")}, values, f"{key} must have dtype"
        yield without | {f"{key}x": array}, values, f"lacks {key}"
        yield arrays | {f"{key}x": array}, values, f"{key}x is unknown"
    yield arrays | {"": np.zeros(2)}, values, "is unknown"
    for bad in (None, [], "step", 3):
        yield arrays, bad, "values must be a mapping"
    for bad_values, what in tampered_values(values):
        yield arrays, bad_values, what


def tampered_values(values):
    yield values | {"more": 1}, "more is unknown"
    yield values | {3: 1}, "3 is unknown"
    for key, value in values.items():
        without = {k: v for k, v in values.items() if k != key}
        yield without, f"lacks {key}"
        if isinstance(value, dict):
            for bad in (None, [], 1.0, True):
                yield values | {key: bad}, f"{key} must be a mapping"
            yield from (({**values, key: bad}, what) for bad, what in tampered_values(value))
        elif key == "plateau":
            fields = {"best": 1.0, "wait": 0, "rest": 0, "scale": 1.0}
            yield from ((values | {key: bad}, "plateau") for bad in ({}, fields, 0, False))
        else:
            yield from ((values | {key: bad}, f"{key} must be") for bad in BAD_VALUES[key])


@pytest.mark.parametrize("change", [-1, 1])
def test_lbfgs_takes_no_other_number_of_pairs(change):
    value_and_grad, params, _ = quadratic()
    params, state, _, _ = minimise(optim.lbfgs(), value_and_grad, params, 3)
    arrays, values = optim.lbfgs().pack(state)
    with pytest.raises(ValueError, match=r"unknown|lacks"):
        optim.lbfgs().unpack(arrays, values | {"pairs": values["pairs"] + change}, params)


@pytest.mark.parametrize("name", FIRST_ORDER)
def test_equal_on_every_library_compiled_and_without_a_look_at_the_host(name, case):
    """Three updates in one function, from a state that remembers something."""
    optimizer = MADE[name]
    rng = np.random.default_rng(1)
    draws = [
        {"w": 3.0 * rng.standard_normal((2, 3)), "b": rng.standard_normal(3)} for _ in range(5)
    ]

    def train(params, *gradients):
        state = optimizer.init(params)
        for grads in gradients:
            params, state = optimizer.update(grads, state, params)
        return params, state.slots

    expected, slots = train(*draws)
    given = [{k: case.array(v) for k, v in draw.items()} for draw in draws]
    with case.guard():
        found, found_slots = case.jit(train)(*given)
    for key, value in expected.items():
        case.assert_close(found[key], value)
    assert found_slots.keys() == slots.keys()
    for slot, key in itertools.product(slots, expected):
        case.assert_close(found_slots[slot][key], slots[slot][key])
