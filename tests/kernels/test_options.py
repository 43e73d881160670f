"""Kernels with lengths, masks, resets, given states and recurrent dropout: the same numbers."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
from frozen import freeze
from kernel_options import (
    DTYPES,
    ONE_TO_MANY,
    OPTIONS,
    OUTPUTS,
    STACKS,
    adjoint,
    cast,
    compare,
    enlarge,
    make_workspace,
)
from kernel_problems import CELLS
from problems import OPTIONS as CONTRACT
from problems import TOPOLOGIES, Problem, excluded

import rnn_xp as rx
from rnn_xp.network import sequence
from rnn_xp.network.sequence import map_state

FEEDBACK = TOPOLOGIES["one-to-many-feedback"]
KINDS = ["numpy", "numba"] if importlib.util.find_spec("numba") else ["numpy"]


@pytest.mark.cover("pairs")
@pytest.mark.parametrize("kind", KINDS)
class TestContract:
    @pytest.mark.parametrize("option", CONTRACT)
    @pytest.mark.parametrize("topology", TOPOLOGIES)
    @pytest.mark.parametrize("cell", CELLS)
    def test_the_gradient_contract_holds_through_kernels(self, kind, cell, topology, option):
        if excluded(topology, option):
            return
        options, with_ = CONTRACT[option]
        settings = {**CELLS[cell], **TOPOLOGIES[topology], **options}
        compare(kind, lambda: Problem(with_=with_, **settings))

    @pytest.mark.parametrize("with_final", [True, False])
    @pytest.mark.parametrize("topology", ["many-to-one", "many-to-one-mean", "many-to-many"])
    @pytest.mark.parametrize("stack", STACKS)
    @pytest.mark.parametrize("option", OPTIONS)
    @pytest.mark.parametrize("cell", CELLS)
    def test_kernels_compute_every_option(self, kind, cell, option, stack, topology, with_final):
        options, with_ = OPTIONS[option]
        if "dropout" in STACKS[stack]:
            with_ = (*with_, "rng")
        settings = {**CELLS[cell], **TOPOLOGIES[topology], **options, **STACKS[stack]}

        def build():
            return Problem(with_=with_, rows=9, steps=6, scale=0.5, **settings)

        assert compare(kind, build, with_final=with_final), "a layer was left to the portable code"

    @pytest.mark.parametrize("with_final", [True, False])
    @pytest.mark.parametrize("output", OUTPUTS)
    @pytest.mark.parametrize("option", ONE_TO_MANY)
    @pytest.mark.parametrize("cell", CELLS)
    def test_feedback_with_every_option(self, kind, cell, option, output, with_final):
        options, with_ = ONE_TO_MANY[option]
        settings = {**CELLS[cell], **FEEDBACK, **options}

        def build():
            sizes = {"rows": 80, "steps": 6, "hidden": 17, "scale": 0.3}
            return Problem(with_=with_, output_activation=output, **sizes, **settings)

        assert compare(kind, build, with_final=with_final)

    @pytest.mark.parametrize("rows", [1, 35, 72, 150])
    @pytest.mark.parametrize("outputs", [1, 7, 8, 17, 40])
    @pytest.mark.parametrize("hidden", [1, 7, 8, 17])
    @pytest.mark.parametrize("output", OUTPUTS)
    @pytest.mark.parametrize("cell", CELLS)
    def test_feedback_of_any_size(self, kind, cell, output, hidden, outputs, rows):
        """Without normalisation, whose small deviations of few units feedback would amplify."""
        settings = {"recurrent_dropout": 0.4, **CELLS[cell], **FEEDBACK}
        with_ = ("mask", "reset", "state", "rng")

        def build():
            sizes = {"rows": rows, "hidden": hidden, "inputs": outputs, "outputs": outputs}
            return Problem(
                with_=with_, output_activation=output, steps=7, scale=0.3, **sizes, **settings
            )

        assert compare(kind, build)

    def test_feedback_of_outputs_whose_exponentials_overflow(self, kind):
        def build():
            problem = Problem(cell="gru", output_activation="softmax", **FEEDBACK)
            enlarge(problem)
            return problem

        assert compare(kind, build)

    @pytest.mark.parametrize("cell", CELLS)
    def test_feedback_through_several_layers_is_left_to_the_portable_code(self, kind, cell):
        settings = {"num_layers": 2, **CELLS[cell], **FEEDBACK}
        assert not compare(kind, lambda: Problem(with_=("mask", "state"), **settings))

    @pytest.mark.parametrize("cell", CELLS)
    def test_linear_lags_with_a_mask_too(self, kind, cell):
        def build():
            settings = {"linear_lags": 2, "bidirectional": True, **CELLS[cell]}
            return Problem(with_=("mask", "state"), rows=9, steps=6, scale=0.5, **settings)

        assert compare(kind, build)

    @pytest.mark.parametrize("rows", [1, 35, 71, 72, 73, 150])
    @pytest.mark.parametrize("hidden", [1, 7, 8, 17])
    @pytest.mark.parametrize("cell", CELLS)
    def test_of_any_size(self, kind, cell, rows, hidden):
        """Rows over and under a tile of 72, widths over and under vectors of 8 and 16."""
        options, with_ = OPTIONS["all"]

        def build():
            sizes = {"rows": rows, "hidden": hidden, "steps": 7, "scale": 0.3}
            return Problem(with_=with_, **sizes, **CELLS[cell], **options)

        assert compare(kind, build)


@pytest.mark.parametrize(
    ("option", "topology"),
    [(option, {"bidirectional": True}) for option in OPTIONS]
    + [(option, FEEDBACK) for option in ONE_TO_MANY],
)
@pytest.mark.parametrize("cell", ["rnn-tanh", "gru", "gru-before", "lstm"])
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_that_is_given_is_written_to(kind, cell, option, topology):
    """Nor are results made in arrays that may be read-only as what they are made from."""
    options, with_ = (ONE_TO_MANY | OPTIONS)[option]

    def build():
        return Problem(with_=with_, scale=0.5, **CELLS[cell], **options, **topology)

    expected, _ = adjoint(cast(build(), DTYPES[kind]), make_workspace(kind))
    problem = cast(build(), DTYPES[kind])
    problem.params = {name: freeze(p) for name, p in problem.params.items()}
    problem.x = freeze(problem.x)
    problem.arrays = {name: map_state(freeze, a) for name, a in problem.arrays.items()}
    found, computed = adjoint(problem, make_workspace(kind))
    assert computed
    for name, array in expected.items():
        assert np.array_equal(found[name], array), name


@pytest.mark.parametrize("kind", KINDS)
class TestRaggedRows:
    def problem(self, kind, cell="lstm", **options):
        settings = {"topology": "many_to_many", "bidirectional": True, "num_layers": 2, **options}
        settings |= CELLS[cell]
        problem = Problem(rows=50, steps=9, with_=("lengths",), scale=0.4, **settings)
        return cast(problem, DTYPES[kind])

    @pytest.mark.parametrize("cell", ["rnn-tanh", "gru", "gru-before", "lstm"])
    def test_the_order_of_the_rows_does_not_matter(self, kind, cell):
        """Predictions, states and the gradients of rows follow them; weight gradients stay."""
        problem, other = self.problem(kind, cell), self.problem(kind, cell)
        order = np.random.default_rng(3).permutation(50)
        other.x, other.dpred = other.x[order], other.dpred[order]
        other.dstate = type(other.dstate)(*(field[:, order] for field in other.dstate))
        other.arrays["lengths"] = other.arrays["lengths"][order]
        expected, _ = adjoint(problem, make_workspace(kind))
        found, computed = adjoint(other, make_workspace(kind))
        assert computed
        for name, array in expected.items():
            if name in ("pred", "dx"):
                array = array[order]
            elif name.startswith("final."):
                array = array[:, order]
            bound = {"float64": 1e-13, "float32": 3e-6}[DTYPES[kind]]
            error = np.abs(found[name] - array).max()
            assert error <= bound * max(np.abs(array).max(), 1.0), name

    @pytest.mark.parametrize("layer_norm", [False, True])
    def test_finished_rows_are_not_computed(self, kind, layer_norm):
        """A NaN in the padding would show in every product that it enters."""
        problem = self.problem(kind, layer_norm=layer_norm)
        expected, _ = adjoint(problem, make_workspace(kind))
        beyond = np.arange(9)[None, :] >= problem.arrays["lengths"][:, None]
        problem.x[beyond] = np.nan
        found, _ = adjoint(problem, make_workspace(kind))
        for name, array in expected.items():
            assert np.array_equal(found[name], array), name

    def test_all_rows_of_full_length_are_a_plain_pass(self, kind):
        problem = self.problem(kind)
        problem.arrays["lengths"] = np.full(50, 9)
        found, computed = adjoint(problem, make_workspace(kind))
        problem.arrays.clear()
        expected, _ = adjoint(problem, make_workspace(kind))
        assert computed
        for name, array in expected.items():
            np.testing.assert_allclose(found[name], array, rtol=0, atol=1e-5 * np.abs(array).max())

    @pytest.mark.parametrize("lengths", [[0] * 5, [0, 0, 3, 1, 0], [1] * 5, [9, 9, 9, 0, 9]])
    def test_rows_of_any_length(self, kind, lengths):
        def build():
            problem = Problem(rows=5, steps=9, with_=("lengths",), cell="gru", bidirectional=True)
            problem.arrays["lengths"] = np.asarray(lengths)
            return problem

        assert compare(kind, build)

    def test_a_workspace_that_was_used_for_other_lengths(self, kind):
        problem, workspace = self.problem(kind), make_workspace(kind)
        expected, _ = adjoint(problem, make_workspace(kind))
        for buffer in (adjoint(self.problem(kind, "rnn-tanh", hidden=30), workspace), workspace)[
            1:
        ]:
            for array in buffer._buffers.values():
                array[...] = np.nan
        found, _ = adjoint(problem, workspace)
        for name, array in expected.items():
            assert np.array_equal(found[name], array), name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cell", ["rnn-tanh", "gru", "gru-before", "lstm"])
def test_training_on_ragged_rows_takes_the_course_of_the_portable_code(kind, cell, monkeypatch):
    """And none of its layers is computed by the portable code."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((120, 8, 2)).astype(DTYPES[kind])
    lengths = rng.integers(1, 9, 120)
    y = np.asarray([row[:n].sum() for row, n in zip(x, lengths, strict=True)], x.dtype)[:, None]
    backend = rx.get_backend("numpy", dtype=DTYPES[kind])
    losses = {}
    for name in (kind, "portable"):
        monkeypatch.setenv("RNN_XP_KERNELS", name)
        with monkeypatch.context() as patch:
            if name == kind:
                patch.delattr(sequence, "run")
            result = rx.fit(
                rx.Network(**CELLS[cell], input_size=2, hidden_size=6), x, y, lengths=lengths,
                optimizer=rx.optim.adam(0.01), epochs=15, backend=backend,
            )  # fmt: skip
        losses[name] = result.history["loss"]
    rtol = {"float64": 1e-11, "float32": 2e-4}[DTYPES[kind]]
    np.testing.assert_allclose(losses[kind], losses["portable"], rtol=rtol)
