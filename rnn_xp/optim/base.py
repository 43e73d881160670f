"""The base class of all optimisers, and the error with which they report a broken gradient.

An optimiser is a subclass with an `Optimizer.init` and an `Optimizer.update`. Everything else that
training needs from an optimiser has a default here, which a subclass may override.
"""

from __future__ import annotations

import abc
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, cast

from rnn_xp._typing import Array, Objective, Params, ValueAndGrad
from rnn_xp.optim.checks import Saved

__all__ = ["NotFiniteError", "Optimizer"]

_VALUES = (bool, int, float, str, type(None))  # what JSON holds and returns with the same type


class NotFiniteError(FloatingPointError):
    """An optimiser found a loss or a gradient that is not finite.

    `rnn_xp.fit` treats this as divergence and raises an `rnn_xp.DivergenceError`.
    """


class Optimizer(abc.ABC):
    """The base class of optimisers: two pure functions over flat dicts of arrays.

    A subclass should be a frozen dataclass whose fields are its hyperparameters. Its ``repr`` then
    identifies the optimiser in the description of a run, which is compared when the run is resumed.

    For `rnn_xp.fit` the state may be any object. A state made of dicts, tuples and named tuples of
    arrays, numbers, strings and None, with the same structure after every update, can also be saved
    without further code; otherwise the subclass must define `pack` and `unpack` as well.

    Attributes
    ----------
    full_batch_only : bool
        True if one update evaluates the loss several times, as a line search does, which requires
        that all evaluations are of the same function. `rnn_xp.fit` then refuses minibatches,
        truncation and dropout.
    needs : tuple of str
        Methods of an `rnn_xp._typing.Objective` that `update` calls: "value", "curvature" and
        "curvature_product". Its ``value_and_grad`` must have them; `rnn_xp.fit` provides them.

    Examples
    --------
    Gradient descent that uses only the signs of the gradient:

    >>> import dataclasses
    >>> import numpy as np
    >>> @dataclasses.dataclass(frozen=True)
    ... class SignDescent(Optimizer):
    ...     learning_rate: float = 0.01
    ...
    ...     def init(self, params):
    ...         return {"updates": 0}
    ...
    ...     def update(self, grads, state, params, *, value=None, value_and_grad=None):
    ...         new = {n: p - self.learning_rate * np.sign(grads[n]) for n, p in params.items()}
    ...         return new, {"updates": state["updates"] + 1}
    >>> opt, params = SignDescent(0.5), {"w": np.asarray([3.0, -4.0])}
    >>> params, state = opt.update({"w": np.asarray([0.1, -9.0])}, opt.init(params), params)
    >>> params["w"].tolist(), opt.pack(state)
    ([2.5, -3.5], ({}, {'updates': 1}))
    """

    full_batch_only: ClassVar[bool] = False
    needs: ClassVar[tuple[str, ...]] = ()

    @abc.abstractmethod
    def init(self, params: Params) -> Any:
        """Return the state before the first update.

        Parameters
        ----------
        params : Params
            The initial parameters. The state's arrays must be on the same device.
        """

    @abc.abstractmethod
    def update(
        self,
        grads: Params,
        state: Any,
        params: Params,
        *,
        value: Array | None = None,
        value_and_grad: ValueAndGrad | None = None,
    ) -> tuple[Params, Any]:
        """Return the new parameters and the new state; the arguments are not changed.

        Parameters
        ----------
        grads : Params
            The gradient of the loss at ``params``, under the same names.
        state : object
            The state that `init` or the previous update returned.
        params : Params
        value : Array (), optional
            The loss at ``params``.
        value_and_grad : callable, optional
            ``value_and_grad(params) -> (value, grads)`` over the same rows, for a line search.
            `rnn_xp.fit` provides it with the full batch.

        Raises
        ------
        NotFiniteError
            If the optimiser requires a finite loss or gradient and finds that it is not.
        """

    def objective(self, value: Array | None, value_and_grad: ValueAndGrad | None) -> Objective:
        """Return ``value_and_grad`` with the methods that this optimiser `needs`.

        Raises
        ------
        ValueError
            If ``value`` or one of the methods is missing.
        """
        lacks = [name for name in self.needs if getattr(value_and_grad, name, None) is None]
        if value is None or value_and_grad is None or lacks:
            methods = f" with the methods {' and '.join(self.needs)}" if self.needs else ""
            raise ValueError(
                f"{type(self).__name__}.update needs value= and value_and_grad={methods}; "
                "rnn_xp.fit supplies both."
            )
        return cast(Objective, value_and_grad)

    @property
    def watches_loss(self) -> bool:
        """True if `observe` uses the loss, which must then be read after every epoch."""
        return False

    def observe(self, state: Any, loss: float) -> Any:
        """Return the state after an epoch with this loss; by default it is unchanged.

        Parameters
        ----------
        state : object
            The state after the last update of the epoch.
        loss : float
            The validation loss if there is validation, otherwise the training loss.
        """
        return state

    def rate(self, state: Any) -> float | None:
        """Return the learning rate of the next update; None if there is no such number."""
        return None

    def message(self, state: Any) -> str:
        """Return the reason why no further progress is possible; empty while it is."""
        return ""

    def restart(self, state: Any) -> Any:
        """Return the state for the start of another training, without a `message`."""
        return state

    def pack(self, state: Any) -> tuple[dict[str, Array], dict[str, Any]]:
        """Return the state as arrays by name, and as values that JSON can hold.

        Names are paths into the state, such as ``"m.layer0.w_xh"``.

        Raises
        ------
        TypeError
            If the state contains anything but arrays, numbers, strings, None and dicts, tuples and
            named tuples of these.
        """
        arrays: dict[str, Array] = {}
        values: dict[str, Any] = {}
        for path, leaf in _leaves("", state):
            if path in arrays or path in values:
                raise TypeError(
                    f"{type(self).__name__} cannot be kept in a file: its state has two parts "
                    f"with the path {path!r}. Rename one, or write the methods pack and unpack."
                )
            if _is_array(leaf):
                arrays[path] = leaf
            elif type(leaf) in _VALUES:
                values[path] = leaf
            else:
                raise TypeError(
                    f"{type(self).__name__} cannot be kept in a file: its state has a "
                    f"{type(leaf).__name__} at {path or 'the top'!r}. Use arrays, numbers, strings "
                    "and dicts or tuples of these, or write the methods pack and unpack."
                )
        return arrays, values

    def unpack(self, arrays: Mapping[str, Array], values: Mapping[str, Any], params: Params) -> Any:
        """Rebuild a state from what `pack` returned.

        Parameters
        ----------
        arrays, values : mapping
            What `pack` returned. They may come from a file, so they are checked.
        params : Params
            The parameters that the state belongs to.

        Raises
        ------
        ValueError
            If anything is missing, unknown, or of another shape, dtype or type than in the state
            that `init` returns for these parameters. None may stand for any number or string, and
            the reverse.
        """
        like = self.init(params)
        leaves = dict(_leaves("", like))
        wanted = {path: leaf for path, leaf in leaves.items() if _is_array(leaf)}
        saved = Saved(type(self).__name__, arrays, values, leaves.keys() - wanted.keys())
        taken: dict[str, Any] = saved.take(
            {path: (tuple(array.shape), array.dtype) for path, array in wanted.items()}
        )
        for path in leaves.keys() - wanted.keys():
            kind, value = type(leaves[path]), values[path]
            saved.require(
                value is None or kind in (type(value), type(None)),
                f"{path} must be of the type {kind.__name__}, got {value!r}",
            )
            taken[path] = value
        return _rebuilt("", like, taken)


def _is_array(leaf: Any) -> bool:
    return hasattr(leaf, "shape") and hasattr(leaf, "dtype")


def _children(node: Any) -> dict[str, Any] | None:
    """Return the parts of a dict or tuple by name; None for a leaf."""
    if isinstance(node, dict):
        return node
    if isinstance(node, tuple):
        names = getattr(node, "_fields", None) or map(str, range(len(node)))
        return dict(zip(names, node, strict=True))
    return None


def _leaves(path: str, node: Any) -> Iterator[tuple[str, Any]]:
    """Yield the leaves of a state with their paths."""
    children = _children(node)
    if children is None:
        yield path, node
        return
    for name, child in children.items():
        yield from _leaves(f"{path}.{name}" if path else str(name), child)


def _rebuilt(path: str, like: Any, taken: Mapping[str, Any]) -> Any:
    """Return a state with the structure of another and the leaves of these paths."""
    children = _children(like)
    if children is None:
        return taken[path]
    parts = {
        name: _rebuilt(f"{path}.{name}" if path else str(name), child, taken)
        for name, child in children.items()
    }
    if isinstance(like, dict):
        return parts
    return type(like)(**parts) if hasattr(like, "_fields") else tuple(parts.values())
