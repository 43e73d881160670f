"""`rx.explain.walk`: the page's numbers are the library's, and its text is nobody's markup."""

from __future__ import annotations

import base64
import dataclasses
import json
import re
import time
import tomllib
from pathlib import Path

import numpy as np
import pytest

import rnn_xp as rx
from rnn_xp import cli
from rnn_xp.cells import RNNState

BACKEND = rx.get_backend("numpy", dtype="float64")
NASTY = '</script><script>window.hacked = 1</script><img src=x onerror="window.hacked = 1">'


def reference(**options):
    series = rx.datasets.load("length_of_day").values[:8327]
    x, y = rx.make_windows((series - series.mean()) / series.std(), seq_length=10)
    net = rx.Network(hidden_size=50, **options)
    return net, net.init(seed=0, backend=BACKEND), x, y


def numbers_in(page):
    """Return the page's data with its arrays, as the page's script reads them."""
    text = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)[1]

    def decode(value):
        if set(value) != {"shape", "f8"}:
            return value
        return np.frombuffer(base64.b64decode(value["f8"]), "<f8").reshape(value["shape"])

    return json.loads(text, object_hook=decode)


def same_bits(a, b):
    return a.dtype == b.dtype == np.float64 and a.shape == b.shape and a.tobytes() == b.tobytes()


class TestNumbers:
    @pytest.fixture(scope="class")
    @classmethod
    def problem(cls):
        return reference()

    @pytest.fixture(scope="class")
    @classmethod
    def data(cls, problem):
        return numbers_in(rx.explain.walk(*problem, title="length_of_day").html())

    def test_gradients_of_1_to_8317_rows_are_the_library_s_to_the_bit(self, problem, data):
        net, params, x, y = problem
        assert data["sizes"] == [1, 2, 4, 32, 8317]
        for n in data["sizes"]:
            loss, grads = net.value_and_grad(params, x[:n], y[:n])
            assert data["library"][str(n)]["loss"] == float(loss)
            for name, grad in grads.items():
                assert same_bits(data["library"][str(n)][name.partition(".")[2]], grad)

    def test_parameters_and_rows_are_those_given_to_the_bit(self, problem, data):
        _, params, x, y = problem
        for name, param in params.items():
            assert same_bits(data["params"][name.partition(".")[2]], param)
        windows = np.lib.stride_tricks.sliding_window_view(data["series"][:, 0], 10)[:, :, None]
        assert same_bits(np.ascontiguousarray(windows), np.ascontiguousarray(x))
        assert same_bits(data["y"], np.asarray(y))
        largest = np.linalg.svd(params["layer0.w_hh"], compute_uv=False)[0]
        assert data["largest_singular_value"] == pytest.approx(largest, rel=1e-14)

    def test_states_and_their_gradients_are_the_library_s_to_the_bit(self, problem, data):
        net, params, x, y = problem
        assert same_bits(data["arrays"]["dh"], net.gradient_flow(params, x[:4], y[:4])["layer0"])
        every = rx.Network(hidden_size=50, output_size=50, topology="many_to_many")
        told = {**params, "readout.w_hy": np.eye(50), "readout.b_y": np.zeros(50)}
        pred, _ = every.forward(told, x[:4])  # h itself, at every step
        assert same_bits(data["arrays"]["h"], np.ascontiguousarray(pred.transpose(1, 0, 2)))
        assert same_bits(data["arrays"]["h"][9], net.forward(params, x[:4])[1].h[0])

    def test_the_last_two_steps_are_the_library_s_from_the_state_before_them(self, problem, data):
        net, params, x, y = problem
        assert list(data["library_of_last_two"]) == ["1", "2", "4", "32"]
        for n in (1, 2, 4, 32):
            state = RNNState(net.forward(params, x[:n, :8])[1].h)
            _, grads = net.value_and_grad(params, x[:n, 8:], y[:n], state=state)
            for name, grad in grads.items():
                at = data["library_of_last_two"][str(n)][name.partition(".")[2]]
                assert same_bits(at, grad)

    def test_a_linear_path_is_taken_off_the_targets_and_changes_no_gradient(self):
        net, params, x, y = reference(linear_lags=10)
        params["readout.w_xy"] = np.linspace(-1, 1, 10)[None]
        data = numbers_in(rx.explain.walk(net, params, x[:40], y[:40]).html())
        alone = dataclasses.replace(net, linear_lags=0)
        weights = {name: params[name] for name in alone.shapes}
        _, grads = alone.value_and_grad(weights, x[:40], data["y"])
        assert data["linear"] == 10
        for name, grad in net.value_and_grad(params, x[:40], y[:40])[1].items():
            assert same_bits(data["library"]["40"][name.partition(".")[2]], grad)
            if name in grads:
                np.testing.assert_allclose(grads[name], grad, rtol=1e-12, atol=1e-15)

    def test_single_precision_enters_without_loss(self):
        net, params, x, y = reference()
        single = {name: param.astype(np.float32) for name, param in params.items()}
        data = numbers_in(rx.explain.walk(net, single, np.float32(x[:9]), np.float32(y[:9])).html())
        for name, param in single.items():
            assert same_bits(data["params"][name.partition(".")[2]], param.astype(np.float64))


