"""Forecasts of any number of steps by trained networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnn_xp._typing import Params
from rnn_xp.backend import Backend, to_numpy
from rnn_xp.forecasting.design import Design, Windows
from rnn_xp.network import Network

__all__ = ["Predictor"]

_ROWS = 65_536  # windows that are brought to the backend at once

_Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Predictor:
    """Networks of one shape whose mean prediction is the forecast.

    Attributes
    ----------
    net : Network
        Network with ``reach * Q`` outputs.
    networks : sequence of Params
        Parameters of each network.
    backend : Backend
        Library, device and dtype of the parameters.
    seq_length : int
        Number of steps of a window, T.
    reach : int
        Number of steps that are forecast at once.
    quantiles : int
        Number of values for each step, Q; the middle one is the forecast.
    """

    net: Network
    networks: Sequence[Params]
    backend: Backend
    seq_length: int
    reach: int
    quantiles: int

    def forecast(
        self, designs: Sequence[Design], windows: Sequence[Windows], ahead: Sequence[_Floats],
        steps: int,
    ) -> list[_Floats]:  # fmt: skip
        """Forecast the steps after windows of several series.

        Parameters
        ----------
        designs : sequence of Design
        windows : sequence of Windows
            M windows of each series.
        ahead : sequence of ndarray (M, A, k)
            Scaled future features of the next A >= steps steps.
        steps : int
            Number of steps to forecast.

        Returns
        -------
        list of ndarray (M, steps, Q)
            Forecasts in original units.
        """
        forecasts: list[_Floats] = []
        first = 0
        while first < len(designs):  # many short series are forecast together
            last, rows = first + 1, len(windows[first].x)
            while last < len(designs) and rows + len(windows[last].x) <= _ROWS:
                rows += len(windows[last].x)
                last += 1
            group = windows[first:last]
            z = self._scaled(
                np.concatenate([each.x for each in group]),
                np.concatenate([each.mask for each in group]),
                np.concatenate(ahead[first:last]),
                steps,
            )
            ends = np.cumsum([len(each.x) for each in group])[:-1]
            for design, each, part in zip(designs[first:last], group, np.split(z, ends),
                                          strict=True):  # fmt: skip
                levels = [design.to_levels(part[:, :, q], each.last) for q in range(part.shape[2])]
                forecasts.append(np.stack(levels, axis=2))
            first = last
        return forecasts

    def _scaled(self, x: _Floats, mask: NDArray[np.bool_], ahead: _Floats, steps: int) -> _Floats:
        """Return scaled forecasts (M, steps, Q); beyond ``reach``, they are fed back in."""
        reach = self.reach
        z = np.empty((len(x), steps, self.quantiles))
        filled = at = 0
        while True:
            pred = self._networks(x, mask)
            until = min(at + reach, steps)
            z[:, filled:until] = pred[:, filled - at : until - at]
            filled = until
            if filled == steps:
                return z
            to = min(at + reach, steps - reach)  # the last forecast ends with the last step
            new = z[:, at:to, self.quantiles // 2, None]
            future = ahead[:, at + reach : to + reach]
            # Past features beyond the series are there only if they do not change.
            same = np.repeat(x[:, -1:, 1 : x.shape[2] - future.shape[2]], to - at, axis=1)
            new = np.concatenate([new, same, future], axis=2)
            x = np.concatenate([x, new], axis=1)[:, -self.seq_length :]
            mask = np.concatenate([mask, np.ones(new.shape[:2], bool)], axis=1)
            mask = mask[:, -self.seq_length :]
            at = to

    def from_rows(
        self, designs: Sequence[Design], origins: Sequence[NDArray[np.intp]], steps: int
    ) -> list[_Floats]:
        """Return forecasts (M, steps, Q) from rows of series, as if they ended just before them."""
        windows = [
            design.windows(rows, self.seq_length, self.reach, design.future[:0])
            for design, rows in zip(designs, origins, strict=True)
        ]
        ahead = [
            design.future[(rows - design.offset)[:, None] + np.arange(steps)]
            for design, rows in zip(designs, origins, strict=True)
        ]
        return self.forecast(designs, windows, ahead, steps)

    def _networks(self, x: _Floats, mask: NDArray[np.bool_]) -> _Floats:
        """Return scaled forecasts (M, reach, Q), averaged over the networks."""
        backend, means = self.backend, []
        if np.max(np.abs(x), initial=0.0) > np.finfo(backend.dtype_name).max:
            raise ValueError(
                f"the values to forecast from are too large for {backend.dtype_name} after scaling "
                f"as in fit, up to {np.max(np.abs(x)):.3g}. Are they in the units of the training "
                "series? Else compute in float64 with backend=rnn_xp.get_backend(dtype='float64')."
            )
        for start in range(0, len(x), _ROWS):
            rows = slice(start, start + _ROWS)
            inputs = backend.asarray(x[rows])
            keywords: dict[str, Any] = {}
            if not (self.net.linear_lags or mask[rows].all()):  # else x holds estimates
                keywords["mask"] = backend.asarray(mask[rows])
            preds = [
                to_numpy(self.net.predict(params, inputs, **keywords)).astype(np.float64)
                for params in self.networks
            ]
            means.append(np.mean(preds, axis=0))
        # Quantiles that cross are put in order, as Chernozhukov, Fernandez-Val and Galichon do in
        # "Quantile and probability curves without crossing", Econometrica 78 (2010), 1093-1125.
        return np.sort(np.concatenate(means).reshape(len(x), self.reach, self.quantiles), axis=2)
