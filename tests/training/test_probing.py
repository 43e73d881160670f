"""Libraries without an adapter: what the probe says, and what `fit` makes of it."""

from __future__ import annotations

import copy
import json
import pickle
import sys

import extending
import numpy as np
import pytest

import rnn_xp as rx
from rnn_xp import cli
from rnn_xp.backend import array_namespace, backend_of, functions, to_numpy
from rnn_xp.backend.adapters import StandardAdapter, adapter_of
from rnn_xp.training import probing

NET = rx.Network(cell="gru", input_size=2, hidden_size=3)
DATA = np.random.default_rng(0).standard_normal((6, 4, 2)).astype("float32")
TARGETS = DATA[:, -1, :1]


@pytest.fixture
def library(monkeypatch):
    """The library of docs/guide/extending.md without its adapter, readable by its own method."""
    monkeypatch.setattr(probing, "_REFUSALS", {})
    monkeypatch.setattr(functions, "_FAILING", {})
    monkeypatch.setitem(sys.modules, "shielded", None)  # and what is there before, afterwards
    module = extending.execute(extending.SECTIONS["A library"][0], "unheard_of")
    shielded = sys.modules["shielded"]
    module.Array.unwrap_numpy = lambda self: self.values
    module.Array.__float__ = lambda self: float(self.values)
    yield shielded
    del sys.modules["unheard_of"]


def train(xp, dtype="float32", **options):
    x, y = (xp.asarray(array.astype(dtype)) for array in (DATA, TARGETS))
    options = {"optimizer": rx.optim.adam(0.05), "epochs": 3, **options}
    return rx.fit(NET, x, y, **options)


class TestFit:
    def test_a_library_that_passes_trains_to_the_bits_of_what_it_wraps(self, library):
        backend = rx.get_backend("numpy")
        want = rx.fit(
            NET, DATA, TARGETS, optimizer=rx.optim.adam(0.05), epochs=3, workers=1, backend=backend
        )
        result = train(library)
        assert isinstance(result.backend.adapter, StandardAdapter)
        assert str(result.backend) == "shielded 1.0 (vault:0, float32)"
        assert result.history["loss"] == pytest.approx(want.history["loss"], rel=1e-6)
        for name, array in result.params.items():
            np.testing.assert_allclose(to_numpy(array), want.params[name], rtol=0, atol=1e-6)
        assert array_namespace(result.params["readout.w_hy"]) is library

    def test_a_library_that_lacks_a_function_is_refused_before_anything(self, library):
        library.tanh = None
        with pytest.raises(TypeError) as caught:
            train(library)
        assert str(caught.value) == (
            "fit: shielded 1.0 (vault:0, float32) does not pass the probe: forward: rnn: "
            "TypeError: 'NoneType' object is not callable. rnn_xp.backends(probe=x) prints all "
            "of it. Give the data as NumPy arrays, for instance rnn_xp.backend.to_numpy(x), which "
            "train on the backend that you choose, one of: numpy, cupy, torch, jax, dpnp, mlx, "
            "array_api_strict."
        )

    def test_a_library_that_computes_wrongly_is_refused_by_the_size_of_the_error(self, library):
        right = library.tanh
        library.tanh = lambda x: right(x) * 1.001
        with pytest.raises(TypeError, match=r"probe: forward: rnn: wrong by \de-0[34]\. rnn_xp"):
            train(library)
        library.tanh = right
        with pytest.raises(TypeError, match=r"does not pass the probe: forward"):
            train(library)  # as long as the process lives

    def test_the_library_is_probed_once_for_each_dtype(self, library, monkeypatch):
        asked = []
        monkeypatch.setattr(
            probing, "_refusal", lambda backend, fit: asked.append(backend.dtype_name) or ""
        )
        train(library)
        train(library)
        train(library, "float64")
        assert asked == ["float32", "float64"]

    def test_an_interrupted_probe_leaves_no_admission(self, library, monkeypatch):
        def stop(backend, fit):
            raise KeyboardInterrupt

        monkeypatch.setattr(probing, "_refusal", stop)
        with pytest.raises(KeyboardInterrupt):
            train(library)
        assert probing._REFUSALS == {}

    def test_libraries_with_an_adapter_are_not_probed(self, monkeypatch):
        def never(backend, fit):
            raise AssertionError

        monkeypatch.setattr(probing, "_refusal", never)
        train(array_namespace(DATA))

    def test_minibatches_validation_estimators_and_predictions(self, library):
        result = train(library, batch_size=2, validation=0.3, gap=0, epochs=2)
        assert len(result.history["validation_loss"]) == 2
        pred = NET.predict(result.params, library.asarray(DATA))
        want = NET.predict({k: to_numpy(p) for k, p in result.params.items()}, DATA)
        np.testing.assert_allclose(to_numpy(pred), want, atol=1e-6)


class TestComputing:
    def test_a_library_that_fails_in_a_simple_operation_is_refused_by_it(
        self, library, monkeypatch
    ):
        monkeypatch.setattr(functions, "_FAILING", {})
        x = library.asarray(DATA)
        params = {name: library.asarray(array) for name, array in NET.init(0).items()}
        pred, _ = NET.forward(params, x)
        assert pred.shape == (6, 1)
        monkeypatch.setattr(functions, "_FAILING", {})
        library.reshape = None
        for compute in (NET.forward, NET.predict, NET.vjp, NET.jacobian):
            with pytest.raises(TypeError, match=r"Network: arrays of shielded cannot be com"):
                compute(params, x)
        with pytest.raises(TypeError, match=r"with: reshape: TypeError: 'NoneType' .*\. rnn_xp\.b"):
            NET.value_and_grad(params, x, library.asarray(TARGETS))


