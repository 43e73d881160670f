"""The choices that make a network, turned from names into objects, and checked."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

from rnn_xp._checks import choice, flag, number, whole
from rnn_xp.cells import (
    GRUCell,
    GRUResetBeforeCell,
    GRUState,
    LSTMCell,
    LSTMState,
    RNNCell,
    RNNState,
)
from rnn_xp.kernels.portable import IDENTITY, RELU, SIGMOID, SOFTMAX, TANH, Activation
from rnn_xp.network.feedback import FeedbackCell
from rnn_xp.network.layers import Layers
from rnn_xp.network.topology import READ_LAST, READ_MAX, READ_MEAN, REPEAT, ZEROS, Feed, Read

__all__ = ["Configuration"]

_STATES = {"rnn": RNNState, "gru": GRUState, "lstm": LSTMState}
_ACTIVATIONS = {"tanh": TANH, "relu": RELU}
_OUTPUT_ACTIVATIONS = {"identity": IDENTITY, "sigmoid": SIGMOID, "tanh": TANH, "softmax": SOFTMAX}
_READS = {"last": READ_LAST, "mean": READ_MEAN, "max": READ_MAX}
_FEEDS = {"zeros": ZEROS, "repeat": REPEAT, "feedback": None}
_TOPOLOGIES = ("many_to_one", "many_to_many", "one_to_many")


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """Sizes and choices of a network; `rnn_xp.Network` documents them."""

    cell: str = "rnn"
    input_size: int = 1
    hidden_size: int
    output_size: int = 1
    topology: str = "many_to_one"
    num_layers: int = 1
    bidirectional: bool = False
    activation: str = "tanh"
    output_activation: str = "identity"
    read: str = "last"
    feed: str = "zeros"
    dropout: float = 0.0
    recurrent_dropout: float = 0.0
    layer_norm: bool = False
    residual: bool = False
    reset_after: bool = True
    linear_lags: int = 0

    def __post_init__(self) -> None:
        for name in ("input_size", "hidden_size", "output_size", "num_layers"):
            self._set(name, whole(f"Network: {name}", getattr(self, name)))
        self._set("linear_lags", whole("Network: linear_lags", self.linear_lags, least=0))
        for name in ("dropout", "recurrent_dropout"):
            rate = number(f"Network: {name}", getattr(self, name), "a number in [0, 1)")
            if not 0.0 <= rate < 1.0:
                raise ValueError(f"Network: {name} must be in [0, 1), got {rate!r}.")
            self._set(name, rate)
        for name in ("bidirectional", "layer_norm", "residual", "reset_after"):
            self._set(name, flag(f"Network: {name}", getattr(self, name)))
        choice("cell", self.cell, _STATES)
        choice("activation", self.activation, _ACTIVATIONS)
        choice("output_activation", self.output_activation, _OUTPUT_ACTIVATIONS)
        choice("topology", self.topology, dict.fromkeys(_TOPOLOGIES))
        choice("read", self.read, _READS)
        choice("feed", self.feed, _FEEDS)
        self._check_combinations()

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)  # the dataclass is frozen

    def _check_combinations(self) -> None:
        """Refuse options that would be ignored, and combinations that have no meaning."""

        def needs(condition: bool, option: str, needed: str) -> None:
            if not condition:
                raise ValueError(f"Network: {option} needs {needed}.")

        needs(
            self.cell == "rnn" or self.activation == "tanh",
            f"activation={self.activation!r}",
            "cell='rnn'; the gates of a gru or lstm have functions of their own",
        )
        needs(self.cell == "gru" or self.reset_after, "reset_after=False", "cell='gru'")
        needs(
            self.topology == "many_to_one" or self.read == "last",
            f"read={self.read!r}",
            "topology='many_to_one'; other topologies read every step",
        )
        needs(
            self.topology == "one_to_many" or self.feed == "zeros",
            f"feed={self.feed!r}",
            "topology='one_to_many'; other topologies have an input at every step",
        )
        needs(
            self.topology == "many_to_one" or not self.linear_lags,
            f"linear_lags={self.linear_lags}",
            "topology='many_to_one': it is a path from the last steps to the one prediction",
        )
        several = "num_layers >= 2: it acts between layers"
        needs(self.num_layers > 1 or not self.dropout, f"dropout={self.dropout}", several)
        needs(self.num_layers > 1 or not self.residual, "residual=True", several)
        if self.feedback:
            needs(
                not self.bidirectional,
                "feed='feedback'",
                "bidirectional=False: the reverse direction would start from the future",
            )
            needs(
                self.input_size == self.output_size,
                "feed='feedback'",
                f"input_size == output_size, got {self.input_size} and {self.output_size}: "
                "the prediction is the next input",
            )

    @property
    def feedback(self) -> bool:
        """Whether the prediction is fed back."""
        return self.topology == "one_to_many" and self.feed == "feedback"

    @property
    def directions(self) -> int:
        """D, 2 if bidirectional."""
        return 2 if self.bidirectional else 1

    @property
    def state_type(self) -> type[Any]:
        """NamedTuple of the cell's state."""
        return _STATES[self.cell]

    @functools.cached_property
    def layers(self) -> Layers:
        """The stack of cells."""
        width = self.directions * self.hidden_size
        sizes = [self.input_size] + [width] * (self.num_layers - 1)
        cells = tuple(self._make_cell(size) for size in sizes)
        return Layers(cells, self.directions, self.hidden_size, self.residual)

    def make_feedback(self) -> FeedbackCell:
        """Build layers and readout as one cell."""
        return FeedbackCell(self.layers, self.output_function)

    @property
    def output_function(self) -> Activation:
        """Activation of the output."""
        return _OUTPUT_ACTIVATIONS[self.output_activation]

    @property
    def read_function(self) -> Read:
        """How a sequence becomes a vector."""
        return _READS[self.read]

    @property
    def feed_function(self) -> Feed:
        """How one input becomes a sequence, where nothing is fed back."""
        feed = _FEEDS[self.feed]
        if feed is None:
            raise ValueError("the prediction is fed back: there is no feed of inputs")
        return feed

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of all parameters, in the order in which they are drawn."""
        shapes: dict[str, tuple[int, ...]] = {}
        layers = self.layers
        for layer, cell in enumerate(layers.cells):
            for direction in range(self.directions):
                prefix = layers.prefix(layer, direction)
                shapes |= {prefix + name: shape for name, shape in cell.shapes().items()}
        shapes["readout.w_hy"] = (self.output_size, self.directions * self.hidden_size)
        shapes["readout.b_y"] = (self.output_size,)
        if self.linear_lags:
            shapes["readout.w_xy"] = (self.output_size, self.linear_lags * self.input_size)
        return shapes

    @property
    def constants(self) -> dict[str, tuple[float, ...]]:
        """Initial values, gate by gate, of the vectors that do not start at zero."""
        layers = self.layers
        return {
            layers.prefix(layer, direction) + name: values
            for layer, cell in enumerate(layers.cells)
            for direction in range(self.directions)
            for name, values in cell.constants().items()
        }

    @property
    def num_parameters(self) -> int:
        """Number of trainable values."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    def _make_cell(self, input_size: int) -> Any:
        sizes = (input_size, self.hidden_size)
        if self.cell == "rnn":
            return RNNCell(*sizes, _ACTIVATIONS[self.activation], layer_norm=self.layer_norm)
        if self.cell == "lstm":
            return LSTMCell(*sizes, layer_norm=self.layer_norm)
        variant = GRUCell if self.reset_after else GRUResetBeforeCell
        return variant(*sizes, layer_norm=self.layer_norm)
