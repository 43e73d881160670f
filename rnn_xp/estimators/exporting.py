"""Estimators as ONNX graphs: windows in, predictions out."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from rnn_xp._checks import choice, whole
from rnn_xp.backend import to_numpy
from rnn_xp.estimators.arrays import softmax
from rnn_xp.interchange import example
from rnn_xp.interchange.graphs.graph import Graph
from rnn_xp.interchange.graphs.network import Form, add_network
from rnn_xp.interchange.onnx import HALVES, SPELLINGS, check_network, single

__all__ = ["Exported"]


class Exported:
    """What an estimator can be exported to."""

    net_: Any
    networks_: Any
    n_features_in_: int
    scaling_: Any

    def to_onnx(
        self, *, spelling: str = "native", rows: int | None = None, dtype: str = "float32"
    ) -> Any:
        """Export the fitted estimator.

        Parameters
        ----------
        spelling, rows, dtype : as for `rnn_xp.interchange.onnx.to_onnx`
            Given rows, the number of steps is fixed as well.

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
        form = Form(spelling, rows=n, steps="time" if rows is None else self.n_features_in_)
        x = graph.input("X", (n, form.steps, net.input_size))
        examples = [
            example.make_example(net, params, rows=rows, steps=self.n_features_in_)
            for params in self.networks_
        ]
        scaled, inputs = x, examples[0].inputs["x"]
        if self.scaling_ is not None:
            mean, deviation = (part.astype(np.float32) for part in self.scaling_)
            scaled = graph.add("Sub", scaled, graph.constant(mean))
            scaled = graph.add("Div", scaled, graph.constant(deviation))
            inputs = inputs * deviation + mean
        xs = graph.add("Transpose", scaled, perm=[1, 0, 2])
        ys = [
            add_network(graph, net, single(net, params), xs, form).pred for params in self.networks_
        ]
        sizes: list[Any] = [n, net.output_size]
        if net.topology == "many_to_many":
            ys, sizes = [graph.add("Transpose", y, perm=[1, 0, 2]) for y in ys], [n, form.steps]
            sizes.append(net.output_size)
        known = [each.outputs["pred"] for each in examples]
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
