"""Whole models for Keras and PyTorch: a .keras file that opens, and a module that can be pasted."""

from __future__ import annotations

import importlib.util
import warnings

import numpy as np
import pytest
import safetensors.numpy
from exchange import CELLS, assert_close, random_params

import rnn_xp as rx
from rnn_xp.data.scalers import Scaler
from rnn_xp.interchange import keras_model, torch_module

SCALER = Scaler("standard", (1000.0, -3.0), (20.0, 0.5))
KERAS = [
    pytest.mark.interchange,
    # Of Keras' own variables, under NumPy 2.
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning"),
]
KINDS = {
    "plain": {},
    "deep": {"num_layers": 2, "bidirectional": True, "read": "last"},
    "every step": {"topology": "many_to_many", "bidirectional": True},
    "mean": {"read": "mean", "output_activation": "softmax"},
    "largest": {"read": "max", "output_activation": "tanh", "num_layers": 2},
    "linear path": {"linear_lags": 3},
}


def problem(cell, kind, steps=5):
    sizes = {"input_size": 2, "hidden_size": 3, "output_size": 2}
    net = rx.Network(**CELLS[cell], **sizes, **KINDS[kind])
    x = np.random.default_rng(1).standard_normal((4, steps, 2)) * SCALER.scale + SCALER.offset
    return net, random_params(net, 0), x.astype(np.float32)


def expected(net, params, x):
    pred, _ = net.forward(params, SCALER.transform(x).astype(np.float32))
    return SCALER.inverse_target(pred).astype(np.float32)


@pytest.fixture
def keras():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("keras", reason="keras is not installed")


class TestKeras:
    pytestmark = KERAS

    @pytest.mark.cover("values")
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("cell", CELLS)
    def test_a_saved_model_opens_and_predicts_the_same(self, keras, cell, kind, tmp_path):
        net, params, x = problem(cell, kind)
        model = keras_model.to_model(net, params, scaler=SCALER, steps=5)
        model.save(tmp_path / "model.keras")
        opened = keras.saving.load_model(tmp_path / "model.keras")
        assert_close(opened.predict(x, verbose=0), expected(net, params, x), 2e-6)

    def test_steps_are_open_unless_given(self, keras):
        net, params, x = problem("gru", "deep", steps=9)
        model = keras_model.to_model(net, params)
        assert model.input_shape == (None, None, 2)
        assert_close(model.predict(0.001 * x, verbose=0), net.forward(params, 0.001 * x)[0])

    def test_a_linear_path_needs_the_number_of_steps(self, keras):
        net, params, _ = problem("gru", "linear path")
        for steps in (None, 2):
            with pytest.raises(ValueError, match="Keras needs steps >= linear_lags=3 for the line"):
                keras_model.to_model(net, params, steps=steps)

    def test_float64_is_cast_and_said(self, keras):
        net, params, x = problem("lstm", "plain")
        wide = {name: p.astype(np.float64) for name, p in params.items()}
        with pytest.warns(UserWarning, match="Keras: float64 parameters are cast to float32"):
            model = keras_model.to_model(net, wide)
        assert_close(model.predict(0.001 * x, verbose=0), net.forward(params, 0.001 * x)[0])

    def test_what_a_model_cannot_express_is_an_error(self, keras):
        net = rx.Network(hidden_size=3, num_layers=2, residual=True)
        with pytest.raises(ValueError, match="Keras cannot express residual=True"):
            keras_model.to_model(net, random_params(net, 0))


def written(folder, net, params, scaler):
    """A module as a user writes it to disk, imported from there."""
    code = torch_module.module_code(net, scaler=scaler, weights="net.safetensors")
    (folder / "net.py").write_text(code, encoding="utf-8")
    safetensors.numpy.save_file(torch_module.module_state(net, params), folder / "net.safetensors")
    spec = importlib.util.spec_from_file_location("written_net", folder / "net.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.torch
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cell", [cell for cell in CELLS if cell != "gru-reset-before"])
def test_a_module_of_torch_predicts_the_same(cell, kind, tmp_path):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    net, params, x = problem(cell, kind)
    module = written(tmp_path, net, params, SCALER).load()
    with torch.no_grad():
        assert_close(module(torch.from_numpy(x)).numpy(), expected(net, params, x), 2e-6)


@pytest.mark.torch
def test_a_module_in_double_precision_keeps_it(tmp_path):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    net, params, x = problem("lstm", "deep")
    params = {name: p.astype(np.float64) for name, p in params.items()}
    x = 0.001 * x.astype(np.float64)
    module = written(tmp_path, net, params, None).load()
    with torch.no_grad():
        pred = module(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(pred, net.forward(params, x)[0], rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"cell": "gru", "reset_after": False}, "PyTorch cannot express reset_after=False"),
        ({"layer_norm": True}, "PyTorch cannot express layer_norm=True"),
        ({"topology": "one_to_many"}, "PyTorch cannot express topology='one_to_many'"),
    ],
)
def test_what_a_module_cannot_express_is_an_error(options, words):
    net = rx.Network(hidden_size=3, **options)
    with pytest.raises(ValueError, match=words):
        torch_module.module_code(net)
    with pytest.raises(ValueError, match=words):
        torch_module.module_state(net, random_params(net, 0))
