#!/usr/bin/env bash
# dask 2026.8.0, array-api-compat 1.16.0, numpy 2.4.6
#
# Expected: linalg.cholesky(x) of an Array API namespace is the lower triangle L with x = L @ L.T,
# since the standard's argument upper= is False by default; NumPy's is, through the same wrapper.
#
# Seen: array_api_compat.dask.array.linalg.cholesky(x) is the upper triangle, dask's own default.
#
# Why it matters: code that is written to the standard solves with L and then with L.T. Given the
# upper triangle both systems have a solution, of the right shape and dtype, and both are wrong.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --no-compile \
  'dask[array]==2026.8.0' scipy array-api-compat==1.16.0 numpy==2.4.6

"$work/venv/bin/python" - <<'PY'
import array_api_compat.dask.array as xp
import array_api_compat.numpy as nx
import numpy as np

x = np.asarray([[4.0, 2.0], [2.0, 3.0]])
lower = nx.linalg.cholesky(x)
assert np.allclose(lower @ lower.T, x)
assert lower[0, 1] == 0.0
found = np.asarray(xp.linalg.cholesky(xp.asarray(x)))
print("numpy:", lower.tolist())
print("dask: ", found.tolist())
assert np.allclose(found, lower.T)
assert not np.allclose(found @ found.T, x)
PY
