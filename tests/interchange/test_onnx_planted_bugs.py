"""Mistakes in what is exported, planted line by line, and each caught by a check with a name."""

from __future__ import annotations

import importlib
import inspect
import types

import numpy as np
import pytest
from exchange import assert_close
from test_onnx_spellings import operators, problem, run, some_lengths, some_state

import rnn_xp as rx
from rnn_xp.data.scalers import Scaler
from rnn_xp.interchange import consumers, example, torch_module
from rnn_xp.interchange.onnx import to_onnx

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
pytestmark = pytest.mark.interchange

TIMES = np.arange(60)
# Without noise the least-squares lags would be large, and rounding would grow from step to step.
NOISE = np.random.default_rng(0).standard_normal(60)
SERIES = 100.0 + 0.5 * TIMES + 4.0 * np.sin(TIMES / 4.0) + NOISE
OPEN, WRITTEN = {"spelling": "portable"}, {"spelling": "portable", "steps": 5}


def agree(name, *, lengths=True, state=False, net_options=None, **options):
    deep = {"num_layers": 2, "bidirectional": True, "topology": "many_to_many"}
    net, params, x = problem(name, **{**deep, **(net_options or {})})
    given = some_lengths(3, 5) if lengths else None
    feed = {"x": x} | ({"lengths": given} if lengths else {})
    before = some_state(net, 3) if state else None
    if before is not None:
        feed |= {f"initial_{key}": value for key, value in before._asdict().items()}
    model = to_onnx(net, params, lengths=lengths, stateful=state, **options)
    outputs = run(model, feed)
    pred, final = net.forward(params, x, lengths=given, state=before)
    assert_close(outputs["pred"], pred)
    for key in final._fields if state else ():
        assert_close(outputs[f"final_{key}"], getattr(final, key))


def a_scan_is_right_in_both_directions():
    agree("rnn-tanh", **OPEN)


def a_loop_is_right_in_both_directions():
    agree("rnn-relu", spelling="loop")


def steps_written_out_are_right_in_both_directions():
    agree("rnn-tanh", **WRITTEN)


def a_gru_is_right():
    agree("gru", **WRITTEN)


def a_gru_that_resets_before_is_right():
    agree("gru-reset-before", **WRITTEN)


def an_lstm_is_right():
    agree("lstm", **WRITTEN)


def layer_normalisation_is_right():
    agree("lstm", **OPEN, net_options={"layer_norm": True})


def states_of_a_portable_graph_are_right():
    agree("lstm", state=True, **OPEN)


def states_of_a_native_graph_are_right():
    agree("lstm", state=True)
    agree("rnn-tanh", state=True, lengths=False)


def padding_may_hold_anything():
    net, params, x = problem("lstm", bidirectional=True, read="mean")
    given = some_lengths(3, 5)
    expected, _ = net.forward(params, x, lengths=given)
    x[np.arange(5) >= given[:, None]] = np.nan
    model = to_onnx(net, params, lengths=True, spelling="portable")
    assert_close(run(model, {"x": x, "lengths": given})["pred"], expected)


def a_prediction_is_in_the_units_of_column_0():
    net, params, x = problem("gru")
    scaler = Scaler("standard", (10.0, -3.0), (2.0, 0.5))
    pred, _ = net.forward(params, scaler.transform(x).astype(np.float32))
    model = to_onnx(net, params, scaler=scaler)
    assert_close(run(model, {"x": x})["pred"], scaler.inverse_target(pred).astype(np.float32))


def half_precision_is_stored():
    net, params, _ = problem("lstm", hidden_size=20)
    whole, half = (
        len(to_onnx(net, params, dtype=dtype).SerializeToString())
        for dtype in ("float32", "float16")
    )
    assert half < 0.7 * whole


def forecasts(**settings):
    f = rx.Forecaster(
        seq_length=6, hidden_size=3, epochs=2, verbose=False, validation=None, intervals=None,
        optimizer=rx.optim.adam(0.01), **settings,
    ).fit(SERIES)  # fmt: skip
    values = SERIES[None, -6 - (f.target != "level") :]
    for steps in (None, 7):
        outputs = run(f.to_onnx(steps=steps), {"values": values})
        np.testing.assert_allclose(outputs["forecast"][0], f.predict(steps), rtol=1e-6)


