"""What a prediction rests on: input steps by attribution, and training windows by influence."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from rnn_xp._checks import whole
from rnn_xp._typing import Array, Loss, Namespace, Params
from rnn_xp.backend import array_namespace, device_of
from rnn_xp.losses import resolve_loss, total_weight
from rnn_xp.network import Network

__all__ = ["IntegratedGradients", "influence", "integrated_gradients", "saliency"]


def saliency(
    net: Network, params: Params, x: Array, *, output: int = 0, step: int = -1, **options: Any
) -> Array:
    """Return the derivative of one predicted number by every number of the input.

    Parameters
    ----------
    net : Network
        A network whose input has time steps: not "one_to_many".
    params : Params
    x : Array (N, T, I)
    output : int
        Index of the output, 0..O-1.
    step : int
        Time step of the prediction, where every step is read; -1 is the last one.
    **options
        Arguments lengths, mask, state and reset of `rnn_xp.Network.forward`.

    Returns
    -------
    Array (N, T, I)
        In units of the prediction per unit of the input.

    References
    ----------
    .. [1] K. Simonyan, A. Vedaldi, A. Zisserman, "Deep inside convolutional networks: visualising
           image classification models and saliency maps", ICLR workshop 2014.

    Examples
    --------
    >>> import numpy as np
    >>> import rnn_xp as rx
    >>> net = rx.Network(hidden_size=4)
    >>> params = net.init(seed=0)
    >>> rx.explain.saliency(net, params, np.ones((3, 5, 1), dtype=np.float32)).shape
    (3, 5, 1)
    """
    _, gradient = _of_one_output(net, params, x, output, step, options)
    return gradient


class IntegratedGradients(NamedTuple):
    """Attributions that add up to the difference of two predictions.

    Attributes
    ----------
    attributions : Array (N, T, I)
        Part of each number of the input in the difference, in units of the prediction.
    difference : Array (N,)
        The prediction at the input minus the prediction at the baseline.
    gap : Array (N,)
        ``difference`` minus the sum of the attributions: the error of the quadrature.
    """

    attributions: Array
    difference: Array
    gap: Array


def integrated_gradients(
    net: Network,
    params: Params,
    x: Array,
    baseline: Array | None = None,
    *,
    points: int = 16,
    output: int = 0,
    step: int = -1,
    tolerance: float = 1e-3,
    **options: Any,
) -> IntegratedGradients:
    """Attribute the difference of a prediction from that of a baseline to the numbers of the input.

    ::

        attribution = (x - baseline) * integral of d pred / d x along the straight way to x

    The integral is computed by Gauss-Legendre quadrature, which is exact for gradients that are
    polynomials of degree 2 * points - 1 along the way.

    Parameters
    ----------
    net, params, x, output, step, **options : see `saliency`
    baseline : Array (N, T, I) or (T, I), optional
        The input to compare with; zeros by default, which is the mean of standardised data.
    points : int
        Number of points of the quadrature, >= 1.
    tolerance : float
        Largest gap, relative to the difference or to 1, whichever is larger.

    Raises
    ------
    ValueError
        If the attributions do not add up to the difference within the tolerance: with relu
        cells and read="max" the gradient has jumps along the way, which need more points.

    References
    ----------
    .. [1] M. Sundararajan, A. Taly, Q. Yan, "Axiomatic attribution for deep networks", ICML 2017.

    Examples
    --------
    >>> import numpy as np
    >>> import rnn_xp as rx
    >>> net = rx.Network(hidden_size=4)
    >>> params = net.init(seed=0, backend=rx.get_backend("numpy", dtype="float64"))
    >>> result = rx.explain.integrated_gradients(net, params, np.ones((1, 5, 1)))
    >>> abs(float(result.attributions.sum() - result.difference[0])) < 1e-6
    True
    """
    xp, points = array_namespace(x), whole("points", points)
    if baseline is None:
        baseline = xp.zeros_like(x)
    elif tuple(baseline.shape) not in (tuple(x.shape), tuple(x.shape)[1:]):
        raise ValueError(
            f"baseline must have the shape of x, {tuple(x.shape)}, or that of one sample, "
            f"{tuple(x.shape)[1:]}; got {tuple(baseline.shape)}."
        )
    way = x - baseline
    nodes, weights = np.polynomial.legendre.leggauss(points)
    attributions = xp.zeros_like(x)
    for node, weight in zip(nodes.tolist(), weights.tolist(), strict=True):
        at = baseline + 0.5 * (1.0 + node) * way
        _, gradient = _of_one_output(net, params, at, output, step, options)
        attributions = attributions + 0.5 * weight * (gradient * way)
    above, _ = _of_one_output(net, params, x, output, step, options)
    below, _ = _of_one_output(net, params, baseline + xp.zeros_like(x), output, step, options)
    difference = above - below
    gap = difference - xp.sum(attributions, axis=(1, 2))
    size = xp.where(xp.abs(difference) > 1.0, xp.abs(difference), xp.ones_like(difference))
    worst = float(xp.max(xp.abs(gap) / size))
    if not worst <= tolerance:
        raise ValueError(
            f"the attributions miss the difference of the predictions by {worst:.1e}, more than "
            f"tolerance={tolerance:g}. Give more points than {points}."
        )
    return IntegratedGradients(attributions, difference, gap)


def influence(
    net: Network,
    params: Params,
    x: Array,
    y: Array,
    of_x: Array,
    of_y: Array,
    loss: str | Loss = "mse",
) -> Array:
    """Return how much a gradient step on each sample alone would lower the loss of some windows.

    ::

        influence_n = (dl_n / d params) . (d loss of the windows / d params)

    This is the inner product of a sample's own gradient with that of the windows. All N of them
    come from one pass: dl_n/dpred times the derivative of the prediction along the windows'
    gradient, see `rnn_xp.Network.jvp`; no sample's gradient is formed.

    Parameters
    ----------
    net : Network
    params : Params
    x, y : Array
        The N samples, such as those trained on.
    of_x, of_y : Array
        The windows whose loss is asked about, at least one.
    loss : str or callable

    Returns
    -------
    Array (N,)
        A step of size s against the gradient of sample n lowers the windows' loss by s times this,
        to first order. Negative samples oppose the windows.

    References
    ----------
    .. [1] G. Pruthi, F. Liu, M. Sundararajan, S. Kale, "Estimating training data influence by
           tracing gradient descent", NeurIPS 2020.

    Examples
    --------
    >>> import numpy as np
    >>> import rnn_xp as rx
    >>> x, y = rx.make_windows(np.sin(np.arange(40.0)), seq_length=5)
    >>> net = rx.Network(hidden_size=4)
    >>> params = net.init(seed=0, backend=rx.get_backend("numpy", dtype="float64"))
    >>> scores = rx.explain.influence(net, params, x, y, x[7:8], y[7:8])
    >>> bool(scores[7] > 0)
    True
    """
    xp = array_namespace(x)
    function = resolve_loss(loss, net.output_activation)
    _, direction = net.value_and_grad(params, of_x, of_y, loss)
    pred, along = net.jvp(params, x, direction)
    # Each sample's own mean loss: the total of one sample, not of all.
    _, dpred = function(pred, y, None, total_weight(y[:1, ...]))
    return xp.sum(xp.reshape(dpred * along, (x.shape[0], -1)), axis=1)


def _of_one_output(
    net: Network, params: Params, x: Array, output: int, step: int, options: dict[str, Any]
) -> tuple[Array, Array]:
    """Return one predicted number of each sample (N,), and its derivative by x."""
    if net.topology == "one_to_many":
        raise ValueError("attributions need an input with time steps, not topology='one_to_many'.")
    pred, _, back = net.vjp(params, x, **options)
    xp = array_namespace(x)
    chosen = _chosen(pred, output, step, xp=xp)
    gradient = back(chosen + xp.zeros_like(pred))["x"]
    axes = tuple(range(1, len(pred.shape)))
    return xp.sum(xp.where(chosen != 0, pred, xp.zeros_like(pred)), axis=axes), gradient


def _chosen(pred: Array, output: int, step: int, *, xp: Namespace) -> Array:
    """Return ones at an output (and a step) of a prediction, zeros elsewhere; one sample."""
    where = device_of(pred)
    columns = _one_of("output", output, pred.shape[-1], pred.dtype, where, xp=xp)
    if len(pred.shape) == 2:
        return columns[None, :]
    steps = _one_of("step", step % pred.shape[1] if step == -1 else step, pred.shape[1],
                    pred.dtype, where, xp=xp)  # fmt: skip
    return (steps[:, None] * columns[None, :])[None, :, :]


def _one_of(name: str, index: int, size: int, dtype: Any, where: Any, *, xp: Namespace) -> Array:
    index = whole(name, index, 0)
    if index >= size:
        raise ValueError(f"{name} must be in 0..{size - 1}, got {index}.")
    return xp.astype(xp.arange(size, device=where) == index, dtype)
