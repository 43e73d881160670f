"""Names of losses, and what a loss declares about itself.

A loss may have four attributes: ``takes_classes``, True if its targets are class indices without
an axis O; ``takes_logits``, True if it applies softmax or sigmoid itself; ``targets``, the smallest
and the largest target that it has a meaning for; and ``curvature_rows``, a function that gives its
second derivative. The losses of this package set them with `rnn_xp.losses.declare`. A loss of your
own may do the same, or define them as class attributes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rnn_xp._checks import choice
from rnn_xp._typing import Array, Loss
from rnn_xp.losses.classification import binary_cross_entropy, cross_entropy
from rnn_xp.losses.regression import Huber, mae, mse

__all__ = [
    "LOSSES",
    "curvature_rows",
    "name_of",
    "resolve_loss",
    "takes_classes",
    "takes_logits",
    "valid_targets",
]

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
        raise ValueError(
            f"{name_of(function)} takes logits and applies its own softmax or sigmoid; "
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
    rows: Callable[..., Array] | None = _declared(loss, "curvature_rows", None)
    return rows


def valid_targets(loss: Loss) -> tuple[float, float] | None:
    """Return the smallest and the largest target that a loss has a meaning for; None for all.

    >>> valid_targets(binary_cross_entropy), valid_targets(mse)
    ((0.0, 1.0), None)
    """
    limits: tuple[float, float] | None = _declared(loss, "targets", None)
    return limits


def name_of(loss: Loss) -> str:
    """Return the name of a loss, for messages."""
    loss = getattr(loss, "func", loss)
    return str(getattr(loss, "__name__", type(loss).__name__))


def _declares(loss: Loss, name: str) -> bool:
    return bool(_declared(loss, name, False))


def _declared(loss: Loss, name: str, otherwise: Any) -> Any:
    """Return an attribute of a loss, also through a functools.partial of the loss."""
    return getattr(loss, name, getattr(getattr(loss, "func", None), name, otherwise))
