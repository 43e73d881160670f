"""What options cost, beside a plain step of the same cell, size and kernels; on one thread.

A step is the loss and its gradient for one block of rows, without the optimiser. Lengths are drawn
uniformly from [T/4, T]; torch computes them by packed sequences. Feedback stands beside a network
that is given its first input again at every step, and puts out as many predictions.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib

import numpy as np

import rnn_xp as rx
from benchmarks.cpu import CELLS, FLOAT32, GRADIENT_TOLERANCE, LOSS_TOLERANCE, WrongError
from benchmarks.cpu.libraries import missing
from benchmarks.cpu.timing import Contender

OPTIONS = (
    "plain", "lengths", "mask", "reset", "state", "recurrent dropout", "layer norm", "repeat",
    "feedback",
)  # fmt: skip
BASES = dict.fromkeys(OPTIONS[1:-2], "plain") | {"feedback": "repeat"}
RAGGED = ("plain", "lengths")
# The last is a block of the reference workload.
SIZES = ((64, 100, 8, 64), (1024, 40, 8, 64), (1040, 10, 1, 50))
STACKS = ((1, 1), (2, 1), (1, 2), (2, 2))  # layers and directions
RATE = 0.2  # of recurrent dropout, of masked steps and of resets
TORCH_PLAIN, TORCH_PACKED = "torch, plain", "torch, packed"


@dataclasses.dataclass(frozen=True)
class Case:
    """A network, the size of a block of rows, and what it is asked for."""

    cell: str
    N: int
    T: int
    I: int  # noqa: E741
    H: int
    layers: int = 1
    directions: int = 1

    def __str__(self):
        layers = f", {self.layers} layers" if self.layers > 1 else ""
        both = ", both directions" if self.directions > 1 else ""
        sizes = f"N = {self.N}, T = {self.T}, I = {self.I}, H = {self.H}"
        return f"{self.cell.upper()}, {sizes}{layers}{both}"

    @property
    def options(self):
        """Stacks are for ragged rows alone."""
        return OPTIONS if (self.layers, self.directions) == (1, 1) else RAGGED

    def net(self, option):
        fed = option in ("repeat", "feedback")
        one_to_many = {"topology": "one_to_many", "feed": option, "output_size": self.I}
        return rx.Network(
            cell=self.cell, input_size=self.I, hidden_size=self.H, num_layers=self.layers,
            bidirectional=self.directions == 2, layer_norm=option == "layer norm",
            recurrent_dropout=RATE if option == "recurrent dropout" else 0.0,
            **(one_to_many if fed else {}),
        )  # fmt: skip

    @functools.cached_property
    def data(self):
        rng = np.random.default_rng(1)
        x = rng.standard_normal((self.N, self.T, self.I), dtype=np.float32)
        return x, np.sin(x[:, 0, :1]) + 1.0

    def data_for(self, option):
        """Input and target; the prediction of every step is one of the next input."""
        x, y = self.data
        return (x[:, :1], np.sin(x)) if option in ("repeat", "feedback") else (x, y)

    def arrays(self, option):
        """Optional arguments of the call."""
        rng, net, steps = np.random.default_rng(2), self.net(option), (self.N, self.T)
        if option == "lengths":
            return {"lengths": rng.integers(self.T // 4, self.T + 1, self.N)}
        if option in ("mask", "reset"):
            drawn = rng.random(steps) < RATE
            return {option: ~drawn if option == "mask" else drawn}
        if option == "state":
            shape = (self.layers * self.directions, self.N, self.H)
            fields = net.state_type._fields
            drawn = (rng.standard_normal(shape, dtype=np.float32) for _ in fields)
            return {"state": net.state_type(*drawn)}
        if option == "recurrent dropout":
            return {"rng": net.dropout_masks(rng, self.data[0])}
        return {}


def cases(cells=CELLS, quick=False):
    """All options of one layer at all sizes, and ragged rows in stacks at the first."""
    for size in SIZES[:1] if quick else SIZES:
        for cell in cells:
            for stack in STACKS if size == SIZES[0] and not quick else STACKS[:1]:
                yield Case(cell, *size, *stack)


class Step(Contender):
    """The loss and its gradient, by the kernels of one kind."""

    def __init__(self, case, kind, option):
        self.name, self.net = f"{kind}, {option}", case.net(option)
        self.params, self.arrays = self.net.init(0, FLOAT32), case.arrays(option)
        self.workspace = importlib.import_module(f"rnn_xp.kernels.{kind}").Workspace("float32")
        self.data = case.data_for(option)

    def step(self):
        return self.net.value_and_grad(
            self.params, *self.data, workspace=self.workspace, **self.arrays
        )


class TorchStep(Contender):
    """The same by torch, with packed sequences if there are lengths."""

    def __init__(self, case, option):
        import torch

        self.torch, self.name = torch, TORCH_PACKED if option == "lengths" else TORCH_PLAIN
        kind = {"rnn": torch.nn.RNN, "gru": torch.nn.GRU, "lstm": torch.nn.LSTM}[case.cell]
        self.cell = kind(case.I, case.H, case.layers, bidirectional=case.directions == 2)
        self.readout = torch.nn.Linear(case.directions * case.H, 1)
        self.case, self.weights = case, case.net(option).init(0, FLOAT32)
        with torch.no_grad():
            for name, parameter in self.cell.named_parameters():
                parameter.copy_(torch.tensor(self.weight_of(name)))
            self.readout.weight.copy_(torch.tensor(self.weights["readout.w_hy"]))
            self.readout.bias.copy_(torch.tensor(self.weights["readout.b_y"]))
        x, y = case.data
        self.xs, self.y = torch.tensor(np.ascontiguousarray(x.transpose(1, 0, 2))), torch.tensor(y)
        lengths = case.arrays(option).get("lengths")
        self.lengths = None if lengths is None else torch.tensor(lengths)

    def weight_of(self, name):
        """The weight that torch calls so, such as weight_ih_l1_reverse."""
        what, _, layer = name.partition("_l")
        prefix = f"layer{layer[0]}." + ("reverse." if layer.endswith("_reverse") else "")
        if what == "bias_hh":
            bias = np.zeros_like(self.weights[f"{prefix}b_h"])
            if self.case.cell == "gru":
                bias[2 * self.case.H :] = self.weights[f"{prefix}b_hn"]
            return bias
        ours = {"weight_ih": "w_xh", "weight_hh": "w_hh", "bias_ih": "b_h"}[what]
        return self.weights[prefix + ours]

    def step(self):
        torch, xs = self.torch, self.xs
        self.cell.zero_grad()
        self.readout.zero_grad()
        if self.lengths is not None:
            pack = torch.nn.utils.rnn.pack_padded_sequence
            xs = pack(xs, self.lengths, enforce_sorted=False)
        _, state = self.cell(xs)
        h = state[0] if isinstance(state, tuple) else state
        last = torch.cat([*h[-self.case.directions :]], dim=1)
        loss = torch.nn.functional.mse_loss(self.readout(last), self.y)
        loss.backward()
        grads = {
            f"layer{n}.w_hh": getattr(self.cell, f"weight_hh_l{n}").grad.numpy()
            for n in range(self.case.layers)
        }
        return float(loss.detach()), grads


def contenders(case, kinds):
    """Every kind of kernels with every option, and torch; with what is right for each."""
    found = [Step(case, kind, option) for kind in kinds for option in case.options]
    if not missing("torch"):
        found += [TorchStep(case, option) for option in RAGGED]
    return found


def check(case, contender):
    """Compare the loss and the gradients with the portable code in float64."""
    option = contender.name.partition(", ")[2]
    option = {"packed": "lengths"}.get(option, option)

    def double(a):
        if isinstance(a, dict):
            return {name: double(entry) for name, entry in a.items()}
        if isinstance(a, tuple):
            return type(a)(*(double(entry) for entry in a))
        return a.astype(np.float64) if a.dtype.kind == "f" else a

    net = case.net(option)
    loss, right = net.value_and_grad(
        double(net.init(0, FLOAT32)),
        *map(double, case.data_for(option)),
        **double(case.arrays(option)),
    )
    value, grads = contender.step()
    # An LSTM with it is so ill-conditioned here that the portable code in float32 is off as much.
    slack = 10.0 if option == "layer norm" else 1.0
    if not abs(value - loss) <= LOSS_TOLERANCE * abs(loss):
        raise WrongError(f"{contender.name}: loss is {value:.7g}, not {loss:.7g}")
    for name, grad in grads.items():
        error = np.max(np.abs(grad - right[name])) / np.max(np.abs(right[name]))
        if not error <= slack * GRADIENT_TOLERANCE:
            raise WrongError(f"{contender.name}: gradient of {name} is off by {error:.1e}")