def changes_add_up_to_levels():
    forecasts(target="diff", horizon=3)


def changes_of_logarithms_add_up_to_levels():
    forecasts(target="logret", horizon=3)


def several_networks_are_averaged():
    forecasts(n_seeds=2, horizon=3)


def an_example_of_other_numbers_is_found_out():
    net, params, _ = problem("gru")
    made = example.make_example(net, params)
    assert example.error_of(made.outputs, made) == 0.0
    more = {"pred": made.outputs["pred"] + 0.25}
    assert 0.2 < example.error_of(more, made) < 0.3
    with pytest.raises(RuntimeError, match="has shape"):
        example.error_of({"pred": made.outputs["pred"][:1]}, made)


def what_one_runtime_cannot_is_not_said_of_another():
    net, _, _ = problem("lstm")
    assert consumers.refusal("tract", net, spelling="loop") == (
        "tract 0.23.9 has no Loop. Export with spelling='portable' (--spelling portable)."
    )
    assert consumers.refusal("mnn", net, spelling="loop") is None
    assert consumers.refusal("openvino", net, lengths=True, rows=3, steps=5) is None
    assert consumers.refusal("openvino", net, lengths=True, rows=3) is not None


def a_module_of_torch_reads_both_directions():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    net, params, x = problem("gru", bidirectional=True, num_layers=2)
    names: dict[str, object] = {"__file__": "net.py", "__name__": "net"}
    exec(torch_module.module_code(net), names)
    module = names["Network"]()
    state = torch_module.module_state(net, params)
    module.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()})
    with torch.no_grad():
        assert_close(module(torch.from_numpy(x)).numpy(), net.forward(params, x)[0])


def elementary_operators_alone_are_portable():
    net, params, _ = problem("lstm")
    for options in (OPEN, WRITTEN, {"spelling": "loop"}):
        kinds = set(operators(to_onnx(net, params, **options).graph))
        assert not kinds & {"RNN", "GRU", "LSTM"}
        assert ("Scan" in kinds) == (options == OPEN)


