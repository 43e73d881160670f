"""Conversion between the parameters and the matrix M of ``kernels.cu``, by array operations.

::

    M = [ w_hh | w_xh | b_h ]   gates: rnn 1, lstm 4; gru r and z, then  n: [ 0    | w_xn | b_n  ]
        [ w_hy | 0    | b_y ]                                            q: [ w_hn | 0    | b_hn ]

The optimiser's memory of each parameter has the same shape and is converted in the same way.
"""

from __future__ import annotations

from rnn_xp._typing import Array, Namespace, Params
from rnn_xp.backend import device_of
from rnn_xp.network.configuration import Configuration

__all__ = ["pack", "unpack"]


def pack(net: Configuration, params: Params, *, xp: Namespace) -> Array:
    """Join the parameters of a network of one layer to M (J, K)."""
    w_xh, w_hh, b_h = (params[f"layer0.{name}"] for name in ("w_xh", "w_hh", "b_h"))
    size, inputs, outputs = net.hidden_size, net.input_size, net.output_size

    def zeros(*shape: int) -> Array:
        return xp.zeros(shape, dtype=w_hh.dtype, device=device_of(w_hh))

    def rows(of_h: Array, of_x: Array, bias: Array) -> Array:
        return xp.concat([of_h, of_x, bias[:, None]], axis=1)

    readout = rows(params["readout.w_hy"], zeros(outputs, inputs), params["readout.b_y"])
    if net.cell != "gru":
        return xp.concat([rows(w_hh, w_xh, b_h), readout])
    r_z, n = slice(None, 2 * size), slice(2 * size, None)
    return xp.concat(
        [
            rows(w_hh[r_z, :], w_xh[r_z, :], b_h[r_z]),
            rows(zeros(size, size), w_xh[n, :], b_h[n]),
            rows(w_hh[n, :], zeros(size, inputs), params["layer0.b_hn"]),
            readout,
        ]
    )


def unpack(net: Configuration, matrix: Array, *, xp: Namespace) -> Params:
    """Split M (J, K) into separate arrays, the inverse of `pack`."""
    size, bias = net.hidden_size, net.hidden_size + net.input_size
    r_z, n, q = slice(2 * size), slice(2 * size, 3 * size), slice(3 * size, 4 * size)
    gates = slice(matrix.shape[0] - net.output_size)
    readout = slice(gates.stop, None)
    gru = net.cell == "gru"
    of_h, of_x = ([r_z, q], [r_z, n]) if gru else ([gates], [gates])

    def take(rows: list[slice], columns: slice | int) -> Array:
        return xp.concat([matrix[part, columns] for part in rows])  # of one array a copy, too

    params = {
        "layer0.w_xh": take(of_x, slice(size, bias)),
        "layer0.w_hh": take(of_h, slice(size)),
        "layer0.b_h": take(of_x, bias),
        "readout.w_hy": take([readout], slice(size)),
        "readout.b_y": take([readout], bias),
    }
    if gru:
        params["layer0.b_hn"] = take([q], bias)
    return {name: params[name] for name in net.shapes}
