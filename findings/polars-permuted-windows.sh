#!/usr/bin/env bash
# pyarrow 26.0.1, polars 2.1.0, numpy 2.3.5
#
# Expected: windows of shape (N, T, I), stored as a column of fixed-shape tensors in a Parquet
# file, have the same numbers in the same places in any reader, or the reader refuses.
#
# Seen: if the array is a transposed view (windows cut channel first), pyarrow stores it in memory
# order and notes the permutation in the type. pyarrow undoes it; polars keeps the note in its own
# extension type but hands out T * I values a row, in memory order, for either file. A reshape to
# (N, T, I) fits both times and is wrong for the view: time and features are scrambled.
#
# Why it matters: whether the array was made contiguous before saving decides what a net is trained
# on in the reader. Means and standard deviations over all values do not show it.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --no-compile pyarrow==26.0.1 polars==2.1.0 numpy==2.3.5

"$work/venv/bin/python" -W error::UserWarning - "$work/windows.parquet" <<'PY'
import sys

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

path = sys.argv[1]
channel_first = np.arange(24.0).reshape(2, 3, 4)
windows = channel_first.transpose(0, 2, 1)  # (N, T, I) = (2, 4, 3)


def read_back(array):
    column = pa.FixedShapeTensorArray.from_numpy_ndarray(array)
    pq.write_table(pa.table({"window": column}), path)
    arrow = pq.read_table(path)["window"].chunk(0).to_numpy_ndarray()
    assert np.array_equal(arrow, windows)
    flat = pl.read_parquet(path)["window"].to_numpy()
    assert flat.shape == (2, 12)
    return flat


assert np.array_equal(read_back(np.ascontiguousarray(windows)).reshape(windows.shape), windows)
flat = read_back(windows)
assert not np.array_equal(flat.reshape(windows.shape), windows)
assert np.array_equal(flat.reshape(channel_first.shape), channel_first)
print("first window saved:", windows[0, :2].tolist())
print("first window read: ", flat.reshape(windows.shape)[0, :2].tolist())
PY
