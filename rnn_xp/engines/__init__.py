"""Engines compute whole epochs; the portable engine defines the right result."""

__all__: list[str] = []
