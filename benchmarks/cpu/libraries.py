"""Training steps by other libraries, each from the same weights and data.

Every function gives a list of contenders and a list of sentences about what is left out.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import signal
import tempfile

import numpy as np

from benchmarks.cpu import ADAM, THREADS
from benchmarks.cpu.contenders import first_gradient
from benchmarks.cpu.timing import Contender

COMPILE_SECONDS = 40.0
UNROLLED_STEPS = 50  # XLA takes minutes to compile more at once
GROUP = 10  # so many steps of a longer sequence are unrolled
TRACED_STEPS = 10  # where a compiler is given all steps of a whole library's code


def missing(name):
    return importlib.util.find_spec(name) is None


@contextlib.contextmanager
def time_limit(seconds):
    """Raise TimeoutError in what takes longer, as soon as it is back in Python."""
    if not hasattr(signal, "SIGALRM"):
        yield
        return

    def stop(*_):
        raise TimeoutError(f"not compiled within {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


# torch


@functools.cache
def torch_module():
    import torch

    torch.set_num_threads(THREADS)

    class Module(torch.nn.Module):
        """A layer and a readout of its last state; time comes first, as is torch's own way."""

        def __init__(self, case):
            super().__init__()
            kind = {"rnn": torch.nn.RNN, "gru": torch.nn.GRU, "lstm": torch.nn.LSTM}[case.cell]
            self.cell, self.H = kind(case.I, case.H), case.H
            self.readout = torch.nn.Linear(case.H, 1)
            given = {name: torch.tensor(weight) for name, weight in case.weights.items()}
            with torch.no_grad():
                self.cell.weight_ih_l0.copy_(given["layer0.w_xh"])
                self.cell.weight_hh_l0.copy_(given["layer0.w_hh"])
                self.cell.bias_ih_l0.copy_(given["layer0.b_h"])
                self.cell.bias_hh_l0.zero_()
                if case.cell == "gru":
                    self.cell.bias_hh_l0[2 * case.H :] = given["layer0.b_hn"]
                self.readout.weight.copy_(given["readout.w_hy"])
                self.readout.bias.copy_(given["readout.b_y"])

        def forward(self, xs):
            _, state = self.cell(xs)
            return self.readout((state[0] if isinstance(state, tuple) else state)[-1])

        def named(self, value):
            """What a function says of each parameter, by rnn_xp's names."""
            found = {
                "layer0.w_xh": value(self.cell.weight_ih_l0),
                "layer0.w_hh": value(self.cell.weight_hh_l0),
                "layer0.b_h": value(self.cell.bias_ih_l0),
                "readout.w_hy": value(self.readout.weight),
                "readout.b_y": value(self.readout.bias),
            }
            if isinstance(self.cell, torch.nn.GRU):
                found["layer0.b_hn"] = value(self.cell.bias_hh_l0)[2 * self.H :]
            return found

    return torch, Module


class Torch(Contender):
    name = "torch, eager"

    def __init__(self, case, compiled=False, traced=False):
        self.torch, module = torch_module()
        torch = self.torch
        self.model = module(case)
        x, y = case.data
        self.xs = torch.tensor(np.ascontiguousarray(x.transpose(1, 0, 2)))
        self.y = torch.tensor(y)
        self.adam = torch.optim.Adam(
            self.model.parameters(), ADAM.learning_rate, (ADAM.beta1, ADAM.beta2), ADAM.eps
        )
        self.run = self.model
        if compiled:
            self.name = "torch, compiled with its layer" if traced else "torch, compiled"
            self.run = torch.compile(self.model)

    def differentiate(self):
        self.adam.zero_grad()
        loss = self.torch.nn.functional.mse_loss(self.run(self.xs), self.y)
        loss.backward()
        return loss.detach()

    def step(self):
        loss = self.differentiate()
        self.adam.step()
        return loss

    def gradient(self):
        state = self.adam.state
        return first_gradient(self.model.named(lambda weight: state[weight]["exp_avg"].numpy()))


def torch_contenders(case, quick):
    if missing("torch"):
        return [], ["torch is not installed"]
    found, notes = [Torch(case)], []
    if quick:
        return found, ["torch.compile is left out of a quick run"]
    # By default torch.compile leaves a recurrent layer as it is. All its steps can be traced, but
    # that fails for an LSTM, and takes minutes for a GRU or for more steps.
    torch = found[0].torch
    torch._dynamo.reset()  # or it would give up compiling after some cases, and not say so
    for traced in (False, True) if case.cell == "rnn" and case.T <= TRACED_STEPS else (False,):
        compiled = Torch(case, compiled=True, traced=traced)
        try:
            with time_limit(COMPILE_SECONDS), torch._dynamo.config.patch(allow_rnn=traced):
                compiled.differentiate()
            found.append(compiled)
        except Exception as error:  # whatever a compiler may raise
            first = (str(error).strip().splitlines() or [""])[0][:100]
            notes.append(f"{compiled.name}: {type(error).__name__}: {first}")
    return found, notes


# JAX


@functools.cache
def jax_adam():
    import jax

    def update(value_and_grad, state, x, y):
        params, m, v, t = state
        loss, grads = value_and_grad(params, x, y)
        t = t + 1
        b1, b2 = ADAM.beta1, ADAM.beta2
        m = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, m, grads)
        v = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g * g, v, grads)
        rate = ADAM.learning_rate / (1 - b1**t)
        root = jax.numpy.sqrt(1 - b2**t)
        params = jax.tree.map(
            lambda p, m, v: p - rate * m / (jax.numpy.sqrt(v) / root + ADAM.eps), params, m, v
        )
        return (params, m, v, t), loss

    return update


