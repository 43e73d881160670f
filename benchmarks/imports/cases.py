"""Files on disk with what their maker predicts from them, for `rnn_xp.interchange.load`."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np


@dataclasses.dataclass
class Case:
    """One file.

    ``hints`` are arguments of `load`; ``refused`` is a part of the message where a network here
    cannot be what the file holds, and otherwise the predictions must agree.
    """

    maker: str
    about: str
    file: str
    hints: dict
    refused: str


class Cases:
    """The cases of one maker, in a folder."""

    def __init__(self, folder, maker):
        self.folder, self.maker, self.listed = Path(folder), maker, []

    def path(self, suffix):
        """Return the path of the next file."""
        return str(self.folder / f"{self.maker}-{len(self.listed):02}{suffix}")

    def add(self, about, path, x=None, pred=None, refused="", **hints):
        """List a file that is written, with inputs (N, T, I) and the maker's predictions."""
        if pred is not None:
            np.savez(f"{path}.expected", x=np.asarray(x), pred=np.asarray(pred))
        name = Path(path).name
        self.listed.append(Case(self.maker, about, name, hints, refused))

    def write(self):
        """Write the list beside the files."""
        lines = [json.dumps(dataclasses.asdict(case)) for case in self.listed]
        (self.folder / f"{self.maker}.jsonl").write_text("\n".join(lines) + "\n")


def read(folder):
    """Read the cases of all makers in a folder."""
    return [
        Case(**json.loads(line))
        for path in sorted(Path(folder).glob("*.jsonl"))
        for line in path.read_text().splitlines()
    ]
