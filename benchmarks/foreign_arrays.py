"""Objects that hold numbers and are not arrays to compute with: what is said of each.

`tests/backend/test_foreign_arrays.py` holds the answers to this list, and
`python -m benchmarks.libraries` prints them in docs/guide/libraries.md.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

os.environ.setdefault("DEV", "PYTHON")  # tinygrad's device that needs no compiler

HOST = np.random.default_rng(0).standard_normal((6, 4, 1)).astype("float32")


class Foreign(NamedTuple):
    """A kind of object: its library, how to make one of a NumPy array, and what is said of it."""

    library: str
    make: Callable[[Any, np.ndarray], Any]  # of the imported library and an array (N, T, 1)
    compute: str  # the error of net.forward(params, x); empty if it computes
    fit: str  # the error of rx.fit(net, x, y); empty if it trains
    remedy: str


_CONVERT = "an array with an Array API namespace is required; given {}. Convert it first, for inst"
_NO_ARRAY = "Network: x must be an array, got {}. Convert it first, for instance with get_b"
_TWO_AXES = r"fit: x must have shape \(N, T, I\) with no axis empty, got \(6, 4\). For windows"
_MASKED = "a masked array would lose its mask. Give values.filled"
_META = "a tensor on torch's device meta has a shape and no values. Give it where its values are"


def _foreign(kind: str) -> str:
    return _CONVERT.format(kind)


FOREIGN: dict[str, Foreign] = {
    "nested lists": Foreign(
        "numpy", lambda np, a: a.tolist(), _NO_ARRAY.format("list"), "", "numpy.asarray(x)"
    ),
    "numpy.ma.MaskedArray": Foreign(
        "numpy", lambda np, a: np.ma.masked_array(a), _MASKED, _MASKED,
        "x.filled(0) with mask= or sample_weight=",
    ),
    "numpy.matrix": Foreign(
        "numpy", lambda np, a: np.matrix(a[..., 0]),
        "arrays are required; given a numpy.matrix, whose operator", _TWO_AXES, "numpy.asarray(x)",
    ),
    "pandas.DataFrame": Foreign(
        "pandas", lambda pd, a: pd.DataFrame(a[..., 0]), _foreign("pandas.DataFrame"), _TWO_AXES,
        "x.to_numpy()[:, :, None]",
    ),
    "pandas.Series": Foreign(
        "pandas", lambda pd, a: pd.Series(a[0, :, 0]), _foreign("pandas.Series"),
        r"fit: x must have shape \(N, T, I\)", "rnn_xp.make_windows(x, seq_length)",
    ),
    "polars.DataFrame": Foreign(
        "polars", lambda pl, a: pl.DataFrame(a[..., 0]), _foreign("polars.DataFrame"), _TWO_AXES,
        "x.to_numpy()[:, :, None]",
    ),
    "pyarrow.Table": Foreign(
        "pyarrow", lambda pa, a: pa.table({str(t): a[:, t, 0] for t in range(4)}),
        _foreign("pyarrow.Table"), _foreign("pyarrow.Table"), "numpy.asarray(x)[:, :, None]",
    ),
    "pyarrow.Array": Foreign(
        "pyarrow", lambda pa, a: pa.array(a[0, :, 0]), _NO_ARRAY.format("pyarrow.FloatArray"),
        r"fit: x must have shape \(N, T, I\)", "x.to_numpy()",
    ),
    "xarray.DataArray": Foreign(
        "xarray", lambda xr, a: xr.DataArray(a), _foreign("xarray.DataArray"), "", "x.to_numpy()"
    ),
    "xarray.Dataset": Foreign(
        "xarray", lambda xr, a: xr.Dataset({"x": (("n", "t", "i"), a)}),
        _NO_ARRAY.format("xarray.Dataset"), _foreign("xarray.Dataset"), "x['name'].to_numpy()",
    ),
    "torch.Tensor that requires grad": Foreign(
        "torch", lambda torch, a: torch.tensor(a, requires_grad=True), "", "", "none is needed"
    ),
    "torch.Tensor on meta": Foreign(
        "torch", lambda torch, a: torch.empty(a.shape, device="meta"), "", _META,
        "a device with values; forward gives shapes",
    ),
    "paddle.Tensor": Foreign(
        "paddle", lambda paddle, a: paddle.to_tensor(a), _foreign("paddle.Tensor"),
        _foreign("paddle.Tensor"), "x.numpy()",
    ),
    "tinygrad.Tensor": Foreign(
        "tinygrad", lambda tinygrad, a: tinygrad.Tensor(a, device="PYTHON"),
        _foreign("tinygrad.Tensor"), _foreign("tinygrad.Tensor"), "x.numpy()",
    ),
    "mindspore.Tensor": Foreign(
        "mindspore", lambda mindspore, a: mindspore.Tensor(a), _foreign("mindspore.Tensor"),
        _foreign("mindspore.Tensor"), "x.asnumpy()",
    ),
    "ndonnx.Array without values": Foreign(
        "ndonnx", lambda nd, a: nd.argument(shape=a.shape, dtype=nd.float32), "",
        "does not pass|cannot be read by the host", "rnn_xp.interchange.onnx for graphs",
    ),
    "sparse.COO": Foreign(
        "sparse", lambda sparse, a: sparse.COO.from_numpy(a), "",
        r"fit: sparse [0-9.]+ \(cpu, float32\) does not pass the probe: value_and_grad: rnn: Value",
        "x.todense()",
    ),
    "blosc2.NDArray": Foreign(
        "blosc2", lambda blosc2, a: blosc2.asarray(a), "arrays of blosc2 cannot be computed with",
        r"fit: blosc2 [0-9.]+ \(cpu, float32\) does not pass the probe: forward: rnn: TypeErr",
        "x[:]",
    ),
    "dask.array.Array": Foreign(
        "dask.array", lambda da, a: da.asarray(a), "", "", "none is needed"
    ),
    "cubed.Array": Foreign(
        "cubed.array_api", lambda xp, a: xp.asarray(a), "", "", "none is needed; slow"
    ),
}  # fmt: skip
"""By the name of the type, what can be met where arrays are expected."""


def make(kind: str) -> tuple[Any, Any]:
    """Return a library and an object of the kind with the numbers of `HOST`."""
    foreign = FOREIGN[kind]
    library = importlib.import_module(foreign.library)
    return library, foreign.make(library, HOST)
