"""A stack of recurrent layers, each with one or two directions, and its adjoint.

::

    xs (T, N, I) -> layer 0 -> (T, N, D*H) -> dropout -> layer 1 -> ... -> outs

D is the number of directions. The second direction reads time backwards; outputs are aligned by
time, the forward direction's first. With residual connections every layer but the first adds its
input to its output, so a stack that learns nothing passes its input on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from rnn_xp._typing import Array, Kernel, Namespace, Params, Stack, State, Workspace
from rnn_xp.cells import Cell
from rnn_xp.kernels.course import Course
from rnn_xp.network import sequence
from rnn_xp.network.sequence import Schedule, Terms

__all__ = ["Layers", "Noise", "StackBackward", "StackPass", "as_one", "layer_params"]


class Noise(NamedTuple):
    """Masks of dropout, whose entries are 0 or 1 / (1 - rate); None means no dropout.

    Attributes
    ----------
    between : list of L arrays (T, N, D*H) or None
        Factors of each layer's input; the first is always None.
    recurrent : list of L*D arrays (N, H) or None
        Factors of the state before the recurrent product, the same at every step.
    """

    between: list[Array | None]
    recurrent: list[Array | None]


class _LayerPass(NamedTuple):
    xs: Array  # input of the layer, after dropout
    tapes: list[Any]  # one for each direction: a Tape, or a kernel's own tape
    schedules: list[Schedule]
    kernels: list[Kernel | None]  # the kernel that made each tape; None for `sequence`


class StackPass(NamedTuple):
    """A forward pass through the stack, kept for its backward.

    Attributes
    ----------
    outs : list of D lists of T arrays (N, H), or of D arrays (T, N, H)
        Outputs of the top layer, by direction.
    finals : list of L*D states
        Final states.
    layers : list of L
        Passes of the single layers.
    whole : (Stack, tape) or None
        The kernels that computed all layers at once, and their tape; ``layers`` is then empty.
    """

    outs: list[Any]
    finals: list[State]
    layers: list[_LayerPass]
    whole: tuple[Stack, Any] | None = None


class StackBackward(NamedTuple):
    """Result of `Layers.backprop`; lists are by layer, then by direction.

    Attributes
    ----------
    grads : Params
        Weight gradients of all layers.
    dxs : Array (T, N, I) or None
        Gradient of the input.
    dinitials : list of states
        Gradients of the initial states.
    flows : list of lists of T arrays (N, H)
        dL/dh_t, if requested.
    """

    grads: Params
    dxs: Array | None
    dinitials: list[State]
    flows: list[list[Array]]


_PLAIN = Course()


def layer_params(params: Params, prefix: str) -> Params:
    """Return the parameters of one layer and direction, without their prefix."""
    return {
        name.removeprefix(prefix): param
        for name, param in params.items()
        if name.startswith(prefix)
    }


def as_one(hs: Any, *, xp: Namespace) -> Array:
    """Stack T arrays (N, H) to one array (T, N, H), unless it is one already."""
    return xp.stack(hs) if isinstance(hs, list) else hs


def _plus(hs: Any, below: Any) -> Any:
    """Add two sequences, which are lists of T arrays (N, H) or arrays (T, N, H)."""
    if isinstance(hs, list) or isinstance(below, list):
        return [h + x for h, x in zip(hs, below, strict=True)]
    return hs + below


@dataclass(frozen=True)
class Layers:
    """A stack of recurrent layers.

    Parameters
    ----------
    cells : tuple of L cells
        One cell for each layer, used in both directions.
    directions : {1, 2}
    hidden_size : int
    residual : bool
        If True, each layer but the first adds its input to its output.
    """

    cells: tuple[Cell, ...]
    directions: int
    hidden_size: int
    residual: bool

    def have_kernels(self, workspace: Workspace | None) -> bool:
        """Return True if a workspace has a kernel for every cell."""
        return workspace is not None and all(
            workspace.kernel(cell.kernel) is not None for cell in self.cells
        )

    def prefix(self, layer: int, direction: int) -> str:
        """Return the prefix of a layer's parameters: ``layer1.`` or ``layer1.reverse.``."""
        return f"layer{layer}." + ("reverse." if direction else "")

    def run(
        self,
        params: Params,
        xs: Array,
        states: Callable[[int], State],
        schedule: Schedule,
        noise: Noise,
        workspace: Workspace | None = None,
        course: Course = _PLAIN,
        *,
        tape: bool = True,
        xp: Namespace,
    ) -> StackPass:
        """Run all layers forward.

        Parameters
        ----------
        params : Params
        xs : Array (T, N, I)
        states : callable
            ``states(i)``, i < L*D, is the initial state of a layer and direction.
        schedule : Schedule
        noise : Noise
        workspace : Workspace, optional
            Allowed only if its kernels know all that the course and the noise ask for. Layers with
            a kernel use it; their results then live in the workspace and are overwritten by the
            next pass.
        course : Course
            The schedule in the form that kernels take. Directions, states and noise are put in
            here; ``initial`` is given if the states are not zeros. ``brief`` is for the top layer.
        tape : bool
            If False, nothing is kept for a backward pass.
        xp : Namespace

        Returns
        -------
        StackPass
        """
        weights = self._weights(params)
        courses = [self._course(at, course, states, noise) for at in range(len(weights))]
        whole = None if workspace is None else workspace.stack(self.cells[0].kernel, weights)
        if whole is not None:
            tops, ends, kept = whole.forward(
                weights, xs, courses, workspace, residual=self.residual
            )
            return StackPass(tops, ends, [], (whole, kept))
        passes: list[_LayerPass] = []
        finals: list[State] = []
        outs: list[Any] = []
        for layer, cell in enumerate(self.cells):
            below = outs
            if layer:
                xs = self._join(below, xp=xp)
            if (keep := noise.between[layer]) is not None:
                xs = xs * keep
            tapes, schedules, kernels, outs = [], [], [], []
            for direction in range(self.directions):
                at = layer * self.directions + direction
                mine = weights[at]
                turned = schedule._replace(reverse=bool(direction))
                kernel = None if workspace is None else workspace.kernel(cell.kernel)
                hs: Any
                passed: Any
                if kernel is not None:
                    turns = courses[at]._replace(factors=None)  # they are in xs
                    name = self.prefix(layer, direction)
                    hs, final, passed = kernel.forward(mine, xs, turns, workspace, name)
                    finals.append(final)
                else:
                    projected = sequence.project(cell, mine, xs, xp=xp)
                    passed = sequence.run(
                        cell, mine, projected, states(at), turned, noise.recurrent[at],
                        tape=tape, xp=xp,
                    )  # fmt: skip
                    finals.append(passed.states[turned.order(len(passed.states))[-1]])
                    hs = [state.h for state in passed.states]
                if self.residual and layer:
                    hs = _plus(hs, below[direction])
                outs.append(hs)
                tapes.append(passed)
                schedules.append(turned)
                kernels.append(kernel)
            if tape:
                passes.append(_LayerPass(xs, tapes, schedules, kernels))
        return StackPass(outs, finals, passes)

    def backprop(
        self,
        params: Params,
        forward: StackPass,
        douts: list[list[Array | None]],
        dfinals: Callable[[int], State],
        noise: Noise,
        *,
        terms: Terms,
        wrt_input: bool,
        flow: bool,
        xp: Namespace,
    ) -> StackBackward:
        """Back-propagate through all layers, the adjoint of `run`.

        Parameters
        ----------
        params, noise : as given to `run`
        forward : StackPass
            From the matching `run`.
        douts : list of D lists of T arrays (N, H) or None
            Gradient of the outputs; None at steps that are not read.
        dfinals : callable
            ``dfinals(i)``, i < L*D, is the gradient of a final state; None if there is none.
        terms : {None, "step", "sample"}
            Terms that weight gradients keep apart, in a leading axis T or N; not with a kernel.
        wrt_input : bool
            If True, dL/dxs is computed.
        flow : bool
            If True, dL/dh_t of every step is returned.
        xp : Namespace

        Returns
        -------
        StackBackward
        """
        grads: Params = {}
        count = len(self.cells) * self.directions
        if forward.whole is not None:
            return self._backprop_whole(params, *forward.whole, douts, dfinals, wrt_input)
        dinitials: list[State] = [None] * count
        flows: list[list[Array]] = [[]] * count
        dxs = None
        for layer in range(len(self.cells) - 1, -1, -1):
            cell, mine = self.cells[layer], forward.layers[layer]
            dxs = None
            for direction in range(self.directions):
                prefix = self.prefix(layer, direction)
                weights = layer_params(params, prefix)
                at = layer * self.directions + direction
                dx = None
                if (kernel := mine.kernels[direction]) is not None:
                    made, dx, dinitials[at] = kernel.backward(
                        weights, mine.tapes[direction], douts[direction], dfinals(at),
                        wrt_input=bool(layer) or wrt_input,
                    )  # fmt: skip
                else:
                    dfinal = dfinals(at)
                    if dfinal is None:
                        dfinal = sequence.map_state(xp.zeros_like, forward.finals[at])
                    shares, dinitials[at], flows[at] = sequence.backprop(
                        cell, weights, mine.tapes[direction], douts[direction], dfinal,
                        mine.schedules[direction], flow=flow, xp=xp,
                    )  # fmt: skip
                    share = sequence.stack(shares, xp=xp)
                    del shares  # so that its memory can be used again
                    made = sequence.collect(cell, weights, mine.xs, share, terms, xp=xp)
                    if layer or wrt_input:
                        dx = sequence.input_back(cell, weights, mine.xs, share, xp=xp)
                grads |= {prefix + name: grad for name, grad in made.items()}
                if dx is not None:
                    dxs = dx if dxs is None else dxs + dx
            if layer:
                douts = self._split(dxs, noise.between[layer], douts)
        return StackBackward(grads, dxs, dinitials, flows)

    def _backprop_whole(
        self,
        params: Params,
        kernels: Stack,
        tape: Any,
        douts: list[list[Array | None]],
        dfinals: Callable[[int], State],
        wrt_input: bool,
    ) -> StackBackward:
        """Back-propagate through layers that were computed at once."""
        ends = [dfinals(at) for at in range(len(self._prefixes))]
        made, dxs, dinitials = kernels.backward(
            self._weights(params), tape, douts, ends, wrt_input=wrt_input
        )
        grads = {
            prefix + name: grad
            for prefix, of_layer in zip(self._prefixes, made, strict=True)
            for name, grad in of_layer.items()
        }
        return StackBackward(grads, dxs, dinitials, [[] for _ in ends])

    @property
    def _prefixes(self) -> list[str]:
        """The prefixes of all layers and directions."""
        layers, directions = range(len(self.cells)), range(self.directions)
        return [self.prefix(layer, direction) for layer in layers for direction in directions]

    def _weights(self, params: Params) -> list[Params]:
        """Return the parameters of every layer and direction."""
        return [layer_params(params, prefix) for prefix in self._prefixes]

    def _course(
        self, at: int, course: Course, states: Callable[[int], State], noise: Noise
    ) -> Course:
        """Return the course of a layer and direction."""
        layer, direction = divmod(at, self.directions)
        return course._replace(
            reverse=bool(direction),
            keep=noise.recurrent[at],
            factors=noise.between[layer],
            initial=None if course.initial is None else tuple(states(at)),
            brief=course.brief and layer == len(self.cells) - 1,
        )

    def _join(self, outs: list[Any], *, xp: Namespace) -> Array:
        """Join the outputs of the directions to the next layer's input (T, N, D*H)."""
        stacked = [as_one(hs, xp=xp) for hs in outs]
        return stacked[0] if len(stacked) == 1 else xp.concat(stacked, axis=2)

    def _split(
        self, dxs: Array, keep: Array | None, above: list[list[Array | None]]
    ) -> list[list[Array | None]]:
        """Adjoint of `_join`, of dropout, and of the residual connection past the layer."""
        dxs = dxs if keep is None else dxs * keep
        size, douts = self.hidden_size, []
        for direction in range(self.directions):
            part = dxs[:, :, direction * size : (direction + 1) * size]
            dhs: list[Array | None] = [part[t, ...] for t in range(part.shape[0])]
            if self.residual:
                dhs = [
                    dh if past is None else dh + past
                    for dh, past in zip(dhs, above[direction], strict=True)
                ]
            douts.append(dhs)
        return douts
