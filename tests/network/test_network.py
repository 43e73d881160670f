"""The network's door: shapes, names, libraries and dtypes, and initial weights."""

from __future__ import annotations

import dataclasses
import json

import array_api_strict
import numpy as np
import pytest

import rnn_xp as rx
from rnn_xp.cells import GRUState, LSTMState
from rnn_xp.kernels import make_workspace
from rnn_xp.network import initializers

FLOAT64 = rx.get_backend("numpy", dtype="float64")
NET = rx.Network(input_size=2, hidden_size=4, output_size=1)


@pytest.fixture
def ready():
    params = NET.init(seed=0, backend=rx.get_backend(dtype="float64"))
    rng = np.random.default_rng(0)
    return params, rng.standard_normal((3, 5, 2)), rng.standard_normal((3, 1))


class TestNetwork:
    def test_shapes(self, ready, case):
        params, x, _ = ready
        pred, state = NET.forward({k: case.array(p) for k, p in params.items()}, case.array(x))
        assert pred.shape == (3, 1)
        assert state.h.shape == (1, 3, 4)
        assert pred.dtype == state.h.dtype == case.dtype

    def test_state_carries_on(self, ready):
        params, x, _ = ready
        whole, _ = NET.forward(params, x)
        _, state = NET.forward(params, x[:, :2])
        rest, _ = NET.forward(params, x[:, 2:], state)
        np.testing.assert_allclose(rest, whole, rtol=1e-14)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"cell": "gru2"}, "cell='gru2' is not known. Valid: 'rnn', 'gru', 'lstm'"),
            ({"activation": "sin"}, "activation='sin' is not known. Valid: 'tanh', 'relu'"),
            ({"topology": "many"}, "topology='many' is not known. Valid: 'many_to_one'"),
            ({"hidden_size": 0}, "hidden_size must be an integer >= 1, got 0"),
            ({"hidden_size": 5.0}, "hidden_size must be an integer >= 1, got 5.0"),
            ({"input_size": True}, "input_size must be an integer >= 1, got True"),
            ({"num_layers": 0}, "num_layers must be an integer >= 1, got 0"),
            ({"output_size": -1}, "output_size must be an integer >= 1, got -1"),
            ({"read": "first"}, "read='first' is not known. Valid: 'last', 'mean', 'max'"),
            ({"feed": "ones"}, "feed='ones' is not known. Valid: 'zeros', 'repeat', 'feedback'"),
            ({"output_activation": []}, r"output_activation=\[\] is not known. Valid: 'identity'"),
            ({"dropout": 1.0, "num_layers": 2}, r"dropout must be in \[0, 1\), got 1.0"),
            ({"dropout": -0.1, "num_layers": 2}, r"dropout must be in \[0, 1\), got -0.1"),
            ({"recurrent_dropout": 1.0}, r"recurrent_dropout must be in \[0, 1\), got 1.0"),
            ({"recurrent_dropout": float("nan")}, r"recurrent_dropout must be in .* got nan"),
            ({"bidirectional": 1}, "bidirectional must be True or False, got 1"),
            ({"layer_norm": "yes"}, "layer_norm must be True or False, got 'yes'"),
            ({"residual": None, "num_layers": 2}, "residual must be True or False, got None"),
            ({"reset_after": 0, "cell": "gru"}, "reset_after must be True or False, got 0"),
            ({"activation": "relu", "cell": "lstm"}, "activation='relu' needs cell='rnn'"),
            ({"activation": "relu", "cell": "gru"}, "activation='relu' needs cell='rnn'"),
            ({"reset_after": False, "cell": "lstm"}, "reset_after=False needs cell='gru'"),
            (
                {"read": "mean", "topology": "many_to_many"},
                "read='mean' needs topology='many_to_one'",
            ),
            ({"feed": "repeat"}, "feed='repeat' needs topology='one_to_many'"),
            ({"feed": "feedback"}, "feed='feedback' needs topology='one_to_many'"),
            ({"dropout": 0.1}, "dropout=0.1 needs num_layers >= 2"),
            ({"residual": True}, "residual=True needs num_layers >= 2"),
            (
                {"feed": "feedback", "topology": "one_to_many", "bidirectional": True},
                "feed='feedback' needs bidirectional=False",
            ),
            (
                {"feed": "feedback", "topology": "one_to_many", "output_size": 2},
                "feed='feedback' needs input_size == output_size, got 1 and 2",
            ),
        ],
    )
    def test_bad_configuration(self, options, message):
        with pytest.raises(ValueError, match=message):
            rx.Network(**{"hidden_size": 4, **options})

    def test_numbers_of_numpy(self):
        ours = rx.Network(
            input_size=np.int8(2), hidden_size=np.int64(4), output_size=np.uint16(1),
            num_layers=np.int32(2), bidirectional=np.True_, layer_norm=np.False_,
            residual=np.True_, reset_after=np.bool_(True), dropout=np.float32(0.5),
            recurrent_dropout=np.float64(0.25), linear_lags=np.int64(3),
        )  # fmt: skip
        theirs = rx.Network(
            input_size=2, hidden_size=4, num_layers=2, bidirectional=True, residual=True,
            dropout=0.5, recurrent_dropout=0.25, linear_lags=3,
        )  # fmt: skip
        assert ours == theirs
        assert hash(ours) == hash(theirs)
        settings = dataclasses.asdict(ours)
        assert json.loads(json.dumps(settings)) == settings

    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            ({"hidden_size": np.float64(5)}, ValueError, "integer >= 1, got np.float64"),
            ({"hidden_size": np.True_}, ValueError, "hidden_size must be an integer >= 1, got np."),
            ({"hidden_size": "4"}, ValueError, "hidden_size must be an integer >= 1, got '4'"),
            ({"linear_lags": np.int64(-1)}, ValueError, "linear_lags must be an integer >= 0"),
            ({"layer_norm": np.int64(1)}, ValueError, "layer_norm must be True or False, got np."),
            ({"dropout": np.True_}, TypeError, r"dropout must be a number in \[0, 1\), got np."),
            ({"dropout": "0.1"}, TypeError, r"dropout must be a number in \[0, 1\), got '0.1'"),
            ({"dropout": np.float32(1)}, ValueError, r"dropout must be in \[0, 1\), got 1.0"),
        ],
    )
    def test_bad_numbers_of_numpy(self, options, error, message):
        with pytest.raises(error, match=message):
            rx.Network(**{"hidden_size": 4, **options})

    @pytest.mark.parametrize(
        "method", ["segment_value_and_grad", "grad_per_step", "gradient_flow", "vjp", "predict"]
    )
    def test_a_workspace_only_where_kernels_can_do_it(self, ready, method):
        targets = () if method in ("vjp", "predict") else (ready[2],)
        with pytest.raises(TypeError, match="unexpected keyword argument 'workspace'"):
            getattr(NET, method)(*ready[:2], *targets, workspace=make_workspace(FLOAT64))

    def test_an_unknown_option_is_refused(self):
        with pytest.raises(TypeError, match="dropuot"):
            rx.Network(hidden_size=4, dropuot=0.1)

    @pytest.mark.parametrize(
        ("shape", "message"),
        [
            ((3, 5), r"x must have shape \(N, T, 2\).*got \(3, 5\)"),
            ((3, 5, 1), r"x must have shape \(N, T, 2\).*got \(3, 5, 1\)"),
            ((3, 0, 2), r"with N, T >= 1, got \(3, 0, 2\)"),
            ((0, 5, 2), r"with N, T >= 1, got \(0, 5, 2\)"),
        ],
    )
    def test_wrong_x(self, ready, shape, message):
        with pytest.raises(ValueError, match=message):
            NET.forward(ready[0], np.zeros(shape))

    def test_wrong_parameters(self, ready):
        params, x, _ = ready
        with pytest.raises(ValueError, match=r"missing \['readout.b_y'\], unknown \['bias'\]"):
            NET.forward({**{k: p for k, p in params.items() if k != "readout.b_y"}, "bias": x}, x)
        with pytest.raises(ValueError, match=r"layer0.w_hh must have shape \(4, 4\), got \(4, 3\)"):
            NET.forward({**params, "layer0.w_hh": np.zeros((4, 3))}, x)

    def test_wrong_state(self, ready):
        params, x, _ = ready
        with pytest.raises(ValueError, match=r"state.h must have shape \(1, 3, 4\), got \(3, 4\)"):
            NET.forward(params, x, rx.RNNState(np.zeros((3, 4))))
        with pytest.raises(TypeError, match="must be the RNNState of cell='rnn', got ndarray"):
            NET.forward(params, x, np.zeros((1, 3, 4)))
        with pytest.raises(TypeError, match="must be the RNNState of cell='rnn', got GRUState"):
            NET.forward(params, x, GRUState(np.zeros((1, 3, 4))))
        with pytest.raises(TypeError, match="required; .*state.h is float32"):
            NET.forward(params, x, rx.RNNState(np.zeros((1, 3, 4), "float32")))

    def test_wrong_state_of_an_lstm(self, ready):
        net = rx.Network(cell="lstm", input_size=2, hidden_size=4)
        params, (_, x, _) = net.init(backend=rx.get_backend(dtype="float64")), ready
        h = np.zeros((1, 3, 4))
        with pytest.raises(TypeError, match="must be the LSTMState of cell='lstm', got RNNState"):
            net.forward(params, x, rx.RNNState(h))
        with pytest.raises(ValueError, match=r"state.c must have shape \(1, 3, 4\), got \(3, 4\)"):
            net.forward(params, x, LSTMState(h, h[0]))
        with pytest.raises(TypeError, match="required; .*state.c is float32"):
            net.forward(params, x, LSTMState(h, h.astype("float32")))

    @pytest.mark.parametrize(
        ("batch", "error", "message"),
        [
            ({"lengths": np.ones((3, 1), int)}, ValueError, r"lengths must have shape \(3,\)"),
            ({"lengths": np.ones(3)}, TypeError, "lengths must be integers, got float64"),
            ({"lengths": np.ones(3, bool)}, TypeError, "lengths must be integers, got bool"),
            ({"mask": np.ones((3, 4), bool)}, ValueError, r"mask must have shape \(3, 5\)"),
            ({"mask": np.ones((3, 5))}, TypeError, "mask must be bool, got float64"),
            ({"reset": np.ones(3, bool)}, ValueError, r"reset must have shape \(3, 5\)"),
            ({"reset": np.ones((3, 5), int)}, TypeError, "reset must be bool, got int64"),
            ({"steps": 5}, ValueError, "steps= is for one_to_many"),
        ],
    )
    def test_wrong_batch(self, ready, batch, error, message):
        with pytest.raises(error, match=message):
            NET.forward(*ready[:2], **batch)

    @pytest.mark.parametrize(
        ("batch", "message"),
        [
            ({}, "one_to_many needs steps= >= 1, how many predictions to make, got None"),
            ({"steps": 0}, "one_to_many needs steps= >= 1, .* got 0"),
            ({"steps": 4, "lengths": np.ones(3, int)}, "lengths= have no meaning for one_to_many"),
            ({"steps": 4, "mask": np.ones((3, 1), bool)}, r"mask must have shape \(3, 4\)"),
        ],
    )
    def test_wrong_batch_of_one_to_many(self, ready, batch, message):
        """The parameters are those of many_to_one."""
        net = rx.Network(input_size=2, hidden_size=4, topology="one_to_many")
        params, x, _ = ready
        with pytest.raises(ValueError, match=message):
            net.forward(params, x[:, :1], **batch)
        with pytest.raises(ValueError, match=r"x must have shape \(N, 1, 2\).*got \(3, 5, 2\)"):
            net.forward(params, x, steps=4)
        with pytest.raises(ValueError, match=r"y must have T steps, \(N, T, ...\), got \(3,\)"):
            net.value_and_grad(params, x[:, :1], np.zeros(3))

    def test_wrong_upstream(self, ready):
        params, x, _ = ready
        _, _, back = NET.vjp(params, x)
        with pytest.raises(ValueError, match=r"dpred must have shape \(3, 1\), got \(3,\)"):
            back(np.zeros(3))
        with pytest.raises(ValueError, match=r"dstate.h must have shape \(1, 3, 4\)"):
            back(np.zeros((3, 1)), rx.RNNState(np.zeros((3, 4))))

    def test_targets_are_never_broadcast(self, ready):
        params, x, y = ready
        with pytest.raises(ValueError, match=r"pred \(3, 1\) and target \(3,\) must have the same"):
            NET.value_and_grad(params, x, y[:, 0])
        with pytest.raises(ValueError, match=r"sample_weight must have shape \(3,\).*got \(3, 1\)"):
            NET.value_and_grad(params, x, y, "mse", np.ones((3, 1)))

    def test_mixed_dtypes(self, ready):
        params, x, _ = ready
        with pytest.raises(TypeError, match="one floating dtype is required; x is float32"):
            NET.forward(params, x.astype("float32"))

    def test_mixed_libraries(self, ready):
        params, x, _ = ready
        with pytest.raises(TypeError, match="array_api_strict"):
            NET.forward(params, array_api_strict.asarray(x))

    def test_unknown_loss(self, ready):
        params, x, y = ready
        with pytest.raises(ValueError, match="loss='mes' is not known. Valid: 'mse'"):
            NET.value_and_grad(params, x, y, "mes")

    @pytest.mark.parametrize("loss", ["cross_entropy", "binary_cross_entropy"])
    @pytest.mark.parametrize("activation", ["softmax", "sigmoid", "tanh"])
    def test_a_cross_entropy_takes_logits(self, ready, loss, activation):
        net = rx.Network(input_size=2, hidden_size=4, output_activation=activation)
        with pytest.raises(ValueError, match=f"takes logits .*output_activation='{activation}'"):
            net.value_and_grad(*ready, loss)

    def test_a_loss_of_your_own(self, ready):
        params, x, y = ready

        def fourth_power(pred, target, weight=None, total=None):
            error = pred - target
            total = error.size if total is None else total
            return np.sum(error**4) / total, 4.0 * error**3 / total

        errors = rx.testing.check_gradients(NET, params, x, y, loss=fourth_power)
        assert max(errors.values()) < 1e-14


