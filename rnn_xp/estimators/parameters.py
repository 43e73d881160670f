"""What the docstrings of all estimators say about their parameters and attributes."""

from __future__ import annotations

import inspect
import re
from typing import Any

__all__ = ["parameters_of"]

_PARAMETERS = """
    Parameters
    ----------
    cell : {"rnn", "gru", "lstm"}
        Kind of the recurrent cell.
    hidden_size : int
        Number of hidden units of each layer and direction.
    num_layers : int
        Number of recurrent layers.
    bidirectional : bool
        If True, each layer has a second direction that reads time backwards.
    activation : {"tanh", "relu"}
        Activation of the cell "rnn".
    read : {"last", "mean", "max"}
        Hidden state that the readout sees: the last one, or the mean or maximum over the window.
    dropout : float
        Dropout rate in [0, 1) between layers.
    recurrent_dropout : float
        Dropout rate in [0, 1) of the hidden state.
    layer_norm : bool
        If True, the cell normalises its projections.
    residual : bool
        If True, every layer but the first adds its input to its output.
    solver : str or Optimizer
        "adam", "adamw", "rmsprop", "adagrad", "sgd", "lbfgs", "levenberg_marquardt" or
        "hessian_free"; the last three use all windows in every update, and no learning rate.
        Levenberg-Marquardt is the best choice for up to some thousand weights and float64 data.
        An object of `rnn_xp.optim` has settings of its own, and `learning_rate_init`, `alpha` and
        `clip_norm` are then ignored.
    learning_rate_init : float
        Learning rate of the first update; ignored by solvers that have none.
    learning_rate : {"constant", "cosine"}
        "cosine" lets the rate fall to 0 along half a cosine wave over the ``max_iter`` epochs,
        counted from the first one where `fit` continues. `partial_fit`, whose end is not known,
        has a constant rate.
    alpha : float
        L2 penalty on the weights: ``alpha / 2 * |w|**2`` is added to the mean loss; for "adamw" it
        is the weight decay. Not available for "lbfgs".
    clip_norm : float, "auto" or None
        Largest norm of a gradient. Only for solvers with a learning rate; "auto" is 1 for them.
    batch_size : int or "auto"
        Number of windows in an update, clipped to the number of windows that are trained on;
        "auto" is {auto}. Solvers without a learning rate always use all of them.
    max_iter : int
        Largest number of epochs.
    tol : float
        Minimum relative decrease of the loss that counts as an improvement.
    n_iter_no_change : int, optional
        Number of epochs without an improvement after which training ends. None never ends it:
        ``max_iter`` is then the number of epochs that is meant. Otherwise `fit` warns with
        scikit-learn's ``ConvergenceWarning`` if ``max_iter`` ends the training first, as
        ``MLPClassifier`` does; `partial_fit` never warns.
    early_stopping : bool
        If True, some windows are held out, and the weights with the lowest loss on them are kept.
        {held_out}
    validation_fraction : float
        Fraction of the windows to hold out for early stopping, in (0, 1).
    random_state : int, RandomState or None
        Seeds the initial weights, the order of minibatches and dropout.
    warm_start : bool
        If True, `fit` continues from the weights and the solver's state of the last call.
    verbose : bool
        If True, progress is reported on standard error.
    workers : int, optional
        Number of threads, all cores by default. Results do not depend on it.
    backend : str or Backend, optional
        Backend that computes NumPy data, see `rnn_xp.get_backend`; NumPy by default.

    channels_first : bool or "auto"
        If True, features come before steps in X, (n, I, T) and (I, T), as in arrays of aeon and
        sktime. "auto" sees it where sequences of unequal length show it; it reads other arrays
        as (n, T, I), and warns if they look transposed.
    standardize : bool
        If True, the network sees each feature of X with the mean 0 and the standard deviation 1
        that it has over all steps of the rows that are trained on, by their weights.
    patch_size : int or "auto"
        Number of consecutive steps that the network reads as one, with all their features; "auto"
        gives the longest sequence that is trained on 64 steps or fewer. What is missing of a last
        patch counts as 0.
    n_estimators : int
        Number of networks that one call of `fit` trains, from seeds of their own and on the same
        rows, side by side on the ``workers``. The prediction is the mean of theirs: of
        probabilities for classes, of values for numbers.

    Attributes
    ----------
    net_ : Network
        The network.
    params_ : dict of arrays
        Its parameters, by the names of `rnn_xp.Network`; those of the first of several networks.
    networks_ : list of dict of arrays
        The parameters of each of the ``n_estimators`` networks.
    loss_curve_ : list of float
        Loss of each epoch: before the update (full batch), or the mean over its updates. This
        curve, the next one and ``n_iter_`` are those of the first of several networks.
    validation_curve_ : list of float
        With early stopping, the loss on the held-out windows after each epoch.
    best_loss_ : float
        Lowest loss on the curve that decides when to stop.
    n_iter_ : int
        Number of epochs.
    n_features_in_ : int
        Number of steps of a window, T, of the longest for sequences of unequal length.
    n_outputs_ : int
        Number of outputs of the network.
    patch_size_ : int
        Number of consecutive steps that the network reads as one.
    scaling_ : (array (I,), array (I,)) or None
        With ``standardize=True``, what is subtracted from the features of X before the network
        sees them, and what they are then divided by.
"""

_ENTRY = re.compile(r"^    (\w+) : .*\n(?:     .*\n)+", re.MULTILINE)


def parameters_of(kind: type[Any], **words: str) -> str:
    """Return the sections of the docstring of an estimator.

    Parameters
    ----------
    kind : type
        Its constructor says which parameters it has.
    **words : str
        What stands for ``{held_out}`` and ``{auto}``.

    Returns
    -------
    str
    """
    known = inspect.signature(kind).parameters

    def kept(entry: re.Match[str]) -> str:
        return entry[0] if entry[1] in known or entry[1].endswith("_") else ""

    text = _ENTRY.sub(kept, _PARAMETERS.strip("\n") + "\n").rstrip("\n")
    for name, word in words.items():
        text = text.replace(f"{{{name}}}", word)
    return text