class TestPage:
    def test_the_reference_page_takes_three_seconds_and_no_network(self, tmp_path):
        problem = reference()
        seconds = []
        for _ in range(2):
            start = time.process_time()
            rx.explain.walk(*problem, title="length_of_day").save(tmp_path / "page.html")
            seconds.append(time.process_time() - start)
        assert min(seconds) <= 3.0
        page = (tmp_path / "page.html").read_text("utf-8")
        assert len(page.encode()) < 1_000_000
        # The one address is the name of a vocabulary, which is no reference.
        addresses = set(re.findall(r"(?:https?:)?//[\w.-]+\.\w+[^\s\"']*", page))
        assert addresses == {"http://www.w3.org/2000/svg"}
        assert not re.search(r"<link|<script[^>]*\ssrc|@import|url\(|fetch\(|XMLHttp", page)

    @pytest.mark.cover("values")
    @pytest.mark.parametrize("hidden", [1, 64, 100])
    @pytest.mark.parametrize("inputs", [1, 7])
    @pytest.mark.parametrize("topology", ["many_to_one", "many_to_many"])
    def test_no_page_is_over_a_megabyte(self, hidden, inputs, topology):
        rng = np.random.default_rng(0)
        net = rx.Network(
            hidden_size=hidden, input_size=inputs, output_size=inputs, topology=topology
        )
        x = rng.standard_normal((9000, 12, inputs))
        y = x if topology == "many_to_many" else x[:, 0]
        walk = rx.explain.walk(net, net.init(seed=0, backend=BACKEND), x, y)
        assert len(walk.html().encode()) < 1_000_000
        rows = walk.data["rows"]
        assert 50 < rows < walk.data["given"] == 9000
        assert walk.data["x"].shape == (rows, 12, inputs)
        assert walk.data["sizes"][-1] == rows

    def test_names_cannot_become_markup(self):
        net, params, x, y = reference()
        page = rx.explain.walk(net, params, x[:5], y[:5], title=NASTY).html()
        assert page.count("<script") == rx.explain.walk(net, params, x[:5], y[:5]).html().count(
            "<script"
        )
        assert "<img" not in page
        assert numbers_in(page)["title"] == NASTY
        for text in ("@DATA@", "@SCRIPT@", "\\1", "\0"):
            page = rx.explain.walk(net, params, x[:5], y[:5], title=text).html()
            assert numbers_in(page)["title"] == text

    def test_a_notebook_shows_it_in_a_frame_of_its_own(self):
        walk = rx.explain.walk(*reference()[:2], *(a[:5] for a in reference()[2:]), title=NASTY)
        shown = walk._repr_html_()
        assert shown.startswith("<iframe srcdoc=")
        assert shown.count("<") == shown.count(">") == 2
        assert repr(walk).endswith("5 rows of 10 steps; .save(path) writes the page>")

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"cell": "lstm"}, r"cell='lstm' \(needed: 'rnn'\)"),
            ({"num_layers": 2}, r"num_layers=2 \(needed: 1\)"),
            ({"bidirectional": True}, r"bidirectional=True \(needed: False\)"),
            ({"read": "mean"}, r"read='mean' \(needed: 'last'\)"),
            ({"layer_norm": True}, r"layer_norm=True \(needed: False\)"),
            ({"output_activation": "sigmoid"}, r"output_activation='sigmoid' \(needed: 'id"),
            ({"topology": "one_to_many"}, r"topology='one_to_many' \(needed: 'many_to_one' or"),
            ({"hidden_size": 101}, r"hidden_size=101 \(needed: at most 100\)"),
        ],
    )
    def test_other_networks_are_refused_with_what_would_do(self, options, message):
        net = rx.Network(**{"hidden_size": 3, **options})
        x, y = np.ones((4, 5, 1)), np.ones((4, 1))
        with pytest.raises(ValueError, match=message):
            rx.explain.walk(net, net.init(seed=0, backend=BACKEND), x, y)

    def test_the_wheel_takes_the_parts_of_the_page_along(self):
        root = Path(rx.__file__).parents[1]
        config = tomllib.loads((root / "pyproject.toml").read_text())
        wheel = config["tool"]["hatch"]["build"]["targets"]["wheel"]
        assert wheel == {"packages": ["rnn_xp"]}  # all files of the package
        parts = sorted((root / "rnn_xp" / "explain" / "browser").iterdir())
        assert {part.suffix for part in parts} == {".js", ".css", ".html"}
        for part in parts:
            assert len(part.read_text("utf-8").splitlines()) <= 400, part


