"""Graphs of ONNX: each value is followed back to the states and inputs that it is made of.

A graph is walked once at small sizes. Every entry of the input and of each layer's states has a
number; `moves` applies transposes, slices and the like to arrays of these numbers, so that at a
recurrent operator or at the readout one sees which entries arrive, whatever way they took.
`recurrent` and `heads` read the operators that compute, `walk` visits the nodes, `build` makes a
model of what they found, and `check` runs graph and network on random data.
"""

__all__: list[str] = []
