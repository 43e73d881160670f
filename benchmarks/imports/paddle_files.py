"""Paddle: .pdparams, and its arrays as npz."""

import numpy as np
import paddle

from benchmarks.imports.cases import Cases


class Model(paddle.nn.Layer):
    """A recurrent layer and a Linear, square so that no shape shows how it lies."""

    def __init__(self, kind, layers, directions):
        super().__init__()
        way = "bidirect" if directions == 2 else "forward"
        self.rnn = getattr(paddle.nn, kind)(3, 4, num_layers=layers, direction=way)
        self.fc = paddle.nn.Linear(4 * directions, 4 * directions)
        self.directions = directions

    def forward(self, x):
        """Predict."""
        _, state = self.rnn(x)
        state = state[0] if isinstance(state, tuple) else state
        return self.fc(paddle.concat(list(state[-self.directions :]), -1))


def make(folder):
    """Write the files."""
    cases = Cases(folder, "paddle")
    for dtype in ("float32", "float64"):
        paddle.set_default_dtype(dtype)
        x = np.random.default_rng(1).standard_normal((5, 7, 3)).astype(dtype)
        for kind in ("SimpleRNN", "GRU", "LSTM"):
            for layers, directions in ((1, 1), (2, 2)):
                model = Model(kind, layers, directions)
                path = cases.path(".pdparams")
                paddle.save(model.state_dict(), path)
                about = f"{kind} {layers}x{directions}, {dtype}"
                cases.add(about, path, x, model(paddle.to_tensor(x)).numpy())
    path = cases.path(".npz")
    np.savez(path, **{name: value.numpy() for name, value in model.state_dict().items()})
    cases.add(f"{about}, npz", path, x, model(paddle.to_tensor(x)).numpy())
    cases.write()
