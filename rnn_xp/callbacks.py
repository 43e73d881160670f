"""Another address of what may watch a training: `Checkpoint`, `Progress`, `Epoch`."""

from rnn_xp.training.callbacks import Callback, Checkpoint, Epoch, Progress

__all__ = ["Callback", "Checkpoint", "Epoch", "Progress"]
