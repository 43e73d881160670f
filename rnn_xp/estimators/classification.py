"""Classification of windows."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.metrics import accuracy_score
from sklearn.model_selection import train_test_split
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets

from rnn_xp._checks import readable
from rnn_xp._typing import Array
from rnn_xp.backend import array_namespace, to_numpy
from rnn_xp.estimators.arrays import Data, beside, elsewhere, most_probable, softmax, take
from rnn_xp.estimators.reading import Windows
from rnn_xp.estimators.recurrent import Recurrent
from rnn_xp.training.inputs import on_host

__all__ = ["RecurrentClassifier"]


_FEW_ROWS = 32


class RecurrentClassifier(ClassifierMixin, Recurrent):  # type: ignore[misc]
    """Recurrent network that classifies windows, trained on the cross-entropy.

    {parameters}
    classes_ : array (C,)
        Sorted labels.

    Notes
    -----
    ``class_weight``, a dict of labels and weights or "balanced", multiplies the weights of the
    samples of each class, of those held out as well; "balanced" gives every class the same total.

    Several labels of a window are learned by a classifier each, as scikit-learn's
    ``MultiOutputClassifier`` makes them of this one.

    Examples
    --------
    >>> import numpy as np
    >>> import rnn_xp as rx
    >>> x = np.random.default_rng(0).standard_normal((200, 5))
    >>> label = np.where(x.sum(axis=1) > 0, "up", "down")
    >>> model = rx.RecurrentClassifier(hidden_size=8, solver="lbfgs", random_state=0)
    >>> model.fit(x, label).score(x, label) > 0.95
    True
    """

    _loss = "cross_entropy"
    _held_out = """They are drawn at random, with the share of each class that it has in y, because
        the samples are independent."""
    _checks_of_y: ClassVar[dict[str, bool]] = {}
    _auto = """a sixteenth of the windows that are trained on, but from 8 to 200, or all of
        them if there are no more than 32"""
    classes_: Any

    def __init__(
        self,
        cell: str = "gru",
        hidden_size: int = 50,
        *,
        num_layers: int = 1,
        bidirectional: bool = True,
        activation: str = "tanh",
        read: str = "max",
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        layer_norm: bool = False,
        residual: bool = False,
        solver: Any = "adam",
        learning_rate_init: float = 1e-2,
        learning_rate: str = "cosine",
        alpha: float = 0.0,
        clip_norm: float | str | None = "auto",
        batch_size: int | str = "auto",
        max_iter: int = 200,
        tol: float = 1e-4,
        n_iter_no_change: int | None = None,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        random_state: Any = None,
        warm_start: bool = False,
        verbose: bool = False,
        workers: int | None = None,
        backend: Any = None,
        channels_first: bool | str = "auto",
        standardize: bool = True,
        patch_size: int | str = "auto",
        n_estimators: int = 5,
        class_weight: Any = None,
    ) -> None:
        super().__init__(
            cell, hidden_size,
            num_layers=num_layers, bidirectional=bidirectional, activation=activation, read=read,
            dropout=dropout, recurrent_dropout=recurrent_dropout, layer_norm=layer_norm,
            residual=residual, solver=solver, learning_rate_init=learning_rate_init,
            learning_rate=learning_rate, alpha=alpha, clip_norm=clip_norm, batch_size=batch_size,
            max_iter=max_iter, tol=tol, n_iter_no_change=n_iter_no_change,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction, random_state=random_state,
            warm_start=warm_start, verbose=verbose, workers=workers, backend=backend,
            channels_first=channels_first, standardize=standardize, patch_size=patch_size,
            n_estimators=n_estimators,
        )  # fmt: skip
        self.class_weight = class_weight

    def _auto_rows(self, rows: int) -> int:
        # Where all rows are in an update, a row of weight two is the same as two rows.
        return rows if rows <= _FEW_ROWS else min(200, max(8, -(-rows // 16)))

    def fit(self, X: Any, y: Any, sample_weight: Any = None, *, lengths: Any = None) -> Self:
        """Train the network.

        Parameters
        ----------
        X : array (n, T) or (n, T, I), or sequences of unequal length
            See `rnn_xp.estimators`.
        y : array (n,)
            Label of each window.
        sample_weight : array (n,), optional
            Non-negative weight of each window.
        lengths : array (n,), optional
            Number of steps of each row, from 1 to T.

        Returns
        -------
        self
        """
        return self._fit(X, y, sample_weight, lengths, partial=False)

    def partial_fit(
        self,
        X: Any,
        y: Any,
        classes: Any = None,
        sample_weight: Any = None,
        *,
        lengths: Any = None,
    ) -> Self:  # fmt: skip
        """Train for one more epoch on all the data given, with the solver's state kept.

        Parameters
        ----------
        classes : array (C,), optional
            All labels of this and later calls; by default the labels of the first call.
        """
        return self._fit(X, y, sample_weight, lengths, partial=True, classes=classes)

    def _fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any,
        lengths: Any,
        *,
        partial: bool,
        classes: Any = None,
    ) -> Self:
        go_on = self._goes_on(partial)
        _check_one_label(y)
        x, y, lengths = self._windows(X, y, lengths, reset=not go_on)
        labels = to_numpy(y) if elsewhere(y) else np.asarray(y)
        check_classification_targets(labels)
        known = self.classes_ if go_on else np.unique(labels if classes is None else classes)
        if len(known) < 2:
            raise ValueError(
                f"{type(self).__name__} needs samples of at least 2 classes, got {len(known)} class"
            )
        index = np.searchsorted(known, labels)
        if not np.array_equal(known[np.minimum(index, len(known) - 1)], labels):
            raise ValueError(f"y has labels other than the classes {known}.")
        self.classes_ = known
        target = index if on_host(x) else beside(x, index, array_namespace(x).int64)
        if self.class_weight is not None:
            share = compute_sample_weight(self.class_weight, labels)
            if sample_weight is not None:
                given = readable("sample_weight", sample_weight)
                share = share * (to_numpy(given) if elsewhere(given) else np.asarray(given))
            sample_weight = share
        windows = Windows(x, target, lengths)
        return self._train(windows, sample_weight, len(known), partial=partial, go_on=go_on)

    def _hold_out(self, data: Data, share: float, seed: int) -> tuple[Data, int, dict[str, Any]]:
        """Hold out samples of each class, drawn at random."""
        labels = self.classes_[to_numpy(data.y)]
        try:
            parts = train_test_split(
                np.arange(len(labels)), test_size=share, stratify=labels, random_state=seed
            )
        except ValueError as error:
            reason = str(error).rstrip(".")
            raise ValueError(
                f"early_stopping=True holds out a share of each class, which these {len(labels)} "
                f"samples do not allow: {reason}. Give more samples, another "
                "validation_fraction, or early_stopping=False."
            ) from error
        trained, held_out = (take(data, np.sort(part)) for part in parts)
        return trained, len(parts[0]), {"validation": held_out._asdict()}

    def predict_proba(self, X: Any, *, lengths: Any = None) -> Array:
        """Predict the probability of each class.

        Returns
        -------
        array (n, C)
            Columns are in the order of ``classes_``; each row sums to 1.
        """
        return self._probabilities(X, lengths, "predict_proba")

    def _probabilities(self, X: Any, lengths: Any, method: str) -> Array:
        """Return the mean probabilities of all networks."""
        each = [softmax(logits) for logits in self._raw(X, lengths, method)]
        return sum(each[1:], each[0]) / len(each)

    def predict(self, X: Any, *, lengths: Any = None) -> Array:
        """Predict the most probable label of each window, (n,).

        Labels are in the library of X; text, which only NumPy's arrays hold, is on the host.
        """
        return most_probable(self._probabilities(X, lengths, "predict"), self.classes_)

    def score(
        self, X: Any, y: Any, sample_weight: Any = None, *, lengths: Any = None
    ) -> float:  # fmt: skip
        """Return the share of windows whose label is right.

        Parameters
        ----------
        X : array (n, T) or (n, T, I), or sequences of unequal length
            See `rnn_xp.estimators`.
        y : array (n,)
        sample_weight : array (n,), optional
            Non-negative weight of each window.
        lengths : array (n,), optional
            Number of steps of each row, from 1 to T.

        Returns
        -------
        float
            Between 0 and 1.
        """
        weights = readable("sample_weight", sample_weight)
        predicted = self.predict(X, lengths=lengths)
        return float(accuracy_score(readable("y", y), predicted, sample_weight=weights))


def _check_one_label(y: Any) -> None:
    """Refuse several labels of a window."""
    shape: tuple[int, ...] = getattr(y, "shape", ())
    if len(shape) == 2 and shape[1] > 1:
        raise ValueError(
            f"y should be a 1d array with a label for each window, got shape {tuple(shape)}. For "
            f"{shape[1]} labels each wrap the classifier in "
            "sklearn.multioutput.MultiOutputClassifier; for a label at each step there is "
            "rnn_xp.SequenceLabeler."
        )
