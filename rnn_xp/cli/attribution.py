"""``rnn-xp explain --attribution``: what one forecast rests on, in steps of its input and in data.

Integrated gradients divide the forecast among the input steps. The influence of a training window
is the inner product of its own gradient with that of the forecast's loss. If a run averages
networks, all of this is the mean over them. A run that was trained on changes or log returns is
explained in these: they are what its network reads and forecasts.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnn_xp.data.datasets import Series
from rnn_xp.explain import influence, integrated_gradients, saliency
from rnn_xp.forecasting.attribution_plot import draw_attribution
from rnn_xp.forecasting.fitted import Fitted
from rnn_xp.forecasting.plotting import to_png
from rnn_xp.losses import Pinball

__all__ = ["Attribution", "attribute"]

_NAMED = 3  # training windows that are named, of either sign
_KINDS = {"level": "value", "log": "logarithm", "diff": "change", "logret": "log return"}
_Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Attribution:
    """What a forecast one step ahead rests on.

    Attributes
    ----------
    date : str
        Date, or number of the row, of the value that is forecast.
    steps : list of str
        Dates of the T input steps.
    kind : str
        What the network reads and forecasts: "value", "change" or "log return".
    networks : int
        Number of networks, whose mean is taken.
    saliency : ndarray (T,)
        d forecast / d input, without unit.
    parts : ndarray (T,)
        Integrated gradients, in the unit of the series; log returns have none.
    difference : float
        Forecast minus that of a window of means, which the parts add up to.
    dates : list of str
        Dates of the values that the training windows forecast.
    influence : ndarray (N,)
        Influence of each training window on the loss of this one, see `rnn_xp.explain.influence`.
    title, unit : str
    """

    date: str
    steps: list[str]
    kind: str
    networks: int
    saliency: _Floats
    parts: _Floats
    difference: float
    dates: list[str]
    influence: _Floats
    title: str
    unit: str

    @property
    def named(self) -> list[int]:
        """Numbers of the training windows with the largest influence, of either sign."""
        order = np.argsort(-np.abs(self.influence), kind="stable")
        return [int(k) for k in order[:_NAMED]]

    def lines(self) -> list[str]:
        """Return the text of a page."""
        unit = f" {self.unit}" if self.unit else ""
        kind, mean = self.kind, f", mean of {self.networks} networks" if self.networks > 1 else ""
        lines = [
            "",
            f"ATTRIBUTION of the {kind} forecast for {self.date}, integrated gradients{mean}",
            f"{f'{kind} of':<20}{'share' + unit:>16}{f'd forecast / d {kind}':>30}",
        ]
        for step, part, slope in zip(self.steps, self.parts, self.saliency, strict=True):
            lines.append(f"{step:<20}{part:>16.5g}{slope:>30.4g}")
        total = float(np.sum(self.parts))
        lines += [
            f"{'sum':<20}{total:>16.5g}",
            f"the forecast differs by {self.difference:.5g}{unit} from that of a window of means",
            "training windows of the largest influence: a gradient step on it alone ...",
        ]
        for number in self.named:
            score = self.influence[number]
            effect = "lowers this loss" if score > 0 else "raises this loss"
            lines.append(f"  that of {self.dates[number]:<20}{score:>12.4g}  {effect}")
        return lines

    def csv(self) -> bytes:
        """Return the input steps, then the training windows, as a table."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["kind", "date", "attribution", "saliency", "influence"])
        for step, part, slope in zip(self.steps, self.parts, self.saliency, strict=True):
            writer.writerow(["input step", step, f"{part:.9g}", f"{slope:.9g}", ""])
        for date, score in zip(self.dates, self.influence, strict=True):
            writer.writerow(["training window", date, "", "", f"{score:.9g}"])
        return text.getvalue().encode()

    def png(self) -> bytes:
        """Return the picture."""
        return to_png(
            draw_attribution(
                self.steps, self.parts, self.dates, self.influence, named=self.named,
                title=self.title, unit=self.unit,
            )
        )  # fmt: skip

    def summary(self) -> dict[str, Any]:
        """Return the numbers for JSON."""
        return {
            "date": self.date,
            "kind": self.kind,
            "networks": self.networks,
            "difference": self.difference,
            "steps": self.steps,
            "attributions": self.parts.tolist(),
            "saliency": self.saliency.tolist(),
            "influential": {self.dates[k]: float(self.influence[k]) for k in self.named},
        }


def attribute(
    model: Fitted, windows: tuple[_Floats, _Floats], seen: int, series: Series, wanted: str
) -> Attribution:
    """Explain one forecast of a trained network.

    Parameters
    ----------
    model : Fitted
    windows : tuple of ndarray
        All training windows and their targets, scaled.
    seen : int
        Number of rows of the training part.
    series : Series
    wanted : str
        Date of the value that is forecast, as the file writes it, or the number of its row, from 1;
        "last" for the last training window.

    Raises
    ------
    ValueError
        If there is no training window for this date, or if the series has gaps.
    """
    x, y = windows
    settings, scaler = model.settings, model.designs[0].scaler
    count, (first, *_) = len(x), model.designs
    begin = settings.seq_length + first.offset
    if count != seen - settings.reach + 1 - begin:
        raise ValueError(
            "--attribution needs a series without gaps, because it names each input step by its "
            "date. Fill them with --missing interpolate."
        )
    labels = series.dates or tuple(f"row {row + 1}" for row in range(len(series.values)))
    wanted = f"row {wanted}" if not series.dates and wanted.isdecimal() else wanted
    dates = [labels[begin + k] for k in range(count)]
    if wanted != "last" and wanted not in dates:
        raise ValueError(
            f"--attribution {wanted}: no training window forecasts it; those there are forecast "
            f"{dates[0]} .. {dates[-1]}."
        )
    chosen = count - 1 if wanted == "last" else dates.index(wanted)

    net, levels = model.predictor.net, settings.levels_of_quantiles
    output = len(levels) // 2  # one step ahead, and the median of quantiles
    dtype = next(iter(model.predictor.networks[0].values())).dtype
    x, y = (np.ascontiguousarray(a, dtype=dtype) for a in (x, y))
    one = slice(chosen, chosen + 1)
    loss = Pinball(tuple(levels) * settings.reach) if len(levels) > 1 else "mse"
    results = []
    for params in model.predictor.networks:
        result = integrated_gradients(net, params, x[one], points=64, output=output)
        results.append((
            np.asarray(saliency(net, params, x[one], output=output))[0, :, 0],
            np.asarray(result.attributions)[0].sum(axis=-1),
            float(result.difference[0]),
            np.asarray(influence(net, params, x, y, x[one], y[one], loss)),
        ))  # fmt: skip
    slopes, parts, differences, scores = (
        np.mean(each, axis=0) for each in zip(*results, strict=True)
    )
    scale, kind = scaler.scale[0], _KINDS[first.target]
    end = begin + chosen
    return Attribution(
        date=dates[chosen],
        steps=[labels[row] for row in range(end - settings.seq_length, end)],
        kind=kind,
        networks=len(results),
        saliency=slopes,
        parts=parts * scale,
        difference=float(differences) * scale,
        dates=dates,
        influence=scores,
        title=f"{series.name}: what the {kind} forecast for {dates[chosen]} rests on",
        unit="" if kind == "log return" else series.unit,
    )
