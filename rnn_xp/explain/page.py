"""One self-contained HTML file out of numbers: data, style and script in a single page.

The parts of the page lie in ``browser/``. Nothing in the file refers to a network. All texts travel
as JSON, whose "<" is escaped, and the script shows them as text; so no name can become markup.
"""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Mapping
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["in_frame", "render"]

_SCRIPTS = (  # in the order in which the page reads them
    *("data", "net", "complex", "lstm", "state", "heat", "chart"),
    *("entry", "terms", "time", "right", "unrolled", "picture", "shares", "flow", "broken"),
    "main",
)


def render(title: str, data: Mapping[str, Any]) -> str:
    """Return the page as HTML.

    Parameters
    ----------
    title : str
        Title of the page, in any characters.
    data : mapping
        Numbers, texts, lists, mappings and float64 arrays, for the page's script.
    """
    folder = resources.files("rnn_xp.explain") / "browser"
    script = "\n".join((folder / f"{name}.js").read_text("utf-8") for name in _SCRIPTS)
    text = json.dumps(data, default=_encode, allow_nan=False).replace("<", "\\u003c")
    page = (folder / "page.html").read_text("utf-8")
    parts = {
        "TITLE": html.escape(title),
        "STYLE": (folder / "page.css").read_text("utf-8"),
        "DATA": text,
        "SCRIPT": script,
    }
    # In one go, so that nothing in a part is taken for the place of another.
    return re.sub("@(TITLE|STYLE|DATA|SCRIPT)@", lambda match: parts[match[1]], page)


def in_frame(page: str, *, height: int = 900) -> str:
    """Return a frame with the page in it, which keeps its style and script apart from others."""
    return (
        f'<iframe srcdoc="{html.escape(page)}" title="BPTT, step by step" '
        f'style="width: 100%; height: {height}px; border: 0"></iframe>'
    )


def _encode(array: NDArray[np.float64]) -> dict[str, Any]:
    """Write an array as the 8 bytes of each of its numbers, so that no bit is lost."""
    numbers = np.ascontiguousarray(array, dtype="<f8")
    return {"shape": list(array.shape), "f8": base64.b64encode(numbers.tobytes()).decode()}
