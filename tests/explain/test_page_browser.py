"""The page of `rx.explain.walk` in a real browser."""

from __future__ import annotations

import dataclasses
import io

import matplotlib.image
import numpy as np
import pytest
from browsing import Page, needs_chromium

import rnn_xp as rx
from rnn_xp.cells import RNNState

pytestmark = [pytest.mark.browser, pytest.mark.full, needs_chromium]

BACKEND = rx.get_backend("numpy", dtype="float64")
NASTY = '</script><script>window.hacked = 1</script><img src=x onerror="window.hacked = 1">'
LEFT, RIGHT, UP, DOWN = "\ue012", "\ue014", "\ue013", "\ue015"


@pytest.fixture(scope="module")
def page():
    page = Page()
    yield page
    page.close()


def problem(rows=8317, **options):
    series = rx.datasets.load("length_of_day").values[: rows + 10]
    x, y = rx.make_windows((series - series.mean()) / series.std(), seq_length=10)
    net = rx.Network(hidden_size=50, **options)
    return net, net.init(seed=0, backend=BACKEND), x, y


@pytest.fixture(scope="module")
def reference():
    return problem()


@pytest.fixture(scope="module")
def path(reference, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "page.html"
    return rx.explain.walk(*reference, title="length_of_day").save(path)


def as_array(page, script):
    """Evaluate a list of Float64Arrays, or one of them, to the bit."""
    return np.asarray(page.run(f"JSON.parse(JSON.stringify({script}, typed))"))


def close(a, b, tolerance=1e-12):
    assert a.shape == b.shape
    np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * abs(b).max())


def printed(value, digits=10):
    small = abs(value) < 1e-4
    return f"{value:.{digits - 1}e}" if small else f"{value:#.{digits}g}"


class TestOpening:
    def test_it_opens_from_the_disk_without_a_word_in_the_console_or_a_request(self, page, path):
        page.open(path)
        assert page.complaints() == []
        assert page.requests() == [path.as_uri()]
        assert "8317 rows of 10 steps; I = 1, H = 50, O = 1, tanh" in page.text("about")
        difference = float(page.text("difference").split()[-1].rstrip("."))
        assert difference <= 1e-12

    def test_a_notebook_s_frame_draws_and_steps(self, page, reference, tmp_path):
        net, params, x, y = reference
        walk = rx.explain.walk(net, params, x[:9], y[:9])
        frame = tmp_path / "frame.html"
        frame.write_text(f"<!DOCTYPE html><meta charset='utf-8'>{walk._repr_html_()}", "utf-8")
        page.open(frame)
        page.driver.switch_to.frame(page.find("iframe"))
        assert page.text("frame-title") == "forward, step 10"
        page.find("#back").click()
        assert page.text("frame-title") == "forward, step 9"
        page.press(LEFT, at="#back")
        assert page.text("frame-title") == "forward, step 8"
        page.driver.switch_to.default_content()
        assert page.complaints() == []

    def test_names_are_text(self, page, tmp_path):
        net, params, x, y = problem(rows=40)
        page.open(rx.explain.walk(net, params, x, y, title=NASTY).save(tmp_path / "nasty.html"))
        assert page.text("title") == NASTY
        assert page.run("window.hacked === undefined")
        assert page.driver.title.endswith(NASTY)
        assert page.complaints() == []

    @pytest.mark.parametrize(
        "options",
        [
            {"activation": "relu"},
            {"topology": "many_to_many", "output_size": 2, "input_size": 3},
            {"input_size": 3, "output_size": 2, "hidden_size": 1},
            {"linear_lags": 2},
        ],
    )
    def test_other_networks_and_rows(self, page, tmp_path, options):
        net = rx.Network(**{"hidden_size": 5, **options})
        rng = np.random.default_rng(0)
        params = {name: rng.standard_normal(shape) / 3 for name, shape in net.shapes.items()}
        x = rng.standard_normal((9, 4, net.input_size))
        y = rng.standard_normal((9, net.output_size))
        y = rng.standard_normal((9, 4, 2)) if net.topology == "many_to_many" else y
        page.open(rx.explain.walk(net, params, x, y).save(tmp_path / "other.html"))
        assert page.complaints() == []
        assert float(page.text("difference").split("relative: ")[1].rstrip(".")) <= 1e-12
        for matrix in ("w_xh", "w_hy", "w_hh"):
            page.find(f"input[name=matrix][value={matrix}]").click()
            assert "The gradient is right." in page.text("right-verdict")
        assert page.complaints() == []
        # Every step can be read if the next input is a target, and if not all are read already.
        can = not options.get("linear_lags") and net.topology == "many_to_one"
        shown = page.find("#every-choice").is_displayed()
        assert shown == (can and net.input_size == net.output_size)

    @pytest.mark.parametrize("steps", [1, 2, 3])
    def test_few_steps_and_a_single_row(self, page, tmp_path, steps):
        net = rx.Network(hidden_size=3)
        x, y = np.full((1, steps, 1), 0.3), np.ones((1, 1))
        walk = rx.explain.walk(net, net.init(seed=0, backend=BACKEND), x, y)
        page.open(walk.save(tmp_path / "few.html"))
        for _ in range(2 * steps + 2):
            page.press(RIGHT)
        assert page.text("frame-title") == "backward, step 1"
        assert page.complaints() == []


