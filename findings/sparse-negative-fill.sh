#!/usr/bin/env bash
# sparse 0.19.3, numpy 2.4.6
#
# Expected: x and -x are arrays of one kind; stack, concat and matmul take both, as in NumPy and in
# the Array API standard, in which 0.0 and -0.0 are equal.
#
# Seen: the values that are not stored become -0.0 in -x, and concat and stack of x and -x are
# refused: "consistent fill-values" are required, and -0.0 is another than 0.0. The same holds for
# x and a product of x with a negative number.
#
# Why it matters: a gradient has signs. Whether two sparse gradients can be put together depends on
# an operation long before, which changed no value.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --no-compile sparse==0.19.3 numpy==2.4.6

"$work/venv/bin/python" - <<'PY'
import numpy as np
import sparse

x = sparse.COO.from_numpy(np.eye(2))
assert np.array_equal((-x).todense(), -np.eye(2))
assert x.fill_value == (-x).fill_value == (-2.0 * x).fill_value == 0.0  # equal, and yet
for other in (-x, -2.0 * x):
    for function in (sparse.stack, sparse.concat):
        try:
            function([x, other])
        except ValueError as error:
            assert "consistent fill-values" in str(error)
            assert "-0.0" in str(error)
        else:
            raise AssertionError(f"{function.__name__} takes both")
assert sparse.concat([x, x]).shape == (4, 2)
print("concat([x, -x]) is refused, concat([x, x]) is not")
PY
