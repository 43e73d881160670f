"""Parts of NumPy's layers: the arrays of a pass and of each of its steps.

Samples are in columns. In a plain pass the state after a step is written where the next step reads
it. Where a `rnn_xp.kernels.course.Course` comes between, the states have an array of their own, and
[h; 1; x] of a step has as many columns as rows compute it, side by side.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from rnn_xp.kernels.course import Course
from rnn_xp.kernels.numpy.norm import Floats, Norm, Params

__all__ = [
    "ByStep",
    "Field",
    "Tape",
    "join",
    "product",
    "sigmoid_of_negative",
    "tanh_of_half",
    "tanh_of_sigmoid",
]


ByStep = Floats | list[Floats]
"""An array (T, ...), or a list of T arrays if they differ in size or share memory."""


class Tape:
    """A forward pass: its arrays, which the backward pass reads, in the order of computation.

    Parameters
    ----------
    params : Params
    xs : ndarray (T, N, I)
    course : Course
    workspace : Workspace
    name : str
        Prefix of the layer's buffers.

    Attributes
    ----------
    counts : list of T int
        Number of leading rows that compute each step, n.
    entering : T ndarray (H + 1 + I, n)
        [h; 1; x] of each step.
    fields : list of Field
        The fields of the state; the first is h.
    kept : tuple of T arrays each
        Further arrays of each step, which depend on the cell.
    norm : Norm or None
        The normalisation of the layer's products.
    params : Params
        The weights of plain products.
    """

    def __init__(
        self, params: Params, xs: Floats, course: Course, workspace: Any, name: str
    ) -> None:
        self.steps, self.rows, inputs = xs.shape
        size = self.size = params["w_hh"].shape[1]
        self.width, self.course, self.params = size + 1 + inputs, course, params
        self.workspace, self.name = workspace, name
        self.kept: tuple[ByStep, ...] = ()
        self.bits = np.dtype(f"i{workspace.dtype.itemsize}")
        self.begun, self.apart = (
            course.initial is not None,
            bool(course.needs - {"initial", "idle"}),
        )
        ordered, self.norm = course.in_order(xs), None
        self.counts = [self.rows] * self.steps
        if course.counts is not None:
            self.counts = [int(n) for n in course.in_order(course.counts)]
        if "g_hh" in params:
            ordered = np.array(ordered)
            for x, n in zip(ordered, self.counts, strict=True):
                x[n:] = 0.0  # even a NaN, which would reach the gradients
            self.norm, self.apart = Norm(params, ordered, workspace, name), True
            self.params, ordered = self.norm.params, self.norm.xs
        (self.idle, self.busy), (_, self.reset) = map(self._flags, (course.idle, course.reset))
        if course.keep is not None:
            self.keep = workspace.take(f"{name}keep", size, self.rows)
            self.keep[...] = course.keep.T
        buffer = workspace.take(f"{name}entering", self.steps + 1, self.width, self.rows)
        self.entering = self.blocks(buffer, self.width)
        if self.apart:
            for entered, x, n in zip(self.entering, ordered, self.counts, strict=True):
                entered[size + 1 :] = x[:n].T
                entered[size] = 1.0
        else:
            buffer[: self.steps, size] = 1.0
            buffer[: self.steps, size + 1 :] = ordered.transpose(0, 2, 1)
        self.fields = [Field(self, 0, buffer[:, :size])]

    def _flags(self, by_time: Any) -> list[list[Any]]:
        """Return all bits of a number for True, and for False; None for steps without any True."""
        if by_time is None:
            return [[None] * self.steps] * 2
        ordered = self.course.in_order(by_time)
        some, bits = ordered.any(axis=1), -ordered.astype(self.bits)
        both = [zip(rows, some, strict=True) for rows in (bits, ~bits)]
        return [[row if any_ else None for row, any_ in pairs] for pairs in both]

    def blocks(self, buffer: Floats, *shape: int) -> ByStep:
        """Return the beginning of each step's part of a buffer as an array (*shape, n)."""
        if self.course.counts is None and len(buffer) >= self.steps:
            return buffer[: self.steps].reshape(-1, *shape, self.rows)
        size, flat = math.prod(shape), buffer.reshape(buffer.shape[0], -1)
        last = len(flat) - 1
        return [
            flat[min(s, last), : size * n].reshape(*shape, n) for s, n in enumerate(self.counts)
        ]

    def part(self, arrays: ByStep, steps: slice) -> Floats:
        """Return the arrays of a stretch of steps as one; if they differ in size, of one step."""
        return arrays[steps] if isinstance(arrays, np.ndarray) else arrays[steps.start][None]

    def take(self, what: str, *shape: int) -> ByStep:
        """Return an array (*shape, n) for each step, in the named buffer of the layer.

        It is the same memory for all steps if nothing goes back.
        """
        steps = self.steps if self.course.keeps else 1
        buffer = self.workspace.take(f"{self.name}{what}", steps, *shape, self.rows)
        return self.blocks(buffer, *shape)

    def add_field(self, what: str) -> Field:
        """Add a field to the state, beside h."""
        shape = (self.steps + 1, self.size, self.rows)
        field = Field(self, len(self.fields), self.workspace.take(f"{self.name}{what}", *shape))
        self.fields.append(field)
        return field

    def computed(self) -> Iterator[int]:
        """Yield the steps; what comes before and after each is done here."""
        for s, n in enumerate(self.counts):
            if not self.apart:
                yield s
                if self.idle[s] is None:
                    continue
            else:
                for field in self.fields:
                    field.arrive(s, n)
                if n:
                    self._enter(s, n)
                    yield s
            for field in self.fields:
                field.leave(s, n)

    def _enter(self, s: int, n: int) -> None:
        """Apply the factors of the state that enters the product."""
        h, entered = self.fields[0].before[s], self.entering[s][: self.size]
        if self.course.keep is not None:
            np.multiply(h, self.keep[:, :n], out=entered)
            h = entered
        if self.norm is not None:
            self.norm.scale(s, h, entered)

    def keep_bits(self, a: Floats, bits: Any, out: Floats | None = None) -> None:
        """Set columns of an array to zero, whatever they hold, where no bits are to be kept."""
        out = a if out is None else out
        np.bitwise_and(a.view(self.bits), bits, out=out.view(self.bits))

    def forwarded(self) -> tuple[Floats, tuple[Floats, ...], Tape]:
        """Return the results of a forward pass by rows and time, from columns in step order."""
        states = [field.states for field in self.fields]
        hs = states[0][1:] if len(states[0]) > 1 else np.broadcast_to(
            states[0], (self.steps, self.size, self.rows)
        )  # fmt: skip
        final = tuple(field[-1].T for field in states)
        return self.course.in_order(hs).transpose(0, 2, 1), final, self


