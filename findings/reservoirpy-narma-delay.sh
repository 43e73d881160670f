#!/usr/bin/env bash
# reservoirpy 0.4.2, numpy 2.3.5
#
# Expected: narma(order=n) follows the equation in its own description and in the paper it cites
# (Atiya and Parlos, 2000): y[t+1] depends on y[t], on the sum of the last n outputs
# y[t] .. y[t-n+1] and on u[t] u[t-n+1].
#
# Seen: the sum leaves out y[t] and reaches one step further back, and the old input is u[t-n]. The
# series called order 10 needs a memory of eleven inputs; no series of it meets the equation.
#
# Why it matters: NARMA-10 and NARMA-30 measure how far back a recurrent net remembers, and the
# delay is the whole task. A net or window with exactly n inputs lacks the decisive one, and scores
# do not compare with those of generators that follow the equation.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --no-compile reservoirpy==0.4.2 numpy==2.3.5

"$work/venv/bin/python" -W error::UserWarning - <<'PY'
import numpy as np
from reservoirpy.datasets import narma

n, steps = 10, 400
a1, a2, b, c = 0.3, 0.05, 1.5, 0.1
u, y = narma(steps, order=n, a1=a1, a2=a2, b=b, c=c, seed=0)
u, y = u.ravel()[n:], y.ravel()  # the first n inputs come before the first output
assert u.shape == y.shape == (steps,)


def residual(newest, oldest, delay):
    """Largest deviation when the sum runs over y[t - oldest] .. y[t - newest]."""
    return max(
        abs(y[t + 1] - a1 * y[t] - a2 * y[t] * y[t - oldest : t + 1 - newest].sum()
            - b * u[t - delay] * u[t] - c)
        for t in range(50, steps - 1)
    )


paper, here = residual(0, n - 1, n - 1), residual(1, n, n)
print(f"deviation from the equation {paper:.2f}, from the one with all delays one longer {here:.1e}")
assert here < 1e-12 and paper > 0.1

# What the delay decides: the share of y[t+1] that is linear in the products u[t] u[t-k].
t = np.arange(50, steps - 1)
explained = [np.corrcoef(u[t] * u[t - k], y[t + 1])[0, 1] ** 2 for k in range(1, 15)]
assert int(np.argmax(explained)) + 1 == n, explained
print("squared correlation with u[t] u[t-k]:",
      ", ".join(f"k = {k}: {explained[k - 1]:.2f}" for k in (9, 10, 11)))
assert explained[9] > 0.4 > explained[8]
PY