class TestInitialWeights:
    def test_same_numbers_on_every_backend(self, case):
        ours = NET.init(seed=5, backend=case.backend)
        host = initializers.initial_weights(NET.shapes, 5)
        assert ours.keys() == host.keys()
        for name, weight in host.items():
            assert np.array_equal(case.to_numpy(ours[name]), weight.astype(case.dtype_name))

    def test_kinds(self):
        weights = initializers.initial_weights(
            rx.Network(input_size=3, hidden_size=40, output_size=2).shapes, seed=1
        )
        w_hh = weights["layer0.w_hh"]
        np.testing.assert_allclose(w_hh @ w_hh.T, np.eye(40), atol=1e-13)
        for name, limit in {"layer0.w_xh": 6 / 43, "readout.w_hy": 6 / 42}.items():
            assert np.abs(weights[name]).max() < limit**0.5
            assert weights[name].std() == pytest.approx((limit / 3) ** 0.5, rel=0.2)
        assert not weights["layer0.b_h"].any()
        assert not weights["readout.b_y"].any()

    def test_gates_are_orthogonal_each_by_itself(self):
        stacked = initializers.initial_weights({"layer0.w_hh": (12, 4)}, seed=0)["layer0.w_hh"]
        for gate in range(3):
            block = stacked[4 * gate : 4 * gate + 4]
            np.testing.assert_allclose(block @ block.T, np.eye(4), atol=1e-14)

    def test_orthogonal_draws_are_uniform(self):
        """Without the sign correction, QR would favour one half of the group."""
        draws = [initializers.orthogonal(np.random.default_rng(s), 2)[0, 0] for s in range(2000)]
        assert abs(np.mean(draws)) < 0.05
        assert np.mean(np.square(draws)) == pytest.approx(0.5, abs=0.03)

    def test_seeds(self):
        first, again, other = (NET.init(seed) for seed in (0, 0, 1))
        for name in ("layer0.w_xh", "layer0.w_hh", "readout.w_hy"):
            assert np.array_equal(first[name], again[name])
            assert not np.array_equal(first[name], other[name])

    def test_negative_seed(self):
        with pytest.raises(ValueError, match="non-negative"):
            NET.init(seed=-1)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "int64"])
def test_lengths_of_any_integer_dtype(dtype, ready):
    """300 steps do not fit into int8; their positions must not wrap around."""
    params = ready[0]
    x = np.random.default_rng(0).standard_normal((2, 300, 2))
    found, _ = NET.forward(params, x, lengths=np.asarray([100, 20], dtype=dtype))
    for row, length in enumerate((100, 20)):
        alone, _ = NET.forward(params, x[row : row + 1, :length])
        np.testing.assert_allclose(found[row], alone[0], rtol=1e-14)


@pytest.mark.parametrize("rate", ["0.1", None, False])
def test_rates_are_numbers(rate):
    with pytest.raises(TypeError, match=r"dropout must be a number in \[0, 1\)"):
        rx.Network(hidden_size=4, num_layers=2, dropout=rate)
