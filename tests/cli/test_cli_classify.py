"""``rnn-xp classify``: what it prints and writes, and each input that it cannot take."""

from __future__ import annotations

import csv
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from rnn_xp import cli

pytest.importorskip("sklearn", reason="scikit-learn is not installed")

from rnn_xp import RecurrentClassifier
from rnn_xp.cli.confusion import Confusion, wilson

QUICK = ("--epochs", "30", "--hidden-size", "6", "--networks", "1")


def sequences(seed=0, n=24):
    """Names, labels and sequences of 4 to 8 steps that rise or fall."""
    rng = np.random.default_rng(seed)
    for k in range(n):
        label, steps = ("fall", "rise")[k % 2], int(rng.integers(4, 9))
        slope = np.arange(steps) * (1.0 if label == "rise" else -1.0)
        yield f"s{k}", label, np.stack([slope, np.ones(steps)], 1) + 0.1 * rng.random((steps, 2))


def write_table(path, *, labels=True, **given):
    lines = ["id,time,x,y" + ",label" * labels]
    for name, label, values in sequences(**given):
        lines += [
            f"{name},{t},{x:.4f},{y:.4f}" + f",{label}" * labels for t, (x, y) in enumerate(values)
        ]
    Path(path).write_text("\n".join(lines) + "\n")


def write_folder(path, **given):
    for name, label, values in sequences(**given):
        folder = Path(path, label)
        folder.mkdir(parents=True, exist_ok=True)
        text = "x,y\n" + "".join(f"{x:.4f},{y:.4f}\n" for x, y in values)
        (folder / f"{name}.csv").write_text(text)


def write_ts(path, **given):
    lines = ["@problemName Slopes", "@dimensions 2", "@classLabel true fall rise", "@data"]
    for _, label, values in sequences(**given):
        features = (",".join(f"{v:.4f}" for v in column) for column in values.T)
        lines.append(":".join([*features, label]))
    Path(path).write_text("\n".join(lines) + "\n")


@pytest.fixture
def run(capsys):
    """The folder of a run that was trained on a table."""
    write_table("slopes.csv")
    assert cli.main(["classify", "train", "--data", "slopes.csv", "--out", "run", *QUICK]) == 0
    capsys.readouterr()
    return Path("run")


WRITERS = {"slopes.csv": write_table, "slopes": write_folder, "slopes.ts": write_ts}


