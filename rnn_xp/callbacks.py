"""Callbacks of `rnn_xp.fit`, from `rnn_xp.training.callbacks`."""

from rnn_xp.training.callbacks import Callback, Checkpoint, Epoch, Progress

__all__ = ["Callback", "Checkpoint", "Epoch", "Progress"]
