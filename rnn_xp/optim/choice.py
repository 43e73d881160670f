"""The optimiser for a smooth loss over the full batch, by the sizes of the network and the data."""

from __future__ import annotations

from typing import Any

from rnn_xp._checks import whole
from rnn_xp.optim.levenberg_marquardt import LevenbergMarquardt
from rnn_xp.optim.quasi_newton import LBFGS

__all__ = ["of_part", "suited"]

_ROWS = 1000  # of the Jacobian, from which the curvature is estimated
_PARAMETERS = 1000


def suited(parameters: int, rows: int, outputs: int = 1) -> LBFGS | LevenbergMarquardt:
    """Return the optimiser for a smooth loss, such as the squared error, over the full batch.

    It is Levenberg-Marquardt if there are at most 1000 parameters and no more than rows, and L-BFGS
    otherwise. With 131 parameters it reached the validation loss of L-BFGS on five of six series,
    in at most half of the time, and missed it by 1 % on the sixth; ``python -m
    benchmarks.optimizers`` measures both. Larger networks gain as well, but many small
    improvements keep them from ending for longer than these are worth.

    Parameters
    ----------
    parameters : int
        Number of parameters of the network.
    rows : int
        Number of samples to train on.
    outputs : int
        Number of predictions of a sample.

    Examples
    --------
    >>> type(suited(131, 8317)).__name__, type(suited(2651, 8317)).__name__
    ('LevenbergMarquardt', 'LBFGS')
    """
    return of_part(rows, outputs) if parameters <= min(_PARAMETERS, rows) else LBFGS()


def of_part(rows: int, outputs: int = 1, **options: Any) -> LevenbergMarquardt:
    """Return Levenberg-Marquardt with the curvature of about 1000 rows of the Jacobian.

    Parameters
    ----------
    rows, outputs : int
        As for `suited`.
    **options
        Further arguments of `LevenbergMarquardt`.

    Raises
    ------
    ValueError
        If ``rows`` or ``outputs`` is not an integer >= 1.

    Examples
    --------
    >>> of_part(8000).subsample
    0.125
    """
    rows, outputs = whole("of_part: rows", rows), whole("of_part: outputs", outputs)
    subsample = min(1.0, _ROWS / (rows * outputs))
    return LevenbergMarquardt(damping=1.0, decrease=0.5, subsample=subsample, **options)