class TestTrain:
    @pytest.mark.parametrize("name", WRITERS)
    def test_each_kind_of_file_is_learned(self, name, capsys):
        WRITERS[name](name)
        WRITERS[name](f"new_{name}", seed=1)
        options = ["--data", name, "--test", f"new_{name}", *QUICK]
        assert cli.main(["classify", "train", *options]) == 0
        told = capsys.readouterr()
        assert re.search(r"^train    slopes: 24 sequences of 4\.\.8 steps, 2 features, 2 classes",
                         told.out, re.MULTILINE)  # fmt: skip
        assert "test     new_slopes: 24 sequences" in told.out
        assert "true \\ predicted  fall  rise  recall" in told.out
        assert "verdict  right for 24 of 24 sequences: accuracy 1.000, 95 % interval" in told.out
        assert "wrote    runs/slopes-gru-1/" in told.out
        assert "epoch 30/30" in told.err

    def test_what_it_writes(self, run):
        names = {path.name for path in run.iterdir()}
        assert names == {"confusion.png", "history.csv", "metrics.json", "model.safetensors",
                         "predictions.csv", "report.html"}  # fmt: skip
        metrics = json.loads((run / "metrics.json").read_text())
        assert metrics["split"] == {"train": 18, "test": 6}
        assert metrics["features"] == ["x", "y"]
        assert metrics["classes"] == ["fall", "rise"]
        assert np.sum(metrics["confusion"]) == metrics["sequences"] == 6
        rows = list(csv.DictReader((run / "predictions.csv").read_text().splitlines()))
        assert len(rows) == 6
        assert {row["label"] for row in rows} == {"fall", "rise"}
        right = np.mean([row["label"] == row["predicted"] for row in rows])
        assert metrics["accuracy"] == right
        page = (run / "report.html").read_text()
        assert page.count("<svg") == 2
        assert "True and predicted classes" in page
        assert metrics["verdict"].split(":")[0] in page
        assert "http" not in re.sub(r'xmlns(:\w+)?="[^"]*"', "", page)
        assert len((run / "history.csv").read_text().splitlines()) == 31

    def test_without_matplotlib_the_table_remains(self, monkeypatch, capsys):
        monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
        write_table("slopes.csv")
        assert cli.main(["classify", "train", "--data", "slopes.csv", "--out", "r", *QUICK]) == 0
        assert "no picture: Plots need matplotlib" in capsys.readouterr().err
        assert "Pictures need matplotlib" in Path("r/report.html").read_text()
        assert not Path("r/confusion.png").exists()

    def test_the_same_seed_gives_the_same_model(self, run):
        again = ["classify", "train", "--data", "slopes.csv", "--out", "again", *QUICK]
        assert cli.main([*again, "--workers", "1"]) == 0
        assert Path("again/predictions.csv").read_text() == (run / "predictions.csv").read_text()

    def test_several_networks_and_json(self, capsys):
        write_table("slopes.csv")
        options = ["--networks", "2", "--class-weight", "balanced", "--cell", "lstm", "--json"]
        assert cli.main(["classify", "train", "--data", "slopes.csv", *QUICK, *options]) == 0
        told = capsys.readouterr()
        assert "epoch" not in told.err  # though it may say that kernels are compiled
        said = json.loads(told.out)
        assert said["settings"]["n_estimators"] == 2
        assert said["out"] == "runs/slopes-lstm-1"
        model = RecurrentClassifier.load(said["out"])
        assert len(model.networks_) == 2
        assert Path(said["out"], "history.csv").read_text().startswith("network,epoch,loss\n0,1,")

    def test_an_existing_folder_is_replaced_only_by_force(self, run, capsys):
        again = ["classify", "train", "--data", "slopes.csv", "--out", "run", *QUICK]
        assert cli.main(again) == 2
        assert "run already exists" in capsys.readouterr().err
        assert cli.main([*again, "--seed", "1", "--force"]) == 0
        assert json.loads((run / "metrics.json").read_text())["settings"]["random_state"] == 1


class TestUse:
    def test_predictions_of_sequences_without_labels(self, run, capsys):
        write_table("new.csv", labels=False, seed=2)
        command = ["classify", "predict", "run", "--data", "new.csv", "--csv", "out.csv"]
        assert cli.main(command) == 0
        lines = capsys.readouterr().out.splitlines()
        assert "without labels" in lines[0]
        wanted = [[name, label] for name, label, _ in sequences(seed=2)]
        assert [line.split()[:2] for line in lines[1:-1]] == wanted
        rows = list(csv.reader(Path("out.csv").read_text().splitlines()))
        assert rows[0] == ["sequence", "predicted", "p(fall)", "p(rise)"]
        assert [row[:2] for row in rows[1:]] == wanted
        assert all(float(row[2]) + float(row[3]) == pytest.approx(1.0) for row in rows[1:])
        assert cli.main(command) == 2
        assert "--csv out.csv exists already" in capsys.readouterr().err

    def test_they_are_those_of_the_estimator(self, run, capsys):
        command = ["classify", "predict", "run", "--data", "slopes.csv", "--json"]
        assert cli.main(command) == 0
        said = json.loads(capsys.readouterr().out)["predictions"]
        model = RecurrentClassifier.load(run)
        rows = [values.round(4).astype("f4") for _, _, values in sequences()]
        shares = model.predict_proba(rows).max(axis=1)
        np.testing.assert_allclose([row["probability"] for row in said], shares, rtol=1e-6)
        assert [row["predicted"] for row in said] == model.predict(rows).tolist()
        assert [row["label"] for row in said] == [label for _, label, _ in sequences()]

    def test_a_report_of_other_data(self, run, capsys):
        write_folder("new", seed=3)
        command = ["classify", "report", "run", "--data", "new", "--html", "page.html"]
        assert cli.main(command) == 0
        told = capsys.readouterr().out
        assert "verdict  right for 24 of 24 sequences" in told
        assert "wrote    page.html" in told
        page = Path("page.html").read_text()
        assert page.count("<svg") == 2
        assert "right for 24 of 24" in page
        assert cli.main([*command[:-2], "--json"]) == 0
        said = json.loads(capsys.readouterr().out)
        assert said["accuracy"] == 1.0
        assert said["confusion"] == [[12, 0], [0, 12]]

    def test_one_class_alone_can_be_judged(self, run, capsys):
        write_folder("new", seed=3)
        for path in Path("new/rise").iterdir():
            path.unlink()
        Path("new/rise").rmdir()
        assert cli.main(["classify", "report", "run", "--data", "new"]) == 0
        out = capsys.readouterr().out
        assert re.search(r"^rise +0 +0 +-$", out, re.MULTILINE)
        assert "right for 12 of 12" in out


