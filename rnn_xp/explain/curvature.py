"""The largest eigenvalues of the Hessian: the numbers that say whether a learning rate can work."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnn_xp._checks import install, whole
from rnn_xp._typing import Array, Loss, Params
from rnn_xp.backend import array_namespace, device_of
from rnn_xp.network import Network
from rnn_xp.optim.flat import flatten, unflatten

__all__ = ["Curvature", "Sharpness", "measure_curvature"]


@dataclass(frozen=True)
class Curvature:
    """Extreme eigenvalues of the Hessian of a loss.

    Attributes
    ----------
    eigenvalues : ndarray (k,)
        The k largest eigenvalues, in descending order.
    smallest : float
        The smallest eigenvalue; negative at a saddle.
    error : float
        Bound of the error of the largest eigenvalue: the residual of its Ritz vector.
    products : int
        Number of products with the Hessian.
    """

    eigenvalues: NDArray[np.float64]
    smallest: float
    error: float
    products: int

    @property
    def largest_rate(self) -> float:
        """Largest learning rate for which gradient descent can converge, 2 / largest eigenvalue."""
        sharpness = float(self.eigenvalues[0])
        return 2.0 / sharpness if sharpness > 0.0 else math.inf


def measure_curvature(
    net: Network,
    params: Params,
    x: Array,
    y: Array,
    loss: str | Loss = "mse",
    *,
    count: int = 1,
    products: int = 40,
    seed: int = 0,
    **options: Any,
) -> Curvature:
    """Compute the largest eigenvalues of the Hessian of a loss, by the Lanczos method.

    The matrix, of P**2 numbers, is never formed; `rnn_xp.Network.hvp` gives its products. The
    Lanczos vectors are orthogonalised against all earlier ones, so that no eigenvalue appears
    twice.

    Parameters
    ----------
    net, params, x, y, loss, **options : see `rnn_xp.Network.hvp`
    count : int
        Number k of eigenvalues, at most ``products``.
    products : int
        Number of products with the Hessian; fewer if the search ends before.
    seed : int
        Seed of the first vector.

    Returns
    -------
    Curvature

    Raises
    ------
    ValueError
        If ``count`` is larger than ``products``.

    References
    ----------
    .. [1] C. Lanczos, "An iteration method for the solution of the eigenvalue problem of linear
           differential and integral operators", J. Res. Natl. Bur. Stand. 45 (1950), 255-282.
    .. [2] J. Cohen et al., "Gradient descent on neural networks typically occurs at the edge of
           stability", ICLR 2021.

    Examples
    --------
    >>> import numpy as np
    >>> import rnn_xp as rx
    >>> x, y = rx.make_windows(np.sin(np.arange(40.0)), seq_length=5)
    >>> net = rx.Network(hidden_size=4)
    >>> params = net.init(seed=0, backend=rx.get_backend("numpy", dtype="float64"))
    >>> curvature = rx.explain.measure_curvature(net, params, x, y)
    >>> bool(curvature.error < 1e-6 * curvature.eigenvalues[0])
    True
    """
    size = sum(math.prod(p.shape) for p in params.values())
    count, limit = whole("count", count), min(whole("products", products), size)
    if count > limit:
        raise ValueError(
            f"count must be in 1..{limit}, the number of products and of parameters; got {count}."
        )
    xp, flat = array_namespace(x), flatten(params)

    def product(vector: Array) -> Array:
        return flatten(net.hvp(params, x, y, unflatten(vector, params), loss, **options))

    draw = np.random.default_rng(seed).standard_normal(size)
    vector = xp.asarray(draw, dtype=flat.dtype, device=device_of(flat))
    basis = [vector / xp.linalg.vector_norm(vector)]
    diagonal: list[float] = []
    beside: list[float] = []
    scale = 0.0
    for _ in range(limit):
        image = product(basis[-1])
        diagonal.append(float(xp.vecdot(image, basis[-1])))
        for _ in range(2):  # once is not enough in floating point (Parlett, section 6.9)
            for earlier in basis:
                image = image - xp.vecdot(image, earlier) * earlier
        length = float(xp.linalg.vector_norm(image))
        scale = max(scale, abs(diagonal[-1]), length)
        beside.append(length)
        if length <= 1e-12 * scale:
            break  # the basis spans an invariant space: its eigenvalues are exact
        basis.append(image / length)
    steps = len(diagonal)
    lower = np.diag(beside[: steps - 1], -1)
    tridiagonal = np.diag(diagonal) + lower + lower.T
    values, vectors = np.linalg.eigh(tridiagonal)
    return Curvature(
        eigenvalues=values[::-1][:count],
        smallest=float(values[0]),
        error=abs(beside[-1] * float(vectors[-1, -1])),
        products=steps,
    )


class Sharpness:
    """A callback of `rnn_xp.fit` that measures the largest eigenvalue of the Hessian on the way.

    Gradient descent with the learning rate r is stable only while the eigenvalue, the sharpness, is
    below 2 / r.

    Parameters
    ----------
    net : Network
    x, y : Array
        The data whose loss is meant, such as those trained on; on the training's library.
    loss : str or callable
    every : int
        Number of epochs between two measurements, >= 1.
    products : int
        Number of products with the Hessian for each measurement.

    Attributes
    ----------
    epochs : list of int
        Epochs after which the sharpness was measured.
    values : list of float
        The sharpness there.

    Examples
    --------
    >>> import numpy as np
    >>> import rnn_xp as rx
    >>> x, y = rx.make_windows(np.sin(np.arange(40.0)), seq_length=5)
    >>> net, float64 = rx.Network(hidden_size=4), rx.get_backend("numpy", dtype="float64")
    >>> sharpness = rx.explain.Sharpness(net, x, y, every=5)
    >>> options = {"epochs": 10, "backend": float64, "callbacks": [sharpness]}
    >>> result = rx.fit(net, x, y, optimizer=rx.optim.sgd(0.1), **options)
    >>> sharpness.epochs
    [5, 10]
    """

    def __init__(
        self,
        net: Network,
        x: Array,
        y: Array,
        loss: str | Loss = "mse",
        *,
        every: int = 10,
        products: int = 20,
    ) -> None:
        self.every, self.products = whole("every", every), whole("products", products)
        self._task = (net, x, y, loss)
        self.epochs: list[int] = []
        self.values: list[float] = []

    def __call__(self, epoch: Any) -> None:
        """Measure after every ``every``-th epoch; training goes on."""
        if epoch.number % self.every or epoch.state is None:
            return
        net, x, y, loss = self._task
        measured = measure_curvature(net, epoch.state().params, x, y, loss, products=self.products)
        self.epochs.append(epoch.number)
        self.values.append(float(measured.eigenvalues[0]))

    def plot(self, learning_rate: float | None = None, *, title: str = "", ax: Any = None) -> Any:
        """Draw the sharpness by epoch, and the bound of a learning rate; return the Axes."""
        if ax is None:
            try:
                from matplotlib.figure import Figure  # only for those who draw
            except ImportError:
                raise ImportError(f"Plots need matplotlib: {install('plot')}") from None
            ax = Figure(figsize=(7.0, 4.0), layout="constrained").subplots()
        ax.plot(self.epochs, self.values, "o-", label="sharpness")
        if learning_rate is not None:
            ax.axhline(2.0 / learning_rate, color="0.4", ls="--", label="2 / learning rate")
        ax.set(xlabel="epoch", ylabel="largest eigenvalue of the Hessian", title=title)
        ax.set_yscale("log")
        ax.legend()
        return ax
