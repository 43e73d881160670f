#!/usr/bin/env bash
# statsmodels 0.15.0, numpy 2.3.5, pandas 2.3.3
#
# Expected: AutoReg(y, lags=1, missing="drop") leaves out the rows of its regression in which a value
# is missing, so that what is left pairs each value with the one before it; where no two successive
# values are known it has no rows, and says so.
#
# Seen: the missing values are taken out of the series first, and the lags are counted in what is
# left. An AR(1) with coefficient 0.9 of which every second value is missing gives 0.81, the square,
# without a warning, and the forecast one step ahead is the one of two steps. The state space ARIMA of
# the same package gives 0.9.
#
# Why it matters: a linear autoregression is the baseline that a recurrent net has to beat. On a
# series with gaps this one is fitted to other lags than its windows have, forecasts the wrong step,
# and is beaten for that reason.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --no-compile statsmodels==0.15.0 numpy==2.3.5 pandas==2.3.3

"$work/venv/bin/python" -W error::UserWarning - <<'PY'
import numpy as np
from statsmodels.tsa.ar_model import AutoReg
from statsmodels.tsa.arima.model import ARIMA

rng, y = np.random.default_rng(0), [0.0]
for _ in range(3999):
    y.append(0.9 * y[-1] + rng.standard_normal())
y = np.asarray(y)
gaps = np.where(np.arange(len(y)) % 2 == 0, y, np.nan)  # no two successive values are known

whole = AutoReg(y, lags=1, trend="n").fit()
model = AutoReg(gaps, lags=1, trend="n", missing="drop").fit()
kalman = ARIMA(gaps, order=(1, 0, 0), trend="n").fit()
print(f"all values {whole.params[0]:.3f}, every second one: AutoReg {model.params[0]:.3f} from "
      f"{model.nobs} rows, ARIMA {kalman.params[0]:.3f}")
assert abs(whole.params[0] - 0.9) < 0.02
assert abs(model.params[0] - 0.81) < 0.03
assert abs(kalman.params[0] - 0.9) < 0.02

# The same without gaps in what it is given: the lags are those of the values that are left.
left = AutoReg(gaps[::2], lags=1, trend="n").fit()
assert np.allclose(model.params, left.params, rtol=1e-12)
PY
