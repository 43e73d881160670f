"""Engines: whole epochs at once; the portable engine defines the right result."""

__all__: list[str] = []
