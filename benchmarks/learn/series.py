"""Chaotic series, and how well one of them is forecast free running."""

from __future__ import annotations

import numpy as np

import rnn_xp as rx
from benchmarks.learn import Outcome


def mackey_glass(rows, tau=17.0, seed=0, dt=0.1, discard=1000):
    """dx/dt = 0.2 x(t - tau) / (1 + x(t - tau)**10) - 0.1 x, one value per unit of time.

    By the classical Runge-Kutta method from a noisy start; the delayed value halfway is the mean
    of its neighbours. As in Jaeger (2001), tanh(x - 1) is what is forecast.
    """
    each, lag = round(1 / dt), round(tau / dt)
    total = (rows + discard) * each + lag
    x = np.empty(total + 1)
    x[: lag + 1] = 1.2 + 0.1 * np.random.default_rng(seed).standard_normal(lag + 1)

    def slope(value, delayed):
        return 0.2 * delayed / (1.0 + delayed**10) - 0.1 * value

    for t in range(lag, total):
        first, last = x[t - lag], x[t - lag + 1]
        half = 0.5 * (first + last)
        k1 = slope(x[t], first)
        k2 = slope(x[t] + 0.5 * dt * k1, half)
        k3 = slope(x[t] + 0.5 * dt * k2, half)
        k4 = slope(x[t] + dt * k3, last)
        x[t + 1] = x[t] + dt / 6.0 * (k1 + 2.0 * k2 + 2.0 * k3 + k4)
    return np.tanh(x[lag::each][discard : discard + rows] - 1.0)


def free_running(quick, seed):
    """Jaeger's measure: the error after 84 steps that feed on themselves."""
    series = mackey_glass(4000, seed=seed)
    train, steps = 3000, 84
    backend = rx.get_backend("numpy", dtype="float64")
    forecaster = rx.Forecaster(
        seq_length=24, horizon=steps, strategy="recursive", linear=False,
        validation=None, hidden_size=10 if quick else 40, epochs=10 if quick else 40,
        optimizer=rx.optim.levenberg_marquardt(damping=1e-4), intervals=None, random_state=seed,
        backend=backend, verbose=False,
    )  # fmt: skip
    result = forecaster.fit(series[:train]).evaluate(series, stride=10)
    spread = float(np.std(series))
    at_end, at_once = (result.per_step["rmse"][k] / spread for k in (-1, 0))
    linear = next(score for score in result.scores if score.name.startswith("linear"))
    return Outcome(
        task=f"Mackey-Glass, tau = 17, seed {seed}: 3,000 values, free running for 84 steps",
        network=f"RNN 1x{forecaster.hidden_size}, Levenberg-Marquardt, float64",
        text=f"NRMSE {at_end:.1e} after 84 steps, {at_once:.1e} after one",
        goal="84 steps at most 0.00028, the echo state network of Jaeger 2001",
        reached=at_end <= 0.00028,
        baseline=f"linear AR(24), direct: {linear.rmse_per_step[-1] / spread:.3f} after 84 steps",
        published="Jaeger 2001: echo state network of 400 units, 3,000 values 0.00028; before it, "
        "0.0088 at best",
        epochs=len(forecaster.history_[0]["loss"]),
        numbers={"nrmse84": at_end, "nrmse1": at_once},
    )


def henon(rows, discard=100):
    """x' = 1 - 1.4 x**2 + y, y' = 0.3 x: the first coordinate, from the origin (Henon 1976)."""
    x, y, values = 0.0, 0.0, []
    for _ in range(rows + discard):
        x, y = 1.0 - 1.4 * x * x + y, 0.3 * x
        values.append(x)
    return np.asarray(values[discard:])
