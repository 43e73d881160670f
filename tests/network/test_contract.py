"""The gradient contract over the full product of cells, topologies and options.

    every cell  x  every topology and feed  x  every option      on NumPy and array-api-strict
    every pair of cell, topology and option          on JAX under jit, torch, dpnp and MLX

with `--full`; without it every pair of cell, topology, option and library.

`test_gradients.py` shows the contract in full, entry by entry, for the plain cells. Here one random
direction stands for all entries of an array: any wrong entry changes it.

    pytest tests/network/test_contract.py --full --contract-table docs/contract.md

writes what was covered, as found in that run.
"""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from problems import OPTIONS, TOPOLOGIES, H, I, N, O, Problem, T, everything, excluded
from product import CELLS, PAIRWISE, PRODUCT, ids, make

import rnn_xp as rx
from rnn_xp import cells, losses
from rnn_xp.losses import names
from rnn_xp.network import configuration
from rnn_xp.network.sequence import map_state, segments
from rnn_xp.testing import compare_gradients

pytestmark = pytest.mark.usefixtures("mingru")


def check(names, case, request, problem=None, **sizes):
    """Gradients on a backend against the complex step on the host."""
    problem = make(*names, **sizes) if problem is None else problem
    there = problem.on(case)

    def gradients(params, x, arrays, dpred, dstate):
        there.params, there.x, there.arrays = params, x, arrays
        there.dpred, there.dstate = dpred, dstate
        return there.vjp()

    with case.guard():
        grads = case.jit(gradients)(there.params, there.x, there.arrays, there.dpred, there.dstate)
    for name, grad in grads.items():
        assert grad.dtype == case.dtype, name
    function, arguments = everything(problem, case)
    assert grads.keys() == arguments.keys()
    compare_gradients(function, arguments, {k: case.to_numpy(g) for k, g in grads.items()})
    request.node.user_properties.append(("contract", (*names, case.backend.name)))


@pytest.mark.cover("pairs")
class TestContract:
    @pytest.mark.parametrize("names", PRODUCT, ids=ids)
    @pytest.mark.parametrize("case", ["numpy-f64", "strict-cpu-f64"], indirect=True)
    def test_full_product(self, names, case, request):
        check(names, case, request)

    @pytest.mark.parametrize("names", PAIRWISE, ids=ids)
    @pytest.mark.parametrize(
        "case",
        [
            "strict-device1-f32",
            "jax-cpu-f64",
            pytest.param("torch-cpu-f64", marks=pytest.mark.torch),
            pytest.param("dpnp-cpu-f64", marks=pytest.mark.libraries),
            pytest.param("mlx-cpu-f32", marks=pytest.mark.libraries),
        ],
        indirect=True,
    )
    def test_every_pair(self, names, case, request):
        check(names, case, request, steps=3)


@pytest.mark.cover("pairs")
@pytest.mark.parametrize("activation", configuration._OUTPUT_ACTIVATIONS)
@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("case", ["numpy-f64", "strict-cpu-f64"], indirect=True)
def test_every_output_activation(activation, topology, case, request):
    problem = Problem(cell="gru", output_activation=activation, **TOPOLOGIES[topology])
    check(("gru", topology, f"output {activation}"), case, request, problem)


def test_every_name_there_is_has_a_place_in_the_tables():
    """A new cell, topology, read, feed or loss cannot be forgotten here."""
    nets = [rx.Network(hidden_size=1, **options) for options in CELLS.values()]
    assert {net.cell for net in nets} == set(cells.CELLS)
    assert {net.activation for net in nets} == set(configuration._ACTIVATIONS)
    assert {net.reset_after for net in nets} == {True, False}
    shapes = [rx.Network(hidden_size=1, **options) for options in TOPOLOGIES.values()]
    assert {net.topology for net in shapes} == set(configuration._TOPOLOGIES)
    assert {net.read for net in shapes} == set(configuration._READS)
    assert {net.feed for net in shapes} == set(configuration._FEEDS)
    tested = {type(loss) for loss, _ in LOSSES.values()} | {name for name, _ in LOSSES.values()}
    for name, loss in names.LOSSES.items():
        assert name in tested or type(loss) in tested
    fields = {field.name for field in dataclasses.fields(configuration.Configuration)}
    tables = (CELLS.values(), TOPOLOGIES.values(), (net for net, _ in OPTIONS.values()))
    used = {name for table in tables for options in table for name in options}
    assert fields - used == {"input_size", "hidden_size", "output_size"}


