"""Rows of X, as people hold them: windows of one length, or sequences of unequal length."""

from __future__ import annotations

import warnings
from typing import Any, ClassVar, NamedTuple

import numpy as np
from sklearn.utils import check_array
from sklearn.utils.validation import check_X_y, validate_data

from rnn_xp._checks import readable
from rnn_xp.backend import array_namespace, device_of, to_numpy
from rnn_xp.data.sequences import as_list, check_lengths, features_first, pad, padding
from rnn_xp.estimators.arrays import beside, elsewhere

__all__ = ["NO_Y", "Reading", "Windows"]

NO_Y: Any = object()

_MANY_FEATURES = 20  # an array with fewer steps than features, and as many, looks transposed


class Windows(NamedTuple):
    """Windows (n, T, I), targets, and the number of steps of each row where they differ."""

    x: Any
    y: Any
    lengths: Any


class Reading:
    """How an estimator reads X and y."""

    _checks_of_y: ClassVar[dict[str, bool]]
    channels_first: Any
    n_features_in_: int
    _channels_first: bool
    _ragged: bool

    def _windows(
        self, X: Any, y: Any = NO_Y, lengths: Any = None, *, reset: bool
    ) -> Windows:  # fmt: skip
        """Check X and y, if there is one, and return X as windows (n, T, I)."""
        X, y = readable("X", X), readable("y", y)
        X, lengths = self._joined(X, y, readable("lengths", lengths), reset=reset)
        ragged = lengths is not None or _axes(X) == 3
        if reset:
            self._ragged = ragged
        X, y = self._checked(X, y, reset=reset, any_steps=ragged or self._ragged)
        if len(X.shape) not in (2, 3):
            raise ValueError(
                f"X must have shape (n, T), windows of one series, or (n, T, I), got {X.shape}; "
                "sequences of unequal length are a list of arrays (T,) or (T, I)."
            )
        x = X if len(X.shape) == 3 else X[:, :, None]
        if ragged:
            x, lengths = _ended(x, lengths)
        return Windows(x, y, lengths)

    def _joined(self, X: Any, y: Any, lengths: Any, *, reset: bool) -> tuple[Any, Any]:
        """Return X as one array in the order (n, T, I), and the lengths of its rows."""
        if self.channels_first not in ("auto", True, False):
            raise ValueError(
                f"channels_first must be 'auto', True or False, got {self.channels_first!r}."
            )
        known, auto = getattr(self, "_channels_first", False), self.channels_first == "auto"
        first = bool(self.channels_first) if not auto else known and not reset
        sequences = None
        if reset or self._ragged:
            sequences = as_list(X, len(y) if hasattr(y, "__len__") else None)
        if sequences is None:
            if reset:
                self._channels_first = first
                _warn_of_order(X, auto=auto)
            if first and _axes(X) == 3:
                X = X if hasattr(X, "shape") else np.asarray(X)
                X = array_namespace(X).permute_dims(X, (0, 2, 1))
            return X, lengths
        if lengths is not None:
            raise ValueError(
                "lengths= says where the rows of an array end, but X is a collection of sequences, "
                "each of which ends where it ends. Leave lengths out."
            )
        if hasattr(X, "iloc"):
            first = False
        elif auto and (shown := features_first(sequences)) is not None:
            first = shown
        if reset:
            self._channels_first = first
        original = sequences[0]
        x, lengths = pad(
            [to_numpy(row) if elsewhere(row) else row for row in sequences], channels_first=first
        )
        return (beside(original, x, original.dtype) if elsewhere(original) else x), lengths

    def _checked(self, X: Any, y: Any, *, reset: bool, any_steps: bool) -> tuple[Any, Any]:
        """Return X and y as arrays; NaN in X is allowed where rows may end before it."""
        kind = type(self).__name__
        if elsewhere(X):
            steps = X.shape[1] if len(X.shape) > 1 else 0
            if reset:
                self.n_features_in_ = steps
            elif steps != self.n_features_in_ and not any_steps:
                raise ValueError(
                    f"X has {steps} features, but {kind} is expecting "
                    f"{self.n_features_in_} features as input."
                )
            return X, y
        wanted: dict[str, Any] = {"dtype": [np.float64, np.float32], "allow_nd": True}
        if not any_steps:
            if y is NO_Y:
                return validate_data(self, X, reset=reset, **wanted), y
            checked: tuple[Any, Any] = validate_data(
                self, X, y, reset=reset, **wanted, **self._checks_of_y
            )
            return checked
        wanted |= {"ensure_all_finite": "allow-nan", "estimator": self}
        if y is NO_Y:
            X = check_array(X, input_name="X", **wanted)
        else:
            X, y = check_X_y(X, y, **wanted, **self._checks_of_y)
        if reset:
            vars(self).pop("feature_names_in_", None)
            self.n_features_in_ = X.shape[1]
        return X, y


def _shape(X: Any) -> tuple[int, ...]:
    if not hasattr(X, "shape") and hasattr(X, "__array__"):
        X = np.asarray(X)
    try:
        return tuple(X.shape if hasattr(X, "shape") else np.shape(X))
    except ValueError:  # lists of unequal length, which are named later
        return ()


def _axes(X: Any) -> int:
    return len(_shape(X))


def _warn_of_order(X: Any, *, auto: bool) -> None:
    """Warn where the features of a bare array (n, T, I) seem to come before its steps."""
    shape = _shape(X)
    if auto and len(shape) == 3 and shape[1] < shape[2] >= _MANY_FEATURES:
        warnings.warn(
            f"X of shape {shape} is read as {shape[1]} steps of {shape[2]} features. If it holds "
            f"{shape[1]} features of {shape[2]} steps, as arrays of aeon and sktime do, give "
            "channels_first=True; if not, channels_first=False ends this warning.",
            UserWarning,
            stacklevel=5,
        )


def _ended(x: Any, lengths: Any) -> tuple[Any, Any]:
    """Return x with zeros after the end of each row, and the lengths, if any row ends early."""
    xp = array_namespace(x)
    if not xp.isdtype(x.dtype, "real floating"):  # it is refused later, in words
        return x, lengths
    if lengths is None:
        if not bool(xp.any(xp.isnan(x))):
            return x, None
        lengths = padding(np.isnan(to_numpy(x)))
    else:
        lengths = check_lengths(to_numpy(lengths) if elsewhere(lengths) else lengths, x.shape)
    inside = np.arange(x.shape[1]) < lengths[:, None]
    if elsewhere(x):
        inside, lengths = (xp.asarray(a, device=device_of(x)) for a in (inside, lengths))
    x = xp.where(inside[:, :, None], x, xp.zeros_like(x))
    if bool(xp.any(xp.isnan(x))):
        row, step = (int(i) for i in np.argwhere(np.isnan(to_numpy(x)))[0][:2])
        raise ValueError(
            f"X[{row}] contains NaN at step {step}, inside its sequence of {int(lengths[row])} "
            "steps. Fill the gap first."
        )
    return x, lengths
