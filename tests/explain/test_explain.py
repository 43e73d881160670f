"""`rnn-xp explain`: every shape and every number it prints, against the arrays themselves."""

from __future__ import annotations

import collections
import itertools

import array_api_compat
import numpy as np
import pytest
from broken import broken_step_back
from extending import MinGRUCell

import rnn_xp as rx
from rnn_xp import cells, plotting
from rnn_xp.explain import check_network, measure_flow, shape_table, walk_shapes

T, N, I, H, O = 5, 7, 2, 4, 3  # noqa: E741  (the field's letters)

pytestmark = pytest.mark.usefixtures("mingru")

CELLS = {
    "rnn": {"cell": "rnn"},
    "gru": {"cell": "gru"},
    "gru-reset-before": {"cell": "gru", "reset_after": False},
    "lstm": {"cell": "lstm"},
    "mingru": {"cell": "mingru"},  # of docs/guide/extending.md
}
TOPOLOGIES = {
    "last": {},
    "mean": {"read": "mean"},
    "many-to-many": {"topology": "many_to_many"},
    "repeat": {"topology": "one_to_many", "feed": "repeat"},
    "feedback": {"topology": "one_to_many", "feed": "feedback"},
}
OPTIONS = {
    "plain": {},
    "two-layers": {"num_layers": 2},
    "three-layers-residual": {"num_layers": 3, "residual": True},
    "bidirectional": {"num_layers": 2, "bidirectional": True},
    "layer-norm": {"num_layers": 2, "layer_norm": True},
    "everything": {"num_layers": 3, "bidirectional": True, "layer_norm": True, "residual": True},
}
CONFIGURATIONS = [
    pytest.param({**cell, **topology, **option}, id=f"{a}-{b}-{c}")
    for (a, cell), (b, topology), (c, option) in itertools.product(
        CELLS.items(), TOPOLOGIES.items(), OPTIONS.items()
    )
    if not (b == "feedback" and option.get("bidirectional"))
]


def problem(*, steps=T, rows=N, inputs=I, hidden=H, outputs=O, **options):
    """A network with random weights and data, in float64."""
    inputs = outputs if options.get("feed") == "feedback" else inputs
    net = rx.Network(input_size=inputs, hidden_size=hidden, output_size=outputs, **options)
    rng = np.random.default_rng(0)
    params = {name: 0.5 * rng.standard_normal(shape) for name, shape in net.shapes.items()}
    x = rng.standard_normal((rows, 1 if net.topology == "one_to_many" else steps, inputs))
    many = net.topology != "many_to_one"
    return net, params, x, rng.standard_normal((rows, steps, outputs) if many else (rows, outputs))


def sizes(shape):
    return tuple(dim.size for dim in shape)


def scalar_relu(w, steps=6):
    """h_t = relu(x_t + w * h_{t-1}) with all of it positive, so that dh_{t-1} = w * dh_t."""
    net = rx.Network(input_size=1, hidden_size=1, output_size=1, activation="relu")
    params = {name: np.ones(shape) for name, shape in net.shapes.items()}
    params["layer0.w_hh"] = np.full((1, 1), w)
    return net, params, np.ones((3, steps, 1)), np.zeros((3, 1))


