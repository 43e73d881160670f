"""Estimators as ONNX graphs: windows in, predictions out."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from rnn_xp._checks import choice, whole
from rnn_xp.backend import to_numpy
from rnn_xp.estimators.arrays import patched, softmax
from rnn_xp.interchange import example
from rnn_xp.interchange.graphs.graph import Graph
from rnn_xp.interchange.graphs.network import Form, add_network
from rnn_xp.interchange.onnx import HALVES, SPELLINGS, check_network, single

__all__ = ["Exported"]

_ROWS = 3  # of an example


class Exported:
    """What an estimator can be exported to."""

    net_: Any
    networks_: Any
    n_features_in_: int
    scaling_: Any
    patch_size_: int

    def to_onnx(
        self, *, spelling: str = "native", rows: int | None = None, dtype: str = "float32"
    ) -> Any:
        """Export the fitted estimator.

        Parameters
        ----------
        spelling, rows, dtype : as for `rnn_xp.interchange.onnx.to_onnx`
            Given rows, the number of steps is fixed as well, and so it is if the network reads
            several steps as one (``patch_size_``).

        Returns
        -------
        onnx.ModelProto
            The input is ``X`` (n, T, I) float32. Regressors have the output ``pred`` (n, O);
            classifiers have ``label`` (n,) and ``probabilities`` (n, C), labelers (n, T) and
            (n, T, C). The metadata hold an
            example, see `rnn_xp.interchange.example`.

        Raises
        ------
        ValueError
            If an argument does not fit, or a graph cannot express the network.
        ImportError
            If onnx is not installed.
        """
        check_is_fitted(self)
        graph = Graph(choice("dtype", dtype, HALVES))
        choice("spelling", spelling, dict.fromkeys(SPELLINGS))
        check_network(self.net_, spelling)
        net = self.net_
        n = "batch" if rows is None else whole("rows", rows)
        steps, size, features = self.n_features_in_, self.patch_size_, net.input_size
        open_steps = rows is None and size == 1
        x = graph.input("X", (n, "time" if open_steps else steps, features // size))
        count = -(-steps // size)
        form = Form(spelling, rows=n, steps="time" if open_steps else count)
        # An example of a few windows, first as the network sees them.
        shape = (rows or _ROWS, steps, features // size)
        inputs = np.random.default_rng(0).standard_normal(shape).round(3).astype(np.float32)
        seen, _ = patched(inputs, None, size)
        scaled = x
        if self.scaling_ is not None:
            mean, deviation = (part.astype(np.float32) for part in self.scaling_)
            scaled = graph.add("Sub", scaled, graph.constant(mean))
            scaled = graph.add("Div", scaled, graph.constant(deviation))
            inputs = inputs * deviation + mean
        if size > 1:
            rest = graph.integers(0, 0, 0, 0, count * size - steps, 0)
            scaled = graph.add("Pad", scaled, rest, graph.constant(0.0))
            to = graph.integers(0, count, features)  # 0 is the number of rows as it is
            scaled = graph.add("Reshape", scaled, to)
        xs = graph.add("Transpose", scaled, perm=[1, 0, 2])
        networks = [single(net, params) for params in self.networks_]
        ys = [add_network(graph, net, params, xs, form).pred for params in networks]
        sizes: list[Any] = [n, net.output_size]
        if net.topology == "many_to_many":
            ys, sizes = [graph.add("Transpose", y, perm=[1, 0, 2]) for y in ys], [n, form.steps]
            sizes.append(net.output_size)
        known = [net.predict(params, seen) for params in networks]
        outputs, classes = {}, getattr(self, "classes_", None)
        if classes is None:
            graph.output("pred", _mean(graph, ys), sizes)
            outputs["pred"] = np.mean(known, axis=0)
        else:
            labels = np.asarray(to_numpy(classes))
            probable = _mean(graph, [graph.add("Softmax", y, axis=-1) for y in ys])
            index = graph.add("ArgMax", probable, axis=-1, keepdims=0)
            kind = _kind(labels)
            label = graph.add("Gather", graph.constant(labels, kind), index)
            graph.output("label", label, sizes[:-1], kind)
            graph.output("probabilities", probable, sizes)
            shares = np.mean([softmax(each) for each in known], axis=0)
            outputs |= {"label": labels[np.argmax(shares, axis=-1)], "probabilities": shares}
        model = graph.model({"estimator": type(self).__name__, "steps": self.n_features_in_})
        example.write(model, example.Example({"X": inputs}, outputs))
        return model


def _mean(graph: Graph, values: list[str]) -> str:
    """Return the mean of values of equal shape, or the only one."""
    if len(values) == 1:
        return values[0]
    total = graph.add("Sum", *values)
    return str(graph.add("Div", total, graph.constant(float(len(values)))))


def _kind(classes: Any) -> Any:
    """Return the dtype of labels in a graph, which has text, but none of fixed width."""
    return np.dtype(object) if classes.dtype.kind in "UO" else classes.dtype