TRAIN = {  # options of classify train: what the sentence says
    "": "the following arguments are required: --data",
    "--data nowhere": "error: there is no file or folder 'nowhere'.",
    "--data unlabelled.csv": "--data: unlabelled has no labels. A folder needs a folder for each",
    "--data one.csv": "--data: all sequences of one have the label 'fall'.",
    "--data broken.ts": "broken.ts: line 2 comes before @data",
    "--data gap.csv": "Pass --missing drop to leave such rows out or --missing interpolate to fill",
    "--data slopes.csv --id who": "slopes.csv has no column 'who'.",
    "--data slopes.csv --label who": "--label who cannot be read.",
    "--data broken.ts --time t": "--time t is for a table, but this is a .ts file",
    "--data noid.csv": "noid.csv has no column 'id', only name, x. --id says which column",
    "--data slopes.csv --test slopes.csv --test-fraction 0.3": "leave it out with --test",
    "--data slopes.csv --test-fraction 1.5": "--test-fraction must be between 0 and 1, got 1.5.",
    "--data slopes.csv --test-fraction 0.01": "cannot be drawn from these 24 sequences",
    "--data slopes.csv --test other.csv": "has the label 'turn', which no sequence that was tra",
    "--data slopes.csv --test one.csv": "has the features x, but those that were trained on are x,",
    "--data slopes.csv --test unlabelled.csv": "--test: unlabelled has no labels",
    "--data slopes.csv --epochs 0": "--epochs must be an integer >= 1, got 0",
    "--data slopes.csv --networks 0": "--networks must be an integer >= 1, got 0",
    "--data slopes.csv --hidden-size 0": "--hidden-size must be an integer >= 1, got 0",
    "--data slopes.csv --layers 0": "--layers must be an integer >= 1, got 0",
    "--data slopes.csv --dropout 0.5": "--dropout 0.5 needs --layers >= 2",
    "--data slopes.csv --learning-rate -1": "error: --learning-rate must be in (0, inf), got -1.0",
    "--data slopes.csv --batch-size 0": "--batch-size must be 'auto' or an integer >= 1, got 0",
    "--data slopes.csv --patch-size x": "a whole number or 'auto' is required, got 'x'",
    "--data slopes.csv --patch-size 0": "--patch-size must be 'auto' or an integer >= 1, got 0",
    "--data slopes.csv --seed -1": "--seed must be an integer >= 0, got -1.",
    "--data slopes.csv --workers 0": "--workers must be an integer >= 1, got 0",
    "--data slopes.csv --backend NumPy": "error: --backend NumPy is not known. Choose one of",
    "--data slopes.csv --out slopes.csv": "slopes.csv is a file, and a run needs a folder.",
    "--data slopes.csv --data slopes.csv": "--data is given more than once",
}


@pytest.fixture
def files():
    write_table("slopes.csv")
    write_table("unlabelled.csv", labels=False)
    text = Path("slopes.csv").read_text()
    Path("other.csv").write_text(text.replace("rise", "turn"))
    Path("one.csv").write_text("id,x,label\na,1,fall\na,2,fall\nb,1,fall\n")
    Path("noid.csv").write_text("name,x\na,1\na,2\n")
    Path("gap.csv").write_text("id,x,label\na,1,fall\na,,fall\nb,1,rise\n")
    Path("broken.ts").write_text("# nothing\n1,2,3:up\n")


