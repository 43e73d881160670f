"""Sequences as the command line classifies them, and what a classifier says of them."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from rnn_xp.backend import Backend
from rnn_xp.cli.confusion import Confusion
from rnn_xp.cli.report import NO_PICTURES, figure, fill
from rnn_xp.data.labelled import Labelled
from rnn_xp.forecasting import plotting

__all__ = [
    "Found",
    "about",
    "arrays",
    "check_features",
    "check_fit",
    "described",
    "of_classes",
    "page",
    "split",
    "usual",
]

_ELSEWHERE = ("verdict", "confusion", "classes", "interval")  # in the report


class Found:
    """The predictions of a classifier on some sequences."""

    def __init__(self, data: Labelled, model: Any, backend: Backend) -> None:
        self.data, self.model = data, model
        self.probable = model.predict_proba(arrays(data, backend))
        self.classes = [str(name) for name in model.classes_]
        self.labels = [self.classes[k] for k in self.probable.argmax(axis=1)]

    def confusion(self, usual: str) -> Confusion:
        """Return the counts of true and predicted classes."""
        return Confusion.of(self.classes, self.data.labels or (), self.labels, usual)

    def rows(self) -> list[dict[str, Any]]:
        """Return name, prediction and its probability of each sequence, and its label if known."""
        known = self.data.labels or [None] * len(self.labels)
        rows = zip(self.data.names, known, self.labels, self.probable.max(axis=1), strict=True)
        return [
            {"sequence": name, **({} if label is None else {"label": label}),
             "predicted": found, "probability": float(share)}
            for name, label, found, share in rows
        ]  # fmt: skip

    def csv(self) -> bytes:
        """Return the rows with the probability of every class."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        labelled = ["label"] if self.data.labels else []
        writer.writerow(["sequence", *labelled, "predicted", *(f"p({c})" for c in self.classes)])
        for row, shares in zip(self.rows(), self.probable, strict=True):
            label = [row["label"]] if labelled else []
            numbers = [f"{share:.6f}" for share in shares]
            writer.writerow([row["sequence"], *label, row["predicted"], *numbers])
        return text.getvalue().encode()


def page(
    found: Found, confusion: Confusion, facts: Mapping[str, Any], losses: Sequence[float]
) -> str:
    """Return the report as HTML."""
    shown = {key: value for key, value in facts.items() if key not in _ELSEWHERE}
    pictures = _pictures(found, confusion, losses)
    return fill(found.data.name, confusion.verdict(), confusion.lines(), [], pictures, shown)


def _pictures(found: Found, confusion: Confusion, losses: Sequence[float]) -> Iterator[str]:
    try:
        yield figure(confusion.plot(found.data.name), "True and predicted classes")
        if len(losses) > 0:
            yield figure(plotting.loss(losses), "Losses of the training")
    except ImportError:
        yield f"<p>{NO_PICTURES}</p>"


def about(data: Labelled) -> dict[str, Any]:
    """Return what identifies the data."""
    return {"name": data.name, "sequences": len(data.names), "sha256": data.sha256}


def of_classes(data: Labelled, option: str, least: int = 2) -> Labelled:
    """Refuse data without labels, or with fewer classes than are needed."""
    if data.labels is None:
        raise ValueError(
            f"{option}: {data.name} has no labels. A folder needs a folder for each class, a table "
            "the column that --label names, a .ts file @classLabel true."
        )
    if len(set(data.labels)) < least:
        raise ValueError(
            f"{option}: all sequences of {data.name} have the label {data.labels[0]!r}."
        )
    return data


def check_features(data: Labelled, features: list[str], option: str) -> None:
    """Refuse features other than those that were trained on."""
    if list(data.features) != features:
        raise ValueError(
            f"{option}: {data.name} has the features {', '.join(data.features)}, but those that "
            f"were trained on are {', '.join(features)}."
        )


def check_fit(data: Labelled, classes: list[str], features: list[str], option: str) -> None:
    """Refuse labels and features that the classifier was not trained on."""
    check_features(data, features, option)
    for name, label in zip(data.names, data.labels or (), strict=True):
        if label not in classes:
            raise ValueError(
                f"{option}: {name} has the label {label!r}, which no sequence that was trained on "
                f"has: {', '.join(classes)}."
            )


def split(data: Labelled, share: float, seed: int) -> tuple[Labelled, Labelled]:
    """Hold out a share of each class, drawn at random."""
    from sklearn.model_selection import train_test_split

    if not 0.0 < share < 1.0:
        raise ValueError(f"--test-fraction must be between 0 and 1, got {share:g}.")
    rows = np.arange(len(data.names))
    try:
        parts = train_test_split(rows, test_size=share, stratify=data.labels, random_state=seed)
    except ValueError as error:
        rare, count = Counter(data.labels or ()).most_common()[-1]
        raise ValueError(
            f"a test part with {share:g} of each class cannot be drawn from these {len(rows)} "
            f"sequences: {rare!r} has {count}. Give more of each, another --test-fraction, or "
            "--test."
        ) from error
    return tuple(
        data._replace(
            names=tuple(data.names[i] for i in part),
            sequences=tuple(data.sequences[i] for i in part),
            labels=tuple((data.labels or ())[i] for i in part),
        )
        for part in map(np.sort, parts)
    )  # type: ignore[return-value]


def arrays(data: Labelled, backend: Backend) -> list[Any]:
    """Return the sequences in the precision of the backend."""
    return [sequence.astype(backend.dtype_name) for sequence in data.sequences]


def usual(data: Labelled) -> str:
    """Return the most frequent label."""
    return Counter(data.labels or ()).most_common(1)[0][0]


def described(data: Labelled) -> str:
    """Return a line that describes sequences."""
    steps = [len(sequence) for sequence in data.sequences]
    span = str(steps[0]) if min(steps) == max(steps) else f"{min(steps)}..{max(steps)}"
    count, features = len(data.features), len(data.names)
    parts = [
        f"{data.name}: {features} {'sequence' if features == 1 else 'sequences'} of {span} steps",
        f"{count} {'feature' if count == 1 else 'features'}",
        f"{len(set(data.labels))} classes" if data.labels else "without labels",
        f"sha256 {data.sha256[:8]}",
    ]
    return ", ".join(parts)