@pytest.mark.cover("pairs")
class TestShapes:
    @pytest.mark.parametrize("options", CONFIGURATIONS)
    def test_every_product_that_is_done_is_listed_and_no_other(self, options, monkeypatch):
        net, params, x, y = problem(**options)
        xp, done = array_api_compat.array_namespace(x), collections.Counter()
        matmul = xp.matmul

        def recorded(a, b):
            done[a.shape, b.shape] += 1
            return matmul(a, b)

        monkeypatch.setattr(xp, "matmul", recorded)
        net.value_and_grad(params, x, y)
        listed = collections.Counter()
        for op in walk_shapes(net, N, T):
            if op.left:
                listed[sizes(op.left), sizes(op.right)] += op.times
        assert listed == done

    @pytest.mark.parametrize("options", CONFIGURATIONS)
    def test_the_products_are_products_in_both_conventions(self, options):
        for op in walk_shapes(rx.Network(hidden_size=H, **options), N, T):
            for columns in (False, True):
                text = op.shapes(columns=columns).replace("[", "").replace("]", "")
                if not op.left:
                    assert "@" not in text
                    continue
                product, result = text.split(" -> ")
                (a, inner), (also_inner, b) = (
                    factor.strip("()").split(",") for factor in product.split(" @ ")
                )
                assert inner == also_inner
                assert result == f"({a},{b})"
                assert (op.columns if columns else op.rows).count("@") == 1

    @pytest.mark.parametrize("name", CELLS)
    @pytest.mark.parametrize("layer_norm", [False, True])
    def test_what_is_done_entry_by_entry_has_the_shapes_of_the_arrays(self, name, layer_norm):
        kinds = {
            "rnn": cells.RNNCell,
            "gru": cells.GRUCell,
            "gru-reset-before": cells.GRUResetBeforeCell,
            "lstm": cells.LSTMCell,
            "mingru": MinGRUCell,
        }
        cell, rng = kinds[name](I, H, layer_norm=layer_norm), np.random.default_rng(0)
        params = {key: rng.standard_normal(shape) for key, shape in cell.shapes().items()}
        xs = rng.standard_normal((T * N, I))
        projected = cell.project(params, xs, xp=np)
        before = cell.initial_state(rng.standard_normal((N, H)))
        state, cache = cell.step(params, projected[:N], before, xp=np)
        share, dbefore = cell.step_back(params, state, cache, xp=np)
        gates = getattr(share, "gates", share)
        kept = cache._asdict() if hasattr(cache, "_asdict") else {}
        real = {
            "p": projected,
            **{f"{key}_t": array for key, array in state._asdict().items()},
            **{f"d{key}_{{t-1}}": array for key, array in dbefore._asdict().items()},
            **{key: array for key, array in kept.items() if key in "ifgon"},
            **{f"{key}_t": kept[key] for key in "qs" if key in kept},
            **({"dz_t": gates.dz} if name in ("rnn", "lstm") else {}),
            **({} if gates.da is None else {"da_t": gates.da}),
        }
        net = rx.Network(input_size=I, hidden_size=H, layer_norm=layer_norm, **CELLS[name])
        walk = walk_shapes(net, N, T)
        seen = set()
        for op in walk:
            left_hand = op.rows.split(" ")[0]
            if left_hand in real:
                assert sizes(op.result) == real[left_hand].shape, op.rows
                seen.add(left_hand)
        assert {"p", "h_t", "dh_{t-1}"} <= seen

    @pytest.mark.parametrize("options", CONFIGURATIONS)
    def test_gradients_have_the_shapes_of_the_parameters(self, options):
        net, params, x, y = problem(**options)
        grads = net.value_and_grad(params, x, y)[1]
        parts = {"layer 0": "layer0", "readout": "readout", "layer 1": "layer1", "layers": "layer2"}
        listed = collections.defaultdict(int)
        for op in walk_shapes(net, N, T):
            name = op.rows.partition(" = ")[0]
            direction, part = op.part.split(", ")[:2]
            prefix = next(own for start, own in parts.items() if part.startswith(start))
            full = f"{prefix}.{name[1:].partition('[')[0]}"
            if direction == "backward" and full in grads:
                assert op.sums_over in ("N", "T*N"), "a weight gradient is a sum over the batch"
                listed[full] += sizes(op.result)[0 if name.startswith("dw") else 1]
                if name.startswith("dw"):
                    assert sizes(op.result)[1] == grads[full].shape[1]
            else:
                assert op.sums_over == "", "and nothing else is"
        assert dict(listed) == {
            name: grads[name].shape[0] for name in listed
        }  # reset-before: the rows of its two products together
        layers = {"layer0", "readout", f"layer{net.num_layers - 1}"}
        assert set(listed) == {n for n in grads if n.count(".") == 1 and n.split(".")[0] in layers}

    def test_the_reference_workload(self):
        walk = walk_shapes(rx.Network(hidden_size=50), rows=8317, steps=10)
        rows, columns = shape_table(walk), shape_table(walk, columns=True)
        for words in (
            "a_t = h_{t-1} @ w_hh.T      each t  (N,H) @ (H,H) -> (N,H)          "
            "(8317,50) @ (50,50) -> (8317,50)",
            "pred = h @ w_hy.T + b_y     once    (N,H) @ (H,O) -> (N,O)          "
            "(8317,50) @ (50,1) -> (8317,1)",
            "dw_hy = dy.T @ h            once    (O,[N]) @ ([N],H) -> (O,H)      "
            "(1,[8317]) @ ([8317],50) -> (1,50)",
            "dw_hh = dz.T @ h_prev       once    (H,[T*N]) @ ([T*N],H) -> (H,H)  "
            "(50,[83170]) @ ([83170],50) -> (50,50)",
        ):
            assert f"  {words}" in rows
        assert "  pred = w_hy @ h + b_y       once    (O,H) @ (H,N) -> (O,N)          " in (
            line[: line.index("(1,50) @ (50,8317)")]
            for line in columns
            if "(1,50) @ (50,8317) -> (1,8317)" in line
        )
        assert rows[0] == "forward, layer 0"
        assert max(map(len, rows)) <= 120


