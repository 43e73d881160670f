"""Regression on windows."""

from __future__ import annotations

from typing import Any, ClassVar, Self

from sklearn.base import RegressorMixin
from sklearn.metrics import r2_score

from rnn_xp._checks import readable
from rnn_xp._typing import Array
from rnn_xp.estimators.arrays import beside
from rnn_xp.estimators.reading import Windows
from rnn_xp.estimators.recurrent import Recurrent
from rnn_xp.training.inputs import on_host

__all__ = ["RecurrentRegressor"]


class RecurrentRegressor(RegressorMixin, Recurrent):  # type: ignore[misc]
    """Recurrent network for regression on windows, trained on the mean squared error.

    {parameters}

    Examples
    --------
    >>> import rnn_xp as rx
    >>> x, y = rx.make_windows([i % 7 / 7 for i in range(200)], seq_length=10)
    >>> model = rx.RecurrentRegressor(hidden_size=8, solver="lbfgs", random_state=0)
    >>> model.fit(x, y[:, 0]).score(x, y[:, 0]) > 0.99
    True
    """

    _loss = "mse"
    _checks_of_y: ClassVar[dict[str, bool]] = {"multi_output": True, "y_numeric": True}

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def fit(self, X: Any, y: Any, sample_weight: Any = None, *, lengths: Any = None) -> Self:
        """Train the network.

        Parameters
        ----------
        X : array (n, T) or (n, T, I), or sequences of unequal length
            See `rnn_xp.estimators`.
        y : array (n,) or (n, O)
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
        self, X: Any, y: Any, sample_weight: Any = None, *, lengths: Any = None
    ) -> Self:  # fmt: skip
        """Train for one more epoch on all the data given, with the solver's state kept."""
        return self._fit(X, y, sample_weight, lengths, partial=True)

    def _fit(
        self, X: Any, y: Any, sample_weight: Any, lengths: Any, *, partial: bool
    ) -> Self:  # fmt: skip
        go_on = self._goes_on(partial)
        x, y, lengths = self._windows(X, y, lengths, reset=not go_on)
        y = y if on_host(x) else beside(x, y, x.dtype)
        self._flat = len(y.shape) == 1
        y = y[:, None] if self._flat else y
        windows = Windows(x, y, lengths)
        return self._train(windows, sample_weight, y.shape[1], partial=partial, go_on=go_on)

    def predict(self, X: Any, *, lengths: Any = None) -> Array:
        """Predict the targets of windows.

        Parameters
        ----------
        X : array (n, T) or (n, T, I), or sequences of unequal length
            See `rnn_xp.estimators`.
        lengths : array (n,), optional
            Number of steps of each row, from 1 to T.

        Returns
        -------
        array (n,) or (n, O)
            The shape is that of the training targets.
        """
        outs = self._raw(X, lengths, "predict")
        out: Array = sum(outs[1:], outs[0]) / len(outs)
        return out[:, 0] if self._flat else out

    def score(
        self, X: Any, y: Any, sample_weight: Any = None, *, lengths: Any = None
    ) -> float:  # fmt: skip
        """Return the R^2 of the forecasts.

        Parameters
        ----------
        X : array (n, T) or (n, T, I), or sequences of unequal length
            See `rnn_xp.estimators`.
        y : array (n,) or (n, O)
        sample_weight : array (n,), optional
            Non-negative weight of each window.
        lengths : array (n,), optional
            Number of steps of each row, from 1 to T.

        Returns
        -------
        float
            1 is perfect, and 0 is as good as the mean of y.
        """
        weights = readable("sample_weight", sample_weight)
        predicted = self.predict(X, lengths=lengths)
        return float(r2_score(readable("y", y), predicted, sample_weight=weights))
