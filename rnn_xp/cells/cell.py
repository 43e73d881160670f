"""The base class of recurrent cells: their declaration, and the parts that they share.

A cell computes one time step and its adjoint. Everything else about a cell is declared, and read,
here: the names, shapes and initial values of its parameters, its state, the options it takes, the
memory that a step needs, the operations that `rnn_xp.explain` lists, and the name of its compiled
kernels. ``docs/guide/extending.md`` builds a new cell from start to finish.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from rnn_xp._typing import Array, Namespace, Params, State
from rnn_xp.cells import gates
from rnn_xp.cells.gates import Parameter

__all__ = ["Cell", "Footprint", "Walk"]


class Footprint(NamedTuple):
    """Memory that one step of a cell needs, in arrays of H columns for each row.

    `rnn_xp.network.memory` estimates from it what a block of rows needs.

    Attributes
    ----------
    tape : int
        Arrays of the cache and the new state, each counted once. Arrays that also belong to the
        previous step's state, such as h_{t-1}, are not counted.
    apart : int
        Additional arrays if mask or reset select between states: the state that enters a step is
        then not the array that left the previous step.
    share : int
        Arrays that `Cell.step_back` creates for the step's share in the weight gradients.
    rows : int
        All arrays of the share, which are copied when the shares of all steps are joined.
    norm : int
        Arrays that layer normalisation adds to the share.
    norm_tape : int
        Arrays that layer normalisation adds to the cache.
    keep : int
        Arrays that recurrent dropout adds to the cache beside those counted in ``apart``.
    """

    tape: int
    apart: int
    share: int
    rows: int
    norm: int = 0
    norm_tape: int = 0
    keep: int = 0


class Walk(NamedTuple):
    """Operations of a cell, line by line, as `rnn_xp.explain.walk_shapes` lists them.

    A line has four fields, separated by ``|``::

        each t norm | a_t = g_hh * norm(a_t) |                  | N,K
        each t      | a_t = h_{t-1} @ w_hh.T | a_t = w_hh @ h_{t-1} | N,H @ H,K

    the frequency (``each t`` or ``once``) and the condition (``norm``: with layer normalisation,
    ``plain``: without); the equation with samples in rows; the equation with samples in columns, if
    it differs; the shapes. Axes are N rows of a step, S rows of all steps, X inputs, H hidden
    units, E twice H, K all gates (G*H), 1. ``$da`` stands for ``da`` with layer normalisation and
    for the name of ``dp`` without.

    Attributes
    ----------
    forward, backward : str
        The lines after ``p = x @ w_xh.T + b_h``, and those before ``dx`` and ``dw_xh``.
    dp : str
        Name of the gradient of p in ``backward``.
    """

    forward: str
    backward: str
    dp: str = "dp"


@dataclass(frozen=True)
class Cell(ABC):
    """Base class of all cells: the declaration, and the parts that do not depend on h.

    A subclass sets the class attributes and defines `step` and `step_back`. The input enters as
    ``p = x @ w_xh.T + b_h``, computed for all time steps at once, see `rnn_xp.cells.gates`. A
    cell with more weights than those of `rnn_xp.cells.gates.parameters` overrides `parameters`
    and `collect` as well, as the GRU does.

    Parameters
    ----------
    input_size, hidden_size : int
        I and H.
    layer_norm : bool
        If True, normalise each product with a weight matrix, see `rnn_xp.cells.gates`.

    Attributes
    ----------
    gates : int
        Number of gates, G.
    state_type : type
        NamedTuple of the arrays that a step passes on to the next, each (N, H); the first is ``h``.
    footprint : Footprint
        Memory that a step needs.
    options : tuple of str
        Those of the network's options ``activation`` and ``reset_after`` that the cell takes.
    """

    input_size: int
    hidden_size: int
    layer_norm: bool = False

    gates: ClassVar[int]
    state_type: ClassVar[type[Any]]
    footprint: ClassVar[Footprint]
    options: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls) -> None:
        required = ("gates", "state_type", "footprint")
        if missing := [name for name in required if not hasattr(cls, name)]:
            raise TypeError(
                f"{cls.__name__}: a cell must set the class attributes {', '.join(required)}; "
                f"missing: {', '.join(missing)}. See docs/guide/extending.md."
            )

    @classmethod
    def make(
        cls, input_size: int, hidden_size: int, layer_norm: bool = False, **options: Any
    ) -> Cell:
        """Build the cell from a network's sizes and those options that the cell takes."""
        return cls(input_size, hidden_size, layer_norm, **options)

    def walk(self) -> Walk | None:
        """Return the operations of a step, for `rnn_xp.explain`; None if they are not listed."""
        return None

    @property
    def kernel(self) -> str | None:
        """Name of the kernels of this cell, which some libraries may have; None if none has."""
        return None

    def parameters(self) -> dict[str, Parameter]:
        """Return names, shapes and initial values of the parameters."""
        return gates.parameters(self.gates, self.input_size, self.hidden_size, self.layer_norm)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return names and shapes of the parameters."""
        return {name: parameter.shape for name, parameter in self.parameters().items()}

    def initial_state(self, zeros: Array) -> State:
        """Return the state that consists of the given zeros (N, H)."""
        return self.state_type(*(zeros for _ in self.state_type._fields))

    def project(self, params: Params, xs: Array, *, xp: Namespace) -> Array:
        """Compute p, the part that does not depend on h: xs (M, I) to p (M, G*H), M any number."""
        return gates.project(params, xs, xp=xp)

    @abstractmethod
    def step(
        self,
        params: Params,
        projected: Array,
        state: Any,
        keep: Array | None = None,
        *,
        xp: Namespace,
    ) -> tuple[Any, Any]:
        """Compute one step.

        Parameters
        ----------
        params : Params
            The cell's own parameters, without prefix.
        projected : Array (N, G*H)
            This step's rows of `project`.
        state : state_type
            State before the step.
        keep : Array (N, H), optional
            Mask of recurrent dropout.
        xp : Namespace

        Returns
        -------
        state : state_type
            State after the step.
        cache : tuple
            The values that `step_back` needs.
        """

    @abstractmethod
    def step_back(
        self, params: Params, dstate: Any, cache: Any, *, xp: Namespace
    ) -> tuple[Any, Any]:
        """Back-propagate one step, the adjoint of `step`.

        Parameters
        ----------
        params : Params
        dstate : state_type
            Gradient with respect to the state after the step, the loss's own share included.
        cache : tuple
            From the matching `step`.
        xp : Namespace

        Returns
        -------
        share : tuple of Array (N, .)
            The step's share in the weight gradients, for `collect`; usually a
            `rnn_xp.cells.gates.Share`.
        dstate : state_type
            Gradient with respect to the state before the step.
        """

    def input_back(self, params: Params, xs: Array, share: Any, *, xp: Namespace) -> Array:
        """Adjoint of `project`: return dx (M, I), given the same xs (M, I) and the rows' share."""
        return gates.input_back(params, xs, share, xp=xp)

    def collect(self, params: Params, xs: Array, share: Any, *, xp: Namespace) -> Params:
        """Return the weight gradients, summed over the M rows of xs (..., M, I) and of the share.

        Axes before the rows are kept, as `rnn_xp.kernels.portable.sum_rows` and ``xp.matmul`` of
        ``xp.matrix_transpose`` keep them: per-sample gradients are collected from (N, T, .).
        """
        return gates.collect(params, xs, share, xp=xp)
