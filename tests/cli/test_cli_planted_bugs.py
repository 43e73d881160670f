"""Mistakes in the command line, planted line by line, and each caught by a check with a name.

Each entry is a line of the source as it stands and as a tired engineer might have written it. The
functions of the module get the code of the changed source, and the check must fail.
"""

from __future__ import annotations

import csv
import importlib
import inspect
import json
import os
import shutil
import tomllib
import types
from pathlib import Path

import numpy as np
import pytest

from rnn_xp import cli
from rnn_xp.data.datasets import read_csv
from rnn_xp.explain import GradientCheck
from rnn_xp.forecasting import Forecaster

SMALL = ["--data", "two.csv", "--column", "close", "--hidden-size", "3"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a series of two columns, and a run of two epochs on the second."""
    folder = tmp_path_factory.mktemp("planted")
    days = np.datetime64("2024-01-01") + np.arange(120)
    values = np.sin(np.arange(120) / 5.0) + 0.1 * np.random.default_rng(0).standard_normal(120)
    rows = [f"{d},{v:.5f},{v + 10:.5f}" for d, v in zip(days, values, strict=True)]
    (folder / "two.csv").write_text("\n".join(["day,open,close", *rows]) + "\n")
    before = Path.cwd()
    os.chdir(folder)
    try:
        assert cli.main(["train", *SMALL, "--epochs", "2", "--out", "run", "--json"]) == 0
    finally:
        os.chdir(before)
    return folder


@pytest.fixture(autouse=True)
def copied(trained, tmp_path):
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)


@pytest.fixture
def command(capsys):
    """Call the command line; return its status and what it printed."""

    def call(*words):
        capsys.readouterr()
        status = cli.main([str(word) for word in words])
        return status, capsys.readouterr().out

    return call


def of_json(command, *words):
    status, out = command(*words, "--json")
    assert status == 0
    assert out.count("\n") == 1
    return json.loads(out)


def errors_have_status_2(command, monkeypatch):
    assert command("info", "nowhere")[0] == 2


def a_wrong_gradient_has_status_1(command, monkeypatch):
    wrong = GradientCheck("complex_step", 1e-12, {"x": 1.0}, "x[0]", ok=False)
    monkeypatch.setattr("rnn_xp.cli.explain.check_network", lambda *arguments: wrong)
    assert command("explain", *SMALL, "--rows", 3, "--check", "--out", "page")[0] == 1


def as_many_steps_as_asked_for(command, monkeypatch):
    assert len(of_json(command, "forecast", "run", "--steps", 3)["forecast"]) == 3


def dates_begin_on_the_day_after(command, monkeypatch):
    assert of_json(command, "forecast", "run")["dates"] == ["2024-04-30"]


def the_level_is_a_share(command, monkeypatch):
    printed = of_json(command, "forecast", "run", "--level", 0.5)
    model = Forecaster.load("run").apply(read_csv("two.csv", column="close"))
    low, high = model.predict_interval(1, level=0.5)
    np.testing.assert_allclose([printed["low"], printed["high"]], [low, high])
    assert printed["level"] == 0.5


def ends_of_intervals_are_in_order_in_the_csv(command, monkeypatch):
    assert command("forecast", "run", "--csv", "out.csv")[0] == 0
    with open("out.csv") as file:
        (row,) = csv.DictReader(file)
    assert float(row["low"]) < float(row["forecast"]) < float(row["high"])


def a_column_is_counted_from_0(command, monkeypatch):
    last = read_csv("two.csv", column="close").values[-1]
    out = command("forecast", "run", "--data", "two.csv", "--column", 2)[1]
    assert f"last value {last:g} on" in out


def a_second_column_is_refused(command, monkeypatch):
    words = ["--column", "open", "--epochs", 1, "--out", "other"]
    assert command("train", *SMALL, *words)[0] == 2


def evaluate_repeats_what_train_said(command, monkeypatch):
    scores = json.loads(Path("run/metrics.json").read_text())["scores"]
    again = of_json(command, "evaluate", "run")["scores"]
    for one, other in zip(scores, again, strict=True):
        assert one["rmse"] == pytest.approx(other["rmse"], rel=1e-6)


def evaluate_takes_the_fraction_that_is_given(command, monkeypatch):
    out = command("evaluate", "run", "--train-fraction", 0.5)[1]
    assert "test part from row 60 of 120" in out


def an_option_wins_over_the_file(command, monkeypatch):
    Path("options.toml").write_text("epochs = 3\nseed = 7\n")
    words = ["--config", "options.toml", "--epochs", 1, "--out", "other"]
    assert command("train", *SMALL, *words)[0] == 0
    config = tomllib.loads(Path("other/config.toml").read_text())
    assert (config["epochs"], config["seed"]) == (1, 7)


def json_is_one_line(command, monkeypatch):
    of_json(command, "train", *SMALL, "--epochs", 1, "--out", "other")


def a_file_is_replaced_only_by_force(command, monkeypatch):
    Path("out.csv").write_text("old")
    assert command("forecast", "run", "--csv", "out.csv")[0] == 2
    assert Path("out.csv").read_text() == "old"
    assert command("forecast", "run", "--csv", "out.csv", "--force")[0] == 0
    assert Path("out.csv").read_text() != "old"


def an_old_run_survives_a_training_that_cannot_begin(command, monkeypatch):
    def fail(*arguments, **options):
        raise ValueError("it cannot begin")

    monkeypatch.setattr(Forecaster, "fit_prepared", fail)
    before = {path.name: path.read_bytes() for path in Path("run").iterdir()}
    assert command("train", *SMALL, "--out", "run", "--force")[0] == 2
    assert {path.name: path.read_bytes() for path in Path("run").iterdir()} == before


def two_and_two_epochs_are_four(command, monkeypatch):
    assert command("train", "--resume", "run", "--epochs", 4)[0] == 0
    assert command("train", *SMALL, "--epochs", 4, "--out", "whole")[0] == 0
    assert Path("run/history.csv").read_text() == Path("whole/history.csv").read_text()


def changed_data_are_not_gone_on_with(command, monkeypatch):
    with open("two.csv", "a") as file:
        file.write("2024-04-30,1.0,11.0\n")
    assert command("train", "--resume", "run", "--epochs", 3)[0] == 2


def fewer_epochs_than_done_are_refused(command, monkeypatch):
    assert command("train", "--resume", "run", "--epochs", 1)[0] == 2


def weights_are_written_where_they_are_asked_for(command, monkeypatch):
    words = ["--epochs", 1, "--plain", "--out", "plain"]
    assert command("train", *SMALL, *words)[0] == 0
    assert command("export", "plain", "--to", "torch", "--out", "weights")[0] == 0
    assert Path("weights").exists()


MISTAKES = [
    ("running", "end_all(2)\n        return 2", "return 0", errors_have_status_2),
    ("explain", "check.ok else 1", "check.ok else 0", a_wrong_gradient_has_status_1),
    ("use", "steps = args.steps or ", "steps = ", as_many_steps_as_asked_for),
    ("use", "ahead.predict(steps,", "ahead.predict(steps + 1,", as_many_steps_as_asked_for),
    (
        "use",
        "following_dates(each.dates, steps)",
        "following_dates(each.dates[:-1], steps)",
        dates_begin_on_the_day_after,
    ),
    ("use", "level=levels,", "level=[each / 2 for each in levels],", the_level_is_a_share),
    ("use", "args.level or [forecaster.level]", "[forecaster.level]", the_level_is_a_share),
    ("outlook", "for end in pair]", "for end in pair[::-1]]",
     ends_of_intervals_are_in_order_in_the_csv),
    ("options", "column = int(args.column) if", "column = int(args.column) - 1 if",
     a_column_is_counted_from_0),
    ("running", "for word in words) > 1", "for word in words) > 2", a_second_column_is_refused),
    ("use", "cut = len(time_split(each.values, fraction)[0])",
     "cut = len(time_split(each.values, fraction)[1])", evaluate_repeats_what_train_said),
    ("use", "if fraction is None:", "if True:", evaluate_takes_the_fraction_that_is_given),
    ("options", "vars(again).update(argv", "vars(again).update(settings, argv",
     an_option_wins_over_the_file),
    ("train", "say if not args.json else _silent", "say", json_is_one_line),
    ("targets", "path.exists() and not force", "path.exists() and force",
     a_file_is_replaced_only_by_force),
    ("train", "            checkpoint = self._checkpoint(folder)\n",
     "            checkpoint = self._checkpoint(folder)\n            begin()\n",
     an_old_run_survives_a_training_that_cannot_begin),
    ("train", "resume=checkpoint.last if", "resume=checkpoint.best if",
     two_and_two_epochs_are_four),
    ("train", "series.sha256 != args.data_sha256", "not args.data_sha256",
     changed_data_are_not_gone_on_with),
    ("train", "args.epochs < args.done", "args.epochs > args.done",
     fewer_epochs_than_done_are_refused),
    ("exporting", "path = args.out or folder", "path = folder",
     weights_are_written_where_they_are_asked_for),
]  # fmt: skip


def functions(namespace, name):
    """Yield the functions and methods that a module defines, with their qualified names."""
    for thing in list(namespace.values()):
        if inspect.isfunction(thing) and thing.__module__ == name:
            yield thing.__qualname__, inspect.unwrap(thing)
        elif inspect.isclass(thing) and thing.__module__ == name:
            for method in vars(thing).values():
                if inspect.isfunction(method) and method.__module__ == name:
                    yield method.__qualname__, method


def plant(monkeypatch, module, old, new):
    """Give the functions of a module the code of its source with one change."""
    module = importlib.import_module(f"rnn_xp.cli.{module}")
    source = inspect.getsource(module)
    assert source.count(old) >= 1, f"{old!r} is no longer in {module.__name__}"
    changed = types.ModuleType(module.__name__)
    changed.__file__ = module.__file__
    monkeypatch.setitem(importlib.sys.modules, module.__name__, changed)
    exec(compile(source.replace(old, new, 1), module.__file__, "exec"), vars(changed))
    monkeypatch.setitem(importlib.sys.modules, module.__name__, module)
    codes = {
        name: function.__code__ for name, function in functions(vars(changed), changed.__name__)
    }
    for name, function in functions(vars(module), module.__name__):
        if function.__code__.co_freevars == codes[name].co_freevars:
            monkeypatch.setattr(function, "__code__", codes[name])


CHECKS = {check.__name__: check for *_, check in MISTAKES}


@pytest.mark.parametrize("name", CHECKS)
def test_what_is_right(name, command, monkeypatch):
    CHECKS[name](command, monkeypatch)


@pytest.mark.parametrize(
    ("module", "old", "new", "check"),
    [pytest.param(*row, id=f"{row[0]}: {row[1]} -> {row[2]}") for row in MISTAKES],
)
def test_every_mistake_is_caught(module, old, new, check, command, monkeypatch):
    plant(monkeypatch, module, old, new)
    with pytest.raises((AssertionError, TypeError, KeyError)):
        check(command, monkeypatch)
