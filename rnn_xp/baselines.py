"""The two forecasts that every network is measured against.

Both work on the windows of `make_windows`, in original units::

    persistence   f[k, j] = x[k, T-1, 0]                                    for every step j
    linear AR     f[k, j] = intercept[j] + sum over t, i of x[k, t, i] * coef[t, i, j]
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["LinearAR", "fit_linear_ar", "persistence"]


def persistence(x: ArrayLike, horizon: int = 1) -> NDArray[np.floating[Any]]:
    """Forecast that the last value of column 0 stays as it is.

    Parameters
    ----------
    x : (N, T, I)
        Windows; column 0 is the target.
    horizon : int
        Steps to forecast, at least 1.

    Returns
    -------
    (N, horizon) array
        In the units and dtype of `x`.

    Raises
    ------
    ValueError
        If `x` does not have three axes or is empty, or `horizon` is below 1.

    Examples
    --------
    >>> persistence([[[1.0], [2.0]], [[2.0], [5.0]]], horizon=3).tolist()
    [[2.0, 2.0, 2.0], [5.0, 5.0, 5.0]]
    """
    windows = _windows(x)
    if horizon < 1:
        raise ValueError(f"horizon must be at least 1, got {horizon}.")
    return np.repeat(windows[:, -1, :1], horizon, axis=1)


@dataclass(frozen=True, eq=False)
class LinearAR:
    """A fitted linear autoregression, direct: a separate fit for each step of the horizon.

    Parameters
    ----------
    coef : (T, I, horizon) float64 array
        Weight of each value of the window.
    intercept : (horizon,) float64 array
        In the units of the target.

    See Also
    --------
    fit_linear_ar : find the coefficients.
    """

    coef: NDArray[np.float64]
    intercept: NDArray[np.float64]

    def predict(self, x: ArrayLike) -> NDArray[np.float64]:
        """Forecast from windows.

        Parameters
        ----------
        x : (N, T, I)
            Windows in the units of the fit.

        Returns
        -------
        (N, horizon) float64 array
            In the units of the target.

        Raises
        ------
        ValueError
            If the windows do not have the T and I of the fit.
        """
        windows = _windows(x)
        if windows.shape[1:] != self.coef.shape[:2]:
            raise ValueError(
                f"the fit was on windows (N, {self.coef.shape[0]}, {self.coef.shape[1]}), "
                f"got {windows.shape}. Use the same seq_length and columns."
            )
        return np.tensordot(windows, self.coef, axes=2) + self.intercept


def fit_linear_ar(x: ArrayLike, y: ArrayLike) -> LinearAR:
    """Fit a linear autoregression with intercept by least squares, in float64.

    Parameters
    ----------
    x : (N, T, I)
        Training windows.
    y : (N, horizon)
        The values that follow. With fewer windows than T * I + 1 coefficients the fit of smallest
        norm is taken.

    Returns
    -------
    LinearAR
        One set of T * I coefficients and an intercept per step of the horizon.

    Raises
    ------
    ValueError
        If `x` does not have three axes, `y` two, or they differ in N.

    Examples
    --------
    >>> from rnn_xp.windows import make_windows
    >>> x, y = make_windows([0.0, 1.0, 4.0, 9.0, 16.0, 25.0], seq_length=2)
    >>> model = fit_linear_ar(x, y)            # squares: v[t] = 2 v[t-1] - v[t-2] + 2
    >>> model.coef[:, 0, 0].round(6).tolist(), model.intercept.round(6).tolist()
    ([-1.0, 2.0], [2.0])
    >>> model.predict([[[25.0], [36.0]]]).round(6).tolist()
    [[49.0]]
    """
    windows = _windows(x)
    targets = np.asarray(y)
    if targets.ndim != 2 or len(targets) != len(windows):
        raise ValueError(
            f"y must have shape (N, horizon) with the N = {len(windows)} of x, got {targets.shape}."
        )
    _, steps, width = windows.shape
    design = np.hstack([np.ones((len(windows), 1)), windows.reshape(len(windows), -1)])
    solution = np.linalg.lstsq(design, targets, rcond=None)[0]
    return LinearAR(coef=solution[1:].reshape(steps, width, -1), intercept=solution[0])


def _windows(x: ArrayLike) -> NDArray[np.floating[Any]]:
    """Check that `x` has the shape (N, T, I), no axis empty."""
    windows = np.asarray(x)
    if windows.ndim != 3 or windows.size == 0:
        raise ValueError(
            f"windows must have shape (N, T, I), none of them 0, got {windows.shape}. "
            "Axes are window, time, column; see make_windows."
        )
    return windows