class TestWrongInputs:
    @pytest.mark.parametrize("options", TRAIN)
    def test_of_train(self, options, files, capsys):
        before = set(Path().iterdir())
        try:
            status = cli.main(["classify", "train", *shlex.split(options)])
        except SystemExit as error:
            status = error.code
        assert status == 2
        assert TRAIN[options] in capsys.readouterr().err
        assert set(Path().iterdir()) == before

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            ("predict nowhere --data slopes.csv", "there is no file or folder nowhere"),
            ("predict run --data one.csv", "has the features x, but those that were trained on"),
            ("predict run --data slopes.csv --csv no/out.csv", "there is no folder no. Make it"),
            ("report run --data unlabelled.csv", "--data: unlabelled has no labels"),
            ("report run --data other.csv", "has the label 'turn', which no sequence that was"),
            ("report run --data slopes.csv --html run", "--html run is a folder; name a file"),
            ("report forecast --data slopes.csv", "holds another kind of model, and no RecurrentC"),
        ],
    )
    def test_of_the_others(self, words, message, run, files, capsys):
        if "forecast" in words:
            Path("t.csv").write_text("v\n" + "".join(f"{np.sin(k):.4f}\n" for k in range(80)))
            train = ["train", "--data", "t.csv", "--plain", "--epochs", "1", "--out", "forecast"]
            assert cli.main(train) == 0
            capsys.readouterr()
        assert cli.main(["classify", *words.split()]) == 2
        assert message in capsys.readouterr().err

    def test_a_damaged_file_of_metrics(self, run, capsys):
        (run / "metrics.json").write_text("{")
        assert cli.main(["classify", "predict", "run", "--data", "slopes.csv"]) == 2
        assert "run/metrics.json is damaged" in capsys.readouterr().err

    def test_without_scikit_learn(self, monkeypatch, files, capsys):
        for name in [name for name in __import__("sys").modules if name.startswith("rnn_xp.est")]:
            monkeypatch.delitem(__import__("sys").modules, name)
        monkeypatch.setitem(__import__("sys").modules, "sklearn", None)
        assert cli.main(["classify", "train", "--data", "slopes.csv"]) == 2
        assert "rnn-xp classify needs scikit-learn. Install it with" in capsys.readouterr().err


class TestConfusion:
    TRUTH, FOUND = ("a", "a", "b", "b", "b", "c"), ("a", "b", "b", "b", "a", "a")

    def test_the_table(self):
        lines = Confusion.of(["a", "b", "c"], self.TRUTH, self.FOUND, "b").lines()
        assert lines == [
            "true \\ predicted     a     b     c  recall",
            "a                    1     1     0    0.50",
            "b                    1     2     0    0.67",
            "c                    1     0     0    0.00",
            "precision         0.33  0.67     -",
        ]

    def test_the_verdict_says_if_it_is_no_better_than_one_answer(self):
        confusion = Confusion.of(["a", "b", "c"], self.TRUTH, self.FOUND, "b")
        assert confusion.verdict().startswith("right for 3 of 6 sequences: accuracy 0.500, 95 %")
        assert "always 'b' would be right for 0.500, which these few sequences" in (
            confusion.verdict()
        )
        sure = Confusion.of(["a", "b"], ["a", "b"] * 20, ["a", "b"] * 20, "a")
        assert sure.verdict().endswith("always 'a' would be right for 0.500")
        assert sure.summary()["balanced_accuracy"] == 1.0

    @pytest.mark.parametrize(("right", "n"), [(0, 5), (5, 5), (37, 50)])
    def test_the_interval_solves_its_equation(self, right, n):
        """Its ends are the shares p at which right / n is 1.96 standard deviations away."""
        for end in wilson(right, n):
            if 1e-9 < end < 1.0 - 1e-9:
                away = abs(right / n - end) / np.sqrt(end * (1.0 - end) / n)
                assert away == pytest.approx(1.959964)
