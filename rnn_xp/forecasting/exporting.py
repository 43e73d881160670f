"""A forecaster as one ONNX graph: values of the series in, forecasts out.

::

    values (batch, T + d) --log--> difference --> scale --> networks --> mean --> unscale --> add up
                          logret   diff, logret             per seed             diff, logret

The graph does in float64 what the library does in float64, and in float32 what the networks do.
Beyond the reach of a network its forecasts are fed back in, as many times as the steps need.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from rnn_xp._checks import choice, whole
from rnn_xp.forecasting.design import make_design
from rnn_xp.forecasting.fitted import Fitted
from rnn_xp.forecasting.targets import offset_of
from rnn_xp.interchange import example
from rnn_xp.interchange.example import Example
from rnn_xp.interchange.graphs.graph import Graph
from rnn_xp.interchange.graphs.network import Form, add_network
from rnn_xp.interchange.onnx import HALVES, SPELLINGS, check_network, single
from rnn_xp.interchange.tensors import Floats

__all__ = ["Exported", "to_onnx"]

_ROWS, _TOLERANCE = 3, 1e-6  # of the example
_WIDE = np.float64


class _Fits(Protocol):
    @property
    def fitted(self) -> Fitted: ...


class Exported:
    """What a `Forecaster` can be exported to."""

    def to_onnx(self: _Fits, **options: Any) -> Any:
        """Return the forecaster as an ONNX graph, see `rnn_xp.forecasting.exporting.to_onnx`."""
        return to_onnx(self.fitted, **options)


class _Sizes(NamedTuple):
    T: int  # steps of a window
    offset: int  # values that differencing takes
    reach: int  # steps that the networks forecast at once
    quantiles: int
    past: int
    future: int
    steps: int  # to forecast
    rows: int | str

    @property
    def ahead(self) -> int:
        """Number of rows of future features, the last T - reach known ones and those ahead."""
        return self.T - self.reach + max(self.steps, self.reach)


def to_onnx(
    fitted: Fitted,
    *,
    steps: int | None = None,
    series: Any = None,
    spelling: str = "native",
    rows: int | None = None,
    dtype: str = "float32",
) -> Any:
    """Export a fitted forecaster, with scaling, differencing and all its networks.

    Parameters
    ----------
    fitted : Fitted
        ``forecaster.fitted``.
    steps : int, optional
        Number of steps to forecast; the horizon by default.
    series : str, optional
        The series whose scaler is in the graph, if there are several.
    spelling, rows, dtype : as for `rnn_xp.interchange.onnx.to_onnx`

    Returns
    -------
    onnx.ModelProto
        Inputs, all float64 in original units: ``values`` (batch, seq_length), or one more for
        changes, the newest last; with features ``past`` (batch, seq_length, k), of the same steps,
        and ``future`` (batch, seq_length - reach + steps, k), which end with the last step to
        forecast; reach is the horizon, or 1 if the forecaster is recursive. The output ``forecast``
        (batch, steps) is that of `Forecaster.predict`; with quantiles there are ``lower`` and
        ``upper``, too. The metadata hold an example, see `rnn_xp.interchange.example`.

    Raises
    ------
    ValueError
        If an argument does not fit, or a graph cannot express the network.
    ImportError
        If onnx is not installed.

    Notes
    -----
    All values of a window must be known: there is no estimate of missing ones in the graph.
    """
    half = choice("dtype", dtype, HALVES)
    choice("spelling", spelling, dict.fromkeys(SPELLINGS))
    settings, net = fitted.settings, fitted.predictor.net
    check_network(net, spelling)
    names = fitted.panel.names
    if series is None and len(names) > 1:
        raise ValueError(
            f"the forecaster has {len(names)} series, each with its scaler: give series=, one of "
            f"{', '.join(map(repr, names[:4]))}."
        )
    if fitted.panel.static:
        raise ValueError(
            "a forecaster that knows static values of its series is not exported: a graph reads "
            "the values of one series only. Fit one without static=."
        )
    design = fitted.designs[0 if series is None else choice(
        "series", series, {name: k for k, name in enumerate(names)}
    )]  # fmt: skip
    steps = settings.horizon if steps is None else whole("steps", steps)
    past, future = design.past.shape[1], design.future.shape[1]
    if past and steps > settings.horizon:
        raise ValueError(
            f"past features are not known beyond the series: steps must be at most "
            f"horizon={settings.horizon}, got {steps}."
        )
    sizes = _Sizes(
        settings.seq_length, offset_of(design.target), settings.reach,
        len(settings.levels_of_quantiles), past, future, steps,
        "batch" if rows is None else whole("rows", rows),
    )  # fmt: skip
    form = Form(spelling, rows=sizes.rows, steps=sizes.T if rows is not None else "time")
    graph = Graph(half)
    params = [single(net, each) for each in fitted.predictor.networks]
    _build(graph, fitted, design, params, sizes, form)
    model = graph.model(
        {
            "network": dataclasses.asdict(net),
            "scaler": dataclasses.asdict(design.scaler),
            "target": design.target,
            "networks": len(params),
            "steps": steps,
            **({} if spelling == "native" else {"spelling": spelling}),
        }
    )
    example.write(model, _example(fitted, design, sizes))
    return model


def _build(
    graph: Graph, fitted: Fitted, design: Any, params: list[dict[str, Floats]], sizes: _Sizes,
    form: Form,
) -> None:  # fmt: skip
    scaler, target = design.scaler, design.target
    values = graph.input("values", (sizes.rows, sizes.T + sizes.offset), _WIDE)
    last = _part(graph, values, -1, None, 1)
    z = graph.add("Log", values) if target in ("log", "logret") else values
    if sizes.offset:
        z = graph.add("Sub", _part(graph, z, 1, None, 1), _part(graph, z, 0, -1, 1))
    columns = [graph.add("Unsqueeze", z, graph.integers(2))]
    if sizes.past:
        columns.append(graph.input("past", (sizes.rows, sizes.T, sizes.past), _WIDE))
    future = ""
    if sizes.future:
        future = graph.input("future", (sizes.rows, sizes.ahead, sizes.future), _WIDE)
        columns.append(_part(graph, future, 0, sizes.T, 1))
    x = _scaled(graph, graph.add("Concat", *columns, axis=2), scaler.offset, scaler.scale)
    if future:
        first = 1 + sizes.past
        future = _scaled(graph, future, scaler.offset[first:], scaler.scale[first:])
    z = _steps(graph, fitted, params, x, future, sizes, form)  # (N, steps, Q)
    z = graph.add("Mul", z, graph.constant(scaler.scale[0], _WIDE))
    z = graph.add("Add", z, graph.constant(scaler.offset[0], _WIDE))
    middle, outer = sizes.quantiles // 2, sizes.quantiles - 1
    outputs = {"forecast": middle} | ({"lower": 0, "upper": outer} if outer else {})
    for name, quantile in outputs.items():
        level = graph.add("Gather", z, graph.constant(quantile, np.int64), axis=2)
        if sizes.offset:
            level = graph.add("CumSum", level, graph.constant(1, np.int64))
        if target == "log":
            level = graph.add("Exp", level)
        elif target == "logret":
            level = graph.add("Mul", last, graph.add("Exp", level))
        elif target == "diff":
            level = graph.add("Add", last, level)
        graph.output(name, level, (sizes.rows, sizes.steps), _WIDE)


def _steps(
    graph: Graph, fitted: Fitted, params: list[dict[str, Floats]], x: str, future: str,
    sizes: _Sizes, form: Form,
) -> str:  # fmt: skip
    """Add scaled forecasts (N, steps, Q), fed back in beyond the reach, as `Predictor.forecast`."""
    parts: list[str] = []
    filled = at = 0
    while True:
        pred = _mean(graph, fitted, params, x, sizes, form)
        until = min(at + sizes.reach, sizes.steps)
        parts.append(_part(graph, pred, filled - at, until - at, 1))
        filled = until
        if filled == sizes.steps:
            break
        z = _joined(graph, parts, 1)
        to = min(at + sizes.reach, sizes.steps - sizes.reach)
        new = _part(graph, _part(graph, z, at, to, 1), sizes.quantiles // 2, None, 2)
        if sizes.quantiles > 1:
            new = _part(graph, new, 0, 1, 2)
        if future:
            new = _joined(graph, [new, _part(graph, future, sizes.T + at, sizes.T + to, 1)], 2)
        x = _part(graph, _joined(graph, [x, new], 1), -sizes.T, None, 1)
        at = to
    return _joined(graph, parts, 1)


def _mean(
    graph: Graph, fitted: Fitted, params: list[dict[str, Floats]], x: str, sizes: _Sizes, form: Form
) -> str:
    """Add the mean forecast (N, reach, Q) of the networks, quantiles in order."""
    xs = graph.add("Transpose", graph.cast(x, np.float32), perm=[1, 0, 2])
    net = fitted.predictor.net
    preds = [graph.cast(add_network(graph, net, p, xs, form).pred, _WIDE) for p in params]
    if len(preds) > 1:
        share = graph.constant(1.0 / len(preds), _WIDE)
        preds = [graph.add("Mul", graph.add("Sum", *preds), share)]
    shape = graph.integers(0, sizes.reach, sizes.quantiles)
    pred = graph.add("Reshape", preds[0], shape)
    if sizes.quantiles == 1:
        return str(pred)
    return str(
        graph.add("TopK", pred, graph.integers(sizes.quantiles), outputs=2, axis=2, largest=0)[0]
    )


def _scaled(graph: Graph, value: str, offset: Any, scale: Any) -> str:
    value = graph.add("Sub", value, graph.constant(offset, _WIDE))
    return str(graph.add("Div", value, graph.constant(scale, _WIDE)))


def _part(graph: Graph, value: str, start: int, end: int | None, axis: int) -> str:
    """Add the part from ``start`` to ``end`` along an axis."""
    end = np.iinfo(np.int64).max if end is None else end
    return str(
        graph.add("Slice", value, *(graph.integers(number) for number in (start, end, axis)))
    )


def _joined(graph: Graph, values: list[str], axis: int) -> str:
    return values[0] if len(values) == 1 else str(graph.add("Concat", *values, axis=axis))


def _example(fitted: Fitted, design: Any, sizes: _Sizes) -> Example:
    """Return random windows that resemble the series, and what the library forecasts from them."""
    rng, scaler = np.random.default_rng(0), design.scaler
    inputs: dict[str, list[NDArray[Any]]] = {"values": [], "past": [], "future": []}
    outputs: dict[str, list[NDArray[Any]]] = {"forecast": [], "lower": [], "upper": []}
    first, whole_rows = (
        sizes.T + sizes.offset,
        sizes.T + sizes.offset + max(sizes.steps, sizes.reach),
    )
    start = float(design.levels[-1]) if len(design.levels) else 1.0
    for _ in range(sizes.rows if isinstance(sizes.rows, int) else _ROWS):
        columns = rng.standard_normal((whole_rows, len(scaler.offset))).round(3)
        columns = columns * scaler.scale + scaler.offset
        levels = columns[:, 0]
        if design.target == "diff":
            levels = start + np.cumsum(levels)
        elif design.target == "logret":
            levels = start * np.exp(np.cumsum(levels))
        past, future = columns[:, 1 : 1 + sizes.past], columns[:, 1 + sizes.past :]
        drawn = make_design(
            levels, past, future, target=design.target, scaler=scaler, train=0, unit=1.0
        )
        origin = np.asarray([first])
        forecast = fitted.predictor.from_rows([drawn], [origin], sizes.steps)[0][0]
        inputs["values"].append(levels[:first])
        inputs["past"].append(past[sizes.offset : first])
        inputs["future"].append(future[sizes.offset + sizes.reach :])
        for name, at in (("forecast", sizes.quantiles // 2), ("lower", 0), ("upper", -1)):
            outputs[name].append(forecast[:, at])
    present = {"values": True, "past": bool(sizes.past), "future": bool(sizes.future)}
    return Example(
        {name: np.stack(each) for name, each in inputs.items() if present[name]},
        {
            name: np.stack(each)
            for name, each in outputs.items()
            if name == "forecast" or sizes.quantiles > 1
        },
        _TOLERANCE,
    )