class TestFlow:
    @pytest.mark.full("jax")
    @pytest.mark.cover("values")
    @pytest.mark.parametrize("cell", [cell for cell in CELLS if cell != "mingru"])  # it has no w_hh
    def test_numbers(self, case, cell):
        net, params, x, y = problem(num_layers=2, bidirectional=True, **CELLS[cell])
        params, x, y = {k: case.array(v) for k, v in params.items()}, case.array(x), case.array(y)
        flow = measure_flow(net, params, x, y)
        grads = net.value_and_grad(params, x, y)[1]
        dhs = net.gradient_flow(params, x, y)
        terms = net.grad_per_step(params, x, y)
        names = ["layer0", "layer0.reverse", "layer1", "layer1.reverse"]
        assert flow.names == list(flow.dh) == list(flow.terms) == names
        tolerance = 100 * case.tolerance
        for name in names:
            dh, term = case.to_numpy(dhs[name]), case.to_numpy(terms[f"{name}.w_hh"])
            grad = case.to_numpy(grads[f"{name}.w_hh"]).astype(float)
            start = 0 if "reverse" in name else -1
            for t in range(T):
                assert flow.dh[name][t] == pytest.approx(np.linalg.norm(dh[t]), rel=tolerance)
                assert flow.terms[name][t] == pytest.approx(np.linalg.norm(term[t]), rel=tolerance)
                along = np.vdot(term[t], grad) / np.vdot(grad, grad)
                assert flow.shares[name][t] == pytest.approx(along, abs=tolerance)
            assert flow.shares[name].sum() == pytest.approx(1.0)
            assert flow.relative(name)[start] == flow.relative_terms(name)[start] == 1.0
            over_all = flow.dh[name][-1 - start] / flow.dh[name][start]
            assert flow.over_all(name) == pytest.approx(over_all)
            assert flow.per_step(name) ** (T - 1) == pytest.approx(over_all)

    @pytest.mark.parametrize(
        ("w", "kind"),
        [
            (0.25, "vanish"),
            (4.0, "explode"),
            (1.0, "stay within a factor of ten"),
            (0.8, "stay within a factor of ten"),
        ],
    )
    def test_of_a_scalar_it_is_the_weight_itself(self, w, kind):
        net, params, x, y = scalar_relu(w)
        flow = measure_flow(net, params, x, y)
        np.testing.assert_allclose(flow.relative("layer0"), w ** np.arange(5.0, -1.0, -1.0))
        assert flow.per_step("layer0") == pytest.approx(w)
        assert flow.verdict("layer0") == (
            f"layer0: gradients {kind}: from step 6 back to 1, |dL/dh_t| is multiplied by "
            f"{w:.3g} per step, by {w**5:.2g} in all."
        )

    @pytest.mark.parametrize(("scale", "kind"), [(0.05, "vanish"), (3.0, "explode")])
    @pytest.mark.parametrize("reverse", [False, True])
    def test_small_and_large_recurrent_weights(self, scale, kind, reverse):
        net, params, x, y = problem(steps=30, hidden=20, activation="relu", bidirectional=reverse)
        for name in [name for name in params if name.endswith("w_hh")]:
            params[name] = np.abs(params[name]) / np.linalg.norm(params[name], 2) * scale
        params["layer0.w_xh"] = np.abs(params["layer0.w_xh"])
        flow = measure_flow(net, params, np.abs(x), y)
        name = "layer0.reverse" if reverse else "layer0"
        assert f"{name}: gradients {kind}" in flow.verdict(name)
        assert ("from step 1 to 30" if reverse else "from step 30 back to 1") in flow.verdict(name)

    def test_overflow_is_a_finding_and_no_warning(self):
        net, params, x, y = scalar_relu(1e30, steps=20)
        flow = measure_flow(net, params, x, y)
        assert flow.verdict("layer0") == (
            "layer0: gradients explode: |dL/dh_t| is no longer finite."
        )
        plotting.to_png(plotting.gradient_flow({"layer0": flow.relative("layer0")}, {}))

    def test_a_single_step_and_no_gradient_at_all(self):
        net, params, x, y = scalar_relu(0.5, steps=1)
        assert "a single step" in measure_flow(net, params, x, y).verdict("layer0")
        net, params, x, y = scalar_relu(0.5)
        params["readout.w_hy"] = np.zeros((1, 1))
        flow = measure_flow(net, params, x, y)
        assert flow.verdict("layer0") == "layer0: no gradient arrives where backpropagation starts."
        assert np.isnan(flow.shares["layer0"]).all()
        assert "nan" not in "".join(flow.table())

    @pytest.mark.parametrize(
        ("options", "name", "remark"),
        [
            ({}, "layer0", "in all."),
            ({"topology": "many_to_many"}, "layer0", "the loss adds at every step"),
            ({"read": "mean"}, "layer0", "the loss adds at every step"),
            ({"num_layers": 2}, "layer0", "the layer above adds at every step"),
            ({"num_layers": 2}, "layer1", "in all."),
            ({"cell": "lstm"}, "layer0", "c carries a gradient of its own."),
            (TOPOLOGIES["feedback"], "prediction", "the loss adds at every step"),
        ],
    )
    def test_remarks(self, options, name, remark):
        verdict = measure_flow(*problem(**options)).verdict(name)
        assert remark in verdict
        if remark == "in all.":
            assert verdict.endswith(remark)

    def test_with_feedback_predictions_have_norms_and_layers_have_terms(self):
        flow = measure_flow(*problem(num_layers=2, **TOPOLOGIES["feedback"]))
        assert list(flow.dh) == ["prediction"]
        assert list(flow.terms) == ["layer0", "layer1"]
        assert np.isnan([row[1] for row in flow.rows("layer0")]).all()
        assert np.isnan([row[3] for row in flow.rows("prediction")]).all()

    def test_a_long_table_is_cut_and_says_so(self):
        table = measure_flow(*problem(steps=50)).table()
        assert table[0] == "layer0, 20 of 50 steps"
        assert len(table) == 22
        assert [int(line.split()[0]) for line in (table[2], table[-1])] == [1, 50]

    def test_picture(self):
        flow = measure_flow(*problem(num_layers=2))
        ax = plotting.gradient_flow(
            {name: flow.relative(name) for name in flow.dh},
            {name: flow.relative_terms(name) for name in flow.terms},
            title="two layers",
        )
        assert (ax.get_xlabel(), ax.get_yscale()) == ("time step t", "log")
        assert ax.get_ylabel() == "gradient norm, relative to the last step"
        labels = [text.get_text() for text in ax.get_legend().get_texts()]
        assert labels[0] == "layer0: |dL/dh_t|"
        assert labels[-1] == "layer1: term of dL/dw_hh\n(0 at t = 1)"
        assert plotting.to_png(ax).startswith(b"\x89PNG")


