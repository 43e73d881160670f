"""scikit-learn estimators: recurrent networks over windows.

Rows of X are windows, (n, T) of one series or (n, T, I) with I features at each step, in order of
time. What scikit-learn has a name for has that name here; what a network is made of has the name
that `rnn_xp.Network` gives it.

X of NumPy is computed on NumPy, float32 in float32 and anything else in float64; arrays of another
library stay where they are, and predictions are arrays of that library on the same device.
``backend=`` sends NumPy data elsewhere and brings predictions back.
"""

try:
    import sklearn  # noqa: F401
except ImportError as error:
    raise ImportError(
        "RecurrentRegressor and RecurrentClassifier need scikit-learn >= 1.6. Install it with: "
        "pip install 'rnn-xp[sklearn]'"
    ) from error

from rnn_xp.estimators.classification import RecurrentClassifier
from rnn_xp.estimators.regression import RecurrentRegressor

__all__ = ["RecurrentClassifier", "RecurrentRegressor"]