@pytest.mark.parametrize(
    ("topology", "option"),
    [pair for pair in itertools.product(TOPOLOGIES, OPTIONS) if excluded(*pair)],
)
def test_what_does_not_exist_is_a_clear_error(topology, option):
    with pytest.raises(ValueError, match=excluded(topology, option)):
        make("gru", topology, option).vjp()


@pytest.mark.cover("pairs")
@pytest.mark.parametrize("names", PRODUCT, ids=ids)
class TestStructure:
    """What must hold of any gradient through time, whatever the numbers."""

    def test_zero_upstream_gives_exactly_zero(self, names):
        p = make(*names)
        p.dpred, p.dstate = np.zeros_like(p.dpred), map_state(np.zeros_like, p.dstate)
        for name, grad in p.vjp().items():
            assert not grad.any(), name

    def test_a_batch_is_its_rows(self, names):
        p = make(*names)
        if p.noisy:
            p.noisy = False  # each row would have a mask of its own
        together = p.vjp()
        parts = []
        for n in range(N):
            one = make(*names)
            one.noisy, row = False, slice(n, n + 1)
            one.params, one.x, one.dpred = p.params, p.x[row], p.dpred[row]
            one.dstate = map_state(lambda a, row=row: a[:, row], p.dstate)
            one.arrays = {
                k: map_state(lambda s, row=row: s[:, row], a) if k == "state" else a[row]
                for k, a in p.arrays.items()
            }
            parts.append(one.vjp())
        for name, whole in together.items():
            if name in p.net.shapes:
                found = sum(part[name] for part in parts)
            else:
                axis = 1 if name.startswith("state.") else 0
                found = np.concatenate([part[name] for part in parts], axis=axis)
            np.testing.assert_allclose(found, whole, atol=1e-12 * max(1.0, np.abs(whole).max()))

    def test_terms_of_the_steps_sum_to_the_gradient(self, names):
        p = make(*names)
        options = p.options(steps=False)
        terms = p.net.grad_per_step(p.params, p.x, p.y, "mse", p.weight, **options)
        _, grads = p.net.value_and_grad(
            p.params, p.x, p.y, "mse", p.weight, **p.options(steps=False)
        )
        for name, grad in grads.items():
            assert terms[name].shape == (T, *grad.shape)
            np.testing.assert_allclose(
                terms[name].sum(axis=0), grad, atol=1e-13 * max(1.0, np.abs(grad).max())
            )


@pytest.mark.cover("pairs")
@pytest.mark.parametrize(
    "names",
    [n for n in PRODUCT if n[1] in ("many-to-one", "many-to-one-mean", "many-to-many")],
    ids=ids,
)
def test_the_first_step_takes_part(names):
    """Every row that sees its first step has a gradient there, and no other row has."""
    p = make(*names)
    p.arrays.pop("reset", None)  # which may cut the first step off
    _, _, back = p.net.vjp(p.params, p.x, **p.options())
    dx = back(p.dpred)["x"][:, 0, :]
    seen = np.ones(N, dtype=bool)
    if "lengths" in p.arrays:
        seen &= p.arrays["lengths"] > 0
    if "mask" in p.arrays:
        seen &= p.arrays["mask"][:, 0]
    if p.net.activation == "relu":
        assert dx[seen].any()  # of a single row all units may be off
    else:
        assert dx[seen].any(axis=1).all()
    assert not dx[~seen].any()


