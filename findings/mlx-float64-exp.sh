#!/usr/bin/env bash
# mlx 0.32.4 (the package mlx[cpu], Linux), numpy 2.4.6
#
# Expected: a function of a float64 array has the accuracy of float64, some 1e-16 relative, as
# tanh, log, log1p, expm1 and sqrt of mlx have on a CPU.
#
# Seen: exp of a float64 array has the dtype float64 and six right digits (2e-6 relative on -20..20,
# more than a float32 result would be off by); sigmoid, logaddexp, sin and cos are alike. Of a
# float32 array the same functions are right to the last digits.
#
# Why it matters: whoever computes in float64 to check gradients, or to compare with another
# library, is told by the dtype that the digits are there. A softmax, a sigmoid gate or a
# cross-entropy then differs in the seventh digit, and a check to 1e-12 fails for no fault of the net.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --no-compile 'mlx[cpu]==0.32.4' numpy==2.4.6

"$work/venv/bin/python" - <<'PY'
import mlx.core as mx
import numpy as np

x = np.linspace(-20.0, 20.0, 4001)


def error(name, dtype):
    values = x.astype(dtype)
    got = getattr(mx, name)(mx.array(values, dtype=getattr(mx, dtype)))
    assert str(got.dtype).endswith(dtype)
    want = getattr(np, name)(values.astype("float64"))
    got = np.asarray(got).astype("float64")
    return np.max(np.abs(got - want) / np.maximum(np.abs(want), 1e-300))


for name in ("tanh", "expm1", "exp"):
    print(f"{name:6} float32 {error(name, 'float32'):.0e}   float64 {error(name, 'float64'):.0e}")
assert error("tanh", "float64") < 1e-15
assert error("expm1", "float64") < 1e-15
assert error("exp", "float32") < 2e-6
assert 1e-7 < error("exp", "float64") < 1e-5
PY