class TestCommand:
    @pytest.fixture(autouse=True)
    def elsewhere(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)

    def test_the_reference_workload_with_all_its_windows(self, capsys):
        assert cli.main(["explain", "--html", "page.html"]) == 0
        assert capsys.readouterr().out.endswith("wrote    page.html\n")
        data = numbers_in(Path("page.html").read_text("utf-8"))
        assert (data["title"], data["rows"], data["steps"]) == ("length_of_day", 8317, 10)

    def test_a_column_of_a_file_and_some_of_its_windows(self):
        values = np.sin(np.arange(90.0))
        lines = ["<b>day</b>", *(f"{value!r}" for value in values.tolist())]
        Path("<em>.csv").write_text("\n".join(lines))
        options = ["--data", "<em>.csv", "--column", "<b>day</b>", "--out", "it", "--rows", "7"]
        assert cli.main(["explain", *options, "--html", "page.html"]) == 0
        page = Path("page.html").read_text("utf-8")
        data = numbers_in(page)
        assert data["rows"] == 7
        assert data["title"] not in page
        assert "<em>" in data["title"]

    def test_a_trained_run(self):
        training = ["train", "--epochs", "1", "--hidden-size", "4", "--out", "it"]
        assert cli.main(training) == 0
        assert cli.main(["explain", "--run", "it", "--html", "page.html"]) == 0
        data = numbers_in(Path("page.html").read_text("utf-8"))
        assert (data["network"]["H"], data["linear"], data["rows"]) == (4, 10, 8317)

    def test_a_cell_that_the_page_cannot_show_is_refused_before_anything_is_written(self, capsys):
        assert cli.main(["explain", "--cell", "gru", "--html", "page.html"]) == 2
        assert "cell='gru' (needed: 'rnn')" in capsys.readouterr().err
        assert list(Path().iterdir()) == []