class TestOneEntry:
    @pytest.mark.parametrize("matrix", ["w_hh", "w_xh", "w_hy"])
    def test_the_running_sum_of_a_clicked_entry_ends_at_the_library_s_number(
        self, page, path, reference, matrix
    ):
        net, params, x, y = reference
        page.open(path, "#n=32")
        page.find(f"input[name=matrix][value={matrix}]").click()
        prefix = "readout" if matrix == "w_hy" else "layer0"
        grad = net.value_and_grad(params, x[:32], y[:32])[1][f"{prefix}.{matrix}"]
        plate = page.find("#matrix")
        for i, j in ((0, 0), (grad.shape[0] // 2, grad.shape[1] // 3)):
            box = page.run(
                "((b) => [b.width, b.height])(arguments[0].getBoundingClientRect())", plate
            )
            place = [
                (at + 0.5) / size * length - length / 2
                for at, size, length in zip((j, i), grad.shape[::-1], box, strict=True)
            ]
            page.click_at(plate, *place)
            at = tuple(page.run("[state.i, state.j]"))
            assert at == (i, j)
            last = page.run(
                "[...document.querySelectorAll('#products tbody tr:last-child td')].at(-1)"
                ".textContent"
            )
            assert last == page.text("sum") == page.text("library") == printed(grad[i, j])
            plate = page.find("#matrix")

    def test_arrow_keys_move_the_entry(self, page, path):
        page.open(path, "#i=3&j=2")
        page.press(DOWN, RIGHT, RIGHT, UP, UP, at="#matrix")
        assert page.run("[state.i, state.j]") == [2, 4]
        assert "t=10&i=2&j=4" in page.driver.current_url

    @pytest.mark.parametrize("index", range(5))
    def test_the_slider_of_samples(self, page, path, reference, index):
        net, params, x, y = reference
        page.open(path, "#i=3&j=2")
        page.move("#rows", index)
        n = (1, 2, 4, 32, 8317)[index]
        assert page.text("rows-value") == f"N = {n}"
        grad = net.value_and_grad(params, x[:n], y[:n])[1]["layer0.w_hh"]
        assert page.text("sum") == page.text("library") == printed(grad[3, 2])
        rows = page.run("document.querySelectorAll('#products tbody tr').length")
        assert rows == (10 if n == 8317 else 10 * n)
        if n == 8317:  # the largest, the others, and all in the histogram
            assert "The other 83,160 products add up to" in page.text("products")
            counts = page.run(
                "histogram(products(currentPass(), 'w_hh', 3, 2).map((p) => p.product), 31)"
                ".map((bin) => bin.count)"
            )
            assert sum(counts) == 83_170
            page.find("#complex").click()
            assert "The gradient is right." in page.text("right-verdict")

    def test_a_single_step_s_products_add_up_to_the_library_s_term(self, page, path, reference):
        net, params, x, y = reference
        term = net.grad_per_step(params, x[:4], y[:4])["layer0.w_hh"][6]
        page.open(path, "#t=7&i=3&j=2&n=4&one=1")
        assert page.text("sum") == page.text("term") == printed(term[3, 2])


class TestNumbers:
    """The page's own network is the library's to 1e-12."""

    @pytest.fixture(autouse=True)
    def opened(self, page, path):
        page.open(path)
        page.driver.execute_script(
            "window.typed = (key, value) => value instanceof Float64Array ? [...value] : value"
        )

    @pytest.mark.parametrize("n", [1, 32, 8317])
    def test_gradients_and_their_terms(self, page, reference, n):
        net, params, x, y = reference
        page.move("#rows", (1, 2, 4, 32, 8317).index(n))
        _, grads = net.value_and_grad(params, x[:n], y[:n])
        for name, grad in grads.items():
            mine = as_array(page, f"gradients(currentPass()).{name.partition('.')[2]}")
            close(mine.reshape(grad.shape), grad)
        terms = net.grad_per_step(params, x[:n], y[:n])["layer0.w_hh"]
        close(as_array(page, "terms(currentPass(), 'w_hh').slice(1)"), terms.reshape(10, -1))

    def test_states_and_their_gradients(self, page, reference):
        net, params, x, y = reference
        flow = net.gradient_flow(params, x[:4], y[:4])["layer0"]
        close(as_array(page, "currentPass().dhs.slice(1)"), flow.reshape(10, -1))
        h = net.forward(params, x[:4])[1].h[0]
        close(as_array(page, "currentPass().hs[10]"), h.reshape(-1))

    def test_the_two_terms_of_the_last_two_steps(self, page, reference):
        net, params, x, y = reference
        page.move("#short", 1)
        state = RNNState(net.forward(params, x[:4, :8])[1].h)
        terms = net.grad_per_step(params, x[:4, 8:], y[:4], state=state)["layer0.w_hh"]
        close(as_array(page, "terms(currentPass(), 'w_hh').slice(1)"), terms.reshape(2, -1))
        assert page.text("sum") == page.text("library")

    def test_own_loss_and_future_of_many_to_many(self, page, reference):
        net, params, x, y = reference
        every = dataclasses.replace(net, topology="many_to_many")
        following = np.concatenate([x[:4, 1:], y[:4, None]], axis=1)
        flow = every.gradient_flow(params, x[:4], following)["layer0"]
        close(as_array(page, "sharesPass().dhs.slice(1)"), flow.reshape(10, -1))
        own = 2 * (every.forward(params, x[:4])[0] - following) / 40 @ params["readout.w_hy"]
        close(as_array(page, "sharesPass().own.slice(1)"), own.swapaxes(0, 1).reshape(10, -1))
        page.find("#every").click()  # read once: the loss at T alone
        own = as_array(page, "sharesPass().own.slice(1)")
        assert np.all(own[:-1] == 0)
        assert np.any(own[-1])

    @pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
    def test_gradient_flow_of_both_cells_for_a_scaled_w_hh(self, page, reference, scale):
        net, params, x, _ = reference
        series = np.concatenate([x[0, :, 0], x[1:, -1, 0]])
        every = (len(series) - 30) // 32
        rows = [series[n * every : n * every + 30] for n in range(32)]
        target = np.asarray([[series[n * every + 30]] for n in range(32)])
        lstm = rx.Network(cell="lstm", hidden_size=50)
        flows = page.run(f"flowOf({scale})")
        for key, at, weights in (
            ("rnn", net, params),
            ("lstm", lstm, lstm.init(seed=0, backend=BACKEND)),
        ):
            weights = weights | {"layer0.w_hh": scale * weights["layer0.w_hh"]}
            flow = at.gradient_flow(weights, np.asarray(rows)[:, :, None], target)["layer0"]
            norms = np.sqrt((flow**2).sum(axis=(1, 2)))
            close(np.asarray(flows[key])[:, 1], norms / norms[-1])
        bound = np.asarray(flows["bound"])[:, 1]
        assert np.all(np.asarray(flows["rnn"])[:, 1] <= bound * (1 + 1e-12))

    def test_the_complex_step(self, page, reference):
        net, params, x, y = reference
        _, grads = net.value_and_grad(params, x[:4], y[:4])
        for name in ("w_xh", "w_hh", "w_hy", "b_h", "b_y"):
            grad = grads[("readout." if name.endswith("y") else "layer0.") + name].reshape(-1)
            for index in {0, len(grad) // 2, len(grad) - 1}:
                script = f"complexEntry(PARAMS, '{name}', {index}, inputs(4), targets(4), 4)"
                assert abs(page.run(script) - grad[index]) <= 1e-12 * abs(grad).max()

    def test_what_truncation_loses(self, page, reference):
        net, params, x, y = reference
        terms = net.grad_per_step(params, x[:4], y[:4])["layer0.w_hh"].reshape(10, -1)
        full, kept = terms.sum(axis=0), terms[6:].sum(axis=0)
        page.move("#cut", 6)
        lost = 100 * np.linalg.norm(full - kept) / np.linalg.norm(full)
        cosine = full @ kept / np.linalg.norm(full) / np.linalg.norm(kept)
        degrees = np.degrees(np.arccos(cosine))
        words = page.text("cut-loses")
        assert f"loses {lost:.1f} % of the norm of dw_hh and turns it by {degrees:.1f}°" in words


class TestMistakes:
    @pytest.mark.parametrize("mistake", ["", "carry", "transpose", "shift", "twice"])
    def test_the_loss_falls_and_only_the_check_tells(self, page, path, mistake):
        page.open(path)
        page.find(f"input[name=mistake][value='{mistake}']").click()
        assert "The loss falls:" in page.text("broken-loss")
        verdict = page.find("#broken-check")
        right = "right" in verdict.get_attribute("class")
        assert right == (mistake == "")
        assert ("check FAILED" in verdict.text) == (mistake != "")


class TestFrames:
    def test_arrow_keys_step_forward_and_back(self, page, path):
        page.open(path, "#t=1")
        titles = [page.text("frame-title")]
        for key in [RIGHT] * 20:
            page.press(key)
            titles.append(page.text("frame-title"))
        forward = [f"forward, step {t}" for t in range(1, 11)]
        back = [f"backward, step {t}" for t in range(10, 0, -1)]
        assert titles[:10] + titles[11:] == forward + back
        assert titles[10].startswith("the loss, ")
        page.press(LEFT, LEFT)
        assert page.text("frame-title") == "backward, step 3"
        assert "pass=backward" in page.driver.current_url

    def test_a_link_opens_its_frame(self, page, path):
        page.open(path, "#t=7&i=3&j=2&pass=backward&n=32&m=w_hh")
        assert page.run("[state.t, state.i, state.j, state.n]") == [7, 3, 2, 32]
        assert page.text("frame-title") == "backward, step 7"
        assert "dh_7 = dz_8 @ w_hh" in page.text("equations")
        page.open(path, "#t=99&i=-1&j=x&m=<b>&n=5&pass=up&columns=7&unknown=1")
        assert page.complaints() == []
        assert page.run("[state.t, state.i, state.j, state.m]") == [10, 0, 0, "w_hh"]

    def test_the_two_terms_have_their_names(self, page, path):
        page.open(path, "#short=1&t=2&pass=backward")
        assert page.text("frame-remark").startswith("The second term, dz_2.T @ h_1, arises")
        page.press(RIGHT)
        assert page.text("frame-remark").startswith("The first term, dz_1.T @ h_0, arises")

    def test_columns_turn_the_equations_and_the_shapes(self, page, path):
        page.open(path, "#t=7&n=4")
        assert "z_7 = x_7 @ w_xh.T + h_6 @ w_hh.T + b_h" in page.text("equations")
        assert "(4, 50)" in page.text("frame")
        page.move("#convention", 1)
        assert "z_7 = w_xh @ x_7 + w_hh @ h_6 + b_h" in page.text("equations")
        assert "(50, 4)" in page.text("frame")
        assert "(4, 50)" not in page.text("frame")
        assert "(dz @ h_prev.T)[0, 0]" in page.text("formula")

    def test_a_value_is_told_under_the_pointer(self, page, path):
        page.open(path, "#t=7&n=4")
        value = page.run("currentPass().hs[7][0]")
        page.run(
            "((plate) => { const box = plate.getBoundingClientRect(); plate.dispatchEvent("
            "new MouseEvent('mousemove', { clientX: box.left + 1, clientY: box.top + 1 })); })"
            "([...document.querySelectorAll('#frame .plate')].at(-1))"
        )
        assert page.text("hover") == f"h_7[0, 0] = {printed(value, 8)}"

    def test_a_frame_as_png(self, page, path):
        page.open(path, "#t=7&n=4&pass=backward")
        picture = matplotlib.image.imread(io.BytesIO(page.png()))
        assert picture.shape[0] == 510
        assert picture.shape[1] > 1000
        assert len(np.unique(picture.reshape(-1, picture.shape[2]), axis=0)) > 20


class TestLooks:
    @pytest.mark.parametrize("dark", [False, True])
    @pytest.mark.parametrize("width", [1280, 390])
    def test_contrast_and_labels(self, page, path, dark, width):
        page.open(path, "#t=7&i=3&j=2&pass=backward", dark=dark, width=width)
        assert page.axe() == []
        paper = page.run("getComputedStyle(document.body).backgroundColor")
        assert (paper == "rgb(22, 24, 28)") == dark

    def test_the_theme_button_turns_dark_into_light(self, page, path):
        page.open(path, dark=True)
        page.find("#theme").click()
        assert page.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert page.run("isDark()") is False

    @pytest.mark.parametrize("address", ["", "#n=32&pass=backward", "#columns=1&n=32&m=w_hy"])
    def test_nothing_is_wider_than_a_phone(self, page, path, address):
        page.open(path, address, width=390)
        assert page.run("document.documentElement.scrollWidth") <= 390

    def test_the_sliders_change_what_is_shown(self, page, path):
        page.open(path)
        before = page.text("flow-text")
        page.move("#scale", 2)
        assert page.text("scale-value") == "2.00 * w_hh"
        assert "Gradients explode" in page.text("flow-text") != before
        page.move("#scale", 0.5)
        assert "Gradients vanish" in page.text("flow-text")
        page.move("#frame-slider", 0)
        assert page.text("frame-title") == "forward, step 1"

    def test_print_leaves_the_controls_out(self, page, path):
        page.open(path)
        page.emulate(media="print")
        assert page.run("getComputedStyle(document.querySelector('.controls')).display") == "none"
        assert page.run("getComputedStyle(document.querySelector('#frame')).display") == "flex"
        page.emulate()
