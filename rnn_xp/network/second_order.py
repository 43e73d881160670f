"""Products with first and second derivatives along a direction: more methods of `rnn_xp.Network`.

All are exact, by the complex step. With an imaginary part too small to have a square, arithmetic on
complex numbers carries a derivative beside each value::

    forward  at params + i*h*v   ->   pred + i*h * J v               `jvp`
    gradient at params + i*h*v   ->   gradient + i*h * H v           `hvp`
    loss     at pred + i*h*J v   ->   dpred + i*h * L'' J v,
    then one real backward pass  ->   J^T L'' J v                    `gnvp`

So the Hessian H and the Gauss-Newton matrix J^T L'' J multiply a vector without being formed, and
no cell and no loss needs code for it. Nothing is subtracted, so no digits are lost.

Branches are taken by real parts, hence at a kink the derivative is that of the branch that the
value takes: 0 for relu at 0, the first of equal steps for ``read="max"``, the parabola for the
Huber loss at delta. mae and pinball have slopes that are constant between kinks: they add nothing
to a Hessian by themselves, and `gnvp`, which would be 0 everywhere, refuses them.

References
----------
.. [1] B. A. Pearlmutter, "Fast exact multiplication by the Hessian", Neural Computation 6 (1994),
       147-160.
.. [2] N. N. Schraudolph, "Fast curvature matrix-vector products for second-order gradient descent",
       Neural Computation 14 (2002), 1723-1738.
.. [3] W. Squire, G. Trapp, "Using complex variables to estimate derivatives of real functions",
       SIAM Review 40 (1998), 110-112.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from rnn_xp import losses
from rnn_xp._typing import Array, Loss, Namespace, Params, State
from rnn_xp.backend import device_of, float_dtype
from rnn_xp.backend.arrays import dtype_name, library_name
from rnn_xp.losses import resolve_loss
from rnn_xp.network import pipeline
from rnn_xp.network.call import Options, check, check_shape, check_state
from rnn_xp.network.configuration import Configuration
from rnn_xp.network.gradients import loss_options
from rnn_xp.network.per_sample import PerSample
from rnn_xp.network.prediction import default_rows
from rnn_xp.network.sequence import map_state

__all__ = ["SecondOrder"]

_STEP = {"float32": 1e-15, "float64": 1e-30}
"""Sizes of the complex step: their squares are far below rounding, products far from underflow."""

_COMPLEX = {"float32": "complex64", "float64": "complex128"}


@dataclass(frozen=True, kw_only=True)
class SecondOrder(PerSample):
    """The products with derivatives; `rnn_xp.Network` documents the arguments that they share."""

    def jvp(
        self,
        params: Params,
        x: Array,
        tangent: Mapping[str, Any],
        state: State | None = None,
        lengths: Array | None = None,
        mask: Array | None = None,
        rng: Any = None,
        *,
        reset: Array | None = None,
        steps: int | None = None,
    ) -> tuple[Array, Array]:
        """Predict, and compute the derivative of the prediction along a direction.

        It is exact, in one forward pass of complex numbers; at kinks see
        `rnn_xp.network.second_order`.

        Parameters
        ----------
        params, x, state, lengths, mask, rng, reset, steps : see `rnn_xp.Network`
        tangent : mapping of str to Array
            The direction, with the names that the gradients of `rnn_xp.Network.vjp` have: those of
            ``params``, ``"x"`` and, if a state is given, ``"state"``. A missing entry is zero.

        Returns
        -------
        pred : Array (N, O), or (N, T, O) where every step is read
        dpred : Array, shape of pred
            ``d pred(params + s * tangent) / ds`` at s = 0: the Jacobian times the tangent.

        Raises
        ------
        ValueError
            If the tangent has an unknown name or a wrong shape.
        TypeError
            If dtypes differ, or if the library has no complex numbers on the device.

        Examples
        --------
        >>> import numpy as np
        >>> import rnn_xp as rx
        >>> net = rx.Network(hidden_size=4)
        >>> params = net.init(seed=0)
        >>> x = np.ones((3, 5, 1), dtype=np.float32)
        >>> pred, dpred = net.jvp(params, x, {"readout.b_y": np.ones(1, dtype=np.float32)})
        >>> dpred.tolist()
        [[1.0], [1.0], [1.0]]
        """
        options = Options(state, lengths, mask, reset, rng, steps)
        xp = check(self, params, x, options)
        point = _shifted(self, "jvp", params, x, options, "tangent", tangent, xp=xp)
        forward = pipeline.run(self, *point, xp=_FirstOrder(xp))
        pred = pipeline.prediction(self, forward)
        return xp.real(pred), xp.imag(pred) / _step_of(x)

    def hvp(
        self,
        params: Params,
        x: Array,
        y: Array,
        v: Mapping[str, Array],
        loss: str | Loss = "mse",
        sample_weight: Array | None = None,
        *,
        state: State | None = None,
        lengths: Array | None = None,
        mask: Array | None = None,
        reset: Array | None = None,
        rng: Any = None,
        total: Any = None,
    ) -> Params:
        """Multiply the Hessian of the loss by a vector, at the cost of two to three gradients.

        It is exact; at kinks see `rnn_xp.network.second_order`.

        Parameters
        ----------
        params, x, y, loss, sample_weight, state, lengths, mask, reset, rng, total
            As for `rnn_xp.Network.value_and_grad`.
        v : mapping of str to Array
            The vector, with the keys and shapes of ``params``.

        Returns
        -------
        Params
            ``d gradient(params + s * v) / ds`` at s = 0, with the keys and shapes of ``params``.

        Raises
        ------
        ValueError
            If a name or a shape is wrong.
        TypeError
            If dtypes differ, or if the library has no complex numbers on the device.

        Examples
        --------
        The Hessian of a mean squared error along the output's bias is 2:

        >>> import numpy as np
        >>> import rnn_xp as rx
        >>> net = rx.Network(hidden_size=4)
        >>> params = net.init(seed=0)
        >>> x, y = np.ones((3, 5, 1), dtype=np.float32), np.ones((3, 1), dtype=np.float32)
        >>> v = {name: np.zeros_like(p) for name, p in params.items()}
        >>> v["readout.b_y"] = np.ones(1, dtype=np.float32)
        >>> round(float(net.hvp(params, x, y, v)["readout.b_y"][0]), 6)
        2.0
        """
        options = Options(state, lengths, mask, reset, rng)
        task = _Task.of(self, params, x, y, loss, sample_weight, options, total)
        _check_vector("hvp", params, v)
        return _by_blocks(self, _hvp, params, x, task, v)

    def gnvp(
        self,
        params: Params,
        x: Array,
        y: Array,
        v: Mapping[str, Array],
        loss: str | Loss = "mse",
        sample_weight: Array | None = None,
        *,
        state: State | None = None,
        lengths: Array | None = None,
        mask: Array | None = None,
        reset: Array | None = None,
        rng: Any = None,
        total: Any = None,
    ) -> Params:
        """Multiply the generalised Gauss-Newton matrix of the loss by a vector.

        The matrix is J^T L'' J, with the Jacobian J of the predictions and the second derivative
        L'' of the loss by the predictions: the Hessian without the curvature of the network. For a
        convex loss it has no negative eigenvalue. The product is exact; at kinks see
        `rnn_xp.network.second_order`.

        Parameters
        ----------
        params, x, y, loss, sample_weight, state, lengths, mask, reset, rng, total
            As for `rnn_xp.Network.value_and_grad`. The loss must have a second derivative; "mae"
            and ``Pinball`` do not.
        v : mapping of str to Array
            The vector, with the keys and shapes of ``params``.

        Returns
        -------
        Params
            The product, with the keys and shapes of ``params``.

        Raises
        ------
        ValueError
            If a name or a shape is wrong, or if the loss is linear between its kinks.
        TypeError
            If dtypes differ, or if the library has no complex numbers on the device.

        Examples
        --------
        >>> import numpy as np
        >>> import rnn_xp as rx
        >>> net = rx.Network(hidden_size=4)
        >>> params = net.init(seed=0)
        >>> x, y = np.ones((3, 5, 1), dtype=np.float32), np.ones((3, 1), dtype=np.float32)
        >>> product = net.gnvp(params, x, y, v=params)
        >>> sum(float(np.sum(params[name] * product[name])) for name in params) > 0.0
        True
        """
        options = Options(state, lengths, mask, reset, rng)
        task = _Task.of(self, params, x, y, loss, sample_weight, options, total)
        _check_vector("gnvp", params, v)
        return _by_blocks(self, _gnvp, params, x, task, v)


def _by_blocks(
    net: Configuration, product: Callable[..., Params], params: Params, x: Array, task: _Task,
    v: Mapping[str, Array],
) -> Params:  # fmt: skip
    """Add up the products of blocks of rows, whose complex numbers stay in the cache."""
    rows, steps = x.shape[0], task.options.steps or x.shape[1]
    size = default_rows(net, x, steps)
    if task.options.rng is not None or rows <= size:  # masks of dropout are those of a whole call
        return product(net, params, x, task, v)
    summed: Params = {}
    for start in range(0, rows, size):
        stop = min(start + size, rows)
        part = product(net, params, x[start:stop, ...], task.rows(start, stop), v)
        summed = {name: summed[name] + a for name, a in part.items()} if summed else part
    return summed


def _hvp(
    net: Configuration, params: Params, x: Array, task: _Task, v: Mapping[str, Array]
) -> Params:
    xp = task.xp
    at, inputs, options = _shifted(net, "hvp", params, x, task.options, "v", v, xp=xp)
    forward = pipeline.run(net, at, inputs, options, xp=_FirstOrder(xp))
    pred = pipeline.prediction(net, forward)
    dpred = xp.astype(task.dpred(pred), pred.dtype)  # mae and pinball have a real one
    back = pipeline.run_back(net, at, forward, dpred, None)
    return {name: xp.imag(grad) / _step_of(x) for name, grad in back.grads.items()}


def _gnvp(
    net: Configuration, params: Params, x: Array, task: _Task, v: Mapping[str, Array]
) -> Params:
    xp = task.xp
    rng = task.options.rng
    again = task.options._replace(rng=copy.deepcopy(rng))  # for the same masks of dropout
    point = _shifted(net, "gnvp", params, x, again, "v", v, xp=xp)
    shifted = pipeline.run(net, *point, xp=_FirstOrder(xp))
    dpred = task.dpred(pipeline.prediction(net, shifted))
    if not xp.isdtype(dpred.dtype, "complex floating"):
        name = getattr(task.loss, "__name__", type(task.loss).__name__)
        raise ValueError(
            f"Network.gnvp: the loss {name} has a slope that does not change between its kinks, "
            "so that its second derivative and the product would be 0 everywhere. Take a loss "
            "such as 'mse' or 'huber'."
        )
    del shifted
    forward = pipeline.run(net, params, x, task.options, xp=xp)
    back = pipeline.run_back(net, params, forward, xp.imag(dpred) / _step_of(x), None)
    return back.grads


class _Task(NamedTuple):
    """A loss on a batch, checked, to be evaluated at any prediction."""

    xp: Namespace
    options: Options
    loss: Loss
    y: Array
    weight: Array | None
    total: Any

    @classmethod
    def of(
        cls, net: Configuration, params: Params, x: Array, y: Array, loss: str | Loss,
        sample_weight: Array | None, options: Options, total: Any,
    ) -> _Task:  # fmt: skip
        """Check the arguments of a method that takes a loss."""
        function = resolve_loss(loss, net.output_activation)
        options = loss_options(net, y, options)
        xp = check(net, params, x, options)
        weight = pipeline.loss_weight(net, x, y, sample_weight, options)
        total = losses.total_weight(y, weight) if total is None else total
        return cls(xp, options, function, y, weight, total)

    def rows(self, start: int, stop: int) -> _Task:
        """Return the task of rows start..stop-1, with the divisor of all rows."""
        weight = None if self.weight is None else self.weight[start:stop, ...]
        y, options = self.y[start:stop, ...], self.options.rows(start, stop)
        return self._replace(options=options, y=y, weight=weight)

    def dpred(self, pred: Array) -> Array:
        return self.loss(pred, self.y, self.weight, self.total)[1]


class _FirstOrder:
    """A namespace for numbers whose imaginary part is infinitesimal.

    Its functions are those of the library but for tanh, of which libraries compute the complex form
    many times slower than the real one. To first order it is tanh(a + ib) = t + ib * (1 - t**2)
    with t = tanh(a).
    """

    def __init__(self, xp: Namespace) -> None:
        self._xp = xp

    def __getattr__(self, name: str) -> Any:
        return getattr(self._xp, name)

    def tanh(self, z: Array) -> Array:
        xp = self._xp
        t = xp.tanh(xp.real(z))
        return t + 1j * xp.astype(xp.imag(z) * (1.0 - t * t), z.dtype)


def _shifted(
    net: Configuration, method: str, params: Params, x: Array, options: Options, name: str,
    direction: Mapping[str, Any], *, xp: Namespace,
) -> tuple[Params, Array, Options]:  # fmt: skip
    """Return complex params, x and options, a complex step along the direction."""
    known = {*params, "x"} | ({"state"} if options.state is not None else set())
    if unknown := sorted(set(direction) - known):
        raise ValueError(
            f"Network.{method}: {name} has unknown entries {unknown}; there are {sorted(known)}."
        )
    lift = _lift(method, x, xp=xp)

    def shift(label: str, array: Array, along: Array | None) -> Array:
        if along is None:
            return lift(array)
        check_shape(f"{name}[{label!r}]", along, array.shape)
        float_dtype(**{label: array, f"{name}[{label!r}]": along})
        return lift(array) + lift(along) * (1j * _step_of(array))

    at = {label: shift(label, param, direction.get(label)) for label, param in params.items()}
    inputs = shift("x", x, direction.get("x"))
    state = options.state
    if state is not None:
        along = direction.get("state")
        if along is None:
            state = map_state(lift, state)
        else:
            check_state(net, f"{name}['state']", along, x.shape[0])
            state = map_state(lambda a, b: shift("state", a, b), state, along)
    return at, inputs, options._replace(state=state)


def _lift(method: str, x: Array, *, xp: Namespace) -> Any:
    """Return the conversion to complex numbers, or say that there is none."""
    kind = dtype_name(x.dtype)
    try:
        dtype = getattr(xp, _COMPLEX[kind])
        one = xp.ones((1, 1), dtype=dtype, device=device_of(x))
        xp.matmul(one, one)
    except Exception as error:
        raise TypeError(
            f"Network.{method} computes with complex numbers, which {library_name(xp)} does not "
            f"have for {kind} on {device_of(x)}. Bring the arrays to another device or library, "
            "for instance get_backend('numpy')."
        ) from error
    return lambda a: xp.astype(a, dtype)


def _step_of(array: Array) -> float:
    return _STEP[dtype_name(array.dtype)]


def _check_vector(method: str, params: Params, v: Mapping[str, Array]) -> None:
    """Check that a vector has an entry for every parameter, and no other."""
    if v.keys() != params.keys():
        missing, unknown = params.keys() - v.keys(), v.keys() - params.keys()
        raise ValueError(
            f"Network.{method}: v must have the keys of params: missing {sorted(missing)}, "
            f"unknown {sorted(unknown)}."
        )
