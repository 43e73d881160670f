"""Pointwise mathematics and its adjoint: the one place where speed may differ by library."""

__all__: list[str] = []
