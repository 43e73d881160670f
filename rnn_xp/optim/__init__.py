"""Optimisers: pure functions over flat dicts of parameters; schedules and clipping.

An optimiser is a subclass of `Optimizer`, a frozen dataclass whose fields are its hyperparameters::

    opt = optim.adam(0.01)
    state = opt.init(params)
    params, state = opt.update(grads, state, params)      # new dicts; nothing given is changed

Optimisers that use one gradient per update have a learning rate. A plain float is constant;
`Step`, `Cosine`, `WarmUp` or any other function of the number of past updates is a schedule::

    optim.adam(optim.WarmUp(100, then=optim.Cosine(0.01, total=5000)), clip_norm=1.0)

and `ReduceOnPlateau` follows the loss, which it is given after every epoch::

    state = opt.observe(state, loss)

Two more methods, inverse to each other, bring a state to a file and back::

    arrays, values = opt.pack(state)                      # arrays by name, and values for JSON
    state = opt.unpack(arrays, values, params)            # ValueError unless they fit
"""

from rnn_xp.optim.adaptive import Adagrad, Adam, AdamW, RMSprop
from rnn_xp.optim.base import NotFiniteError, Optimizer
from rnn_xp.optim.choice import of_part, suited
from rnn_xp.optim.hessian_free import HessianFree
from rnn_xp.optim.levenberg_marquardt import LevenbergMarquardt
from rnn_xp.optim.quasi_newton import LBFGS
from rnn_xp.optim.schedules import Cosine, ReduceOnPlateau, Step, WarmUp
from rnn_xp.optim.sgd import SGD

__all__ = [
    "LBFGS",
    "SGD",
    "Adagrad",
    "Adam",
    "AdamW",
    "Cosine",
    "HessianFree",
    "LevenbergMarquardt",
    "NotFiniteError",
    "Optimizer",
    "RMSprop",
    "ReduceOnPlateau",
    "Step",
    "WarmUp",
    "adagrad",
    "adam",
    "adamw",
    "hessian_free",
    "lbfgs",
    "levenberg_marquardt",
    "of_part",
    "rmsprop",
    "sgd",
    "suited",
]

sgd = SGD
adam = Adam
adamw = AdamW
rmsprop = RMSprop
adagrad = Adagrad
lbfgs = LBFGS
hessian_free = HessianFree
levenberg_marquardt = LevenbergMarquardt
