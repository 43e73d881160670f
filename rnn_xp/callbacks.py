"""Callbacks of `rnn_xp.fit`: `Checkpoint`, `Progress`, and what they are given, an `Epoch`."""

from rnn_xp.training.callbacks import Callback, Checkpoint, Epoch, Progress

__all__ = ["Callback", "Checkpoint", "Epoch", "Progress"]
