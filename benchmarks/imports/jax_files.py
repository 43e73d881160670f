"""Flax (linen and nnx) as msgpack and npz, Equinox as .eqx and npz."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen, nnx, serialization

from benchmarks.imports.cases import Cases

jax.config.update("jax_enable_x64", True)
X = np.random.default_rng(1).standard_normal((5, 7, 3))


def shaken(tree, seed=0):
    """Add noise to every array, so that no bias is zero."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda a: a + jnp.asarray(0.3 * rng.standard_normal(a.shape), a.dtype), tree
    )


class Linen(linen.Module):
    """A stack of linen's cells."""

    cell: type
    layers: int
    directions: int
    dtype: object = jnp.float64

    @linen.compact
    def __call__(self, x):
        """Predict."""
        both = self.directions == 2
        for _ in range(self.layers):
            options = {"param_dtype": self.dtype}
            one = linen.RNN(self.cell(4, **options), return_carry=True)
            if both:
                two = linen.RNN(self.cell(4, **options), return_carry=True)
                carries, x = linen.Bidirectional(one, two, return_carry=True)(x)
            else:
                carry, x = one(x)
                carries = (carry,)
        last = [c[1] if isinstance(c, tuple) else c for c in carries]
        return linen.Dense(2, **options)(jnp.concatenate(last, -1))


def make(folder):
    """Write the files."""
    _linen(folder)
    _nnx(folder)
    _equinox(folder)


def _linen(folder):
    cases = Cases(folder, "flax-linen")
    kinds = (linen.SimpleCell, linen.GRUCell, linen.LSTMCell, linen.OptimizedLSTMCell)
    for kind in kinds:
        for layers, directions in ((1, 1), (2, 1), (1, 2), (2, 2)):
            model = Linen(kind, layers, directions)
            params = shaken(model.init(jax.random.key(0), X))
            path = cases.path(".msgpack")
            with open(path, "wb") as file:
                file.write(serialization.to_bytes(params))
            about = f"{kind.__name__} {layers}x{directions}, float64"
            cases.add(about, path, X, model.apply(params, X))
    model = Linen(linen.GRUCell, 1, 1, jnp.float32)
    x = X.astype("float32")
    params = shaken(model.init(jax.random.key(0), x))
    path = cases.path(".npz")
    leaves = jax.tree_util.tree_leaves_with_path(params)
    np.savez(path, **{jax.tree_util.keystr(key): leaf for key, leaf in leaves})
    cases.add("GRUCell, npz with the paths of its leaves", path, x, model.apply(params, x))
    half = jax.tree.map(lambda a: a.astype(jnp.bfloat16), params)
    wide = jax.tree.map(lambda a: a.astype(jnp.float32), half)
    path = cases.path(".msgpack")
    with open(path, "wb") as file:
        file.write(serialization.to_bytes({"params": half["params"], "step": 3}))
    cases.add("GRUCell, bfloat16", path, x, model.apply(wide, x))
    cases.write()


def _nnx(folder):
    cases = Cases(folder, "flax-nnx")
    for kind in (nnx.SimpleCell, nnx.GRUCell, nnx.LSTMCell, nnx.OptimizedLSTMCell):
        rngs = nnx.Rngs(0)
        one = nnx.RNN(kind(3, 4, rngs=rngs, dtype=jnp.float64, param_dtype=jnp.float64))
        head = nnx.Linear(4, 2, rngs=rngs, dtype=jnp.float64, param_dtype=jnp.float64)
        model = nnx.List([one, head])
        nnx.update(model, shaken(nnx.state(model, nnx.Param)))
        path = cases.path(".msgpack")
        with open(path, "wb") as file:
            file.write(serialization.to_bytes(nnx.to_pure_dict(nnx.state(model, nnx.Param))))
        cases.add(f"{kind.__name__}, float64", path, X, head(one(X)[:, -1]))
    cases.write()


def _equinox(folder):
    cases = Cases(folder, "equinox")

    class Model(eqx.Module):
        cells: list
        head: eqx.nn.Linear

        def __call__(self, x):
            for cell in self.cells:
                lstm = isinstance(cell, eqx.nn.LSTMCell)
                state, hs = (jnp.zeros(4),) * 2 if lstm else jnp.zeros(4), []
                for step in x:
                    state = cell(step, state)
                    hs.append(state[0] if lstm else state)
                x = jnp.stack(hs)
            return self.head(x[-1])

    for kind in (eqx.nn.GRUCell, eqx.nn.LSTMCell):
        for layers in (1, 2):
            keys = jax.random.split(jax.random.key(0), 3)
            cells = [kind(3 if not at else 4, 4, key=keys[at]) for at in range(layers)]
            model = shaken(Model(cells, eqx.nn.Linear(4, 2, key=keys[2])))
            model = jax.tree.map(lambda a: a.astype(jnp.float64), model)
            pred = jax.vmap(model)(jnp.asarray(X))
            path = cases.path(".eqx")
            eqx.tree_serialise_leaves(path, model)
            cases.add(f"{kind.__name__} {layers}x1, .eqx, float64", path, X, pred)
            path = cases.path(".npz")
            leaves = jax.tree_util.tree_leaves_with_path(model)
            np.savez(path, **{jax.tree_util.keystr(key): leaf for key, leaf in leaves})
            cases.add(f"{kind.__name__} {layers}x1, npz of paths, float64", path, X, pred)
    cases.write()