LOSSES = {
    "mse": ("mse", "complex_step"),
    "mae": ("mae", "central_difference"),
    "huber": (losses.Huber(0.8), "central_difference"),
    "pinball": (losses.Pinball((0.2, 0.7)), "central_difference"),
    "cross-entropy": ("cross_entropy", "complex_step"),
    "binary-cross-entropy": ("binary_cross_entropy", "complex_step"),
}


@pytest.mark.cover("pairs")
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("cell", CELLS)
def test_every_loss(cell, topology, loss, request):
    """Value and gradient in one call, with weights, and masks where a step has a loss."""
    name, method = LOSSES[loss]
    p = make(cell, topology, "mask")
    y = p.y
    if loss == "cross-entropy":
        y = np.argmax(y, axis=-1)
    elif loss == "binary-cross-entropy":
        y = (y > 0).astype(float)
    options = p.options(steps=False)
    _, grads = p.net.value_and_grad(p.params, p.x, y, name, p.weight, **options)

    def function(at):
        return p.net.value_and_grad(
            {k: at[k] for k in grads}, p.x.astype(at["readout.b_y"].dtype), y, name, p.weight,
            **options,
        )[0]  # fmt: skip

    compare_gradients(function, p.params, grads, method=method)
    request.node.user_properties.append(("contract", (cell, topology, f"loss {loss}", "numpy")))