PORTABLE, NATIVE = "interchange.graphs.portable", "interchange.graphs.native"
NETWORK, FORECAST = "interchange.graphs.network", "forecasting.exporting"
MISTAKES = [
    (PORTABLE, '"Where", mask, new, old', '"Where", mask, old, new',
     steps_written_out_are_right_in_both_directions),
    (PORTABLE, "if direction:  # onnx", "if False:  # onnx", a_scan_is_right_in_both_directions),
    (PORTABLE, "return final, _reversed(graph, hs) if direction else hs", "return final, hs",
     a_scan_is_right_in_both_directions),
    (PORTABLE, "mask = mask and _reversed(graph, mask)", "pass",
     a_loop_is_right_in_both_directions),
    (PORTABLE, "reversed(range(steps)) if direction", "range(steps) if direction",
     steps_written_out_are_right_in_both_directions),
    (PORTABLE, 'graph.add("Mul", r, q)', 'graph.add("Mul", z, q)', a_gru_is_right),
    (PORTABLE, 'graph.add("Mul", r, state[0])', "state[0]", a_gru_that_resets_before_is_right),
    (PORTABLE, 'graph.add("Mul", z, h)', 'graph.add("Mul", z, n)', a_gru_is_right),
    (PORTABLE, "z_i, z_f, z_g, z_o = _split", "z_f, z_i, z_g, z_o = _split", an_lstm_is_right),
    (PORTABLE, 'graph.add("Mul", d, d), axes=[-1]', 'd, axes=[-1]', layer_normalisation_is_right),
    (PORTABLE, "_taken(graph, field, len(finals[0]))", "_taken(graph, field, 0)",
     states_of_a_portable_graph_are_right),
    (PORTABLE, "if isinstance(steps, int):", "if False:", elementary_operators_alone_are_portable),
    (NETWORK, 'graph.add("Where", mask, outs, zero)', "outs", padding_may_hold_anything),
    (NETWORK, 'graph.add("Less", positions, size)', 'graph.add("LessOrEqual", positions, size)',
     a_scan_is_right_in_both_directions),
    (NATIVE, 'graph.add("Greater", steps', 'graph.add("GreaterOrEqual", steps',
     states_of_a_native_graph_are_right),
    (NATIVE, "np.bool_), last, before[0]", "np.bool_), before[0], last",
     states_of_a_native_graph_are_right),
    ("interchange.onnx", "graph.constant(scaler.scale[0])", "graph.constant(scaler.scale[1])",
     a_prediction_is_in_the_units_of_column_0),
    ("interchange.graphs.graph", "if not self.half:", "if True:", half_precision_is_stored),
    (FORECAST, "_part(graph, z, 1, None, 1), _part(graph, z, 0, -1, 1)",
     "_part(graph, z, 0, -1, 1), _part(graph, z, 1, None, 1)", changes_add_up_to_levels),
    (FORECAST, 'graph.add("Mul", last, graph.add("Exp", level))',
     'graph.add("Add", last, graph.add("Exp", level))', changes_of_logarithms_add_up_to_levels),
    (FORECAST, "1.0 / len(preds)", "1.0", several_networks_are_averaged),
    (FORECAST, "to = min(at + sizes.reach, sizes.steps - sizes.reach)", "to = at + sizes.reach",
     changes_add_up_to_levels),
    ("interchange.example", "if value.shape != expected.shape:", "if False:",
     an_example_of_other_numbers_is_found_out),
    ("interchange.consumers", "entry.consumer == consumer and ", "",
     what_one_runtime_cannot_is_not_said_of_another),
    ("interchange.consumers", "(isinstance(form.rows, str) or isinstance(form.steps, str))",
     "isinstance(form.rows, str)", what_one_runtime_cannot_is_not_said_of_another),
    ("interchange.torch_module", "[state[-2], state[-1]]", "[state[-1], state[-2]]",
     a_module_of_torch_reads_both_directions),
]  # fmt: skip


def functions(namespace, name):
    """The functions and methods that a module defines, with their qualified names."""
    for thing in list(namespace.values()):
        if inspect.isfunction(thing) and thing.__module__ == name:
            yield thing.__qualname__, thing
        elif inspect.isclass(thing) and thing.__module__ == name:
            for method in vars(thing).values():
                if inspect.isfunction(method) and method.__module__ == name:
                    yield method.__qualname__, method


def plant(monkeypatch, name, old, new):
    """Give the functions of a module the code of its source with one change."""
    module = importlib.import_module(f"rnn_xp.{name}")
    source = inspect.getsource(module)
    assert old in source, f"{old!r} is no longer in {module.__name__}"
    changed = types.ModuleType(module.__name__)
    changed.__file__ = module.__file__
    with monkeypatch.context() as context:
        context.setitem(importlib.sys.modules, module.__name__, changed)
        exec(compile(source.replace(old, new, 1), module.__file__, "exec"), vars(changed))
    codes = {key: each.__code__ for key, each in functions(vars(changed), module.__name__)}
    for key, function in functions(vars(module), module.__name__):
        if key in codes and function.__code__.co_freevars == codes[key].co_freevars:
            monkeypatch.setattr(function, "__code__", codes[key])


CHECKS = {check.__name__: check for *_, check in MISTAKES}


@pytest.mark.parametrize("name", CHECKS)
def test_what_is_right(name):
    CHECKS[name]()


@pytest.mark.parametrize(
    ("module", "old", "new", "check"),
    [pytest.param(*row, id=f"{row[0]}: {row[1]} -> {row[2]}") for row in MISTAKES],
)
def test_every_mistake_is_caught(module, old, new, check, monkeypatch):
    plant(monkeypatch, module, old, new)
    with pytest.raises(BaseException) as caught:  # noqa: PT011
        check()
    assert not isinstance(caught.value, KeyboardInterrupt | pytest.skip.Exception)