def scan_loss(cell, unroll):
    """Mean squared error of a network written by hand around `jax.lax.scan`."""
    import jax
    from jax import numpy as jnp

    sigmoid = jax.nn.sigmoid

    def loss(params, x, y):
        w_hh = params["layer0.w_hh"].T
        zeros = jnp.zeros((x.shape[0], w_hh.shape[0]), x.dtype)
        projected = jnp.swapaxes(x, 0, 1) @ params["layer0.w_xh"].T + params["layer0.b_h"]

        def rnn(h, p):
            return jnp.tanh(p + h @ w_hh), None

        def gru(h, p):
            (p_r, p_z, p_n), (a_r, a_z, a_n) = (jnp.split(z, 3, axis=1) for z in (p, h @ w_hh))
            z = sigmoid(p_z + a_z)
            n = jnp.tanh(p_n + sigmoid(p_r + a_r) * (a_n + params["layer0.b_hn"]))
            return (1 - z) * n + z * h, None

        def lstm(carry, p):
            h, c = carry
            i, f, g, o = jnp.split(p + h @ w_hh, 4, axis=1)
            c = sigmoid(f) * c + sigmoid(i) * jnp.tanh(g)
            return (sigmoid(o) * jnp.tanh(c), c), None

        step, start = {"rnn": (rnn, zeros), "gru": (gru, zeros), "lstm": (lstm, (zeros, zeros))}[
            cell
        ]
        last, _ = jax.lax.scan(step, start, projected, unroll=unroll)
        h = last[0] if cell == "lstm" else last
        return jnp.mean((h @ params["readout.w_hy"].T + params["readout.b_y"] - y) ** 2)

    return loss


class Jax(Contender):
    """A whole step, jitted."""

    def __init__(self, name, case, value_and_grad):
        import jax

        self.jax, self.name = jax, name
        params = {key: jax.numpy.asarray(weight) for key, weight in case.weights.items()}
        zeros = jax.tree.map(jax.numpy.zeros_like, params)
        self.state = (params, zeros, zeros, jax.numpy.zeros((), "int32"))
        self.data = tuple(jax.numpy.asarray(values) for values in case.data)
        self.update = jax.jit(functools.partial(jax_adam(), value_and_grad))

    def step(self):
        self.state, loss = self.jax.block_until_ready(self.update(self.state, *self.data))
        return loss

    def gradient(self):
        return first_gradient(self.state[1])


def jax_contenders(case, quick):
    if missing("jax"):
        return [], ["jax is not installed"]
    import jax

    found = [Jax("jax, scan", case, jax.value_and_grad(scan_loss(case.cell, 1)))]
    if not quick:
        whole = case.T <= UNROLLED_STEPS
        name = "jax, unrolled" if whole else f"jax, unrolled by {GROUP}"
        loss = scan_loss(case.cell, True if whole else GROUP)
        found.append(Jax(name, case, jax.value_and_grad(loss)))
    if case.T > TRACED_STEPS:
        return found, [f"The portable code is jitted for {TRACED_STEPS} steps at most"]
    found.append(Jax("rnn_xp's portable code, jitted by jax", case, case.net.value_and_grad))
    return found, []


# Keras


class Keras(Contender):
    name = "keras, train_on_batch"

    def __init__(self, case):
        # Keras writes a settings file on import.
        os.environ.setdefault("KERAS_HOME", tempfile.mkdtemp())
        import keras

        self.name = f"keras on {keras.backend.backend()}, train_on_batch"
        self.case, self.data = case, case.data
        layers = {"rnn": "SimpleRNN", "gru": "GRU", "lstm": "LSTM"}
        layer = getattr(keras.layers, layers[case.cell])(case.H)
        self.model = keras.Sequential([keras.Input((case.T, case.I)), layer, keras.layers.Dense(1)])
        self.model.set_weights(self._to_keras(case.weights))
        self.model.compile(
            keras.optimizers.Adam(ADAM.learning_rate, ADAM.beta1, ADAM.beta2, epsilon=ADAM.eps),
            "mse",
        )

    def _order(self, blocks):
        """Gates in the other's order: of a GRU z, r, n there. The same turns them back."""
        if self.case.cell != "gru":
            return blocks
        r, z, n = np.split(blocks, 3)
        return np.concatenate([z, r, n])

    def _to_keras(self, weights):
        w_xh, w_hh, b = (self._order(weights[f"layer0.{key}"]) for key in ("w_xh", "w_hh", "b_h"))
        if self.case.cell == "gru":
            recurrent = np.zeros_like(b)
            recurrent[2 * self.case.H :] = weights["layer0.b_hn"]
            b = np.stack([b, recurrent])
        return [w_xh.T, w_hh.T, b, weights["readout.w_hy"].T, weights["readout.b_y"]]

    def step(self):
        return self.model.train_on_batch(*self.data)

    def gradient(self):
        means = {
            variable.path.partition("/")[2]: np.asarray(variable)
            for variable in self.model.optimizer.variables
        }
        named = [
            means[variable.path.replace("/", "_") + "_momentum"]
            for variable in self.model.trainable_variables
        ]
        w_xh, w_hh, b, w_hy, b_y = named
        mean = {"layer0.w_xh": self._order(w_xh.T), "layer0.w_hh": self._order(w_hh.T)}
        if self.case.cell == "gru":
            b, recurrent = b
            mean["layer0.b_hn"] = recurrent[2 * self.case.H :]
        return first_gradient(
            {**mean, "layer0.b_h": self._order(b), "readout.w_hy": w_hy.T, "readout.b_y": b_y}
        )


def keras_contenders(case, quick):
    if missing("keras"):
        return [], ["keras is not installed"]
    return [Keras(case)], []


LIBRARIES = (torch_contenders, jax_contenders, keras_contenders)
