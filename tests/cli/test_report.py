"""report.html: what it says is what the run says, and it stands alone."""

from __future__ import annotations

import html
import json
import re
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from browsing import Page, needs_chromium
from commands import train

import rnn_xp as rx
from rnn_xp import cli
from rnn_xp.cli.report import about, report
from rnn_xp.data.datasets import Series
from rnn_xp.forecasting import plotting

NASTY = '</title><script>window.hacked = 1</script><img src=x onerror="window.hacked = 1">'


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def facts_in(page):
    rows = re.findall(r'<tr><th scope="row">(.*?)</th><td>(.*?)</td></tr>', page, re.DOTALL)
    return {html.unescape(key): html.unescape(value) for key, value in rows}


def stands_alone(page):
    # Both addresses are names of vocabularies, which are no references.
    addresses = set(re.findall(r"https?://[^\s\"'<]+", page))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert not re.search(r"<link|<script|@import|url\((?!#)| (?:href|src)=\"(?!#)", page)


def judged(values, name="wave", column="value", horizon=1):
    """Return a series and a backtest of a network that is hardly trained."""
    series = Series(name, values, None, column, "ms", "", "0" * 64)
    forecaster = rx.Forecaster(
        seq_length=5, horizon=horizon, hidden_size=2, epochs=1, verbose=False, intervals="adaptive"
    )
    return series, forecaster.backtest(values, start=0.1, retrain=False)


@pytest.mark.pictures
def test_the_whole_test_part_is_drawn_from_its_first_forecast_on(monkeypatch):
    shown = []
    draw = plotting.backtest
    monkeypatch.setattr(
        plotting, "backtest", lambda *args, **kw: shown.append(draw(*args, **kw)) or shown[-1]
    )
    series, result = judged(np.sin(np.arange(900) / 3.0), horizon=12)
    report(series, result, {}, None)
    origins = result.series[0].origins
    first, last = shown[1].lines[0].get_xdata()[[0, -1]]
    assert first - origins[0] < 12
    assert last == origins[-1] + 11


class TestRunFolder:
    @pytest.mark.pictures
    def test_a_training_s_report_says_what_its_other_files_say(self, capsys):
        assert cli.main(["train", "--epochs", "2", "--out", "it"]) == 0
        printed = capsys.readouterr().out
        page = Path("it/report.html").read_text("utf-8")
        text = html.unescape(page)
        metrics = json.loads(Path("it/metrics.json").read_text())
        assert metrics["verdict"] in text
        table = printed[printed.index("test   ") : printed.index("verdict")].rstrip()
        assert table in text
        facts = facts_in(page)
        config = tomllib.loads(Path("it/config.toml").read_text())
        assert {f"config.{key}": str(value) for key, value in config.items()}.items() <= (
            facts.items()
        )
        assert facts["data.sha256"] == metrics["data"]["sha256"]
        assert facts["engine.name"] == metrics["engine"]["name"]
        assert facts["versions.numpy"] == np.__version__
        assert page.count("<svg") == 4  # the latest, all, the errors, the losses
        stands_alone(page)

    @pytest.mark.parametrize("plain", [True, False])
    def test_a_network_that_repeats_the_last_value_is_told_once(self, plain):
        options = ["--plain", "--epochs", "40"] if plain else ["--epochs", "1"]
        assert cli.main(["train", "--data", "wti", *options, "--out", "it"]) == 0
        page = Path("it/report.html").read_text("utf-8")
        assert page.count("rnn repeats the last value: its forecast is closer") == 1

    def test_without_matplotlib_it_says_what_is_missing(self, small_csv, monkeypatch):
        monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
        assert train("--data", small_csv, "--out", "run") == 0
        page = Path("run/report.html").read_text("utf-8")
        assert "Pictures need matplotlib: pip install" in html.unescape(page)
        assert "<svg" not in page


class TestCommands:
    def test_backtest(self, small_csv, capsys):
        options = ["--data", small_csv, "--epochs", "1", "--horizon", "2", "--html", "page.html"]
        assert cli.main(["backtest", *options]) == 0
        assert capsys.readouterr().out.endswith("wrote    page.html\n")
        page = Path("page.html").read_text("utf-8")
        facts = facts_in(page)
        assert (facts["settings.horizon"], facts["settings.epochs"]) == ("2", "1")
        assert "Errors by steps ahead" in page

    def test_evaluate(self, small_csv, capsys):
        assert train("--data", small_csv, "--out", "run") == 0
        capsys.readouterr()
        assert cli.main(["evaluate", "run", "--html", "page.html"]) == 0
        printed = capsys.readouterr().out
        assert printed.endswith("wrote    page.html\n")
        verdict = re.search(r"^verdict  (.*)$", printed, re.M)[1]
        assert verdict in html.unescape(Path("page.html").read_text("utf-8"))


@pytest.mark.pictures
class TestPage:
    def test_ten_thousand_forecasts_take_less_than_a_megabyte(self):
        values = np.random.default_rng(0).standard_normal(11_300).cumsum()
        series, result = judged(values)
        assert len(result.series[0].origins) > 10_000
        page = report(series, result, about(series, {}))
        assert len(page.encode()) < 1_000_000
        stands_alone(page)

    def test_names_and_settings_are_text(self):
        series, result = judged(np.sin(np.arange(300.0)), NASTY, NASTY)
        page = report(series, result, about(series, {"data": NASTY}), remarks=[NASTY])
        assert "<script" not in page
        assert "<img" not in page
        assert facts_in(page)["data.name"] == facts_in(page)["settings.data"] == NASTY

    @pytest.mark.full
    @pytest.mark.browser
    @needs_chromium
    def test_a_browser_shows_it_on_a_desk_and_on_a_phone(self):
        series, result = judged(np.sin(np.arange(300.0)), NASTY, horizon=3)
        path = Path("report.html").resolve()
        path.write_text(report(series, result, about(series, {})), "utf-8")
        page = Page()
        try:
            for width in (1280, 390):
                page.open(path, width=width)
                assert page.complaints() == []
                assert page.requests() == [path.as_uri()]
                assert page.run("document.documentElement.scrollWidth") <= width
                assert page.axe() == []
            assert page.run("window.hacked === undefined")
            before = page.run("document.querySelectorAll('.view svg')[1].clientWidth")
            page.move("input[type=range]", 4)
            after = page.run("document.querySelectorAll('.view svg')[1].clientWidth")
            assert after > 2 * before
        finally:
            page.close()
