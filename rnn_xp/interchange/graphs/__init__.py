"""ONNX graphs under construction: nodes and constants, networks, and two ways to spell layers."""

__all__: list[str] = []
