"""docs/guide/extending.md: its code runs as it stands, and its examples work everywhere.

The example cell goes through the gradient contract with the cells of the package, see
`problems.EXAMPLES`; here is what else a cell and a loss must be good for.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from pathlib import Path

import extending
import numpy as np
import pytest
from extending import Focal, MinGRUCell
from problems import windows

import rnn_xp as rx
from rnn_xp import cli, losses
from rnn_xp.cells import CELLS, Cell
from rnn_xp.cells.cell import Footprint
from rnn_xp.explain import check_network, measure_flow, walk_shapes
from rnn_xp.interchange import files, keras, onnx_training
from rnn_xp.interchange import onnx as onnx_graphs
from rnn_xp.network.memory import block_bytes
from rnn_xp.training.callbacks import Checkpoint

ROOT = Path(__file__).parents[2]


def test_the_page_has_four_sections():
    assert [*extending.SECTIONS] == ["A cell", "A loss", "An optimiser", "A library"]


@pytest.mark.parametrize("section", extending.SECTIONS)
def test_all_code_of_a_section_runs(section, tmp_path):
    """In a process of its own, as a program of a user."""
    program = tmp_path / "program.py"
    program.write_text("\n".join(extending.SECTIONS[section]), encoding="utf-8")
    settings = {**os.environ, "PYTHONPATH": str(ROOT), "RNN_XP_BACKEND": ""}
    process = subprocess.run(
        [sys.executable, "-W", "error", str(program)],
        cwd=tmp_path, env=settings, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr


def test_the_documentation_lists_the_page():
    assert "\nguide/extending\n" in (ROOT / "docs" / "index.md").read_text(encoding="utf-8")


def network(**options):
    return rx.Network(**{"cell": "mingru", "hidden_size": 6, **options})


@pytest.mark.usefixtures("mingru")
class TestCell:
    def fit(self, epochs=6, **options):
        x, y = windows()
        options = {"optimizer": rx.optim.adam(0.01), "seed": 3, **options}
        return rx.fit(network(), x, y, epochs=epochs, **options)

    def test_its_sum_over_all_steps_in_closed_form(self):
        """h_T = sum_t z_t n_t prod_{s>t} (1 - z_s), without any recurrence."""
        rng = np.random.default_rng(0)
        net = network(input_size=2, output_size=3)
        params = {name: rng.standard_normal(shape) for name, shape in net.shapes.items()}
        x = rng.standard_normal((4, 7, 2))
        p = x @ params["layer0.w_xh"].T + params["layer0.b_h"]
        z, n = 1.0 / (1.0 + np.exp(-p[..., :6])), p[..., 6:]
        h = sum(z[:, t] * n[:, t] * np.prod(1.0 - z[:, t + 1 :], axis=1) for t in range(7))
        pred, state = net.forward(params, x)
        np.testing.assert_allclose(state.h[0], h, rtol=1e-13)
        np.testing.assert_allclose(
            pred, h @ params["readout.w_hy"].T + params["readout.b_y"], rtol=1e-12
        )

    def test_initial_weights_are_drawn_gate_by_gate(self):
        """Without w_hh as well: the limit is that of a gate's matrix (H, I)."""
        net = rx.Network(cell="mingru", input_size=3, hidden_size=40)
        weights = net.init(0)
        limit = (6 / 43) ** 0.5
        assert 0.99 * limit < np.abs(weights["layer0.w_xh"]).max() < limit
        assert not weights["layer0.b_h"].any()
        assert set(weights) == {"layer0.w_xh", "layer0.b_h", "readout.w_hy", "readout.b_y"}

    def test_threads_and_blocks_change_no_bit(self):
        one, three = (self.fit(workers=workers, block_rows=8) for workers in (1, 3))
        assert one.history == three.history
        for name, param in one.params.items():
            assert np.array_equal(param, three.params[name])

    def test_a_memory_budget_counts_its_arrays(self):
        net = network()
        needed = block_bytes(net, 5, 60, 4)
        assert needed < block_bytes(rx.Network(cell="gru", hidden_size=6), 5, 60, 4)
        limited = self.fit(memory_budget=needed)
        assert limited.history == self.fit().history
        with pytest.raises(ValueError, match=r"memory_budget=1000 bytes is too little"):
            self.fit(memory_budget=1000)

    def test_checkpoint_and_resume_give_the_same_bits(self, tmp_path):
        whole = self.fit(6)
        self.fit(3, callbacks=[Checkpoint(tmp_path, every=3)])
        resumed = self.fit(6, resume=tmp_path / "last.safetensors")
        assert resumed.history["loss"][-3:] == whole.history["loss"][-3:]
        for name, param in whole.params.items():
            assert np.array_equal(param, resumed.params[name])

    def test_the_estimators(self):
        x, y = windows()
        model = rx.RecurrentRegressor(
            cell="mingru", hidden_size=6, max_iter=3, n_iter_no_change=None, random_state=0
        )
        assert model.fit(x, y[:, 0]).predict(x).shape == (60,)
        classes = (y[:, 0] > 0).astype(int)
        model = rx.RecurrentClassifier(cell="mingru", hidden_size=6, max_iter=3, random_state=0)
        assert set(model.fit(x, classes).predict(x)) <= {0, 1}

    def test_a_saved_forecaster_is_loaded_where_the_name_is_known(self, tmp_path, monkeypatch):
        series = np.sin(np.arange(120.0) / 3)
        f = rx.Forecaster(seq_length=8, cell="mingru", epochs=2, random_state=0, verbose=False)
        f.fit(series).save(tmp_path / "f.safetensors")
        again = rx.Forecaster.load(tmp_path / "f.safetensors")
        assert np.array_equal(again.predict(steps=4), f.predict(steps=4))
        monkeypatch.delitem(CELLS, "mingru")
        with pytest.raises(ValueError, match=r"cell='mingru' is not known. Valid: 'rnn', 'gru'"):
            rx.Forecaster.load(tmp_path / "f.safetensors")

    @pytest.mark.parametrize("layer_norm", [False, True])
    def test_it_is_explained(self, layer_norm):
        net = network(layer_norm=layer_norm)
        backend = rx.get_backend(dtype="float64")
        x, y = windows()
        params = net.init(0, backend)
        operations = [op.rows for op in walk_shapes(net, 60, 5)]
        assert "h_t = (1 - z) * h_{t-1} + z * p_n" in operations
        assert not any("w_hh" in rows for rows in operations)
        check = check_network(net, params, x[:3], y[:3])
        assert check.ok, check.worst
        flow = measure_flow(net, params, x, y)
        assert list(flow.dh) == ["layer0"]
        assert flow.terms == {}  # there is no w_hh
        assert len(flow.table()) == 7

    def test_the_commands(self, capsys, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        options = ["--cell", "mingru", "--hidden-size", "4", "--seq-length", "5"]
        assert cli.main(["train", *options, "--epochs", "2", "--out", "run"]) == 0
        assert cli.main(["evaluate", "run"]) == 0
        assert cli.main(["explain", "--run", "run", "--rows", "20", "--out", "why"]) == 0
        assert "h_t = (1 - z) * h_{t-1} + z * p_n" in capsys.readouterr().out

    def test_options_of_other_cells_are_refused(self):
        with pytest.raises(ValueError, match="activation='relu' needs cell='rnn'"):
            network(activation="relu")
        with pytest.raises(ValueError, match="reset_after=False needs cell='gru'"):
            network(reset_after=False)

    @pytest.mark.parametrize("layout", ["torch", "keras"])
    def test_formats_of_others_refuse_it_by_name(self, layout, tmp_path):
        net = network()
        with pytest.raises(ValueError, match="cannot express cell='mingru'"):
            files.save(tmp_path / "w.safetensors", layout, net, net.init(0))
        assert [*tmp_path.iterdir()] == []
        with pytest.raises(ValueError, match="Keras cannot express cell='mingru'"):
            keras.from_weights(net, [])

    def test_onnx_refuses_to_predict(self):
        net = network()
        with pytest.raises(ValueError, match="ONNX cannot express cell='mingru'"):
            onnx_graphs.to_onnx(net, net.init(0))

    @pytest.mark.interchange
    def test_a_training_step_in_onnx_needs_no_operator_of_the_cell(self):
        for module in ("onnx", "ndonnx"):
            pytest.importorskip(module, reason=f"{module} is not installed")
        net = rx.Network(cell="mingru", hidden_size=2)
        model = onnx_training.to_training_step(net, rows=2, steps=2, optimizer=rx.optim.sgd(0.1))
        assert {i.name for i in model.graph.input} >= set(net.shapes)


class TestDeclaration:
    def test_the_name_is_unknown_unless_it_is_entered(self):
        with pytest.raises(ValueError, match="cell='mingru' is not known. Valid: 'rnn', 'gru', "):
            rx.Network(cell="mingru", hidden_size=4)

    @pytest.mark.parametrize("missing", ["gates", "state_type", "footprint"])
    def test_what_a_cell_must_declare(self, missing):
        declared = {
            "gates": 2,
            "state_type": MinGRUCell.state_type,
            "footprint": Footprint(1, 1, 1, 1),
        }
        del declared[missing]
        with pytest.raises(TypeError, match=f"Half: a cell must set .* missing: {missing}"):
            type("Half", (Cell,), declared)

    def test_without_its_operations_it_computes_but_is_not_explained(self, monkeypatch):
        class Silent(MinGRUCell):
            walk = Cell.walk

        monkeypatch.setitem(CELLS, "silent", Silent)
        net = rx.Network(cell="silent", hidden_size=4)
        x, y = windows()
        params = net.init(0, rx.get_backend(dtype="float64"))
        assert max(rx.testing.check_gradients(net, params, x[:3], y[:3]).values()) < 1e-12
        with pytest.raises(ValueError, match="Silent does not list its operations"):
            walk_shapes(net, 3, 5)

    @pytest.mark.parametrize("command", ["train", "backtest", "bench", "explain"])
    def test_the_command_line_offers_the_cells_there_are(self, command, capsys):
        with pytest.raises(SystemExit):
            cli.main([command, "--cell", "mingru"])
        message = capsys.readouterr().err
        assert all(cell in message for cell in ("mingru", *CELLS))


class TestLoss:
    X = np.random.default_rng(0).standard_normal((40, 5, 2))
    Y = np.random.default_rng(1).integers(0, 3, 40)
    NET = rx.Network(input_size=2, hidden_size=4, output_size=3)

    @pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0, 3.5])
    def test_its_gradient_and_weights(self, gamma):
        params = self.NET.init(0, rx.get_backend(dtype="float64"))
        weight = np.random.default_rng(2).uniform(0.0, 2.0, 5)
        errors = rx.testing.check_gradients(
            self.NET, params, self.X[:5], self.Y[:5], loss=Focal(gamma), sample_weight=weight
        )
        assert max(errors.values()) < 1e-12

    def test_on_every_library(self, case):
        pred = np.random.default_rng(3).standard_normal((40, 3))
        value, dpred = Focal(2.0)(pred, self.Y)
        found, dfound = case.jit(Focal(2.0))(case.array(pred), case.array(self.Y))
        case.assert_close(found, value)
        case.assert_close(dfound, dpred)

    def test_fit_takes_the_classes_of_an_own_loss(self):
        options = {"optimizer": rx.optim.adam(0.01), "epochs": 8, "seed": 0}
        focal = rx.fit(self.NET, self.X, self.Y, loss=Focal(0.0), **options)
        usual = rx.fit(self.NET, self.X, self.Y, loss="cross_entropy", **options)
        np.testing.assert_allclose(focal.history["loss"], usual.history["loss"], rtol=1e-5)
        with pytest.raises(ValueError, match="y must have class indices of shape"):
            rx.fit(self.NET, self.X, self.X[:, 0], loss=Focal(), **options)
        with pytest.raises(ValueError, match="a class of the network's outputs"):
            rx.fit(self.NET, self.X, self.Y + 1, loss=Focal(), **options)

    def test_an_output_activation_is_refused_with_logits(self):
        net = rx.Network(input_size=2, hidden_size=4, output_size=3, output_activation="softmax")
        with pytest.raises(ValueError, match="Focal takes logits .* would apply it twice"):
            rx.fit(net, self.X, self.Y, loss=Focal(), optimizer=rx.optim.adam(0.01), epochs=1)

    def test_a_function_declares_itself_and_a_wrapper_says_the_same(self):
        @losses.declare(takes_classes=True)
        def own(pred, target, weight=None, total=None, scale=1.0):
            value, dpred = losses.cross_entropy(pred, target, weight, total)
            return scale * value, scale * dpred

        @functools.wraps(own)
        def wrapper(*args):
            return own(*args)

        for loss in (own, wrapper, functools.partial(own, scale=2.0)):
            assert losses.takes_classes(loss) is True
            assert losses.takes_logits(loss) is False
        assert losses.takes_classes(lambda pred, target: None) is False
        result = rx.fit(
            self.NET, self.X, self.Y, loss=functools.partial(own, scale=2.0),
            optimizer=rx.optim.adam(0.01), epochs=2,
        )  # fmt: skip
        usual = rx.fit(
            self.NET, self.X, self.Y, loss="cross_entropy",
            optimizer=rx.optim.adam(0.01), epochs=2,
        )  # fmt: skip
        assert result.history["loss"][0] == pytest.approx(2.0 * usual.history["loss"][0], rel=1e-6)
