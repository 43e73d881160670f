"""Labels of the steps of sequences."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score
from sklearn.model_selection import train_test_split

from rnn_xp._checks import readable
from rnn_xp._typing import Array
from rnn_xp.backend import array_namespace, to_numpy
from rnn_xp.data.sequences import as_list
from rnn_xp.estimators.arrays import (
    Data,
    beside,
    check_weights,
    elsewhere,
    most_probable,
    softmax,
    take,
)
from rnn_xp.estimators.classification import RecurrentClassifier
from rnn_xp.estimators.reading import Windows
from rnn_xp.estimators.recurrent import Recurrent
from rnn_xp.training.inputs import on_host

__all__ = ["SequenceLabeler"]


class SequenceLabeler(Recurrent):
    """Recurrent network that labels each step of sequences, trained on the cross-entropy.

    {parameters}
    classes_ : array (C,)
        Sorted labels.

    Notes
    -----
    With ``bidirectional=True`` a label depends on all steps of its sequence, those after it as
    well; give False for labels that must be known at once.

    Steps without a label are left out of the loss and of the score, but the network reads them.

    scikit-learn has no kind of target with a label for each step: ``cross_val_score`` and searches
    work with lists and arrays all the same, but its own scorers do not.

    Examples
    --------
    >>> import numpy as np
    >>> import rnn_xp as rx
    >>> rng = np.random.default_rng(0)
    >>> x = [rng.standard_normal(steps) for steps in rng.integers(5, 9, size=60)]
    >>> y = [np.where(np.cumsum(row) > 0, "above", "below") for row in x]
    >>> model = rx.SequenceLabeler(hidden_size=8, max_iter=60, n_iter_no_change=None,
    ...                            random_state=0).fit(x, y)
    >>> model.score(x, y) > 0.95
    True
    >>> [len(labels) for labels in model.predict(x[:2])] == [len(x[0]), len(x[1])]
    True
    """

    _loss = "cross_entropy"
    _held_out = "They are sequences that are drawn at random."
    _topology = "many_to_many"
    _auto = RecurrentClassifier._auto
    _auto_rows = RecurrentClassifier._auto_rows
    _checks_of_y: ClassVar[dict[str, bool]] = {}
    classes_: Any

    def __init__(
        self,
        cell: str = "gru",
        hidden_size: int = 50,
        *,
        num_layers: int = 1,
        bidirectional: bool = True,
        activation: str = "tanh",
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
        n_estimators: int = 1,
    ) -> None:
        super().__init__(
            cell, hidden_size,
            num_layers=num_layers, bidirectional=bidirectional, activation=activation,
            dropout=dropout, recurrent_dropout=recurrent_dropout, layer_norm=layer_norm,
            residual=residual, solver=solver, learning_rate_init=learning_rate_init,
            learning_rate=learning_rate, alpha=alpha, clip_norm=clip_norm, batch_size=batch_size,
            max_iter=max_iter, tol=tol, n_iter_no_change=n_iter_no_change,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction, random_state=random_state,
            warm_start=warm_start, verbose=verbose, workers=workers, backend=backend,
            channels_first=channels_first, standardize=standardize, n_estimators=n_estimators,
        )  # fmt: skip

    def fit(
        self, X: Any, y: Any, sample_weight: Any = None, *, lengths: Any = None, mask: Any = None
    ) -> Self:
        """Train the network.

        Parameters
        ----------
        X : array (n, T) or (n, T, I), or sequences of unequal length
            See `rnn_xp.estimators`.
        y : array (n, T), or list of array (T_i,)
            Label of each step. What stands after the end of a sequence does not count.
        sample_weight : array (n,), optional
            Non-negative weight of each sequence.
        lengths : array (n,), optional
            Number of steps of each row, from 1 to T.
        mask : array (n, T) of bool, or list of array (T_i,) of bool, optional
            False for steps without a label, whatever y has there.

        Returns
        -------
        self
        """
        return self._fit(X, y, sample_weight, lengths, mask, partial=False)

    def partial_fit(
        self,
        X: Any,
        y: Any,
        classes: Any = None,
        sample_weight: Any = None,
        *,
        lengths: Any = None,
        mask: Any = None,
    ) -> Self:
        """Train for one more epoch on all the data given, with the solver's state kept.

        Parameters
        ----------
        classes : array (C,), optional
            All labels of this and later calls; by default the labels of the first call.
        """
        return self._fit(X, y, sample_weight, lengths, mask, partial=True, classes=classes)

    def _fit(
        self, X: Any, y: Any, sample_weight: Any, lengths: Any, mask: Any, *,
        partial: bool, classes: Any = None,
    ) -> Self:  # fmt: skip
        go_on = self._goes_on(partial)
        x, _, lengths = self._windows(X, lengths=lengths, reset=not go_on)
        labels, counted = _labels_of(y, mask, lengths, x.shape[:2])
        known = self.classes_ if go_on else np.unique(labels if classes is None else classes)
        if len(known) < 2:
            raise ValueError(
                f"{type(self).__name__} needs steps of at least 2 classes, got {len(known)} class."
            )
        index = np.searchsorted(known, labels)
        if not np.array_equal(known[np.minimum(index, len(known) - 1)], labels):
            raise ValueError(f"y has labels other than the classes {known}.")
        self.classes_ = known
        target, weights = np.zeros(counted.shape, np.int64), counted.astype(np.float64)
        target[counted] = index
        if sample_weight is not None:
            weights *= to_numpy(check_weights(sample_weight, x))[:, None]
        if not on_host(x):
            target, weights = (
                beside(x, target, array_namespace(x).int64),
                beside(x, weights, x.dtype),
            )
        return self._train(
            Windows(x, target, lengths), weights, len(known), partial=partial, go_on=go_on
        )

    def _hold_out(self, data: Data, share: float, seed: int) -> tuple[Data, int, dict[str, Any]]:
        """Hold out sequences, drawn at random."""
        parts = train_test_split(np.arange(data.x.shape[0]), test_size=share, random_state=seed)
        trained, held_out = (take(data, np.sort(part)) for part in parts)
        return trained, len(parts[0]), {"validation": held_out._asdict()}

    def _probabilities(self, X: Any, lengths: Any, method: str) -> Array:
        """Return the mean probabilities (n, T, C) of all networks."""
        each = [softmax(logits) for logits in self._raw(X, lengths, method)]
        return sum(each[1:], each[0]) / len(each)

    def predict_proba(self, X: Any, *, lengths: Any = None) -> Any:
        """Predict the probability of each class at each step.

        Returns
        -------
        array (n, T, C), or list of array (T_i, C)
            Columns are in the order of ``classes_``. It is a list if X is a collection of
            sequences of unequal length; in an array, what stands after the end of a row has no
            meaning.
        """
        return self._as_given(X, self._probabilities(X, lengths, "predict_proba"))

    def _as_given(self, X: Any, steps: Any) -> Any:
        """Return values (n, T, ...) as a list of sequences if X is such a collection."""
        if as_list(readable("X", X)) is None:
            return steps
        ends = self._windows(X, reset=False).lengths
        return [steps[i, : int(end), ...] for i, end in enumerate(to_numpy(ends))]

    def predict(self, X: Any, *, lengths: Any = None) -> Any:
        """Predict the most probable label of each step.

        Returns
        -------
        array (n, T), or list of array (T_i,)
            In the form of `predict_proba`. Labels are in the library of X; text, which only NumPy's
            arrays hold, is on the host.
        """
        probable = self._probabilities(X, lengths, "predict")
        return self._as_given(X, most_probable(probable, self.classes_))

    def score(
        self, X: Any, y: Any, sample_weight: Any = None, *, lengths: Any = None, mask: Any = None
    ) -> float:
        """Return the share of labelled steps whose label is right.

        Parameters
        ----------
        X, y, sample_weight, lengths, mask
            As for `fit`.

        Returns
        -------
        float
            Between 0 and 1.
        """
        x, _, ends = self._windows(X, lengths=lengths, reset=False)
        labels, counted = _labels_of(y, mask, ends, x.shape[:2])
        weights = None
        if sample_weight is not None:
            rows = to_numpy(check_weights(sample_weight, x))
            weights = np.broadcast_to(rows[:, None], counted.shape)[counted]
        found = most_probable(self._probabilities(X, lengths, "score"), self.classes_)
        predicted = (to_numpy(found) if elsewhere(found) else found)[counted]
        return float(accuracy_score(labels, predicted, sample_weight=weights))


def _labels_of(
    y: Any, mask: Any, lengths: Any, shape: tuple[int, ...]
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return the labels of all steps that have one, and which steps (n, T) these are.

    Parameters
    ----------
    y, mask
        As for `SequenceLabeler.fit`.
    lengths : array (n,) or None
    shape : (int, int)
        n and T.

    Raises
    ------
    ValueError, TypeError
        If they do not fit X, or a label is missing.
    """
    ends = np.full(shape[0], shape[1]) if lengths is None else np.asarray(to_numpy(lengths))
    inside = np.arange(shape[1]) < ends[:, None]
    counted = inside
    if mask is not None:
        given = _steps_of("mask", mask, ends, inside)
        if given.dtype != np.bool_:
            raise TypeError(
                f"mask must be bool, False for steps without a label, got {given.dtype}."
            )
        counted = np.zeros(shape, bool)
        counted[inside] = given
    labels = _steps_of("y", y, ends, inside)[counted[inside]]
    if not labels.size:
        raise ValueError("no step has a label: mask is False everywhere.")
    if labels.dtype == object:
        missing = np.array([label is None or label != label for label in labels])
    else:
        missing = np.isnan(labels) if labels.dtype.kind == "f" else np.zeros(len(labels), bool)
    if missing.any():
        row, step = (int(i) for i in np.argwhere(counted)[np.argmax(missing)])
        raise ValueError(
            f"y[{row}] has no label at step {step}. Leave steps without a label out with mask=, "
            "which is False for them."
        )
    return labels, counted


def _steps_of(
    name: str, values: Any, ends: NDArray[Any], inside: NDArray[np.bool_]
) -> NDArray[Any]:
    """Return the values of all steps, one sequence after the other."""
    values = readable(name, values)
    rows = as_list(values)
    if rows is None:
        array = to_numpy(values) if elsewhere(values) else np.asarray(values)
        if array.shape != inside.shape:
            raise ValueError(
                f"{name} must have the shape {inside.shape}, one value for each step of X, or be a "
                f"list of sequences of the lengths of those in X; got {array.shape}."
            )
        return array[inside]
    if len(rows) != len(ends):
        raise ValueError(f"{name} has {len(rows)} sequences, but X has {len(ends)}.")
    parts = [np.asarray(to_numpy(row) if elsewhere(row) else row) for row in rows]
    for i, (part, end) in enumerate(zip(parts, ends, strict=True)):
        if part.shape != (end,):
            raise ValueError(
                f"{name}[{i}] must have the shape ({end},), one value for each step of X[{i}]; "
                f"got {part.shape}."
            )
    return np.concatenate(parts)
