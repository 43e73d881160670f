"""Estimators for scikit-learn: recurrent networks over windows (extra ``sklearn``).

Rows of X are windows, (n, T) of one series or (n, T, I) with I features at each step, in order of
time. Parameters have scikit-learn's names where it has one, and otherwise those of
`rnn_xp.Network`.

Sequences of unequal length are given as people hold them: a list or object array of arrays (T_i,)
or (T_i, I); an array (n, T, I) that is NaN after the end of each row, as those of tslearn; an array
with the number of steps of each row, ``lengths=``, which scikit-learn routes as metadata; lists of
aeon, (I, T_i); and frames of sktime, whose cells hold series or whose index is (sequence, time).
Sequences may be shorter or longer when they are predicted than when they were trained on.

NumPy data is computed on NumPy, float32 in float32 and every other dtype in float64. Arrays of
another library stay on their device, and predictions are arrays of that library on it.
``backend=`` computes NumPy data with another library and returns NumPy predictions.
"""

from rnn_xp._checks import install

try:
    import sklearn  # noqa: F401
except ImportError as error:
    raise ImportError(
        f"The estimators of rnn_xp need scikit-learn >= 1.6. Install it with: {install('sklearn')}"
    ) from error

from rnn_xp.estimators.classification import RecurrentClassifier
from rnn_xp.estimators.labelling import SequenceLabeler
from rnn_xp.estimators.regression import RecurrentRegressor

__all__ = ["RecurrentClassifier", "RecurrentRegressor", "SequenceLabeler"]
