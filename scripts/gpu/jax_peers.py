"""JAX's ways to do an epoch: networks written by hand around `lax.scan`, jitted whole."""

from __future__ import annotations

import functools

from bench.libraries import GROUP, UNROLLED_STEPS, Jax, jax_adam, scan_loss

from gpu.timing import Epochs


class Scan(Jax, Epochs):
    """Its arrays are given back to the compiler to be used again."""

    def __init__(self, place, case, tf32, unroll):
        import jax

        precision = "tensorfloat32" if tf32 else "highest"
        jax.config.update("jax_default_matmul_precision", precision)
        if not place.dry and jax.default_backend() != "gpu":
            raise RuntimeError(f"JAX finds no CUDA device, only {jax.default_backend()}")
        name = "jax, scan" if unroll == 1 else "jax, unrolled"
        value_and_grad = jax.value_and_grad(scan_loss(case.cell, unroll))
        super().__init__(name, case, value_and_grad)
        self.state = jax.tree.map(jax.numpy.array, self.state)  # none of them twice
        update = functools.partial(jax_adam(), value_and_grad)
        self.update, self.latest = jax.jit(update, donate_argnums=0), None

    def run(self, epochs):
        for _ in range(epochs):
            self.state, self.latest = self.update(self.state, *self.data)

    def synchronize(self):
        self.jax.block_until_ready((self.state, self.latest))

    def loss(self):
        return float(self.latest)

    def step(self):
        return Epochs.step(self)


def contenders(place, cases, tf32, left):
    """Two for each case: the case, a name, and what makes the contender."""
    for case in cases:
        whole = True if case.T <= UNROLLED_STEPS else GROUP
        for name, unroll in (("jax, scan", 1), ("jax, unrolled", whole)):
            yield case, name, functools.partial(Scan, place, case, tf32, unroll)
