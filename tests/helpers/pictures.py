"""Pictures that nobody looks at."""

from __future__ import annotations

import base64

import pytest

from rnn_xp import plotting
from rnn_xp.cli import report

DOT = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
)


@pytest.fixture(autouse=True)
def dots(request, monkeypatch):
    """Write a dot for each picture: drawing takes most of the time of a short training.

    With `--full`, and for tests with the mark `pictures`, pictures are drawn.
    """
    if not (request.config.option.full or request.node.get_closest_marker("pictures")):
        monkeypatch.setattr(plotting, "to_png", lambda ax: DOT if ax.figure else b"")
        monkeypatch.setattr(report, "to_svg", lambda ax, label: "<svg/>" if ax.figure else "")
