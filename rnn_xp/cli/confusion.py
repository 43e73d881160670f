"""How a classifier did: accuracy, the confusion matrix as text and as a picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnn_xp.forecasting import looks

__all__ = ["Confusion", "wilson"]

_CORNER = "true \\ predicted"
_Z = 1.959964  # of a two-sided interval of 95 %
_FEW_CLASSES = 15  # whose counts can be written into the picture


def wilson(right: int, n: int) -> tuple[float, float]:
    """Return the 95 % score interval of a share [1]_.

    References
    ----------
    .. [1] E. B. Wilson, "Probable inference, the law of succession, and statistical inference",
           Journal of the American Statistical Association 22, 1927, 209-212.

    Examples
    --------
    >>> [round(end, 3) for end in wilson(95, 100)]
    [0.888, 0.978]
    """
    share, z2 = right / n, _Z**2
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


@dataclass(frozen=True)
class Confusion:
    """Counts of true and predicted classes.

    Attributes
    ----------
    classes : sequence of C str
    counts : array (C, C)
        ``counts[i, j]``: sequences of class i that were taken for class j.
    usual : str
        The most frequent class of the data that were trained on.
    """

    classes: Sequence[str]
    counts: NDArray[np.int64]
    usual: str

    @classmethod
    def of(
        cls, classes: Sequence[str], truth: Sequence[str], found: Sequence[str], usual: str
    ) -> Confusion:
        """Count pairs of true and predicted classes."""
        place = {name: i for i, name in enumerate(classes)}
        counts = np.zeros((len(classes), len(classes)), np.int64)
        for true, predicted in zip(truth, found, strict=True):
            counts[place[true], place[predicted]] += 1
        return cls(classes, counts, usual)

    @property
    def right(self) -> int:
        """Number of sequences whose class was found."""
        return int(np.trace(self.counts))

    @property
    def total(self) -> int:
        """Number of sequences."""
        return int(self.counts.sum())

    @property
    def of_usual(self) -> int:
        """Number of sequences of the class that was most frequent before."""
        return int(self.counts[self.classes.index(self.usual)].sum())

    def verdict(self) -> str:
        """Return a sentence on how good that is."""
        low, high = wilson(self.right, self.total)
        said = (
            f"right for {self.right} of {self.total} sequences: accuracy "
            f"{self.right / self.total:.3f}, 95 % interval {low:.3f}..{high:.3f}; always "
            f"{self.usual!r} would be right for {self.of_usual / self.total:.3f}"
        )
        if low <= self.of_usual / self.total:
            said += ", which these few sequences do not tell from it"
        return said

    def lines(self) -> list[str]:
        """Return the matrix as lines of text, with recall and precision."""
        names = [str(name) for name in self.classes]
        first = max(len(_CORNER), *map(len, names))
        widths = [max(len(name), len(str(self.counts.max())), 4) for name in names]
        head = [f"{name:>{width}}" for name, width in zip(names, widths, strict=True)]
        lines = [f"{_CORNER:{first}}  {'  '.join(head)}  recall"]
        for name, row in zip(names, self.counts, strict=True):
            cells = [f"{count:>{width}}" for count, width in zip(row, widths, strict=True)]
            lines.append(f"{name:{first}}  {'  '.join(cells)}  {_share(row, name, names):>6}")
        columns = zip(names, self.counts.T, strict=True)
        shares = [_share(column, name, names) for name, column in columns]
        cells = [f"{share:>{width}}" for share, width in zip(shares, widths, strict=True)]
        return [*lines, f"{'precision':{first}}  {'  '.join(cells)}"]

    def summary(self) -> dict[str, Any]:
        """Return the scores and counts for JSON."""
        low, high = wilson(self.right, self.total)
        rows = self.counts.sum(axis=1)
        recall = np.diag(self.counts)[rows > 0] / rows[rows > 0]
        return {
            "sequences": self.total, "accuracy": self.right / self.total, "interval": [low, high],
            "balanced_accuracy": float(recall.mean()), "most_frequent": self.usual,
            "accuracy_of_most_frequent": self.of_usual / self.total,
            "classes": list(self.classes), "confusion": self.counts.tolist(),
            "verdict": self.verdict(),
        }  # fmt: skip

    def plot(self, title: str = "") -> Any:
        """Draw the matrix, darker for larger shares of a true class; return the Axes.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        ax = looks.new_axes()
        size = len(self.classes)
        ax.figure.set_size_inches(*([max(4.5, min(12.0, 2.5 + 0.55 * size))] * 2))
        shares = self.counts / np.maximum(self.counts.sum(axis=1, keepdims=True), 1)
        ax.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0)
        ax.set_xticks(range(size), self.classes, rotation=90 if size > 6 else 0)
        ax.set_yticks(range(size), self.classes)
        ax.set_xlabel("predicted class")
        ax.set_ylabel("true class")
        ax.set_title(title)
        if size <= _FEW_CLASSES:
            for i, j in np.ndindex(size, size):
                color = "white" if shares[i, j] > 0.5 else "black"
                ax.text(j, i, str(self.counts[i, j]), ha="center", va="center", color=color)
        return ax


def _share(counts: NDArray[np.int64], name: str, names: list[str]) -> str:
    """Return the share of a row or column that is right; a dash if it is empty."""
    total = int(counts.sum())
    return f"{counts[names.index(name)] / total:.2f}" if total else "-"
