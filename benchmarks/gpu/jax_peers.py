"""JAX's ways to do an epoch: networks written by hand around `lax.scan`, jitted whole."""

from __future__ import annotations

import functools

from benchmarks.cpu.libraries import GROUP, UNROLLED_STEPS, Jax, jax_adam, scan_loss
from benchmarks.gpu.timing import Epochs

EPOCHS = 10  # of those that are done in one call


class Scan(Jax, Epochs):
    """Its arrays are given back to the compiler to be used again."""

    def __init__(self, name, place, case, tf32, unroll):
        import jax

        precision = "tensorfloat32" if tf32 else "highest"
        jax.config.update("jax_default_matmul_precision", precision)
        if not place.dry and jax.default_backend() != "gpu":
            raise RuntimeError(f"JAX finds no CUDA device, only {jax.default_backend()}")
        value_and_grad = jax.value_and_grad(scan_loss(case.cell, unroll))
        super().__init__(name, case, value_and_grad)
        self.state = jax.tree.map(jax.numpy.array, self.state)  # none of them twice
        update = functools.partial(jax_adam(), value_and_grad)
        self.update, self.latest = jax.jit(update, donate_argnums=0), None
        self.prepare(update)

    def prepare(self, update):
        """Make more of what does one epoch."""

    def run(self, epochs):
        for _ in range(epochs):
            self.state, self.latest = self.update(self.state, *self.data)

    def synchronize(self):
        self.jax.block_until_ready((self.state, self.latest))

    def loss(self):
        return float(self.latest)

    def step(self):
        return Epochs.step(self)


class Loop(Scan):
    """A compiled loop over epochs, so that the host has less to do."""

    unit = EPOCHS

    def prepare(self, update):
        def many(state, *data):
            again = lambda _, carry: update(carry[0], *data)  # noqa: E731
            return self.jax.lax.fori_loop(1, EPOCHS, again, update(state, *data))

        self.many = self.jax.jit(many, donate_argnums=0)

    def run(self, epochs):
        for _ in range(epochs // EPOCHS):
            self.state, self.latest = self.many(self.state, *self.data)
        super().run(epochs % EPOCHS)


def contenders(place, cases, tf32, left):
    """Some for each case: the case, a name, and what makes the contender."""
    unrolled = "jax, unrolled"
    for case in cases:
        whole = True if case.T <= UNROLLED_STEPS else GROUP
        for name, kind, unroll in (
            ("jax, scan", Scan, 1),
            (unrolled, Scan, whole),
            (f"{unrolled}, {EPOCHS} epochs a call", Loop, whole),
        ):
            yield case, name, functools.partial(kind, name, place, case, tf32, unroll)
