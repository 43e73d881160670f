"""The choices that define a network: names become objects here, and combinations are checked."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

from rnn_xp._checks import Argument, ParameterError, choice, flag, number, whole
from rnn_xp.cells import CELLS, Cell
from rnn_xp.cells.gates import Parameter
from rnn_xp.kernels.portable import IDENTITY, RELU, SIGMOID, SOFTMAX, TANH, Activation
from rnn_xp.network.feedback import FeedbackCell
from rnn_xp.network.layers import Layers
from rnn_xp.network.topology import READ_LAST, READ_MAX, READ_MEAN, REPEAT, ZEROS, Feed, Read

__all__ = ["Configuration"]

_ACTIVATIONS = {"tanh": TANH, "relu": RELU}
_OUTPUT_ACTIVATIONS = {"identity": IDENTITY, "sigmoid": SIGMOID, "tanh": TANH, "softmax": SOFTMAX}
_READS = {"last": READ_LAST, "mean": READ_MEAN, "max": READ_MAX}
_FEEDS = {"zeros": ZEROS, "repeat": REPEAT, "feedback": ZEROS}
_TOPOLOGIES = ("many_to_one", "many_to_many", "one_to_many")


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """The sizes and choices of a network; `rnn_xp.Network` documents them."""

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
            self._set(name, whole(name, getattr(self, name), owner="Network: "))
        self._set("linear_lags", whole("linear_lags", self.linear_lags, least=0, owner="Network: "))
        for name in ("dropout", "recurrent_dropout"):
            rate = number(f"Network: {name}", getattr(self, name), "a number in [0, 1)")
            if not 0.0 <= rate < 1.0:
                raise ParameterError(
                    "Network: {0:name} must be in [0, 1), got {0:value}.", Argument(name, rate)
                )
            self._set(name, rate)
        for name in ("bidirectional", "layer_norm", "residual", "reset_after"):
            self._set(name, flag(f"Network: {name}", getattr(self, name)))
        choice("cell", self.cell, CELLS)
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

        def needs(condition: bool, name: str, needed: str, *others: Argument) -> None:
            if not condition:
                option = Argument(name, getattr(self, name))
                raise ParameterError(f"Network: {{0}} needs {needed}.", option, *others)

        for name in ("activation", "reset_after"):
            value, default = getattr(self, name), Configuration.__dataclass_fields__[name].default
            takers = [
                Argument("cell", cell) for cell, kind in CELLS.items() if name in kind.options
            ]
            taken = name in CELLS[self.cell].options
            several = " or ".join(f"{{{i}}}" for i in range(1, len(takers) + 1))
            needs(taken or value == default, name, several, *takers)
        needs(
            self.topology == "many_to_one" or self.read == "last",
            "read",
            "{1}; other topologies read every step",
            Argument("topology", "many_to_one"),
        )
        needs(
            self.topology == "one_to_many" or self.feed == "zeros",
            "feed",
            "{1}; other topologies have an input at every step",
            Argument("topology", "one_to_many"),
        )
        needs(
            self.topology == "many_to_one" or not self.linear_lags,
            "linear_lags",
            "{1}: it is a path from the last steps to the one prediction",
            Argument("topology", "many_to_one"),
        )
        between, layers = "{1:name} >= 2: it acts between layers", Argument("num_layers")
        needs(self.num_layers > 1 or not self.dropout, "dropout", between, layers)
        needs(self.num_layers > 1 or not self.residual, "residual", between, layers)
        if self.feedback:
            needs(
                not self.bidirectional,
                "feed",
                "{1}: the reverse direction would start from the future",
                Argument("bidirectional", False),
            )
            needs(
                self.input_size == self.output_size,
                "feed",
                f"input_size == output_size, got {self.input_size} and {self.output_size}: "
                "the prediction is the next input",
            )

    @property
    def feedback(self) -> bool:
        """True if the prediction is the next input."""
        return self.topology == "one_to_many" and self.feed == "feedback"

    @property
    def directions(self) -> int:
        """Number of directions, D: 2 if bidirectional."""
        return 2 if self.bidirectional else 1

    @property
    def state_type(self) -> type[Any]:
        """NamedTuple of the cell's state."""
        return CELLS[self.cell].state_type

    @functools.cached_property
    def layers(self) -> Layers:
        """The stack of cells."""
        width = self.directions * self.hidden_size
        sizes = [self.input_size] + [width] * (self.num_layers - 1)
        cells = tuple(self._make_cell(size) for size in sizes)
        return Layers(cells, self.directions, self.hidden_size, self.residual)

    def make_feedback(self) -> FeedbackCell:
        """Build layers and readout as one cell, for feedback."""
        return FeedbackCell(self.layers, self.output_function)

    @property
    def output_function(self) -> Activation:
        """Activation of the output, g."""
        return _OUTPUT_ACTIVATIONS[self.output_activation]

    @property
    def read_function(self) -> Read:
        """Function that reduces a sequence of states to a vector."""
        return _READS[self.read]

    @property
    def feed_function(self) -> Feed:
        """Function that expands one input to a sequence; with feedback nobody reads the rest."""
        return _FEEDS[self.feed]

    @property
    def parameters(self) -> dict[str, Parameter]:
        """Names, shapes and initial values of all parameters, in the order of the draws."""
        layers, width = self.layers, self.directions * self.hidden_size
        declared = {
            layers.prefix(layer, direction) + name: parameter
            for layer, cell in enumerate(layers.cells)
            for direction in range(self.directions)
            for name, parameter in cell.parameters().items()
        }
        declared["readout.w_hy"] = Parameter((self.output_size, width), "glorot")
        declared["readout.b_y"] = Parameter((self.output_size,))
        if self.linear_lags:  # it starts at zero: the network begins as the one without this path
            shape = (self.output_size, self.linear_lags * self.input_size)
            declared["readout.w_xy"] = Parameter(shape)
        return declared

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of all parameters."""
        return {name: parameter.shape for name, parameter in self.parameters.items()}

    @property
    def num_parameters(self) -> int:
        """Number of trainable values in all parameters."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    def _make_cell(self, input_size: int) -> Cell:
        kind = CELLS[self.cell]
        options = {name: getattr(self, name) for name in kind.options}
        if "activation" in options:
            options["activation"] = _ACTIVATIONS[self.activation]
        return kind.make(input_size, self.hidden_size, self.layer_norm, **options)
