"""MLX: npz and safetensors of a model's parameters."""

import mlx.core as mx
import numpy as np
from mlx import nn

from benchmarks.imports.cases import Cases


class Model(nn.Module):
    """Layers in a list, and a Linear of the last state."""

    def __init__(self, kind, layers):
        super().__init__()
        self.layers = [kind(4 if at else 3, 4) for at in range(layers)]
        self.out = nn.Linear(4, 2)

    def __call__(self, x):
        """Predict."""
        for layer in self.layers:
            x = layer(x)
            x = x[0] if isinstance(x, tuple) else x
        return self.out(x[:, -1])


def make(folder):
    """Write the files."""
    cases, mx_cpu = Cases(folder, "mlx"), mx.cpu
    mx.set_default_device(mx_cpu)
    mx.random.seed(0)
    x = np.random.default_rng(1).standard_normal((5, 7, 3)).astype("float32")
    for kind in (nn.RNN, nn.GRU, nn.LSTM):
        for layers, suffix in ((1, ".safetensors"), (2, ".npz")):
            model = Model(kind, layers)
            path = cases.path(suffix)
            model.save_weights(path)
            name = f"{kind.__name__} {layers}x1, {suffix[1:]}"
            cases.add(name, path, x, np.array(model(mx.array(x))))
    cases.write()
