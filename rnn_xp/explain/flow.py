"""The change of the gradient on its way back through time: vanishing and exploding, in numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rnn_xp._typing import Array, Loss, Params
from rnn_xp.backend import to_numpy
from rnn_xp.network import Network

__all__ = ["GradientFlow", "measure_flow"]

_Floats = NDArray[np.float64]

# Vanishing and exploding begin at a factor of ten between the ends of the sequence.
_FACTOR = 10.0


@dataclass(frozen=True)
class GradientFlow:
    """Norms of gradients at each of T time steps, by layer, on the host.

    Attributes
    ----------
    loss : float
    dh : dict of str to ndarray (T,)
        ``|dL/dh_t|`` over the whole batch, by "layer0", "layer0.reverse", ...; with feedback there
        is only "prediction", ``|dL/dpred_t|``.
    terms : dict of str to ndarray (T,)
        ``|dz_t.T @ h_{t-1}|``, the norm of each step's term of dL/dw_hh, by layer; empty if the
        cell has no w_hh.
    shares : dict of str to ndarray (T,)
        Projection of each term on dL/dw_hh, as a fraction of its length. They add up to 1; a term
        in the opposite direction is negative. NaN if there is no gradient.
    remarks : dict of str to str
        By layer, notes on reading ``dh``; empty if there are none.
    """

    loss: float
    dh: dict[str, _Floats]
    terms: dict[str, _Floats]
    shares: dict[str, _Floats]
    remarks: dict[str, str]

    def relative(self, name: str) -> _Floats:
        """Return ``|dL/dh_t|`` relative to the start of the way back.

        The start is step T or, for a reverse layer, step 1. The result is NaN if no finite gradient
        arrives there.
        """
        return _relative(self.dh[name], name)

    def relative_terms(self, name: str) -> _Floats:
        """Return the norms of the terms of dL/dw_hh, relative to the norm at the same step."""
        return _relative(self.terms[name], name)

    def over_all(self, name: str) -> float:
        """Return the factor by which ``|dL/dh_t|`` changes on the whole way back."""
        return float(self.relative(name)[-1 if _is_reverse(name) else 0])

    def per_step(self, name: str) -> float:
        """Return the geometric mean of the factors of all steps; NaN for a single step."""
        steps = len(self.dh[name]) - 1
        return float(self.over_all(name) ** (1.0 / steps)) if steps else float("nan")

    def verdict(self, name: str) -> str:
        """Describe in words whether the gradient vanishes, explodes or keeps its size."""
        norm = "|dL/dpred_t|" if name == "prediction" else "|dL/dh_t|"
        steps, over_all = len(self.dh[name]) - 1, self.over_all(name)
        if not np.isfinite(self.dh[name]).all():
            return f"{name}: gradients explode: {norm} is no longer finite."
        if steps == 0:
            return f"{name}: a single step; nothing flows back through time."
        if np.isnan(over_all):
            return f"{name}: no gradient arrives where backpropagation starts."
        kind = "stay within a factor of ten"
        if over_all <= 1.0 / _FACTOR:
            kind = "vanish"
        elif over_all >= _FACTOR:
            kind = "explode"
        way = f"1 to {steps + 1}" if _is_reverse(name) else f"{steps + 1} back to 1"
        sentence = (
            f"{name}: gradients {kind}: from step {way}, {norm} is multiplied by "
            f"{self.per_step(name):.3g} per step, by {over_all:.2g} in all."
        )
        return f"{sentence} {self.remarks[name]}".rstrip()

    def rows(self, name: str) -> list[tuple[int, float, float, float, float]]:
        """Return ``(t, |dL/dh_t|, relative, |term of dL/dw_hh|, share)`` of each step t >= 1."""
        nothing = np.full(len(next(iter(self.dh.values()))), np.nan)
        relative = self.relative(name) if name in self.dh else nothing
        columns = [self.dh.get(name, nothing), relative]
        columns += [self.terms.get(name, nothing), self.shares.get(name, nothing)]
        numbers = zip(*columns, strict=True)
        return [(t, *map(float, row)) for t, row in enumerate(numbers, start=1)]  # type: ignore[misc]

    @property
    def names(self) -> list[str]:
        """Names of all entries: the keys of ``dh`` and of ``terms``."""
        return list({**self.dh, **self.terms})

    def table(self, *, most: int = 20) -> list[str]:
        """Format the numbers as aligned lines of text; with many steps, only evenly spaced ones."""
        lines = []
        for name in self.names:
            rows = self.rows(name)
            shown = sorted({round(i) for i in np.linspace(0, len(rows) - 1, min(most, len(rows)))})
            some = "" if len(shown) == len(rows) else f", {len(shown)} of {len(rows)} steps"
            norm = "|dL/dpred_t|" if name == "prediction" else "|dL/dh_t|"
            lines.append(f"{name}{some}")
            lines.append(f"{'t':>6}  {norm:>12}  {'relative':>9}  {'dw_hh term':>11}  {'share':>7}")
            for i in shown:
                t, dh, relative, term, share = rows[i]
                cells = [f"{dh:12.3e}", f"{relative:9.2g}", f"{term:11.3e}", f"{share:7.1%}"]
                lines.append("  ".join([f"{t:6}", *(c.replace("nan%", "   -") for c in cells)]))
        return [line.replace("nan", "  -") for line in lines]


def measure_flow(
    net: Network, params: Params, x: Array, y: Array, loss: str | Loss = "mse"
) -> GradientFlow:
    """Measure the gradient at each step, without dropout.

    Parameters
    ----------
    net : Network
    params : Params
    x, y : Array
        As for `Network.value_and_grad`, on any backend.
    loss : str or callable
        As for `Network.value_and_grad`.

    Returns
    -------
    GradientFlow

    Examples
    --------
    >>> import numpy as np
    >>> net = Network(hidden_size=4)
    >>> params = net.init(seed=0)
    >>> x, y = np.ones((3, 5, 1), dtype=np.float32), np.ones((3, 1), dtype=np.float32)
    >>> flow = measure_flow(net, params, x, y)
    >>> flow.dh["layer0"].shape
    (5,)
    >>> float(flow.terms["layer0"][0])  # its other factor, h_0, is zero
    0.0
    """
    # Exploding gradients may overflow; here that is a result, and no reason for a warning.
    with np.errstate(over="ignore", invalid="ignore"):
        value, _ = net.value_and_grad(params, x, y, loss)
        flows = _to_host(net.gradient_flow(params, x, y, loss))
        per_step = _to_host(net.grad_per_step(params, x, y, loss))
        of_w_hh = {
            name.removesuffix(".w_hh"): terms
            for name, terms in per_step.items()
            if name.endswith(".w_hh")
        }
        return GradientFlow(
            loss=float(to_numpy(value)),
            dh={name: _norms(flow) for name, flow in flows.items()},
            terms={name: _norms(terms) for name, terms in of_w_hh.items()},
            shares={name: _shares(terms) for name, terms in of_w_hh.items()},
            remarks={name: _remark(net, name) for name in flows},
        )


def _remark(net: Network, name: str) -> str:
    at_top = name.removesuffix(".reverse") == f"layer{net.num_layers - 1}"
    sentences = []
    if name == "prediction" or (at_top and not _read_once(net)):
        sentences.append("What the loss adds at every step is in it.")
    elif not at_top:
        sentences.append("What the layer above adds at every step is in it.")
    others = ", ".join(net.state_type._fields[1:])
    if others and name != "prediction":
        sentences.append(f"This is h alone; the cell state {others} carries a gradient of its own.")
    return " ".join(sentences)


def _read_once(net: Network) -> bool:
    return net.topology == "many_to_one" and net.read == "last"


def _to_host(arrays: Mapping[str, Array]) -> dict[str, _Floats]:
    # In double precision: the squares of small single-precision numbers would be zero.
    return {name: to_numpy(array).astype(np.float64) for name, array in arrays.items()}


def _norms(arrays: _Floats) -> _Floats:
    norms: _Floats = np.sqrt(np.sum(arrays * arrays, axis=(1, 2)))
    return norms


def _shares(terms: _Floats) -> _Floats:
    total = np.sum(terms, axis=0)
    square = float(np.sum(total * total))
    along: _Floats = np.sum(terms * total, axis=(1, 2))
    return along / square if square > 0.0 else np.full(len(terms), np.nan)


def _is_reverse(name: str) -> bool:
    return name.endswith(".reverse")


def _relative(values: _Floats, name: str) -> _Floats:
    start = values[0 if _is_reverse(name) else -1]
    return values / start if 0.0 < start < np.inf else np.full(len(values), np.nan)
