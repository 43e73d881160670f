"""A walk through backpropagation on real numbers: the page on which one watches it.

The page shows a weight's gradient as a sum over samples and over time, with every term of the sum.
It holds the network, the rows and the library's gradients, and computes the rest itself; each of
its sums stands beside the library's number.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnn_xp._typing import Array, Params
from rnn_xp.backend import get_backend, to_numpy
from rnn_xp.cells import RNNState
from rnn_xp.checkpoint import atomic_write
from rnn_xp.explain.page import in_frame, render
from rnn_xp.network import Network, pipeline
from rnn_xp.network.call import Options

__all__ = ["Walk", "walk"]

_Floats = NDArray[np.float64]

_SIZES = (1, 2, 4, 32)  # rows among which the page chooses, besides all
_ARRAYS_OF = 4  # rows whose states and gradients the page holds from the library
_MOST_NUMBERS = 17_000  # of x and y; each takes 11 bytes of the page
_MOST_HIDDEN = 100
_MATRICES = 19 * 50 * 50  # numbers that all matrices (H,H) may have together
_NEEDED = {
    "cell": "rnn",
    "num_layers": 1,
    "bidirectional": False,
    "output_activation": "identity",
    "read": "last",
    "layer_norm": False,
}


@dataclass(frozen=True)
class Walk:
    """The page of `walk`; a notebook shows it.

    Attributes
    ----------
    title : str
    data : dict
        Numbers, texts and float64 arrays on the page: "params", "x" (or "series", of which x are
        the windows), "y" without what a linear path predicts of it, and "library", the library's
        results by number of rows.
    """

    title: str
    data: dict[str, Any]

    def html(self) -> str:
        """Return the page, one self-contained HTML document."""
        return render(self.title, self.data)

    def save(self, path: str | Path) -> Path:
        """Write the page to a file, complete or not at all, and return its path."""
        atomic_write(path, self.html().encode())
        return Path(path)

    def _repr_html_(self) -> str:
        return in_frame(self.html())

    def __repr__(self) -> str:
        """Return a line; the page itself is long."""
        rows, steps = self.data["rows"], self.data["steps"]
        return f"<Walk: {self.title}, {rows} rows of {steps} steps; .save(path) writes the page>"


def walk(net: Network, params: Params, x: Array, y: Array, *, title: str = "") -> Walk:
    """Make the page that shows where each entry of a gradient comes from.

    All gradients are those of the mean squared error, computed by the library in float64.

    Parameters
    ----------
    net : Network
        One layer of the cell "rnn" in one direction, with at most 100 hidden units; read at the
        last step or, many-to-many, at every step. A linear path may lie beside it.
    params : Params
    x : Array (N, T, I)
        Windows. If each is the one before moved by a step, all 8317 windows of the reference
        workload fit into the page; of others it takes as many as fit, and says so.
    y : Array (N, O) or (N, T, O)
    title : str
        Name of the data.

    Returns
    -------
    Walk

    Raises
    ------
    ValueError
        If the page cannot show this network.

    Examples
    --------
    >>> import rnn_xp as rx
    >>> net = Network(hidden_size=4)
    >>> params = net.init(seed=0)
    >>> x, y = rx.make_windows([i % 7 / 7 for i in range(20)], seq_length=5)
    >>> page = walk(net, params, x, y, title="a sawtooth")
    >>> page
    <Walk: a sawtooth, 15 rows of 5 steps; .save(path) writes the page>
    >>> page.save("walk.html")  # doctest: +SKIP
    """
    _check(net)
    host = {name: to_numpy(param).astype(np.float64) for name, param in params.items()}
    x, y = to_numpy(x).astype(np.float64), to_numpy(y).astype(np.float64)
    given, steps = x.shape[:2]
    series, rows = _fit(x, y)
    x, y = x[:rows], y[:rows]
    sizes = _sizes(net, rows)
    alone = replace(net, linear_lags=0)  # the cells without the linear path
    rest = y - _linear(net, host, x)
    data: dict[str, Any] = {
        "title": title,
        "network": {
            "I": net.input_size, "H": net.hidden_size, "O": net.output_size,
            "activation": net.activation, "every": net.topology == "many_to_many",
        },
        "rows": rows,
        "given": given,
        "steps": steps,
        "sizes": sizes,
        "params": _short(host),
        "initial": _short(_initial(alone)),
        "lstm": _lstm(net),
        "linear": net.linear_lags,
        "largest_singular_value": float(np.linalg.norm(host["layer0.w_hh"], 2)),
        "y": rest,
        "library": {str(n): _gradients(net, host, x[:n], y[:n]) for n in sizes},
        "library_of_last_two": {
            str(n): _last_two(alone, host, x[:n], rest[:n])
            for n in sizes
            if n <= max(_SIZES) and steps > 2
        },
        "arrays": _arrays(net, host, x[:_ARRAYS_OF], y[:_ARRAYS_OF]),
    }  # fmt: skip
    data |= {"x": x} if series is None else {"series": series}
    return Walk(title or "a network", data)


def _check(net: Network) -> None:
    wrong = [
        f"{name}={getattr(net, name)!r} (needed: {value!r})"
        for name, value in _NEEDED.items()
        if getattr(net, name) != value
    ]
    if net.topology == "one_to_many":
        wrong.append("topology='one_to_many' (needed: 'many_to_one' or 'many_to_many')")
    if net.hidden_size > _MOST_HIDDEN:
        wrong.append(f"hidden_size={net.hidden_size} (needed: at most {_MOST_HIDDEN})")
    if wrong:
        raise ValueError(
            f"walk: the page shows a plain recurrent network, but this one has {', '.join(wrong)}. "
            "Give it a smaller network, such as Network(cell='rnn', hidden_size=50); "
            "rnn_xp.explain.measure_flow and walk_shapes take any."
        )


def _fit(x: _Floats, y: _Floats) -> tuple[_Floats | None, int]:
    """Return the series of which x are the windows, if so, and the number of rows that fit."""
    rows, steps, inputs = x.shape
    if rows > 1 and np.array_equal(x[1:, :-1], x[:-1, 1:]):
        per_row = inputs + y[0].size
        rows = min(rows, max(1, (_MOST_NUMBERS - steps * inputs) // per_row))
        return np.concatenate([x[0, :-1], x[:rows, -1]]), rows
    return None, min(rows, max(1, _MOST_NUMBERS // (x[0].size + y[0].size)))


def _sizes(net: Network, rows: int) -> list[int]:
    """Return the numbers of rows with gradients on the page: fewer, if the matrices are large."""
    sizes = [*(n for n in _SIZES if n < rows), rows]
    most = (_MATRICES // net.hidden_size**2 - 2) // 2
    return sizes[-max(1, most) :]


def _short(params: Params) -> dict[str, _Floats]:
    return {name.partition(".")[2]: param for name, param in params.items()}


def _initial(net: Network) -> Params:
    return net.init(seed=0, backend=get_backend("numpy", dtype="float64"))


def _lstm(net: Network) -> dict[str, Any]:
    """Return the parameters of an LSTM of the same size, or of 50 hidden units if that is less."""
    hidden = min(net.hidden_size, 50)
    beside = Network(
        cell="lstm", input_size=net.input_size, hidden_size=hidden, output_size=net.output_size
    )
    return {"H": hidden, **_short(_initial(beside))}


def _linear(net: Network, params: Params, x: _Floats) -> Any:
    """Return what the linear path adds to the predictions; it does not depend on h."""
    if not net.linear_lags:
        return 0.0
    window = x[:, -net.linear_lags :].reshape(len(x), -1)
    return np.matmul(window, params["readout.w_xy"].T)


def _gradients(
    net: Network, params: Params, x: _Floats, y: _Floats, state: RNNState | None = None
) -> dict[str, Any]:
    loss, grads = net.value_and_grad(params, x, y, state=state)
    return {"loss": float(loss), **_short(grads)}


def _states(net: Network, params: Params, x: _Floats) -> _Floats:
    """Return h_1 ... h_T, (T, N, H)."""
    forward: Any = pipeline.run(net, params, x, Options(), xp=np)
    return np.stack(list(forward.stack.outs[0]))


def _last_two(net: Network, params: Params, x: _Floats, y: _Floats) -> dict[str, Any]:
    """Return the gradients through the last two steps alone; h_0 is what the others left."""
    initial = _states(net, params, x[:, :-2])[-1]
    last = y[:, -2:] if net.topology == "many_to_many" else y
    weights = {name: params[name] for name in net.shapes}
    return _gradients(net, weights, x[:, -2:], last, RNNState(initial[None]))


def _arrays(net: Network, params: Params, x: _Floats, y: _Floats) -> dict[str, _Floats]:
    """Return what the page's own network is compared with when the page opens."""
    return {
        "h": _states(net, params, x),
        "dh": net.gradient_flow(params, x, y)["layer0"],
    }
