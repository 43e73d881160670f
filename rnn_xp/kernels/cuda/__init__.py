"""One recurrent layer over all of its steps in one launch forward and one back.

`plan` says which layers the kernels compute, and with which sizes; `layer` launches them, and
`stack` computes all layers and directions of a network by them. The CUDA source is one text in
parts: ``block.cu`` and ``layer.cu`` (sizes and what the others share), ``cells.cu``, ``product.cu``
(of a block's own rows with the input weights), ``norm.cu``, ``forward.cu`` and ``backward.cu``.
`matmul` has the products beside: any two matrices by ``matmul.cu``, and the gradients of weights,
such as those of all layers, by ``collect.cu``. ``two_loop.cu`` is for L-BFGS, and ``update.cu`` for
updates in a CUDA graph.
"""

__all__: list[str] = []
