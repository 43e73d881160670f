"""Base class of the estimators: parameters, checks of X, training, and the network's outputs."""

from __future__ import annotations

from typing import Any, ClassVar, Self

from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from rnn_xp._checks import number, whole
from rnn_xp._typing import Array, Params
from rnn_xp.backend import (
    Backend,
    backend_of,
    get_backend,
    to_numpy,
)
from rnn_xp.estimators.arrays import Data, Scaling, check_weights, scaled, scaling_of
from rnn_xp.estimators.exporting import Exported
from rnn_xp.estimators.reading import Reading, Windows
from rnn_xp.network import Network
from rnn_xp.optim import Optimizer
from rnn_xp.optim.first_order import FirstOrder
from rnn_xp.optim.names import OPTIMIZERS
from rnn_xp.training.callbacks import Progress
from rnn_xp.training.inputs import on_host, split_rows
from rnn_xp.training.result import FitResult
from rnn_xp.training.trainer import fit

__all__ = ["Recurrent"]

_BATCH_ROWS = 200

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
        Learning rate; ignored by solvers that have none.
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
        Number of epochs without an improvement after which training ends; None never ends it.
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

    Attributes
    ----------
    net_ : Network
        The network.
    params_ : dict of arrays
        Its parameters, by the names of `rnn_xp.Network`.
    loss_curve_ : list of float
        Loss of each epoch: before the update (full batch), or the mean over its updates.
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
    scaling_ : (array (I,), array (I,)) or None
        With ``standardize=True``, what is subtracted from the features of X before the network
        sees them, and what they are then divided by.
