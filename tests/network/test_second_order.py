"""jvp, hvp and gnvp: values by hand, kinks, losses, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from problems import H, Problem
from product import make

import rnn_xp as rx
from rnn_xp import losses
from rnn_xp.backend import get_backend
from rnn_xp.network import second_order
from rnn_xp.network.sequence import map_state

STEP = 1e-5


def vector(problem, seed=7, dtype="float64"):
    rng = np.random.default_rng(seed)
    return {k: rng.standard_normal(s).astype(dtype) for k, s in problem.net.shapes.items()}


def along(problem, v, h):
    return {k: param + h * v[k] for k, param in problem.params.items()}


def differences(problem, v, loss, y, **options):
    """Central differences of the gradient along v, good to 1e-10 of it."""
    ahead, behind = (
        problem.net.value_and_grad(along(problem, v, h), problem.x, y, loss, **options)[1]
        for h in (STEP, -STEP)
    )
    return {k: (ahead[k] - behind[k]) / (2 * STEP) for k in ahead}


def assert_alike(found, expected, relative):
    largest = max(np.abs(a).max() for a in expected.values())
    assert found.keys() == expected.keys()
    for name, a in expected.items():
        assert found[name].shape == a.shape
        assert np.max(np.abs(found[name] - a)) <= relative * largest, name


class TestByHand:
    """One unit, one step, one sample: pred = w_hy tanh(w_xh x + b_h) + b_y."""

    @pytest.fixture
    def small(self):
        net = rx.Network(input_size=1, hidden_size=1, output_size=1)
        value = {"layer0.w_xh": 0.5, "layer0.b_h": 0.1, "readout.w_hy": 2.0, "readout.b_y": 0.3}
        params = {k: np.full(s, value.get(k, 9.0)) for k, s in net.shapes.items()}
        v = {k: np.zeros(s) for k, s in net.shapes.items()}
        return net, params, np.asarray([[[0.8]]]), np.asarray([[1.5]]), v

    def test_along_the_weight_of_the_input(self, small):
        net, params, x, y, v = small
        v["layer0.w_xh"] = np.ones((1, 1))
        h = np.tanh(0.5)
        slope, error = 2.0 * (1 - h**2) * 0.8, 2.0 * h + 0.3 - 1.5
        bend = 2.0 * (1 - h**2) * 0.8**2 * -2.0 * h
        pred, dpred = net.jvp(params, x, v)
        assert pred[0, 0] == pytest.approx(2.0 * h + 0.3, rel=1e-15)
        assert dpred[0, 0] == pytest.approx(slope, rel=1e-14)
        gnvp = net.gnvp(params, x, y, v)["layer0.w_xh"]
        assert gnvp[0, 0] == pytest.approx(2.0 * slope**2, rel=1e-14)
        hvp = net.hvp(params, x, y, v)["layer0.w_xh"]
        assert hvp[0, 0] == pytest.approx(2.0 * slope**2 + 2.0 * error * bend, rel=1e-14)

    def test_along_the_input_and_not_the_weights(self, small):
        net, params, x, _, _ = small
        _, dpred = net.jvp(params, x, {"x": np.ones((1, 1, 1))})
        assert dpred[0, 0] == pytest.approx(2.0 * (1 - np.tanh(0.5) ** 2) * 0.5, rel=1e-14)

    def test_without_a_direction_nothing_changes(self, small):
        net, params, x, y, v = small
        assert net.jvp(params, x, {})[1].tolist() == [[0.0]]
        assert not any(a.any() for a in net.hvp(params, x, y, v).values())
        assert not any(a.any() for a in net.gnvp(params, x, y, v).values())


LOSSES = {
    "mse": ("mse", True),
    "huber": (losses.Huber(0.8), True),
    "cross_entropy": ("cross_entropy", True),
    "binary_cross_entropy": ("binary_cross_entropy", True),
    "mae": ("mae", False),
    "pinball": (losses.Pinball((0.2, 0.7)), False),
}


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("topology", ["many-to-one", "many-to-many"])
class TestEveryLoss:
    def problem(self, loss, topology):
        p = make("gru", topology, "mask")
        y = p.y
        if loss == "cross_entropy":
            y = np.argmax(y, axis=-1)
        elif loss == "binary_cross_entropy":
            y = (y > 0).astype(float)
        return p, y, {"sample_weight": p.weight, **p.options(steps=False)}

    def test_hvp_is_the_change_of_the_gradient(self, loss, topology):
        p, y, options = self.problem(loss, topology)
        function, v = LOSSES[loss][0], vector(p)
        hvp = p.net.hvp(p.params, p.x, y, v, function, **options)
        assert_alike(hvp, differences(p, v, function, y, **options), 1e-7)

    def test_gnvp_takes_the_second_derivative_of_the_loss_or_refuses(self, loss, topology):
        p, y, options = self.problem(loss, topology)
        (function, bends), v = LOSSES[loss], vector(p)
        if not bends:
            name = "mae" if loss == "mae" else "Pinball"
            message = rf"gnvp: the loss {name} has a slope that does not change .* or 'huber'"
            with pytest.raises(ValueError, match=message):
                p.net.gnvp(p.params, p.x, y, v, function, **options)
            return
        found = p.net.gnvp(p.params, p.x, y, v, function, **options)
        weight = p.weight * p.arrays["mask"] if topology == "many-to-many" else p.weight
        pred, dpred = p.net.jvp(p.params, p.x, v, **p.options())
        ahead, behind = (
            function_of(function)(pred + h * dpred, y, weight)[1] for h in (STEP, -STEP)
        )
        back = p.net.vjp(p.params, p.x, **p.options())[2]
        expected = back((ahead - behind) / (2 * STEP))
        assert_alike(found, {k: expected[k] for k in p.net.shapes}, 1e-9)


def function_of(loss):
    return losses.resolve_loss(loss)


class TestKinks:
    """At a kink the branch that the value takes decides."""

    def test_relu_at_zero_is_the_branch_that_is_off(self):
        net = rx.Network(input_size=1, hidden_size=1, activation="relu")
        params = {k: np.ones(s) for k, s in net.shapes.items()}
        params["layer0.b_h"] = np.zeros(1)
        x, y = np.zeros((1, 1, 1)), np.zeros((1, 1))
        v = {k: np.ones(s) for k, s in net.shapes.items()}
        assert net.jvp(params, x, {"layer0.b_h": np.ones(1)})[1].tolist() == [[0.0]]
        hvp = net.hvp(params, x, y, v)
        assert hvp["readout.b_y"].tolist() == [2.0]
        assert hvp["layer0.b_h"].tolist() == [0.0]
        assert net.gnvp(params, x, y, v)["layer0.b_h"].tolist() == [0.0]
        assert net.jacobian(params, x)["layer0.b_h"].ravel().tolist() == [0.0]

    def test_max_of_equal_steps_is_the_first(self):
        net = rx.Network(input_size=1, hidden_size=1, read="max")
        params = {k: np.ones(s) for k, s in net.shapes.items()}
        params["layer0.w_hh"] = np.zeros((1, 1))
        x = np.full((1, 3, 1), 0.5)
        along_time = [
            net.jvp(params, x, {"x": np.eye(3)[t].reshape(1, 3, 1)})[1][0, 0] for t in range(3)
        ]
        assert along_time == [pytest.approx(1 - np.tanh(1.5) ** 2), 0.0, 0.0]

    def test_huber_at_delta_is_the_parabola(self):
        net = rx.Network(input_size=1, hidden_size=1)
        params = {k: np.zeros(s) for k, s in net.shapes.items()}
        v = {k: np.zeros(s) for k, s in net.shapes.items()} | {"readout.b_y": np.ones(1)}
        x = np.zeros((1, 2, 1))
        for target, curvature in ((-1.0, 1.0), (1.0, 1.0), (-1.5, 0.0)):
            y = np.full((1, 1), target)
            for product in (net.hvp, net.gnvp):
                found = product(params, x, y, v, losses.Huber(1.0))["readout.b_y"]
                assert found.tolist() == [curvature]

    def test_mae_leaves_the_curvature_of_the_network(self):
        p = Problem(outputs=1)
        v = vector(p)
        hvp = p.net.hvp(p.params, p.x, p.y, v, "mae")
        assert not hvp["readout.b_y"].any()
        assert hvp["layer0.w_hh"].any()


class TestFloat32:
    def test_as_exact_as_its_rounding_also_for_long_and_short_vectors(self):
        p = Problem(cell="lstm", hidden=8)
        x, y = p.x.astype("float32"), p.y.astype("float32")
        params = {k: a.astype("float32") for k, a in p.params.items()}
        exact = {k: a.astype("float64") for k, a in params.items()}
        for size in (1e-6, 1.0, 1e6):
            v = {k: np.float32(size) * a for k, a in vector(p, dtype="float32").items()}
            expected = p.net.hvp(
                exact, x.astype("float64"), y.astype("float64"),
                {k: a.astype("float64") for k, a in v.items()},
            )  # fmt: skip
            found = p.net.hvp(params, x, y, v)
            assert {a.dtype for a in found.values()} == {np.dtype("float32")}
            assert_alike(found, expected, 2e-5)

    def test_a_saturated_unit_has_no_slope_and_no_nan(self):
        net = rx.Network(input_size=1, hidden_size=2)
        params = {k: np.full(s, 1e4, dtype="float32") for k, s in net.shapes.items()}
        x, y = np.ones((2, 3, 1), dtype="float32"), np.ones((2, 1), dtype="float32")
        hvp = net.hvp(params, x, y, params)
        assert hvp["layer0.w_hh"].tolist() == [[0.0, 0.0], [0.0, 0.0]]
        assert all(np.isfinite(a).all() for a in hvp.values())


def test_dropout_has_the_same_masks_in_both_passes_and_draws_as_often_as_a_gradient():
    p = Problem(cell="gru", num_layers=2, dropout=0.4, recurrent_dropout=0.3)
    v = vector(p)
    seeds = [np.random.default_rng(3) for _ in range(4)]
    gnvp = p.net.gnvp(p.params, p.x, p.y, v, rng=seeds[0])
    jacobian = p.net.jacobian(p.params, p.x, rng=seeds[1])
    _, dpred = p.net.jvp(p.params, p.x, v, rng=seeds[2])
    p.net.value_and_grad(p.params, p.x, p.y, rng=seeds[3])
    upstream = 2.0 * dpred / dpred.size
    expected = {k: np.einsum("no,no...->...", upstream, a) for k, a in jacobian.items()}
    assert_alike(gnvp, expected, 1e-13)
    assert len({seed.random() for seed in seeds}) == 1


def test_blocks_add_up_when_the_total_is_that_of_all_rows():
    p = Problem(cell="lstm", topology="many_to_many", rows=6, with_=("mask",))
    v, weight = vector(p), p.weight * p.arrays["mask"]
    total = losses.total_weight(p.y, weight)
    for product in (p.net.hvp, p.net.gnvp):
        whole = product(p.params, p.x, p.y, v, "mse", p.weight, **p.arrays)
        parts = [
            product(
                p.params, p.x[rows], p.y[rows], v, "mse", p.weight[rows],
                mask=p.arrays["mask"][rows], total=total,
            )
            for rows in (slice(0, 2), slice(2, 6))
        ]  # fmt: skip
        assert_alike({k: parts[0][k] + parts[1][k] for k in whole}, whole, 1e-13)


def test_many_rows_are_the_sum_of_their_blocks_and_few_are_one(monkeypatch):
    """Rows of targets, weights, lengths and states go with their samples."""
    p = Problem(cell="gru", topology="many_to_many", rows=7, with_=("lengths", "state"))
    v = vector(p)
    for product in (p.net.hvp, p.net.gnvp):
        whole = product(p.params, p.x, p.y, v, "mse", p.weight, **p.arrays)
        with monkeypatch.context() as patch:
            patch.setattr(second_order, "default_rows", lambda *a: 3)
            parts = product(p.params, p.x, p.y, v, "mse", p.weight, **p.arrays)
        assert_alike(parts, whole, 1e-13)


def test_a_step_of_gauss_newton_solves_a_linear_least_squares_problem():
    """With w_hh and w_hy fixed to small numbers nothing is left but b_y: one step ends at 0."""
    p = Problem(outputs=1)
    v = {k: np.zeros_like(a) for k, a in p.params.items()} | {"readout.b_y": np.ones(1)}
    _, grads = p.net.value_and_grad(p.params, p.x, p.y)
    curvature = p.net.gnvp(p.params, p.x, p.y, v)["readout.b_y"]
    step = -grads["readout.b_y"] / curvature
    moved = p.params | {"readout.b_y": p.params["readout.b_y"] + step}
    _, after = p.net.value_and_grad(moved, p.x, p.y)
    assert np.abs(after["readout.b_y"]) < 1e-14


class TestRefused:
    def test_a_name_that_is_not_there(self):
        p = Problem()
        with pytest.raises(ValueError, match=r"jvp: tangent has unknown entries \['layer7.w_xh'\]"):
            p.net.jvp(p.params, p.x, {"layer7.w_xh": p.x})
        with pytest.raises(ValueError, match=r"jvp: tangent has unknown entries \['state'\]"):
            p.net.jvp(p.params, p.x, {"state": p.state})

    @pytest.mark.parametrize("method", ["hvp", "gnvp"])
    def test_a_vector_without_an_entry_for_every_parameter(self, method):
        p = Problem()
        v = vector(p)
        short = {k: a for k, a in v.items() if k != "readout.b_y"}
        product = getattr(p.net, method)
        with pytest.raises(
            ValueError, match=rf"{method}: v must have .* missing \['readout.b_y'\]"
        ):
            product(p.params, p.x, p.y, short)
        with pytest.raises(ValueError, match=rf"{method}: v must have .* unknown \['x'\]"):
            product(p.params, p.x, p.y, v | {"x": p.x})
        with pytest.raises(
            ValueError, match=r"v\['readout.b_y'\] must have shape \(2,\), got \(1,"
        ):
            product(p.params, p.x, p.y, v | {"readout.b_y": np.ones(1)})
        with pytest.raises(TypeError, match=r"but v\['readout.b_y'\] is float32. Nothing is cast"):
            product(p.params, p.x, p.y, v | {"readout.b_y": np.ones(2, dtype="float32")})

    def test_a_state_of_another_shape_or_cell(self):
        p = Problem(cell="lstm", with_=("state",))
        wrong = map_state(lambda a: a[:, :2], p.state)
        with pytest.raises(
            ValueError, match=rf"tangent\['state'\].h must have shape \(1, 3, {H}\)"
        ):
            p.net.jvp(p.params, p.x, {"state": wrong}, **p.arrays)
        with pytest.raises(TypeError, match=r"tangent\['state'\] must be the LSTMState of"):
            p.net.jvp(p.params, p.x, {"state": rx.GRUState(p.state.h)}, **p.arrays)

    def test_arrays_of_two_libraries(self):
        p = Problem()
        strict = get_backend("array_api_strict", dtype="float64")
        v = {k: strict.asarray(a) for k, a in vector(p).items()}
        with pytest.raises(TypeError, match=r"arrays of one library are required"):
            p.net.hvp(p.params, p.x, p.y, v)

    def test_a_loss_that_takes_logits_behind_an_activation(self):
        p = Problem(output_activation="softmax")
        with pytest.raises(ValueError, match=r"cross_entropy takes logits"):
            p.net.gnvp(p.params, p.x, np.zeros(3, dtype=int), vector(p), "cross_entropy")

    @pytest.mark.parametrize("method", ["jvp", "hvp", "gnvp"])
    @pytest.mark.parametrize("lack", ["the dtype", "the product"])
    def test_a_device_without_complex_numbers(self, method, lack, monkeypatch):
        """Stands in for those of torch and JAX that have none."""

        class Real:
            def __init__(self, xp):
                self.xp = xp

            def __getattr__(self, name):
                if lack == "the dtype" and name.startswith("complex"):
                    raise AttributeError(f"no {name} here")
                return getattr(self.xp, name)

            def matmul(self, a, b):
                if lack == "the product" and a.dtype.kind == "c":
                    raise RuntimeError("matmul not implemented for ComplexDouble")
                return self.xp.matmul(a, b)

        check = second_order.check
        monkeypatch.setattr(second_order, "check", lambda *a, **k: Real(check(*a, **k)))
        monkeypatch.setattr(second_order, "library_name", lambda xp: "torch")
        p = Problem()
        arguments = (vector(p),) if method == "jvp" else (p.y, vector(p))
        message = (
            rf"Network.{method} computes with complex numbers, which torch does not have for "
            r"float64 on cpu\. Bring the arrays to another device or library"
        )
        with pytest.raises(TypeError, match=message):
            getattr(p.net, method)(p.params, p.x, *arguments)


def test_nothing_that_is_given_changes():
    p = Problem(cell="lstm", with_=("state",))
    v = vector(p)
    given = (p.x, p.y, p.state, tuple(p.params.values()), tuple(v.values()))
    before = map_state(np.copy, given)
    p.net.hvp(p.params, p.x, p.y, v, **p.arrays)
    p.net.gnvp(p.params, p.x, p.y, v, **p.arrays)
    p.net.jvp(p.params, p.x, v, **p.arrays)
    map_state(np.testing.assert_array_equal, before, given)