class TestCheck:
    @pytest.mark.parametrize("options", CONFIGURATIONS[::5])
    def test_right(self, options):
        net, params, x, y = problem(rows=3, **options)
        check = check_network(net, params, x, y)
        assert check.ok, check.worst
        assert check.errors.keys() == {*net.shapes, "x"}
        assert max(check.errors.values()) <= check.tolerance == 1e-12
        name = max(check.errors, key=check.errors.get)
        assert check.worst.startswith(f"{name}[")
        assert check.table()[-1] == "check    passed: complex step, tolerance 1e-12"

    @pytest.mark.parametrize("options", [{"activation": "relu"}, {"read": "max"}])
    def test_kinks_take_central_differences(self, options):
        check = check_network(*problem(rows=3, **options))
        assert check.ok, check.worst
        assert check.table()[-1] == "check    passed: central difference, tolerance 1e-07"

    @pytest.mark.parametrize("cell", [cells.RNNCell, cells.LSTMCell, cells.GRUCell])
    @pytest.mark.parametrize("factor", [0.0, 1.0 + 1e-9, np.nan])
    def test_a_planted_bug_is_caught_and_its_worst_entry_named(self, cell, factor, monkeypatch):
        wrong = broken_step_back(cell, lambda dh: dh * factor)
        monkeypatch.setattr(cell, "step_back", wrong)
        kind = cell.__name__.removesuffix("Cell").lower()
        net, params, x, y = problem(rows=3, cell=kind)
        check = check_network(net, params, x, y)
        assert not check.ok
        assert check.errors["readout.w_hy"] < 1e-12 < check.errors["layer0.w_hh"]
        assert check.worst.startswith(f"{max(check.errors, key=check.errors.get)}[")
        assert check.table()[-1].startswith("check    FAILED")

    def test_dropout_is_on(self):
        net, params, x, y = problem(rows=3, num_layers=2, dropout=0.5, recurrent_dropout=0.5)
        check = check_network(net, params, x, y)
        assert check.ok, check.worst
        dropped = net.value_and_grad(params, x, y, rng=np.random.default_rng(0))[1]
        name, _, entry = check.worst.partition(":")[0].rstrip("]").partition("[")
        index = tuple(map(int, entry.split(",")))
        if name != "x":
            assert f"gradient {dropped[name][index]:.9g}," in check.worst

    def test_the_worst_entry_is_the_one_that_is_wrong(self, monkeypatch):
        right = rx.Network.value_and_grad

        def wrong(self, *args, **kwargs):
            value, grads = right(self, *args, **kwargs)
            grads["layer0.w_hh"][2, 1] += 0.5
            return value, grads

        monkeypatch.setattr(rx.Network, "value_and_grad", wrong)
        check = check_network(*problem(rows=3))
        assert check.worst.startswith("layer0.w_hh[2, 1]: gradient ")
        assert check.worst.endswith(", difference 5.0e-01")

    def test_of_a_large_array_that_is_right_not_every_entry_is_looked_at(self):
        check = check_network(*problem(rows=1, steps=2, hidden=60, outputs=1, inputs=60))
        assert check.ok
        large = max(check.errors, key=check.errors.get) in ("layer0.w_hh", "layer0.w_xh")
        assert ("(of 1800 entries looked at)" in check.worst) == large