class TestTruncated:
    """TBPTT(k1, k2): each segment's gradient stops at the state that enters it."""

    @pytest.mark.cover("pairs")
    @pytest.mark.parametrize(("k1", "k2"), [(1, 1), (2, 2), (2, 3), (1, 4), (3, 5)])
    @pytest.mark.parametrize("topology", [t for t in TOPOLOGIES if not t.startswith("many-to-one")])
    @pytest.mark.parametrize("cell", CELLS)
    @pytest.mark.parametrize("case", ["numpy-f64", "strict-cpu-f64"], indirect=True)
    def test_complex_step_with_the_carried_state_held(self, cell, topology, k1, k2, case, request):
        """The reference runs the whole in complex numbers and drops the carry's imaginary part."""
        p = make(cell, topology, "mask", seed=3)
        net, one_to_many = p.net, topology.startswith("one-to-many")
        total = float(O * p.arrays["mask"].sum())
        pieces = segments(T, k1, k2)
        starts = [piece.start for piece in pieces[1:]] + [T]

        def cut(piece):
            """Targets, mask and weights of a segment; its context weighs nothing."""
            window = slice(piece.start, piece.stop)
            own = np.arange(piece.start, piece.stop) >= piece.first
            return p.y[:, window], p.arrays["mask"][:, window], own * np.ones((N, 1))

        grads, state, x = [], None, case.array(p.x)
        params = {name: case.array(value) for name, value in p.params.items()}
        for piece, following in zip(pieces, starts, strict=True):
            x = x if one_to_many else case.array(p.x[:, piece.start : piece.stop])
            y, mask, weight = map(case.array, cut(piece))
            with case.guard():
                _, found, carry = net.segment_value_and_grad(
                    params, x, y, "mse", weight, state=state, mask=mask, total=total,
                    carry=following - piece.start,
                )  # fmt: skip
            grads.append({name: case.to_numpy(grad) for name, grad in found.items()})
            state, x = carry.state, carry.x

        def losses_of(at):
            """The same by forward passes alone, from states without an imaginary part."""
            dtype = at["readout.b_y"].dtype
            value, state, x = 0.0, None, p.x.astype(dtype)
            for piece, following in zip(pieces, starts, strict=True):
                y, mask, weight = cut(piece)
                x = x if one_to_many else p.x[:, piece.start : piece.stop].astype(dtype)
                held = None if state is None else map_state(lambda a: a.astype(dtype), state)
                steps = {"steps": y.shape[1]} if one_to_many else {}
                pred, _ = net.forward(at, x, held, mask=mask, **steps)
                value = value + np.sum((weight * mask)[..., None] * (pred - y) ** 2) / total
                go = following - piece.start
                if not go:  # the next segment starts where this one did
                    continue
                steps = {"steps": go} if one_to_many else {}
                part = x if one_to_many else x[:, :go]
                pred, state = net.forward(at, part, held, mask=mask[:, :go], **steps)
                state = map_state(np.real, state)
                if one_to_many and net.feed == "feedback":
                    x = last_prediction(pred.real, mask[:, :go], x.real).astype(dtype)
                elif one_to_many and net.feed == "zeros":
                    x = np.zeros_like(x)
            return value

        def last_prediction(pred, mask, first):
            last = first[:, 0]
            for t in range(pred.shape[1]):
                last = np.where(mask[:, t : t + 1], pred[:, t], last)
            return last[:, None]

        summed = {name: sum(part[name] for part in grads) for name in net.shapes}
        compare_gradients(losses_of, p.params, summed)
        request.node.user_properties.append(
            ("contract", (cell, topology, "tbptt", case.backend.name))
        )

    @pytest.mark.parametrize("cell", CELLS)
    def test_many_to_one_reaches_back_k2_steps(self, cell, request):
        p = make(cell, "many-to-one", "plain")
        _, state = p.net.forward(p.params, p.x[:, :3])
        _, grads, _ = p.net.segment_value_and_grad(p.params, p.x[:, 3:], p.y, state=state)

        def function(at):
            held = map_state(lambda a: a.astype(at["readout.b_y"].dtype), state)
            return p.net.value_and_grad(
                at, p.x[:, 3:].astype(at["readout.b_y"].dtype), p.y, state=held
            )[0]

        compare_gradients(function, p.params, grads)
        request.node.user_properties.append(("contract", (cell, "many-to-one", "tbptt", "numpy")))

    @pytest.mark.parametrize("cell", CELLS)
    def test_one_segment_is_full_backpropagation(self, cell):
        p = make(cell, "many-to-many", "plain")
        assert segments(T, T, T) == [(0, 0, T)]
        _, whole = p.net.value_and_grad(p.params, p.x, p.y)
        _, grads, _ = p.net.segment_value_and_grad(p.params, p.x, p.y)
        for name, grad in whole.items():
            assert np.array_equal(grads[name], grad)

    def test_bidirectional_is_refused(self):
        p = make("gru", "many-to-many", "bidirectional")
        with pytest.raises(ValueError, match="truncated backpropagation needs bidirectional=False"):
            p.net.segment_value_and_grad(p.params, p.x, p.y)

    @pytest.mark.parametrize(("k1", "k2"), [(0, 1), (2, 1), (-1, 3)])
    def test_bad_lengths(self, k1, k2):
        with pytest.raises(ValueError, match=r"truncate=\(k1, k2\) must have 1 <= k1 <= k2"):
            segments(T, k1, k2)

    def test_every_step_is_the_own_of_one_segment(self):
        for steps, k2 in itertools.product(range(1, 9), range(1, 7)):
            for k1 in range(1, k2 + 1):
                pieces = segments(steps, k1, k2)
                own = [t for piece in pieces for t in range(piece.first, piece.stop)]
                assert own == list(range(steps))
                assert all(piece.stop - piece.start == min(k2, piece.stop) for piece in pieces)


def test_the_sizes_are_distinct():
    assert len({T, N, H}) == 3
    assert I != H != O
    assert rx.Network(hidden_size=H).hidden_size != N


def test_the_maximum_of_states_with_a_nan_is_nan():
    p = make("gru", "many-to-one-max", "plain")
    p.x[0, 2] = np.nan  # of the steps before it all are finite
    pred, _ = p.net.forward(p.params, p.x)
    assert np.isnan(pred[0]).all()
    assert np.isfinite(pred[1:]).all()
