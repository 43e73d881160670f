"""An elementwise function of arrays as one CuPy kernel, recorded by running it once.

A function such as an optimiser's rule consists of a dozen operations, each of which would be a
launch. Run on names instead of arrays, it produces a list of C statements; Python numbers become
arguments, so a rate that changes at every step needs no new kernel::

    m = 0.9 * m + 0.1 * g        const T t0 = s0 * x1;  const T t1 = s1 * x2;  const T t2 = t0 + t1;
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import cupy

from rnn_xp._typing import Array

__all__ = ["run"]


class _Program:
    """The statements so far and their numbers; the function receives the program as ``xp``."""

    def __init__(self) -> None:
        self.statements: list[str] = []
        self.numbers: list[float] = []

    def assign(self, expression: str) -> _Value:
        name = f"t{len(self.statements)}"
        self.statements.append(f"const T {name} = {expression};")
        return _Value(self, name)

    def name(self, operand: _Value | float) -> str:
        if isinstance(operand, _Value):
            return operand.name
        self.numbers.append(float(operand))
        return f"s{len(self.numbers) - 1}"

    def sqrt(self, x: _Value) -> _Value:
        return self.assign(f"sqrt({x.name})")


class _Value:
    """A stand-in for an array: the name of an argument or of an earlier result."""

    def __init__(self, program: _Program, name: str) -> None:
        self.program, self.name = program, name

    def _combine(self, sign: str, left: _Value | float, right: _Value | float) -> _Value:
        named = self.program.name
        return self.program.assign(f"{named(left)} {sign} {named(right)}")

    def __add__(self, other: _Value | float) -> _Value:
        return self._combine("+", self, other)

    def __radd__(self, other: float) -> _Value:
        return self._combine("+", other, self)

    def __sub__(self, other: _Value | float) -> _Value:
        return self._combine("-", self, other)

    def __rsub__(self, other: float) -> _Value:
        return self._combine("-", other, self)

    def __mul__(self, other: _Value | float) -> _Value:
        return self._combine("*", self, other)

    def __rmul__(self, other: float) -> _Value:
        return self._combine("*", other, self)

    def __truediv__(self, other: _Value | float) -> _Value:
        return self._combine("/", self, other)

    def __rtruediv__(self, other: float) -> _Value:
        return self._combine("/", other, self)


def run(
    function: Callable[..., Sequence[Any]], operands: Iterable[Sequence[Array]]
) -> list[tuple[Array, ...]]:
    """Apply an elementwise function to each of several sets of arrays, one launch for each set.

    Parameters
    ----------
    function : callable
        ``function(*arrays, xp=xp)`` computes a sequence of arrays by + - * / and ``xp.sqrt`` from
        its arguments and from Python numbers.
    operands : iterable of sequences of arrays
        Every set has the same number of arrays; within a set all have one shape.

    Returns
    -------
    list of tuples of arrays
        The results for each set.
    """
    sets = list(operands)
    if not sets:
        return []
    program, count = _Program(), len(sets[0])
    results = function(*(_Value(program, f"x{k}") for k in range(count)), xp=program)
    kernel = _compile(
        count,
        len(program.numbers),
        tuple(result.name for result in results),
        "\n".join(program.statements),
    )
    return [kernel(*arrays, *program.numbers) for arrays in sets]


@functools.cache
def _compile(arrays: int, numbers: int, results: tuple[str, ...], statements: str) -> Any:
    names = [*(f"x{k}" for k in range(arrays)), *(f"s{k}" for k in range(numbers))]
    outputs = [f"y{k}" for k in range(len(results))]
    stores = "".join(f"\n{y} = {name};" for y, name in zip(outputs, results, strict=True))
    return cupy.ElementwiseKernel(
        ", ".join(f"T {name}" for name in names),
        ", ".join(f"T {name}" for name in outputs),
        statements + stores,
        "rnn_xp_elementwise",
        return_tuple=True,
    )
