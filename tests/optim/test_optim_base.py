"""The base class of optimisers: its defaults, and how it keeps any state in a file."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest

from rnn_xp import optim


class Memory(NamedTuple):
    step: int
    slots: dict[str, Any]
    pair: tuple[Any, ...]
    best: float | None
    name: str
    moved: bool


PARAMS = {"w": np.ones((2, 3)), "b": np.zeros(2)}


class Own(optim.Optimizer):
    def init(self, params):
        slots = {"m": {name: np.zeros_like(p) for name, p in params.items()}}
        return Memory(0, slots, (np.zeros(3), 0.5), None, "start", False)

    def update(self, grads, state, params, *, value=None, value_and_grad=None):
        return params, state._replace(step=state.step + 1, best=0.25)


def same(a, b):
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, tuple):
        return type(a) is type(b) and all(map(same, a, b))
    return type(a) is type(b) and bool(np.all(a == b))


class TestDefaults:
    def test_nothing_is_asked_of_the_loss_and_nothing_told(self):
        own, state = Own(), Own().init(PARAMS)
        assert own.full_batch_only is own.watches_loss is False
        assert own.observe(state, 3.0) is own.restart(state) is state
        assert own.rate(state) is None
        assert own.message(state) == ""

    def test_init_and_update_must_be_written(self):
        class Half(optim.Optimizer):
            def init(self, params):
                return ()

        with pytest.raises(TypeError, match="abstract.*update"):
            Half()

    def test_those_of_the_package_have_them_all(self):
        assert optim.lbfgs().full_batch_only
        assert not optim.adam().full_batch_only
        stuck = optim.lbfgs().init(PARAMS)._replace(message="no lower loss")
        assert optim.lbfgs().message(stuck) == "no lower loss"
        assert optim.lbfgs().message(optim.lbfgs().restart(stuck)) == ""
        assert optim.adam(0.3).rate(optim.adam(0.3).init(PARAMS)) == 0.3
        assert optim.lbfgs().rate(stuck) is None


class TestPacking:
    def state(self):
        return Own().update({}, Own().init(PARAMS), PARAMS)[1]

    def test_names_are_paths(self):
        arrays, values = Own().pack(self.state())
        assert arrays.keys() == {"slots.m.w", "slots.m.b", "pair.0"}
        assert values == {"step": 1, "pair.1": 0.5, "best": 0.25, "name": "start", "moved": False}

    def test_there_and_back(self):
        state = self.state()
        assert same(Own().unpack(*Own().pack(state), PARAMS), state)

    def test_an_array_and_a_value_alone(self):
        class Alone(Own):
            def __init__(self, state):
                self.state = state

            def init(self, params):
                return self.state

        for state in (np.ones(3), 4, (), {}):
            alone = Alone(state)
            assert same(alone.unpack(*alone.pack(state), PARAMS), state)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda a, v: a.pop("pair.0"), "it lacks pair.0 of its arrays"),
            (lambda a, v: v.pop("step"), "it lacks step of its values"),
            (lambda a, v: a.update(more=np.ones(1)), "more is unknown"),
            (lambda a, v: v.update(more=1), "more is unknown"),
            (lambda a, v: a.update({"pair.0": np.ones(4)}), r"pair.0 must have shape \(3,\)"),
            (lambda a, v: a.update({"pair.0": np.ones(3, "f4")}), "must have dtype float64"),
            (lambda a, v: v.update(step=1.0), "step must be of the type int, got 1.0"),
            (lambda a, v: v.update(moved=0), "moved must be of the type bool, got 0"),
            (lambda a, v: v.update(name=[]), r"name must be of the type str, got \[\]"),
        ],
    )
    def test_what_does_not_fit_is_named(self, change, message):
        arrays, values = Own().pack(self.state())
        change(arrays, values)
        with pytest.raises(ValueError, match=f"Own: the saved state does not fit.*{message}"):
            Own().unpack(arrays, values, PARAMS)

    def test_what_no_file_can_hold_is_named(self):
        for leaf, kind in ((object(), "object"), ([1], "list"), (1j, "complex")):
            state = self.state()._replace(pair=(leaf,))
            with pytest.raises(TypeError, match=f"has a {kind} at 'pair.0'.*pack and unpack"):
                Own().pack(state)

    def test_two_parts_of_one_name_are_refused(self):
        with pytest.raises(TypeError, match=r"two parts with the path 'a\.b'"):
            Own().pack({"a.b": 1, "a": {"b": 2}})
