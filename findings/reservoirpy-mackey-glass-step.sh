#!/usr/bin/env bash
# reservoirpy 0.4.2, numpy 2.3.5
#
# Expected: in mackey_glass, `h` is the step of the integration of
# dx/dt = a x(t - tau) / (1 + x(t - tau)^n) - b x. A smaller step gives the same series, finer and
# more exact. With a = 0.2, b = 0.1 the value 1 is at rest for every h.
#
# Seen: the step multiplies the decay but not the delayed term, so h = 0.1 integrates an equation
# with a ten times larger: from rest at 1 the series runs off and swings up to 8. Even at h = 1,
# where the rest point holds, one step is not fourth order: its error is over ten thousand times that
# of the classical Runge-Kutta step with the same frozen delay.
#
# Why it matters: it is the standard task for recurrent nets. Errors reported on "Mackey-Glass,
# tau 17" from here with another step, or set beside published ones, are about another system.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --no-compile reservoirpy==0.4.2 numpy==2.3.5

"$work/venv/bin/python" -W error::UserWarning - <<'PY'
import numpy as np
from reservoirpy.datasets import mackey_glass


def series(h, steps, x0=1.0, before=1.0):
    history = np.full(int(17 / h), before)
    return mackey_glass(steps, tau=17, h=h, x0=x0, history=history).ravel()


assert np.abs(series(1.0, 1000) - 1).max() < 1e-9
for h in (0.5, 0.1):
    x = series(h, int(1000 / h))
    assert np.abs(x - 1).max() > 0.5, x.max()
    print(f"from rest at 1, h = {h}: {x.min():.2f} .. {x.max():.2f}")
first_step = series(0.1, 2)[1] - 1
scaled = (1 - np.exp(-0.01)) * (0.2 / 0.1 / 2 / 0.1 - 1)  # the same step with a ten times larger
assert abs(first_step / scaled - 1) < 0.01, (first_step, scaled)

# one step with a frozen delay: x' = f - 0.1 x has the exact solution below
x0, f = 1.2, 0.2 * 0.9 / (1 + 0.9**10)
exact = x0 * np.exp(-0.1) + (1 - np.exp(-0.1)) * f / 0.1
k1 = f - 0.1 * x0
k2 = f - 0.1 * (x0 + k1 / 2)
k3 = f - 0.1 * (x0 + k2 / 2)
k4 = f - 0.1 * (x0 + k3)
classical = abs(x0 + (k1 + 2 * k2 + 2 * k3 + k4) / 6 - exact)
theirs = abs(series(1.0, 2, x0=x0, before=0.9)[1] - exact)
assert classical * 1e4 < theirs and 1e-4 < theirs < 1e-3, (classical, theirs)
print(f"error of one step at h = 1: {theirs:.1e}, classical Runge-Kutta {classical:.1e}")
PY
