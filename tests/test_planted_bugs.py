"""The classic mistakes of backpropagation through time, planted one by one.

Each must be caught by the gradient check that users call, and by name. And each still *learns*:
the loss falls under every one of these bugs, which is why a falling loss proves nothing.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from problems import Problem

from rnn_xp import network, sequence
from rnn_xp.cells import RNNCell, RNNState, rnn
from rnn_xp.kernels.portable import Activation
from rnn_xp.testing import GradientError, check_gradients, compare_gradients


def in_cell(**methods):
    """Plant a cell with some methods replaced."""

    def plant(monkeypatch):
        broken = dataclasses.dataclass(frozen=True)(type("Broken", (RNNCell,), methods))
        monkeypatch.setitem(network._CELLS, "rnn", broken)

    return plant


def in_module(module, name, make):
    """Plant a function made from the one it replaces."""

    def plant(monkeypatch):
        monkeypatch.setattr(module, name, make(getattr(module, name)))

    return plant


def in_activation(make):
    """Plant an adjoint of tanh made from the right one."""

    def plant(monkeypatch):
        right = network._ACTIVATIONS["tanh"]
        monkeypatch.setitem(
            network._ACTIVATIONS, "tanh", Activation(right.forward, make(right.backward))
        )

    return plant


def step_back_without_carry(self, params, dstate, cache, *, xp):
    dz, dstate = RNNCell.step_back(self, params, dstate, cache, xp=xp)
    return dz, RNNState(xp.zeros_like(dstate.h))


def step_back_transposed(self, params, dstate, cache, *, xp):
    dz, _ = RNNCell.step_back(self, params, dstate, cache, xp=xp)
    return dz, RNNState(xp.matmul(dz, xp.matrix_transpose(params["w_hh"])))


def step_back_through_h_not_z(self, params, dstate, cache, *, xp):
    dz, _ = RNNCell.step_back(self, params, dstate, cache, xp=xp)
    return dz, RNNState(xp.matmul(dstate.h, params["w_hh"]))


def carry_scaled(factor):
    def step_back(self, params, dstate, cache, *, xp):
        dz, dstate = RNNCell.step_back(self, params, dstate, cache, xp=xp)
        return dz, RNNState(dstate.h * factor)

    return step_back


def dropping_first_step(right):
    """collect(...) on steps 2..T only."""

    def collect(cell, params, tape, dzs, **options):
        keep = np.ones(dzs.shape[0])
        keep[0] = 0.0
        grads, _ = right(cell, params, tape, dzs * keep[:, None, None], **options)
        return grads, right(cell, params, tape, dzs, **options)[1]

    return collect


def leaving_instead_of_entering(right):
    def entering(tape, *, xp):
        return xp.stack([state.h for state in tape.states[1:]])

    return entering


def without_initial_state(right):
    def entering(tape, *, xp):
        return xp.stack(
            [xp.zeros_like(tape.states[0].h), *(state.h for state in tape.states[1:-1])]
        )

    return entering


def truncated(steps):
    """Backpropagation that forgets what came back after so many steps."""

    def make(right):
        def backprop(cell, params, tape, dhs, dstate, *, xp):
            dzs, dstate = right(cell, params, tape, dhs, dstate, xp=xp)
            keep = np.arange(dzs.shape[0]) >= dzs.shape[0] - steps
            return dzs * keep[:, None, None], dstate

        return backprop

    return make


def forgetting_final_state(right):
    def backprop(cell, params, tape, dhs, dstate, *, xp):
        return right(cell, params, tape, dhs, RNNState(xp.zeros_like(dstate.h)), xp=xp)

    return backprop


def reversed_in_time(right):
    def backprop(cell, params, tape, dhs, dstate, *, xp):
        dzs, dstate = right(cell, params, tape, dhs, dstate, xp=xp)
        return dzs[::-1], dstate

    return backprop


def mean_not_sum(right):
    return lambda a, *, xp: right(a, xp=xp) / a.shape[0]


CLASSIC = {
    "drop t = 0": in_module(sequence, "collect", dropping_first_step),
    "forget the state's share": in_cell(step_back=step_back_without_carry),
    "transpose w_hh": in_cell(step_back=step_back_transposed),
    "use h_t for h_{t-1}": in_module(sequence, "_entering", leaving_instead_of_entering),
    "missing f'": in_activation(lambda right: lambda dh, h, *, xp: dh),
}

SUBTLE = {
    "f' of h - 1": in_activation(lambda right: lambda dh, h, *, xp: dh * (1 - h)),
    "carry before f'": in_cell(step_back=step_back_through_h_not_z),
    "carry too large by 1e-6": in_cell(step_back=carry_scaled(1 + 1e-6)),
    "carry too large by 1e-9": in_cell(step_back=carry_scaled(1 + 1e-9)),
    "initial state left out of dw_hh": in_module(sequence, "_entering", without_initial_state),
    "truncated at 4 of 5 steps": in_module(sequence, "backprop", truncated(4)),
    "steps in reverse order": in_module(sequence, "backprop", reversed_in_time),
    "bias gradient is a mean": in_module(rnn, "sum_rows", mean_not_sum),
    "readout bias gradient is a mean": in_module(network, "sum_rows", mean_not_sum),
}


@pytest.fixture(params=[*CLASSIC, *SUBTLE], ids=lambda name: name.replace(" ", "-"))
def planted(request, monkeypatch):
    """Plant a bug, and take it out again afterwards."""
    (CLASSIC | SUBTLE)[request.param](monkeypatch)
    return request.param


def check(problem, **options):
    return check_gradients(problem.net, problem.params, problem.x, problem.y, **options)


def test_without_a_bug_all_is_well():
    errors = check(Problem(), every_entry=True) | check(Problem(), state=Problem().state)
    assert max(errors.values()) < 1e-14


@pytest.mark.parametrize("every_entry", [False, True], ids=["one-direction", "every-entry"])
def test_the_check_catches_it(planted, every_entry):
    problem = Problem()
    with pytest.raises(GradientError, match=r"the gradient of \S+ is wrong; worst entry"):
        check(problem, state=problem.state, every_entry=every_entry)


@pytest.mark.parametrize("name", CLASSIC)
def test_a_falling_loss_would_not_have_caught_it(name, monkeypatch):
    CLASSIC[name](monkeypatch)
    problem = Problem()
    params, losses = problem.params, []
    for _ in range(60):
        loss, grads = problem.net.value_and_grad(params, problem.x, problem.y)
        params = {k: p - 0.02 * grads[k] for k, p in params.items()}
        losses.append(float(loss))
    assert losses[-1] < 0.7 * losses[0]


def test_the_worst_entry_is_named_with_both_numbers(monkeypatch):
    def one_wrong_entry(right):
        def collect(cell, params, tape, dzs, **options):
            grads, dxs = right(cell, params, tape, dzs, **options)
            w_hh = grads["w_hh"].copy()
            w_hh[2, 1] += 0.5
            return grads | {"w_hh": w_hh}, dxs

        return collect

    problem = Problem()
    right = problem.net.value_and_grad(problem.params, problem.x, problem.y)[1]["layer0.w_hh"]
    in_module(sequence, "collect", one_wrong_entry)(monkeypatch)
    with pytest.raises(GradientError) as caught:
        check(problem)
    message = str(caught.value)
    assert "the gradient of layer0.w_hh is wrong; worst entry layer0.w_hh[2, 1]" in message
    assert f"gradient {right[2, 1] + 0.5:.9g}, complex step {right[2, 1]:.9g}" in message


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_gradient_that_is_not_finite_is_wrong(bad):
    gradient = np.asarray([2.0, bad])
    with np.errstate(invalid="ignore"), pytest.raises(GradientError, match=r"entry w\[1\]"):
        compare_gradients(lambda at: np.sum(at["w"] ** 2), {"w": np.ones(2)}, {"w": gradient})


def test_an_unknown_method_is_refused():
    with pytest.raises(ValueError, match="method='autograd' is not known. Valid: 'complex_step'"):
        check(Problem(), method="autograd")
