"""Engines: how an epoch is computed. The portable one is the definition of right."""

__all__: list[str] = []
