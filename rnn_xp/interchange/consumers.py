"""Runtimes that are known to compute certain graphs wrongly, or not at all.

Every entry was seen in the version that it names, by ``python -m benchmarks.consumers``, whose
table is in docs/guide/interchange.md. onnxruntime has no entry: it computes all of these graphs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from rnn_xp._checks import choice
from rnn_xp.interchange.graphs.network import Form
from rnn_xp.network import Network

__all__ = ["KNOWN", "NAMES", "Known", "refusal"]


class Known(NamedTuple):
    """What a runtime does with a kind of graph.

    Attributes
    ----------
    consumer, version : str
    applies : callable
        ``applies(net, form)`` is True for the graphs concerned.
    what : str
        What the runtime does with them.
    remedy : str
        Options of `to_onnx` that it computes rightly, and of the command line.
    """

    consumer: str
    version: str
    applies: Callable[[Network, Form], bool]
    what: str
    remedy: str


def _native(net: Network, form: Form) -> bool:
    return form.spelling == "native"


def _lengths(net: Network, form: Form) -> bool:
    return _native(net, form) and form.lengths


def _lengths_open(net: Network, form: Form) -> bool:
    return _lengths(net, form) and (isinstance(form.rows, str) or isinstance(form.steps, str))


def _relu(net: Network, form: Form) -> bool:
    return _native(net, form) and net.cell == "rnn" and net.activation == "relu"


def _before(net: Network, form: Form) -> bool:
    return _native(net, form) and net.cell == "gru" and not net.reset_after


def _open_without_state(net: Network, form: Form) -> bool:
    return _native(net, form) and not form.stateful and isinstance(form.steps, str)


def _gru_without_state(net: Network, form: Form) -> bool:
    return _native(net, form) and net.cell == "gru" and not form.stateful


def _rnn(net: Network, form: Form) -> bool:
    return _native(net, form) and net.cell == "rnn"


def _scan(net: Network, form: Form) -> bool:
    return form.spelling == "portable" and isinstance(form.steps, str)


def _loop(net: Network, form: Form) -> bool:
    return form.spelling == "loop" and isinstance(form.steps, str)


def _scans(net: Network, form: Form) -> bool:
    return _scan(net, form) and (net.num_layers > 1 or net.bidirectional)


def _gru(net: Network, form: Form) -> bool:
    return _native(net, form) and net.cell == "gru"


def _lengths_or_lstm(net: Network, form: Form) -> bool:
    return _native(net, form) and (form.lengths or form.stateful or net.cell == "lstm")


def _not_sized_or_stateful(net: Network, form: Form) -> bool:
    return isinstance(form.steps, str) or (isinstance(form.rows, str) and not form.stateful)


def _not_sized(net: Network, form: Form) -> bool:
    return isinstance(form.rows, str) or isinstance(form.steps, str)


_PORTABLE = "spelling='portable' (--spelling portable)"
_LOOP = "spelling='loop' (--spelling loop)"
_SIZES = "spelling='portable', rows=N and steps=T (--spelling portable --batch N --steps T)"
_STEPS = "spelling='portable' and steps=T (--spelling portable --steps T)"

_IGNORES = "ignores the lengths of recurrent operators without a word"
_NO_LENGTHS = "refuses lengths of recurrent operators"
_TANH = "computes an RNN with relu as one with tanh"
_NO_SCAN, _NO_LOOP = "has no Scan", "has no Loop"

KNOWN: tuple[Known, ...] = (
    Known("openvino", "2026.4.1", _lengths_open,
          "ignores lengths of recurrent operators while batch or time are open", _PORTABLE),
    Known("tract", "0.23.9", _lengths, _NO_LENGTHS, _PORTABLE),
    Known("tract", "0.23.9", _relu, _TANH, _PORTABLE),
    Known("tract", "0.23.9", _open_without_state,
          "ends the process at recurrent operators if the number of steps is open", _PORTABLE),
    Known("tract", "0.23.9", _loop, _NO_LOOP, _PORTABLE),
    Known("mnn", "3.6.1", _lengths, _IGNORES, _LOOP),
    Known("mnn", "3.6.1", _relu, _TANH, _LOOP),
    Known("mnn", "3.6.1", _before, "computes a GRU that resets before the product as one that "
          "resets after it", _LOOP),
    Known("mnn", "3.6.1", _scan, _NO_SCAN, _LOOP),
    Known("opencv", "5.0.0.93", _lengths, _NO_LENGTHS, _STEPS),
    Known("opencv", "5.0.0.93", _rnn, "refuses the operator RNN", _STEPS),
    Known("opencv", "5.0.0.93", _gru_without_state, "refuses a GRU without a given state", _STEPS),
    Known("opencv", "5.0.0.93", _scan, _NO_SCAN, _STEPS),
    Known("opencv", "5.0.0.93", _loop, "computes a Loop wrongly or refuses it", _STEPS),
    Known("iree", "3.13.0", _lengths, _IGNORES, _STEPS),
    Known("iree", "3.13.0", _rnn, "refuses the operator RNN", _STEPS),
    Known("iree", "3.13.0", _gru, "refuses the operator GRU in most graphs", _STEPS),
    Known("iree", "3.13.0", _scans,
          "refuses a Scan of open size in several layers or directions", _STEPS),
    Known("iree", "3.13.0", _loop, _NO_LOOP, _STEPS),
    Known("tvm", "0.27.0.post1", _native, "refuses the operators RNN, GRU and LSTM", _SIZES),
    Known("tvm", "0.27.0.post1", _not_sized_or_stateful,
          "takes fixed sizes, or an open batch with given states", _SIZES),
    Known("litert", "2.1.0", _lengths_or_lstm, "gets from onnx2tf 1.29.24 no or a wrong form of "
          "recurrent operators with lengths, of given states and of LSTM", _SIZES),
    Known("litert", "2.1.0", _not_sized, "is known to take fixed sizes alone", _SIZES),
)  # fmt: skip
"""All that is known; the first entry that applies is named."""

NAMES = tuple(dict.fromkeys(entry.consumer for entry in KNOWN))
"""Runtimes that have an entry."""


def refusal(
    consumer: str,
    net: Network,
    *,
    spelling: str = "native",
    lengths: bool = False,
    stateful: bool = False,
    rows: int | None = None,
    steps: int | None = None,
) -> str | None:
    """Return why a runtime does not compute a graph, with a remedy; None if nothing is known.

    Parameters
    ----------
    consumer : str
        One of `NAMES`.
    net, spelling, lengths, stateful, rows, steps : as for `rnn_xp.interchange.onnx.to_onnx`

    Returns
    -------
    str or None

    Raises
    ------
    ValueError
        If the runtime has no entry.
    """
    choice("consumer", consumer, dict.fromkeys(NAMES))
    form = Form(
        spelling, lengths, stateful, "batch" if rows is None else rows,
        "time" if steps is None else steps,
    )  # fmt: skip
    for entry in KNOWN:
        if entry.consumer == consumer and entry.applies(net, form):
            return f"{consumer} {entry.version} {entry.what}. Export with {entry.remedy}."
    return None
