"""The scaler that a caller gives with a file: an object, or the spelling of the command line."""

from __future__ import annotations

import re

import numpy as np
import pytest

import rnn_xp as rx
from rnn_xp.data.scalers import Scaler
from rnn_xp.interchange import load


@pytest.mark.parametrize(
    ("text", "columns", "expected"),
    [
        ("standard:20:3", 1, Scaler("standard", (20.0,), (3.0,))),
        ("minmax:20,1.5:3,0.1", 2, Scaler("minmax", (20.0, 1.5), (3.0, 0.1))),
    ],
)
def test_a_written_scaler_is_the_object_it_stands_for(tmp_path, text, columns, expected):
    net = rx.Network(cell="gru", input_size=columns, hidden_size=2)
    path = tmp_path / "weights.npz"
    np.savez(path, **rx.interchange.torch.to_state_dict(net, net.init(seed=0)))
    result = load(path, scaler=text)
    assert result.scaler == load(path, scaler=expected).scaler == expected
    assert "scaler" not in result.assumed


@pytest.mark.parametrize(
    ("scaler", "error", "match"),
    [
        ("standard:20", ValueError, "scaler='standard:20' is no scaler such as standard:20:3"),
        ("other:1:1", ValueError, "scaler='other:1:1' is no scaler such as standard:20:3"),
        ((20.0, 3.0), TypeError, "Scaler or a text KIND:OFFSET:SCALE such as 'standard:20:3', got"),
    ],
)
def test_what_is_no_scaler_is_refused_before_the_file_is_read(scaler, error, match):
    with pytest.raises(error, match=re.escape(match)):
        load("nowhere", scaler=scaler)
