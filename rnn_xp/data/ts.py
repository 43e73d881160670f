"""Files in the ``.ts`` format of aeon and sktime [1]_: collections of sequences with labels.

::

    # a description
    @problemName Vowels
    @univariate false
    @dimensions 2
    @equalLength false
    @classLabel true ae oe
    @data
    1.5,1.7,?:0.2,0.1,0.3:ae
    1.1,1.2:0.4,0.5:oe

A line of data is a sequence: values of a feature are separated by commas, features by colons, and
the last part is the label, if there are labels. Values that are missing are ``?`` or ``NaN``; those
that all features lack at the end of a line are no values, but the sequence ended before.

References
----------
.. [1] https://www.aeon-toolkit.org/en/stable/api_reference/data_format.html
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rnn_xp.data.gaps import filled

__all__ = ["Content", "read_ts"]

_FLAGS = ("timestamps", "missing", "univariate", "equallength", "targetlabel")
_KEYS = {
    *_FLAGS, "problemname", "dimension", "dimensions", "serieslength", "classlabel", "data",
}  # fmt: skip
_GAPS = {"?", "nan"}


class Content(NamedTuple):
    """Names, sequences (T_i, F), labels and features of a file."""

    names: tuple[str, ...]
    sequences: tuple[NDArray[np.float64], ...]
    labels: tuple[str, ...] | None
    features: tuple[str, ...]


def read_ts(data: bytes, file: str, missing: str = "error") -> Content:
    r"""Read a file.

    Parameters
    ----------
    data : bytes
        Its content.
    file : str
        Its name in messages.
    missing : {"error", "drop", "interpolate"}
        As for `rnn_xp.data.labelled.read_labelled`.

    Returns
    -------
    Content
        Sequences are named after their lines, features after their order, from 0.

    Raises
    ------
    ValueError
        If the file is not what its header says; the message names the line.

    Examples
    --------
    >>> content = read_ts(b"@univariate true\n@classLabel true a b\n@data\n1,2,3:a\n4,5:b", "x.ts")
    >>> [row[:, 0].tolist() for row in content.sequences], content.labels
    ([[1.0, 2.0, 3.0], [4.0, 5.0]], ('a', 'b'))
    """
    try:
        lines = data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        row = data[: error.start].count(b"\n") + 1
        raise ValueError(f"{file}: line {row} is not UTF-8 text.") from error
    header, first = _read_header(lines, file)
    names, sequences, labels = [], [], []
    for number, line in enumerate(lines[first:], first + 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        parts, where = text.split(":"), f"{file}: line {number}"
        if header.classes is not None:
            labels.append(_label(parts.pop().strip(), header.classes, where))
        rows = [_numbers(part, where) for part in parts]
        sizes = {len(row) for row in rows}
        header.check(len(rows), sizes, where)
        sequence = np.array(rows).T
        here = np.flatnonzero(~np.isnan(sequence).all(axis=1))
        if not here.size:
            raise ValueError(f"{where} has no value. Leave the sequence out.")
        sequence = sequence[: here[-1] + 1]
        sequences.append(filled(sequence, missing, f"{where}, step {{}}".format))
        header.features = header.features or len(rows)
        names.append(f"line {number}")
    if not sequences:
        raise ValueError(f"{file} has no sequence below @data.")
    features = tuple(map(str, range(sequences[0].shape[1])))
    found = None if header.classes is None else tuple(labels)
    return Content(tuple(names), tuple(sequences), found, features)


class _Header:
    """What the header promises of every line."""

    classes: dict[str, str] | None = None
    features = 0  # unknown until the first line
    steps = 0
    equal = False

    def check(self, features: int, sizes: set[int], where: str) -> None:
        if len(sizes) > 1:
            raise ValueError(
                f"{where}: the features have {_listed(sizes)} values, but each must have one for "
                "each step."
            )
        if self.features and features != self.features:
            hint = " Is the label missing?" if features < self.features and self.classes else ""
            raise ValueError(
                f"{where} has {features} features, but {self.features} are expected.{hint}"
            )
        (size,) = sizes
        if self.equal and self.steps and size != self.steps:
            raise ValueError(
                f"{where} has {size} steps, but all sequences have {self.steps} by the header "
                "(@equalLength true)."
            )
        self.steps = self.steps or (size if self.equal else 0)


def _read_header(lines: list[str], file: str) -> tuple[_Header, int]:
    """Return the header, and the number of lines up to ``@data``."""
    header, seen = _Header(), set[str]()
    for number, line in enumerate(lines, 1):
        text, where = line.strip(), f"{file}: line {number}"
        if not text or text.startswith(("#", "%")):
            continue
        if not text.startswith("@"):
            raise ValueError(
                f"{where} comes before @data, but does not start with @ or #: {text[:40]!r}. Is "
                "this a .ts file?"
            )
        key, *words = text[1:].split()
        key = key.lower()
        if key not in _KEYS:
            raise ValueError(f"{where}: @{key} is not known. Valid: {', '.join(sorted(_KEYS))}.")
        if key in seen and key != "problemname":  # of which nothing depends
            raise ValueError(f"{where}: @{key} is there twice.")
        seen.add(key)
        if key == "data":
            return header, number
        _read_entry(header, key, words, where)
    raise ValueError(f"{file} has no line @data, after which the sequences come.")


def _read_entry(header: _Header, key: str, words: list[str], where: str) -> None:
    value = words[0].lower() if words else ""
    if key in _FLAGS or key == "classlabel":
        if value not in ("true", "false"):
            raise ValueError(f"{where}: @{key} must be true or false, got {value!r}.")
    elif key != "problemname" and not (value.isdecimal() and int(value) > 0):
        raise ValueError(f"{where}: @{key} must be a whole number >= 1, got {value!r}.")
    if key == "timestamps" and value == "true":
        raise ValueError(
            f"{where}: sequences with time stamps are not read. Write the values alone, one for "
            "each step, and @timeStamps false."
        )
    if key == "targetlabel" and value == "true":
        raise ValueError(
            f"{where}: the targets are numbers, but classes are needed. For numbers use "
            "rnn_xp.RecurrentRegressor."
        )
    if key == "classlabel" and value == "true":
        if len(set(words[1:])) < len(words[1:]) or not words[1:]:
            raise ValueError(f"{where}: @classLabel true must be followed by different labels.")
        header.classes = {label: label for label in words[1:]}
    elif key == "univariate" and value == "true":
        header.features = 1
    elif key in ("dimension", "dimensions"):
        header.features = int(value)
    elif key == "equallength":
        header.equal = value == "true"
    elif key == "serieslength":
        header.steps = int(value)


def _label(text: str, classes: dict[str, str], where: str) -> str:
    if text not in classes:
        raise ValueError(
            f"{where}: the label {text[:40]!r} is none of the header's: {', '.join(classes)}."
        )
    return text


def _numbers(text: str, where: str) -> list[float]:
    """Return the values of one feature; NaN where one is missing."""
    values = []
    for step, cell in enumerate(text.split(",")):
        word = cell.strip()
        try:
            value = math.nan if word.lower() in _GAPS else float(word)
        except ValueError:
            raise ValueError(
                f"{where}: value {step} is {word[:40]!r}, which is no number."
            ) from None
        if math.isinf(value):
            raise ValueError(f"{where}: value {step} is infinite.")
        values.append(value)
    return values


def _listed(sizes: set[int]) -> str:
    return " and ".join(map(str, sorted(sizes)))