class Field:
    """A field of the state, such as h, before and after each step.

    Attributes
    ----------
    before, after : T ndarray (H, n)
        The field in the rows that compute each step; in a plain pass, parts of ``states``.
    states : ndarray (T + 1, H, N)
        The field in all rows, before the first step and after each; (1, H, N), the last so far, if
        no others are read.
    """

    def __init__(self, tape: Tape, place: int, buffer: Floats) -> None:
        self.tape, self.states = tape, buffer
        course, size, whole = tape.course, tape.size, tape.course.counts is None
        if tape.apart:
            length = tape.steps + 1 if whole or not (place or course.brief) else 1
            self.states = tape.workspace.take(
                f"{tape.name}states{place}", length, size, tape.rows
            )  # fmt: skip
        # Where all rows compute every step, it can write right into the states.
        self.after = self.states[1:] if whole else tape.take(f"after{place}", size)
        self.written = whole and course.idle is None
        # What nothing comes between is read from them, too.
        self.before: ByStep = self.states[:-1]
        self.read = True
        if tape.apart and place == 0 and course.keep is None and tape.norm is None:
            self.before, self.read = [entered[:size] for entered in tape.entering], False
        elif not whole or course.reset is not None:
            self.before, self.read = tape.take(f"before{place}", size), False
        self.states[0] = 0.0 if course.initial is None else course.initial[place].T

    def arrive(self, s: int, n: int) -> None:
        """Make the state before a step what the course says."""
        if self.read:
            return
        state, reset = self.states[min(s, len(self.states) - 1)], self.tape.reset[s]
        if reset is None:
            self.before[s][...] = state[:, :n]
        else:
            self.tape.keep_bits(state[:, :n], reset[:n], self.before[s])

    def leave(self, s: int, n: int) -> None:
        """Put the state after a step into place, or the one before where a row did not compute."""
        if self.written:
            return
        tape, last = self.tape, len(self.states) - 1
        state, following = self.states[min(s, last)], self.states[min(s + 1, last)]
        after, idle, reset = self.after[s], tape.idle[s], tape.reset[s]
        if idle is None:
            if tape.course.counts is not None:
                following[:, :n] = after
        else:
            bits = after.view(tape.bits)
            change = tape.workspace.take("change", *after.shape).view(tape.bits)
            np.bitwise_xor(self.before[s].view(tape.bits), bits, out=change)
            change &= idle[:n]
            np.bitwise_xor(change, bits, out=following[:, :n].view(tape.bits))
        if n < tape.rows:
            if reset is not None:
                tape.keep_bits(state[:, n:], reset[n:], following[:, n:])
            elif last:
                following[:, n:] = state[:, n:]


def join(params: Params) -> Floats:
    """Join the weights to [w_hh, b_h, w_xh], in the order of a step's input."""
    w_hh, b_h, w_xh = (np.asarray(params[name]) for name in ("w_hh", "b_h", "w_xh"))
    return np.concatenate([w_hh, b_h[:, None], w_xh], axis=1)


def product(w: Floats, tape: Tape, s: int, out: Floats, stop: int | None = None) -> Floats:
    """Multiply the joined weights by the input of a step; h may be zero before the first."""
    skip = 0 if s or tape.begun else tape.size
    product: Floats = np.matmul(w[:, skip:], tape.entering[s][skip:stop], out=out)
    return product


def tanh_of_half(z: Floats) -> None:
    """Compute tanh(z / 2) in place, with an error of at most three units in the last place of 1."""
    _one_plus_exp(z)
    np.divide(-2.0, z, out=z)
    z += 1.0


def tanh_of_sigmoid(s: Floats) -> None:
    """Compute tanh(z / 2) in place, given s = sigmoid(-z); the bits are those of `tanh_of_half`."""
    s *= -2.0
    s += 1.0


def sigmoid_of_negative(z: Floats) -> None:
    """Compute sigmoid(-z) in place."""
    _one_plus_exp(z)
    np.reciprocal(z, out=z)


def _one_plus_exp(z: Floats) -> None:
    """Compute 1 + exp(z) in place; it may be infinite, and quotients by it are then 0."""
    np.exp(z, out=z)
    z += 1.0
