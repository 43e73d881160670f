"""PyTorch's ways to do an epoch: its layers, the same in a CUDA graph, and a compiled loop."""

from __future__ import annotations

import functools

from benchmarks.cpu import ADAM
from benchmarks.cpu.contenders import first_gradient
from benchmarks.cpu.libraries import time_limit, torch_module
from benchmarks.gpu import LeftOutError
from benchmarks.gpu.timing import Epochs

COMPILE_SECONDS, COMPILED_STEPS = 90.0, 10
WARM_UP = 5  # epochs before a capture


def prepare(place, tf32):
    """torch, on its device, with one precision for all products."""
    torch, module = torch_module()
    if place.dry:
        return torch, module, "cpu"
    precision = "tf32" if tf32 else "ieee"
    torch.backends.cuda.matmul.fp32_precision = precision
    torch.backends.cudnn.rnn.fp32_precision = precision  # TF32 by default
    if not torch.cuda.is_available():
        raise RuntimeError("torch finds no CUDA device")
    return torch, module, "cuda"


class Torch(Epochs):
    """Forward, backward and a fused Adam, eagerly."""

    name, keeps_gradients = "torch, eager", False

    def __init__(self, place, case, tf32):
        self.torch, module, device = prepare(place, tf32)
        self.on_gpu, self.case, torch = not place.dry, case, self.torch
        self.model = module(case).to(device)
        self._leave_one_bias()
        x, y = case.data
        self.xs = torch.tensor(x, device=device).transpose(0, 1).contiguous()
        self.y = torch.tensor(y, device=device)
        self.weights = [w for w in self.model.parameters() if w.requires_grad]
        on_gpu = {"fused": True, "capturable": True} if self.on_gpu else {}
        self.adam = torch.optim.Adam(
            self.weights, ADAM.learning_rate, (ADAM.beta1, ADAM.beta2), ADAM.eps, **on_gpu
        )
        self.latest = torch.zeros((), device=device)

    def _leave_one_bias(self):
        """The second one of PyTorch's would learn as much again; a GRU needs its last third."""
        second, H = self.model.cell.bias_hh_l0, self.case.H
        if self.case.cell != "gru":
            second.requires_grad_(False)
            return
        mask = self.torch.zeros_like(second)
        mask[2 * H :] = 1.0
        second.register_hook(lambda gradient: gradient * mask)

    def forward(self, xs):
        return self.model(xs)

    def epoch(self):
        self.adam.zero_grad(set_to_none=not self.keeps_gradients)
        loss = self.torch.nn.functional.mse_loss(self.forward(self.xs), self.y)
        loss.backward()
        self.adam.step()
        self.latest.copy_(loss.detach())

    def run(self, epochs):
        for _ in range(epochs):
            self.epoch()

    def synchronize(self):
        if self.on_gpu:
            self.torch.cuda.synchronize()

    def event(self):
        if not self.on_gpu:
            return None
        event = self.torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def elapsed(self, first, last):
        return first.elapsed_time(last)

    def loss(self):
        return float(self.latest)

    def gradient(self):
        state = self.adam.state

        def mean(weight):
            return state[weight]["exp_avg"].numpy(force=True)

        return first_gradient(self.model.named(mean))


class Graph(Torch):
    """The whole epoch in a CUDA graph; in a dry run eagerly."""

    name, keeps_gradients = "torch, CUDA graph", True  # a graph needs them where they are

    def __init__(self, place, case, tf32):
        super().__init__(place, case, tf32)
        torch, start = self.torch, [w.detach().clone() for w in self.weights]
        if self.on_gpu:
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                self.run(WARM_UP)
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                self.epoch()
            self.epoch = graph.replay
        else:
            self.run(WARM_UP)
        with torch.no_grad():  # as if nothing had been done
            for weight, value in zip(self.weights, start, strict=True):
                weight.copy_(value)
                for memory in self.adam.state[weight].values():
                    memory.zero_()


class Compiled(Graph):
    """A loop over the steps, compiled, in a CUDA graph. The layers themselves are not traced."""

    name = "torch, compiled loop in a CUDA graph"

    def __init__(self, place, case, tf32, left):
        torch = torch_module()[0]
        torch._dynamo.reset()
        how = {"backend": "eager"} if place.dry else {"mode": "max-autotune-no-cudagraphs"}
        self.forward = torch.compile(self._loop, **how)
        limit = min(left(), COMPILE_SECONDS)
        try:
            with time_limit(limit):
                super().__init__(place, case, tf32)
        except TimeoutError as error:
            raise LeftOutError(f"no time was left: {error}") from None

    def _loop(self, xs):
        torch, cell = self.torch, self.model.cell
        projected = xs @ cell.weight_ih_l0.T + cell.bias_ih_l0
        w_hh = cell.weight_hh_l0.T
        h = c = torch.zeros(xs.shape[1], self.case.H, device=xs.device)
        for t in range(self.case.T):
            p, a = projected[t], h @ w_hh
            if self.case.cell == "rnn":
                h = torch.tanh(p + a)
            elif self.case.cell == "gru":
                (p_r, p_z, p_n), (a_r, a_z, a_n) = p.chunk(3, 1), a.chunk(3, 1)
                z, q = torch.sigmoid(p_z + a_z), a_n + cell.bias_hh_l0[2 * self.case.H :]
                n = torch.tanh(p_n + torch.sigmoid(p_r + a_r) * q)
                h = (1 - z) * n + z * h
            else:
                i, f, g, o = (p + a).chunk(4, 1)
                c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
                h = torch.sigmoid(o) * torch.tanh(c)
        return self.model.readout(h)


def contenders(place, cases, tf32, left):
    """The case, a name, and what makes the contender; compilers, which take long, come last."""
    for case in cases:
        for kind in (Torch, Graph):
            yield case, kind.name, functools.partial(kind, place, case, tf32)
    for case in cases:
        if case.T <= COMPILED_STEPS:  # all steps are compiled as one
            yield case, Compiled.name, functools.partial(Compiled, place, case, tf32, left)