"""


class Recurrent(Exported, Reading, BaseEstimator):  # type: ignore[misc]
    """Base class of the estimators; a subclass defines the loss and the checks of y."""

    _loss: ClassVar[str]
    _held_out = """They are the last windows in time, never shuffled. The T + O - 1 windows before
        them, which share values with them, are left out, unless lengths differ."""
    _auto = "200"
    net_: Network
    params_: Params
    scaling_: Scaling | None
    loss_curve_: list[float]
    validation_curve_: list[float]
    n_iter_: int

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        parameters = _PARAMETERS.strip("\n").replace("{held_out}", cls._held_out)
        parameters = parameters.replace("{auto}", cls._auto)
        cls.__doc__ = (cls.__doc__ or "").replace("    {parameters}", parameters)

    def __init__(
        self,
        cell: str = "rnn",
        hidden_size: int = 50,
        *,
        num_layers: int = 1,
        bidirectional: bool = False,
        activation: str = "tanh",
        read: str = "last",
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        layer_norm: bool = False,
        residual: bool = False,
        solver: Any = "adam",
        learning_rate_init: float = 1e-3,
        alpha: float = 0.0,
        clip_norm: float | str | None = None,
        batch_size: int | str = "auto",
        max_iter: int = 200,
        tol: float = 1e-4,
        n_iter_no_change: int | None = 10,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        random_state: Any = None,
        warm_start: bool = False,
        verbose: bool = False,
        workers: int | None = None,
        backend: Any = None,
        channels_first: bool | str = "auto",
        standardize: bool = False,
    ) -> None:
        self.cell = cell
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bidirectional = bidirectional
        self.activation = activation
        self.read = read
        self.dropout = dropout
        self.recurrent_dropout = recurrent_dropout
        self.layer_norm = layer_norm
        self.residual = residual
        self.solver = solver
        self.learning_rate_init = learning_rate_init
        self.alpha = alpha
        self.clip_norm = clip_norm
        self.batch_size = batch_size
        self.max_iter = max_iter
        self.tol = tol
        self.n_iter_no_change = n_iter_no_change
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.random_state = random_state
        self.warm_start = warm_start
        self.verbose = verbose
        self.workers = workers
        self.backend = backend
        self.channels_first = channels_first
        self.standardize = standardize

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.array_api_support = True
        return tags

    def _goes_on(self, partial: bool) -> bool:
        """Return True if training continues from the weights of an earlier call."""
        return (partial or self.warm_start) and hasattr(self, "params_")

    def _place(self, X: Any) -> Backend:
        """Return the backend of X or, for NumPy data, the backend that the user chose."""
        if not on_host(X):
            return backend_of(X)
        if isinstance(self.backend, Backend):
            return self.backend
        return get_backend(self.backend or "numpy", dtype=X.dtype.name)

    def _optimizer(self) -> Any:
        if not isinstance(self.solver, str):
            return self.solver
        if self.solver not in OPTIMIZERS:
            raise ValueError(
                f"solver={self.solver!r} is not known. Choose from: {', '.join(OPTIMIZERS)}, or "
                "give an object of rnn_xp.optim."
            )
        kind = OPTIMIZERS[self.solver]
        auto = isinstance(self.clip_norm, str) and self.clip_norm == "auto"
        if issubclass(kind, FirstOrder):
            clip: Any = 1.0 if auto else self.clip_norm
            return kind(self.learning_rate_init, weight_decay=self.alpha, clip_norm=clip)
        if self.clip_norm is not None and not auto:
            raise ValueError(f"solver={self.solver!r} has no clip_norm; leave it out.")
        if not self.alpha:
            return kind()
        if not hasattr(kind, "weight_decay"):
            raise ValueError(f"solver={self.solver!r} has no alpha; leave it out.")
        return kind(weight_decay=self.alpha)

    def _update_rows(self, rows: int) -> int:
        """Return the number of rows of an update, at most the number to train on."""
        if isinstance(self.batch_size, str) and self.batch_size == "auto":
            return min(self._auto_rows(rows), rows)
        try:
            return min(whole("batch_size", self.batch_size), rows)
        except ValueError:
            raise ValueError(
                f"batch_size must be 'auto' or an integer >= 1, got {self.batch_size!r}."
            ) from None

    def _auto_rows(self, rows: int) -> int:
        return _BATCH_ROWS

    def _network(self, inputs: int, outputs: int) -> Network:
        return Network(
            cell=self.cell, input_size=inputs, hidden_size=self.hidden_size, output_size=outputs,
            num_layers=self.num_layers, bidirectional=self.bidirectional,
            activation=self.activation, read=self.read, dropout=self.dropout,
            recurrent_dropout=self.recurrent_dropout, layer_norm=self.layer_norm,
            residual=self.residual,
        )  # fmt: skip

    def _train(
        self, windows: Windows, sample_weight: Any, outputs: int, *, partial: bool, go_on: bool
    ) -> Self:
        """Train on checked windows and targets; if partial, for one epoch only."""
        x, y, lengths = windows
        backend, optimizer = self._place(x), self._optimizer()
        full = isinstance(optimizer, Optimizer) and optimizer.full_batch_only
        rows, net, self._on_host = x.shape[0], self._network(x.shape[2], outputs), on_host(x)
        if sample_weight is not None:
            sample_weight = check_weights(sample_weight, x)
        if go_on and self.net_ != net:
            raise ValueError(
                f"the network was {self.net_!r} and cannot go on as {net!r}. Give warm_start=False."
            )
        seed = int(check_random_state(self.random_state).randint(2**31))
        data = Data(x, y, sample_weight, lengths)
        validation: dict[str, Any] = {}
        if self.early_stopping and not partial:
            share = number("validation_fraction", self.validation_fraction, "a number in (0, 1)")
            if not 0.0 < share < 1.0:
                raise ValueError(f"validation_fraction must be a number in (0, 1), got {share!r}.")
            data, rows, validation = self._hold_out(data, share, seed)
        if not go_on:
            self.scaling_ = scaling_of(data, rows) if self.standardize else None
        if self.scaling_ is not None:
            data = data._replace(x=scaled(data.x, self.scaling_))
            if isinstance(validation["validation"] if validation else None, dict):
                held_out = validation["validation"]
                held_out["x"] = scaled(held_out["x"], self.scaling_)
        batch = self._update_rows(rows)
        progress = Progress() if self.verbose else Progress(lines=0)
        with progress:
            result = fit(
                net, data.x, data.y, optimizer=optimizer, epochs=1 if partial else self.max_iter,
                loss=self._loss, batch_size=None if full or batch == rows else batch,
                sample_weight=data.sample_weight, lengths=data.lengths, **validation,
                patience=None if partial else self.n_iter_no_change, tolerance=self.tol,
                params=self._last_params if go_on else None,
                opt_state=self._opt_state if go_on else None,
                # Another order of minibatches than in the epochs before.
                seed=seed + (self.n_iter_ if go_on else 0), workers=self.workers, backend=backend,
                callbacks=[progress] if self.verbose else [],
            )  # fmt: skip
        return self._keep(net, result, outputs, go_on=go_on)

    def _hold_out(self, data: Data, share: float, seed: int) -> tuple[Data, int, dict[str, Any]]:
        """Hold out the last windows in time.

        Returns
        -------
        data : Data
            The data for `rnn_xp.fit`.
        rows : int
            Number of rows that are trained on.
        validation : dict
            Arguments for `rnn_xp.fit`.
        """
        x, y, _, lengths = data
        gap = 0  # sequences of unequal length are not windows of one series
        if lengths is None:  # no value in both parts
            gap = x.shape[1] + (y.shape[1] if len(y.shape) > 1 else 1) - 1
        rows, _ = split_rows(x.shape[0], share, gap)
        return data, rows, {"validation": share, "gap": gap}

    def _keep(self, net: Network, result: FitResult, outputs: int, *, go_on: bool) -> Self:
        losses, held_out = (result.history.get(name, []) for name in ("loss", "validation_loss"))
        self.net_, self.n_outputs_ = net, outputs
        best: Params | None = result.best_params
        self.params_ = result.params if best is None else best
        self._last_params = result.params
        self._opt_state = result.state.opt_state
        place = result.backend  # by its names: a fitted estimator holds no module
        self._origin = (place.name, place.device_name, place.dtype_name)
        self.loss_curve_ = [*(self.loss_curve_ if go_on else []), *losses]
        self.validation_curve_ = [*(self.validation_curve_ if go_on else []), *held_out]
        self.best_loss_ = min(self.validation_curve_ or self.loss_curve_)
        self.n_iter_ = len(self.loss_curve_)
        return self

    def _raw(self, X: Any, lengths: Any, method: str) -> Array:
        """Return the network's outputs (n, O), in the library of X."""
        check_is_fitted(self)
        x, _, lengths = self._windows(X, lengths=lengths, reset=False)
        host, (name, device, dtype) = on_host(x), self._origin
        backend = get_backend(name, device=device, dtype=dtype) if host else backend_of(x)
        if host != self._on_host or (backend.name, backend.device_name) != (name, device):
            raise ValueError(
                f"Inputs passed to {type(self).__name__}.{method}() must use the same namespace "
                "and the same device as those passed to fit(): these were "
                f"{'NumPy arrays' if self._on_host else f'of {name} on {device}'}, and now there "
                f"are {'NumPy arrays' if host else f'those of {backend}'}."
            )
        if x.shape[2] != self.net_.input_size:
            raise ValueError(
                f"X has {x.shape[2]} features at each step, but {type(self).__name__} is "
                f"expecting {self.net_.input_size}."
            )
        if self.scaling_ is not None:
            x = scaled(x, self.scaling_)
        if host:
            x = backend.asarray(x, copy=False)
            lengths = None if lengths is None else backend.asarray(lengths)
        out = self.net_.predict(self.params_, x, lengths=lengths)
        return to_numpy(out) if host else out
