"""Forecasters of several packages, each made to forecast from every row after a training part.

Every one of them is fitted once, on the training part, and then brought to each later row with the
values up to it: no model and no coefficient is chosen anew. Each function takes the series (n,),
the number of training rows, the number of steps and the season that the tool is told, and returns
forecasts (M, steps) by name, from every later row or from those whose steps are all known.
"""

from __future__ import annotations

import dataclasses
import logging
import warnings

import numpy as np

import rnn_xp as rx
from rnn_xp.forecasting.panel import as_panel

__all__ = [
    "EPOCHS", "FORECASTERS", "INPUTS", "OURS", "PANEL", "chance", "coverage", "covered", "panel",
]  # fmt: skip

OURS = "rnn_xp.Forecaster"
INPUTS, EPOCHS = 24, 100  # of darts' LSTM
ORIGINS = 500  # at most, at which intervals are asked for


def origins_of(rows, cut, steps=1):
    """Return the rows from which all steps of a forecast can be judged."""
    return range(cut, rows - steps + 1)


def ours(values, cut, steps, season):
    """Forecast with the defaults of this package, and by the baselines of its report."""
    del season
    forecaster = rx.Forecaster(horizon=steps, verbose=False).fit(values[:cut])
    (part,) = forecaster.evaluate(values).series
    return {OURS: part.forecast, **part.baselines}


def coverage(values, cut, steps, levels):
    """Return the shares of true values within intervals by level, if ends cross, and origins."""
    forecaster = rx.Forecaster(horizon=steps, verbose=False).fit(values[:cut])
    inside, crossed, now = {level: [] for level in levels}, False, forecaster
    rows = origins_of(len(values), cut, steps)
    for origin in rows[:: -(-len(rows) // ORIGINS)]:
        now = now.apply(values[:origin])
        low, high = now.predict_interval(level=levels)
        truth = values[origin : origin + steps]
        for level in levels:
            inside[level].append((low[level] <= truth) & (truth <= high[level]))
        ends = np.stack([*(low[k] for k in reversed(levels)), *(high[k] for k in levels)])
        crossed |= bool((np.diff(ends, axis=0) < 0.0).any())
    return {level: float(np.mean(inside[level])) for level in levels}, crossed, len(inside[level])


def covered(values, steps, shares):
    """Return the coverage of the last fifth of a series by each share, as `evaluate` reports it."""
    cut = int(0.8 * len(values))
    fitted = rx.Forecaster(horizon=steps, verbose=False).fit(values[:cut]).fitted
    found = []
    for share in shares:
        settings = dataclasses.replace(fitted.settings, level=share)
        judged = dataclasses.replace(fitted, settings=settings)
        result = judged.evaluate(as_panel(values), None, None, 1)
        found.append(result.metrics["coverage"])
    return found


def chance(share, origins, steps):
    """Return two standard deviations of a measured coverage, at most.

    Forecasts of j steps from successive rows have errors in common up to j - 1 rows apart, as those
    of an optimal forecast do, so the variance of their share is at most j times the binomial one.
    That of all steps together is no larger than if the shares of the steps went together.
    """
    each = np.sqrt(share * (1.0 - share) * np.arange(1, steps + 1) / origins)
    return 2.0 * float(np.mean(each))


def panel(number, rows, seed=0):
    """Return monthly series by name, each with a trend, a season and a level that wanders."""
    rng, t, made = np.random.default_rng(seed), np.arange(rows), {}
    for k in range(number):
        season = 0.15 * rng.standard_normal(12)[t % 12]
        wander = np.cumsum(0.02 * rng.standard_normal(rows))
        noise = 0.03 * rng.standard_normal(rows)
        made[f"s{k}"] = np.exp(5.0 + rng.uniform(-0.005, 0.01) * t + season + wander + noise)
    return made


def ours_of_panel(series, steps):
    """Forecast all series with one forecaster of this package."""
    return rx.Forecaster(horizon=steps, verbose=False).fit(series).predict(steps)


def ets_of_panel(series, steps):
    """Forecast each series with statsforecast's AutoETS, which is told the season."""
    from statsforecast.models import AutoETS

    return {
        name: AutoETS(season_length=12).fit(values).predict(h=steps)["mean"]
        for name, values in series.items()
    }


PANEL = {OURS: ours_of_panel, "AutoETS": ets_of_panel}


def _of_statsforecast(name, **settings):
    def forecasts(values, cut, steps, season):
        from statsforecast import models

        if name == "AutoARIMA":  # as R's auto.arima decides; else co2 takes more than ten minutes
            settings["approximation"] = cut > 150 or season > 12
        model = getattr(models, name)(season_length=season, **settings).fit(values[:cut])
        rows = origins_of(len(values), cut)
        return {name: np.stack([model.forward(values[:row], h=steps)["mean"] for row in rows])}

    return forecasts


def lstm_of_darts(values, cut, steps, season):
    """Forecast with darts' recurrent model, its sizes as they are by default."""
    del season
    from darts import TimeSeries
    from darts.dataprocessing.transformers import Scaler
    from darts.models import RNNModel

    warnings.filterwarnings("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    whole = TimeSeries.from_values(values.astype(np.float32))
    scaler = Scaler().fit(whole[:cut])
    model = RNNModel(
        input_chunk_length=INPUTS, model="LSTM", training_length=INPUTS + 12, n_epochs=EPOCHS,
        random_state=0, pl_trainer_kwargs={"accelerator": "cpu", "enable_progress_bar": False},
    )  # fmt: skip
    model.fit(scaler.transform(whole[:cut]), verbose=False)
    known = scaler.transform(whole)
    pasts = [known[:row] for row in origins_of(len(values), cut)]
    forecasts = model.predict(steps, series=pasts, verbose=False)
    levels = [scaler.inverse_transform(forecast).values()[:, 0] for forecast in forecasts]
    return {"LSTM of darts": np.stack(levels)}


FORECASTERS = {
    OURS: ours,
    "AutoARIMA": _of_statsforecast("AutoARIMA"),
    "AutoETS": _of_statsforecast("AutoETS"),
    "Theta": _of_statsforecast("Theta"),
    "LSTM of darts": lstm_of_darts,
}
