"""Models of others: weights of PyTorch and Keras, networks as ONNX graphs.

- `torch`: the ``state_dict`` of ``nn.RNN``, ``nn.GRU`` or ``nn.LSTM`` and an ``nn.Linear``;
- `keras`: the ``get_weights()`` of ``SimpleRNN``, ``GRU`` or ``LSTM`` layers and a ``Dense``;
- `keras_model`, `torch_module`: a whole model for Keras, and the source of a module for PyTorch;
- `onnx`: a graph that predicts; `onnx_training`: a graph of one training step;
- `consumers`, `example`, `runtimes`, `compact`: where a graph is right, how a file shows it, and
  what smaller weights cost;
- `files`: safetensors files of such weights, written here or elsewhere;
- `load`: a network from a file of PyTorch, Keras, Flax, Equinox, MLX, Paddle or ONNX.

The first two work on plain arrays: neither PyTorch nor Keras needs to be installed. A cell that a
format does not have is refused by name.

**The bias rule.** PyTorch adds two biases, ``bias_ih`` and ``bias_hh``, to every gate; Keras' GRU
has two as well. A prediction depends only on their sum, except in the candidate of a reset-after
GRU, where the second stands inside ``r * (...)``. So there is one bias ``b_h`` here, and ``b_hn``
for that candidate. An export writes (b, 0). An import adds the two: predictions do not change, but
*further training differs*, because two biases with the same gradient move twice as far as one
(with plain gradient descent their sum learns at twice the rate).
"""

from rnn_xp.interchange import compact as compact
from rnn_xp.interchange import consumers as consumers
from rnn_xp.interchange import example as example
from rnn_xp.interchange import files as files
from rnn_xp.interchange import keras as keras
from rnn_xp.interchange import keras_model as keras_model
from rnn_xp.interchange import onnx as onnx
from rnn_xp.interchange import onnx_training as onnx_training
from rnn_xp.interchange import runtimes as runtimes
from rnn_xp.interchange import torch as torch
from rnn_xp.interchange import torch_module as torch_module
from rnn_xp.interchange.reading.load import Loaded as Loaded
from rnn_xp.interchange.reading.load import load as load

__all__ = ["Loaded", "load"]
