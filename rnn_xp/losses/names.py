"""Names of losses, and what a loss declares about itself.

A loss may have three attributes, which are False or None unless set: ``takes_classes``, if its
targets are class indices without an axis O; ``takes_logits``, if it applies softmax or sigmoid
itself; and ``curvature_rows``, if its second derivative is known. The losses of this package set
them with `rnn_xp.losses.declare`. A loss of your own may do the same, or define them as class
attributes.
"""

from __future__ import annotations

from collections.abc import Callable

from rnn_xp._checks import choice
from rnn_xp._typing import Array, Loss
from rnn_xp.losses.classification import binary_cross_entropy, cross_entropy
from rnn_xp.losses.regression import Huber, mae, mse

__all__ = ["LOSSES", "curvature_rows", "resolve_loss", "takes_classes", "takes_logits"]

LOSSES: dict[str, Loss] = {
    "mse": mse,
    "mae": mae,
    "huber": Huber(),
    "cross_entropy": cross_entropy,
    "binary_cross_entropy": binary_cross_entropy,
}
"""Losses that can be given by name."""


def resolve_loss(loss: str | Loss, output_activation: str = "identity") -> Loss:
    """Return the loss with the given name; a callable is returned unchanged.

    Parameters
    ----------
    loss : str or callable
    output_activation : str
        Activation of the network's output.

    Raises
    ------
    ValueError
        If the name is unknown, or if the loss takes logits but the output has an activation.
    """
    function: Loss = choice("loss", loss, LOSSES) if isinstance(loss, str) else loss
    if output_activation != "identity" and takes_logits(function):
        name = getattr(function, "__name__", type(function).__name__)
        raise ValueError(
            f"{name} takes logits and applies its own softmax or sigmoid; "
            f"output_activation={output_activation!r} would apply it twice. Leave it at 'identity'."
        )
    return function


def takes_classes(loss: Loss) -> bool:
    """Return True if the targets of a loss are class indices, without an axis O.

    >>> takes_classes(cross_entropy), takes_classes(binary_cross_entropy)
    (True, False)
    """
    return _declares(loss, "takes_classes")


def takes_logits(loss: Loss) -> bool:
    """Return True if a loss applies softmax or sigmoid itself, so that the network must not.

    >>> takes_logits(cross_entropy), takes_logits(mse)
    (True, False)
    """
    return _declares(loss, "takes_logits")


def curvature_rows(loss: Loss) -> Callable[..., Array] | None:
    """Return the function that gives the rows of a loss's curvature, see `declare`; None without.

    >>> curvature_rows(mae) is None, curvature_rows(mse) is None
    (True, False)
    """
    rows: Callable[..., Array] | None = getattr(loss, "curvature_rows", None)
    return rows


def _declares(loss: Loss, name: str) -> bool:
    """Return an attribute of a loss, also through a functools.partial of the loss."""
    return bool(getattr(loss, name, getattr(getattr(loss, "func", None), name, False)))
