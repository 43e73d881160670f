"""python -m benchmarks.imports: a file is equal, refused by name, or wrong; nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from exchange import random_params
from foreign import torch_zip

import rnn_xp as rx
from benchmarks.imports import __main__ as imports
from benchmarks.imports.cases import Cases, read
from rnn_xp.interchange import torch

NET = rx.Network(cell="gru", input_size=3, hidden_size=4, output_size=2)
X = np.random.default_rng(0).standard_normal((3, 5, 3))


@pytest.fixture
def cases(tmp_path):
    return Cases(tmp_path, "someone")


def write(cases, **more):
    params = random_params(NET, 0, "float64")
    path = cases.path(".pt")
    Path(path).write_bytes(torch_zip({**torch.to_state_dict(NET, params), **more}))
    pred = np.asarray(NET.forward(params, X)[0])
    return path, pred, max(1.0, abs(pred).max())


def results(cases):
    cases.write()
    lines, wrong = imports.table(cases.folder, {})
    return [line.rpartition("|")[0].rpartition("|")[2].strip() for line in lines[-3:]], wrong


def test_equal_files_and_files_refused_by_name_are_as_they_should_be(cases):
    path, pred, size = write(cases)
    cases.add("plain", path, X, pred)
    path, pred, size = write(cases)
    cases.add("within the bound", path, X, pred + 1e-13 * size)
    path, *_ = write(cases, gain=np.ones(4))
    cases.add("more", path, refused="gain is no part")
    rows, wrong = results(cases)
    assert wrong == 0
    assert rows[:2] == ["equal", "equal to 1e-13"]
    assert rows[2].startswith("refused: gain is no part of a recurrent layer")
    assert [case.about for case in read(cases.folder)] == ["plain", "within the bound", "more"]


def test_another_prediction_and_another_refusal_are_wrong(cases):
    path, pred, size = write(cases)
    cases.add("beyond the bound", path, X, pred + 1e-11 * size)
    path, *_ = write(cases)
    cases.add("taken", path, refused="a projection")
    path, *_ = write(cases, gain=np.ones(4))
    cases.add("refused otherwise", path, refused="a projection")
    rows, wrong = results(cases)
    assert wrong == 3
    assert rows[0] == "WRONG: differs by 1e-11"
    assert rows[1] == "WRONG: taken, though 'a projection' was expected"
    assert rows[2].startswith("WRONG: refused: gain is no part")


def test_the_results_in_the_repository_have_no_wrong_file():
    page = Path(imports.__file__).parents[1] / "results" / "imports.md"
    text = page.read_text(encoding="utf-8")
    assert "WRONG" not in text
    assert text.count("| equal") >= 100
    for library in ("torch", "keras-jax", "keras-torch", "tf.keras", "flax-linen", "flax-nnx",
                    "equinox", "mlx", "paddle", "onnx-torch", "onnx-torch-dynamo",
                    "onnx-tf2onnx"):  # fmt: skip
        assert f"| {library} |" in text


def test_the_guide_says_of_padding_what_was_measured():
    guide = Path(imports.__file__).parents[2] / "docs" / "guide" / "importing.md"
    rows = [line.strip("| ").split(" | ") for line in guide.read_text().splitlines()]
    shown = {row[0]: (row[-2], row[-1]) for row in rows if len(row) == 7}
    names = {"torch": "PyTorch", "keras": "Keras", "paddle": "Paddle", "flax": "Flax linen",
             "onnx": "ONNX"}  # fmt: skip
    for name, (bias, outputs, start) in imports.EXPECTED.items():
        outputs = outputs.replace("Bidirectional", "`Bidirectional`")
        packed = "packed: " if name == "torch" else ""
        assert shown[names[name]] == (bias, f"{packed}{outputs}; {start}")
