"""What `benchmarks/cpu` measures: the cases, their data, and what is right and what it costs."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

import rnn_xp as rx

CELLS = ("rnn", "gru", "lstm")
REFERENCE, SMALL, LARGE = (8317, 10, 1, 50), (32, 50, 16, 64), (64, 200, 32, 256)
SIZES = (
    REFERENCE, SMALL, (64, 100, 32, 128), LARGE, (16, 500, 8, 128), (8, 1000, 8, 64),
    (128, 50, 64, 512), (1, 2000, 4, 64), (1024, 30, 8, 32),
)  # fmt: skip
SIZES_OF = {
    "steps": (REFERENCE, SMALL),
    "sizes": SIZES,
    "inference": (REFERENCE, (256, 100, 8, 128), SMALL, LARGE),
}  # by section
QUICK_SIZES = ((1040, 10, 1, 50), (32, 20, 16, 32))
THREADS = 2
ADAM = rx.optim.adam(0.001)
LOSS_TOLERANCE = 1e-5  # of the loss itself
GRADIENT_TOLERANCE = 1e-4  # of the largest entry of each gradient
# Of the fall of the loss. Torch and Keras train a second bias, which makes it fall faster; an
# update that is left out or done twice is still found.
FALL_TOLERANCE = 0.5
PREDICTION_TOLERANCE = 1e-5  # of the largest prediction
UPDATES = 3

FLOAT32 = rx.get_backend("numpy", dtype="float32")


class WrongError(AssertionError):
    """A contender computes something else."""


@dataclasses.dataclass(frozen=True)
class Case:
    """A network and the size of its data: N windows of T steps of I values, H units, one output."""

    cell: str
    N: int
    T: int
    I: int  # noqa: E741
    H: int

    def __str__(self):
        return f"{self.cell.upper()}, N = {self.N}, T = {self.T}, I = {self.I}, H = {self.H}"

    @property
    def size(self):
        return (self.N, self.T, self.I, self.H)

    @property
    def gates(self):
        return {"rnn": 1, "gru": 3, "lstm": 4}[self.cell]

    @property
    def net(self):
        return rx.Network(cell=self.cell, input_size=self.I, hidden_size=self.H)

    @functools.cached_property
    def data(self):
        """Noise, and targets that depend on it."""
        x = np.random.default_rng(1).standard_normal((self.N, self.T, self.I), dtype=np.float32)
        return x, np.sin(x[:, -3:, 0].sum(axis=1, keepdims=True)) + 1.0

    @functools.cached_property
    def weights(self):
        return self.net.init(0, FLOAT32)

    @property
    def flops(self):
        """Floating-point operations of the matrix products of a training step.

        Three recurrent products (forward, back to h, for the weights) for all steps but the first,
        whose h is zero; two of the input, whose gradient nobody wants; three of the readout.
        """
        gates = self.gates * self.H
        recurrent = 3 * gates * self.H * (self.T - 1)
        return 2 * self.N * (recurrent + 2 * gates * self.I * self.T + 3 * self.H)


@dataclasses.dataclass(frozen=True)
class Reference:
    """What is right, in float64: the first gradient, the losses of some updates, predictions."""

    gradient: dict
    losses: list
    predictions: np.ndarray


def reference(case):
    net, (x, y) = case.net, (values.astype(np.float64) for values in case.data)
    params = {name: weight.astype(np.float64) for name, weight in case.weights.items()}
    predictions, _ = net.forward(params, x)
    state, losses, gradients = ADAM.init(params), [], []
    for _ in range(UPDATES):
        loss, gradient = net.value_and_grad(params, x, y)
        params, state = ADAM.update(gradient, state, params)
        losses.append(float(loss))
        gradients.append(gradient)
    return Reference(gradients[0], losses, predictions)


def check_training(contender, right, slack=1.0):
    """Compare the very steps that will be timed with the reference, to ``slack`` tolerances.

    Adam's first mean is a share of the first gradient, so the gradient that is looked at is the one
    the update was made with. Later updates cannot be compared closely, for Adam divides by the size
    of a gradient, however small; but the loss must fall as much.
    """
    loss = float(contender.step())
    _close(contender, "loss", loss, right.losses[0], slack * LOSS_TOLERANCE)
    found = contender.gradient()
    if found.keys() != right.gradient.keys():
        raise WrongError(f"{contender.name}: gradients of {sorted(found)}")
    for name, gradient in right.gradient.items():
        tolerance = slack * GRADIENT_TOLERANCE
        _close(contender, f"gradient of {name}", found[name], gradient, tolerance)
    last = [float(contender.step()) for _ in right.losses[1:]][-1]
    fall = right.losses[0] - right.losses[-1]
    if not abs((loss - last) - fall) <= FALL_TOLERANCE * abs(fall):
        found = f"{UPDATES} updates lower the loss by {loss - last:.3g}, not {fall:.3g}"
        raise WrongError(f"{contender.name}: {found}")


def check_inference(contender, right):
    """Compare predictions, of all windows or of the first ones, with the reference.

    The largest prediction of all windows is the scale: a single one may be next to nothing.
    """
    found = np.asarray(contender.step())
    expected, scale = right.predictions[: len(found)], np.max(np.abs(right.predictions))
    _close(contender, "prediction", found, expected, PREDICTION_TOLERANCE, scale)


def _close(contender, what, found, expected, tolerance, scale=None):
    found, expected = np.asarray(found, dtype=np.float64), np.asarray(expected)
    if found.shape != expected.shape:
        raise WrongError(f"{contender.name}: {what} has shape {found.shape}, not {expected.shape}")
    error = np.max(np.abs(found - expected)) / (scale or np.max(np.abs(expected)))
    if not error <= tolerance:
        raise WrongError(f"{contender.name}: {what} is off by {error:.1e}, over {tolerance:g}")
