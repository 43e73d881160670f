#!/usr/bin/env bash
# numba 0.68.1, numpy 2.4.6
#
# Expected: a function with cache=True returns the same whether it is compiled or read from the cache,
# and whichever process has put it there.
#
# Seen: where one Python function makes several (here one that multiplies by two and one that
# multiplies by three, by a closure), compiled code tells them apart by a counter of the process
# alone. Two processes that compile one of them each give both the same symbol; a third one that
# reads both from the cache links them into one, and "three times" is two times from then on. No
# error, no warning; the same program without a cache is right.
#
# Why it matters: kernels of recurrent nets are made this way, a loop over time around an activation
# or a tile size that a closure holds, and are first compiled in several processes at once: workers
# of a search, ranks, test runners. The loss may be right and the gradient wrong. The remedy is a
# __qualname__ of its own for each function before it is compiled.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --no-compile numba==0.68.1 numpy==2.4.6

for module in same apart; do
  cat > "$work/$module.py" <<PY
import numpy as np
from numba import njit
from numba.extending import register_jitable


def times(factor):
    def over(x):  # long enough not to be inlined
        total = 0.0
        for i in range(x.shape[0]):
            if x[i] > 0.5:
                total += np.sqrt(x[i]) * factor
            elif x[i] < -0.5:
                total -= np.exp(x[i]) * np.sin(x[i])
            for j in range(i):
                total += np.cos(x[j]) * 0.0
                if total > 1e9:
                    total = np.log(total) + np.tan(x[j])
        return total

    if "$module" == "apart":
        over.__qualname__ = f"times_{factor}"
    return register_jitable(over)


by_two, by_three = times(2.0), times(3.0)


@njit(cache=True)
def double(x):
    return by_two(x) + by_two(x[1:])


@njit(cache=True)
def triple(x):
    return by_three(x) + by_three(x[1:])


@njit(cache=True)
def both(x):
    return double(x) + triple(x)
PY
done

cd "$work"
for module in same apart; do
  "$work/venv/bin/python" -c "import $module, numpy; assert $module.double(numpy.ones(1)) == 2.0"
  "$work/venv/bin/python" -c "import $module, numpy; assert $module.triple(numpy.ones(1)) == 3.0"
  "$work/venv/bin/python" - "$module" <<'PY'
import importlib
import sys

import numpy as np

module, one = importlib.import_module(sys.argv[1]), np.ones(1)
found = module.both(one), module.double(one), module.triple(one)
print(f"names {sys.argv[1]}: both {found[0]}, double {found[1]}, triple {found[2]}")
assert found == ((4.0, 2.0, 2.0) if sys.argv[1] == "same" else (5.0, 2.0, 3.0)), found
PY
done
