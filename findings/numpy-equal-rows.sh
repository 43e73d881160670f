#!/usr/bin/env bash
# numpy 2.4.6, whose wheel for Linux brings OpenBLAS 0.3.31; a processor with AVX2
#
# Expected: a product of other sizes may round differently, but within one product of one thread
# equal rows stay equal. A batch of one sequence 32 times gives one prediction 32 times.
#
# Seen: with the code that OpenBLAS has for processors of the Haswell and Zen kind, equal rows of a
# float32 product differ in their last bits: it depends on the place of a row in the batch.
#
# Why it matters: predictions that must not depend on the batch are often made by padding every
# batch to one size, and by sorting. Neither helps here, since the place in the batch counts; a
# recurrent net carries the difference through all steps, and an argmax or a threshold may flip.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --no-compile numpy==2.4.6 threadpoolctl==3.6.0

OPENBLAS_NUM_THREADS=1 OPENBLAS_CORETYPE=Haswell "$work/venv/bin/python" - <<'PY'
import numpy as np
from threadpoolctl import threadpool_info

blas = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
assert [(pool["architecture"], pool["num_threads"]) for pool in blas] == [("Haswell", 1)], blas
rng = np.random.default_rng(0)
h = np.repeat(rng.standard_normal((1, 50), dtype=np.float32), 32, axis=0)
w = rng.standard_normal((50, 50), dtype=np.float32)
z = h @ w.T
different = [n for n in range(32) if (z[n] != z[0]).any()]
print("equal rows whose product differs from that of the first one:", different)
assert different
z64 = h.astype(np.float64) @ w.T.astype(np.float64)
assert (z64 == z64[0]).all()
print("in float64:", "none")
PY