class TestHandle:
    def test_a_backend_of_it_is_copied_and_pickled_by_the_name_of_its_module(self, library):
        backend = backend_of(library.asarray(np.zeros(2)))
        assert (backend.name, backend.device_name, backend.dtype_name) == (
            *("shielded", "vault:0", "float64"),
        )
        for again in (copy.deepcopy(backend), pickle.loads(pickle.dumps(backend))):
            assert again == backend

    def test_an_array_that_nothing_reads_is_refused_with_a_remedy(self, library):
        x = library.asarray(np.zeros(2))
        del type(x).unwrap_numpy
        with pytest.raises(TypeError, match=r"an array of shielded cannot be read by the host: it"):
            to_numpy(x)

    def test_devices_without_a_text_of_their_own_are_the_default(self):
        adapter = StandardAdapter("somewhere.array_api")
        assert adapter.device_name(None) == adapter.device_name(object()) == "default"
        assert adapter.device_name("gpu:1") == "gpu:1"

    def test_a_namespace_of_array_api_compat_is_found_by_its_short_name(self):
        import array_api_compat.numpy as xp

        assert StandardAdapter("numpy").namespace() is xp
        assert adapter_of(xp).name == "numpy"


class TestProbe:
    def test_numpy_works_to_the_bit_and_its_gradients_to_the_tolerance(self):
        probed = rx.backends(probe=np.zeros(1))
        assert probed.works
        assert probed.missing == {}
        errors = {name: outcome.error for name, outcome in probed.outcomes.items()}
        assert 0.0 < errors.pop("gradient check") < 1e-14
        assert errors == dict.fromkeys(("forward", "value_and_grad", "vjp", "fit"), 0.0)
        assert str(probed).splitlines()[:3] == [
            f"numpy {np.__version__}, cpu, float64 (to 1e-12)",
            f"  functions       {len(probed.functions)} of {len(probed.functions)}",
            "  forward         works to 0e+00",
        ]

    def test_a_library_that_lacks_something_says_what(self, library):
        library.sum = None
        probed = rx.backends(probe=library.asarray(np.zeros(1)))
        assert not probed.works
        gone = "TypeError: 'NoneType' object is not callable"
        missing = {k: why for k, why in probed.missing.items() if not k.startswith("linalg.")}
        assert missing == {"sum": gone, "a number for the host": gone}
        assert "linalg.solve" in probed.missing  # the stand-in lifts functions, no submodules
        assert probed.outcomes["forward"].reason == ""
        assert "'NoneType' object" in probed.outcomes["value_and_grad"].reason
        assert f"  functions       {len(probed.functions) - len(probed.missing)} of" in str(probed)
        assert "\n  missing: sum (TypeError: 'NoneType' object is not callable)" in str(probed)

    def test_a_loss_that_is_wrong_beside_a_right_forward_is_caught(self, library):
        right = library.sum
        library.sum = lambda *a, **b: right(*a, **b) * (1 + 1e-6)
        outcomes = rx.backends(probe=library.asarray(np.zeros(1))).outcomes
        assert outcomes["forward"].reason == ""
        assert outcomes["value_and_grad"].reason.startswith("rnn: wrong by ")
        assert outcomes["vjp"].reason == ""

    def test_a_gradient_that_is_not_that_of_the_function_is_caught(self, library):
        right = library.tanh
        library.tanh = lambda x: right(x) * (1 + 1e-6)
        outcomes = rx.backends(probe=library.asarray(np.zeros(1))).outcomes
        assert outcomes["gradient check"].reason.startswith("rnn: wrong by ")

    def test_integers_are_refused_with_the_required_dtypes(self):
        with pytest.raises(TypeError, match="float32 or float64 is required; array is int64"):
            rx.backends(probe=np.zeros(1, dtype=int))


class TestCommand:
    def test_the_table_of_a_backend_in_both_precisions(self, capsys):
        assert cli.main(["backends", "--probe", "numpy"]) == 0
        said = capsys.readouterr().out
        for dtype, bound in (("float32", "2e-05"), ("float64", "1e-12")):
            assert f"numpy {np.__version__}, cpu, {dtype} (to {bound})\n  functions" in said
        assert said.count("gradient check  works to") == 2

    def test_a_module_without_an_adapter_and_its_json(self, library, capsys, monkeypatch):
        library.sum = None
        assert cli.main(["backends", "--probe", "shielded", "--json"]) == 1
        single, double = json.loads(capsys.readouterr().out)
        assert (single["library"], single["dtype"], double["dtype"]) == (
            *("shielded", "float32", "float64"),
        )
        assert double["functions"]["sum"].startswith("TypeError")

    @pytest.mark.parametrize(
        ("module", "words"),
        [
            ("not_there", "No module named 'not_there'. Name the module of an installed library"),
            ("json", "module 'json' has no attribute 'asarray', so it is no Array API namespace."),
        ],
    )
    def test_a_module_that_is_no_namespace(self, module, words, capsys):
        assert cli.main(["backends", "--probe", module]) == 2
        assert f"rnn-xp: error: --probe {module}: {words}" in capsys.readouterr().err
