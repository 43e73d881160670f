"""Write tests/golden_losses.json: the losses that training must repeat on every backend.

    python scripts/make_golden.py

Run it only when the definition of a result changes on purpose (initial weights, the order of a
sum, an optimiser's formula), and say so in the CHANGELOG.
"""

import json
from pathlib import Path

import rnn_xp as rx

GOLDEN = Path(__file__).parents[1] / "tests" / "golden_losses.json"
OPTIMIZERS = {"adam": rx.optim.adam(0.01), "lbfgs": rx.optim.lbfgs()}


def losses(activation: str, optimizer: str, backend: rx.Backend) -> list[float]:
    """Ten epochs on the first 1,500 days of length_of_day, in two blocks of rows."""
    series = rx.datasets.load("length_of_day").values[:1500]
    x, y = rx.make_windows(series - series.mean(), seq_length=10)
    net = rx.Network(input_size=1, hidden_size=20, output_size=1, activation=activation)
    result = rx.fit(net, x, y, optimizer=OPTIMIZERS[optimizer], epochs=10, seed=0, backend=backend)
    return result.history["loss"]


if __name__ == "__main__":
    backend = rx.get_backend("numpy", dtype="float64")
    golden = {
        f"{activation}-{optimizer}": losses(activation, optimizer, backend)
        for activation in ("tanh", "relu")
        for optimizer in OPTIMIZERS
    }
    GOLDEN.write_text(json.dumps({"numpy": backend.version, "losses": golden}, indent=1) + "\n")
    print(f"wrote {GOLDEN.name}: {', '.join(golden)}")
