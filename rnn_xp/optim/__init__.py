"""Optimisers: two pure functions over flat dicts of parameters.

An optimiser is a frozen dataclass whose fields are its hyperparameters::

    opt = optim.adam(0.01)
    state = opt.init(params)
    params, state = opt.update(grads, state, params)      # new dicts; nothing given is changed
"""

from rnn_xp.optim.first_order import SGD, Adam
from rnn_xp.optim.quasi_newton import LBFGS

__all__ = ["LBFGS", "SGD", "Adam", "adam", "lbfgs", "sgd"]

sgd = SGD
adam = Adam
lbfgs = LBFGS
