"""Base class of the estimators: parameters, checks of X, training, and the networks' outputs."""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any, ClassVar, Self

from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from rnn_xp._checks import Argument, ParameterError, choice, number, whole
from rnn_xp._typing import Array, Params
from rnn_xp.backend import (
    Backend,
    backend_of,
    get_backend,
    to_numpy,
)
from rnn_xp.estimators.arrays import Data, Scaling, check_weights, patched, scaled, scaling_of
from rnn_xp.estimators.exporting import Exported
from rnn_xp.estimators.files import Member, Saved
from rnn_xp.estimators.members import train_members
from rnn_xp.estimators.parameters import parameters_of
from rnn_xp.estimators.reading import Reading, Windows
from rnn_xp.network import Network
from rnn_xp.optim import Optimizer
from rnn_xp.optim.first_order import FirstOrder
from rnn_xp.optim.names import OPTIMIZERS
from rnn_xp.optim.schedules import Cosine
from rnn_xp.training.inputs import on_host, split_rows

__all__ = ["Recurrent"]

_BATCH_ROWS = 200
_PATCHES = 64


class Recurrent(Exported, Saved, Reading, BaseEstimator):  # type: ignore[misc]
    """Base class of the estimators; a subclass defines the loss and the checks of y."""

    _loss: ClassVar[str]
    _held_out = """They are the last windows in time, never shuffled. The T + O - 1 windows before
        them, which share values with them, are left out, unless lengths differ."""
    _auto = "200"
    _topology: ClassVar[str] = "many_to_one"
    net_: Network
    networks_: list[Params]
    patch_size_: int
    params_: Params
    scaling_: Scaling | None
    loss_curve_: list[float]
    validation_curve_: list[float]
    n_iter_: int

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        words = parameters_of(cls, held_out=cls._held_out, auto=cls._auto)
        cls.__doc__ = (cls.__doc__ or "").replace("    {parameters}", words)

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
        learning_rate: str = "constant",
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
        patch_size: int | str = 1,
        n_estimators: int = 1,
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
        self.learning_rate = learning_rate
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
        self.patch_size = patch_size
        self.n_estimators = n_estimators

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
            raise _not_whole("batch_size", self.batch_size) from None

    def _scheduled(self, optimizer: Any, updates: int) -> Any:
        """Return the solver with a learning rate that falls over all updates, if it has one."""
        choice("learning_rate", self.learning_rate, dict.fromkeys(("constant", "cosine")))
        falls = isinstance(self.solver, str) and isinstance(optimizer, FirstOrder)
        if self.learning_rate == "constant" or not falls:
            return optimizer
        rate = Cosine(self.learning_rate_init, updates)
        return dataclasses.replace(optimizer, learning_rate=rate)

    def _patch_size(self, steps: int) -> int:
        """Return how many of the steps of the longest sequence the network reads as one."""
        if isinstance(self.patch_size, str) and self.patch_size == "auto":
            return max(1, -(-steps // _PATCHES))
        try:
            return whole("patch_size", self.patch_size)
        except ValueError:
            raise _not_whole("patch_size", self.patch_size) from None

    def _auto_rows(self, rows: int) -> int:
        return _BATCH_ROWS

    def _network(self, inputs: int, outputs: int) -> Network:
        return Network(
            cell=self.cell, input_size=inputs, hidden_size=self.hidden_size, output_size=outputs,
            topology=self._topology, num_layers=self.num_layers, bidirectional=self.bidirectional,
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
        if not go_on:
            self.patch_size_ = self._patch_size(x.shape[1])
        net = self._network(x.shape[2] * self.patch_size_, outputs)
        rows, self._on_host = x.shape[0], on_host(x)
        if sample_weight is not None:
            sample_weight = check_weights(sample_weight, x, per_step=net.topology != "many_to_one")
        if go_on and self.net_ != net:
            raise ValueError(
                f"the network was {self.net_!r} and cannot go on as {net!r}. Give warm_start=False."
            )
        wanted = whole("n_estimators", self.n_estimators)
        before: list[Any] = self._members if go_on else [None] * wanted
        if len(before) != wanted:
            raise ValueError(
                f"{len(before)} networks were trained and cannot go on as n_estimators={wanted}. "
                "Give warm_start=False."
            )
        random = check_random_state(self.random_state)
        seeds = [int(random.randint(2**31)) for _ in before]
        data = Data(x, y, sample_weight, lengths)
        validation: dict[str, Any] = {}
        if self.early_stopping and not partial:
            share = number("validation_fraction", self.validation_fraction, "a number in (0, 1)")
            if not 0.0 < share < 1.0:
                raise ValueError(f"validation_fraction must be a number in (0, 1), got {share!r}.")
            data, rows, validation = self._hold_out(data, share, seeds[0])
        if not go_on:
            self.scaling_ = scaling_of(data, rows) if self.standardize else None
        data = data._replace(**self._seen(data.x, data.lengths))
        if isinstance(held_out := validation.get("validation"), dict):
            held_out |= self._seen(held_out["x"], held_out["lengths"])
        batch = rows if full else self._update_rows(rows)
        epochs = 1 if partial else whole("max_iter", self.max_iter)
        if not partial:
            done = len(before[0].losses) if before[0] else 0
            optimizer = self._scheduled(optimizer, (done + epochs) * -(-rows // batch))
        training = {
            "batch_size": None if batch == rows else batch, **validation, "epochs": epochs,
            "patience": None if partial else self.n_iter_no_change, "tolerance": self.tol,
            "optimizer": optimizer, "backend": backend, "loss": self._loss,
        }  # fmt: skip
        workers = None if self.workers is None else whole("workers", self.workers)
        ended = train_members(
            net, data, list(zip(seeds, before, strict=True)),
            workers=workers, verbose=self.verbose, **training,
        )  # fmt: skip
        if not partial and self.n_iter_no_change is not None:
            self._warn_of_the_end([stopped for _, stopped in ended])
        return self._keep(net, [member for member, _ in ended], outputs, backend)

    def _seen(self, x: Any, lengths: Any) -> dict[str, Any]:
        """Return windows and lengths as the network sees them."""
        x = x if self.scaling_ is None else scaled(x, self.scaling_)
        x, lengths = patched(x, lengths, self.patch_size_)
        return {"x": x, "lengths": lengths}

    def _warn_of_the_end(self, stopped: list[str]) -> None:
        """Warn of networks that the last epoch ended before patience did."""
        if unfinished := sum(not reason for reason in stopped):
            whose = f" of {unfinished} of {len(stopped)} networks" if len(stopped) > 1 else ""
            warnings.warn(
                f"max_iter={self.max_iter} epochs ended the training{whose} while the loss still "
                "improved now and then. Raise max_iter, or give n_iter_no_change=None if this "
                "number of epochs is meant.",
                ConvergenceWarning,
                stacklevel=5,
            )

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

    def _keep(
        self, net: Network, members: list[Member], outputs: int, place: Backend
    ) -> Self:  # fmt: skip
        self.net_, self.n_outputs_, self._members = net, outputs, members
        self.networks_ = [member.params for member in members]
        first = members[0]
        self.params_, self.loss_curve_ = first.params, first.losses
        self.validation_curve_ = first.validation_losses
        # By its names: a fitted estimator holds no module.
        self._origin = (place.name, place.device_name, place.dtype_name)
        self.best_loss_ = min(self.validation_curve_ or self.loss_curve_)
        self.n_iter_ = len(self.loss_curve_)
        return self

    def _raw(self, X: Any, lengths: Any, method: str) -> list[Array]:
        """Return the outputs (n, O) of each network, in the library of X."""
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
        features = self.net_.input_size // self.patch_size_
        if x.shape[2] != features:
            raise ValueError(
                f"X has {x.shape[2]} features at each step, but {type(self).__name__} is "
                f"expecting {features}."
            )
        x, lengths = self._seen(x, lengths).values()
        if host:
            x = backend.asarray(x, copy=False)
            lengths = None if lengths is None else backend.asarray(lengths)
        outs = [self.net_.predict(params, x, lengths=lengths) for params in self.networks_]
        return [to_numpy(out) for out in outs] if host else outs


def _not_whole(name: str, given: Any) -> ParameterError:
    words = "{0:name} must be 'auto' or an integer >= 1, got {0:value}."
    return ParameterError(words, Argument(name, given))
