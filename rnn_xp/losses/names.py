"""The names of losses, and what a loss takes."""

from __future__ import annotations

from rnn_xp._checks import choice
from rnn_xp._typing import Loss
from rnn_xp.losses.classification import binary_cross_entropy, cross_entropy
from rnn_xp.losses.regression import Huber, mae, mse

__all__ = ["LOSSES", "resolve_loss", "takes_classes", "takes_logits"]

LOSSES: dict[str, Loss] = {
    "mse": mse,
    "mae": mae,
    "huber": Huber(),
    "cross_entropy": cross_entropy,
    "binary_cross_entropy": binary_cross_entropy,
}


def resolve_loss(loss: str | Loss, output_activation: str = "identity") -> Loss:
    """Turn the name of a loss into the function; a function is returned as it is.

    Raises
    ------
    ValueError
        If the name is unknown, or the loss takes logits and the output is activated already.
    """
    found: Loss = choice("loss", loss, LOSSES) if isinstance(loss, str) else loss
    if output_activation != "identity" and takes_logits(found):
        raise ValueError(
            f"a cross-entropy takes logits and applies its own softmax or sigmoid; "
            f"output_activation={output_activation!r} would apply it twice. Leave it at 'identity'."
        )
    return found


def takes_classes(loss: Loss) -> bool:
    """Whether the targets of a loss are class indices, without an axis O."""
    return loss is cross_entropy


def takes_logits(loss: Loss) -> bool:
    """Tell whether a loss applies softmax or sigmoid itself, so that the network must not.

    >>> takes_logits(cross_entropy), takes_logits(mse)
    (True, False)
    """
    return loss in (cross_entropy, binary_cross_entropy)
