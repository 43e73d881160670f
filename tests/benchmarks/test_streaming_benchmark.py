"""The benchmark of the latency of one row: what is timed is right, and a slow step is refused."""

from __future__ import annotations

import numpy as np
import pytest

import rnn_xp as rx
from benchmarks.cpu import streaming


@pytest.mark.parametrize("cell", streaming.CELLS)
@pytest.mark.parametrize("steps", [1, 7])
def test_all_contenders_predict_the_same(cell, steps):
    net = rx.Network(cell=cell, hidden_size=streaming.HIDDEN)
    params = net.init(0, streaming.BACKEND)
    x = np.ones((1, steps, 1), dtype="float32")
    names = [contender.name for contender in streaming.contenders(net, params, x)]
    assert names[:2] == ["rx.Stream", "Network.predict"]


def test_a_wrong_prediction_is_not_timed(monkeypatch):
    monkeypatch.setattr(streaming, "stream", lambda *given: lambda: np.zeros((1, 1), "float32"))
    net = rx.Network(hidden_size=streaming.HIDDEN)
    with pytest.raises(AssertionError, match="Not equal"):
        streaming.contenders(net, net.init(0, streaming.BACKEND), np.ones((1, 3, 1), "float32"))


@pytest.mark.parametrize(("step", "status"), [(19.0, 0), (21.0, 1)])
def test_the_limit_is_for_steps(monkeypatch, capsys, tmp_path, step, status):
    def measured(cell, steps):
        return {"rx.Stream": step if steps == 1 else 60.0, "onnxruntime": 30.0}

    monkeypatch.setattr(streaming, "measure", measured)
    path = tmp_path / "page.md"
    assert streaming.main(["--cells", "gru", "--out", str(path)]) == status
    assert "| gru | T = 100 | 60.0 | 30.0 | 2.00 |" in capsys.readouterr().out
    assert f"A step takes at most {step:.1f} microseconds; limit 20." in path.read_text()
