"""One recurrent layer over all of its steps in one launch forward and one back.

`plan` says which layers the kernels compute, and with which sizes; `layer` launches them. The CUDA
source is one text in four parts: ``layer.cu`` (sizes and what the others share), ``cells.cu``,
``forward.cu`` and ``backward.cu``.
"""

__all__: list[str] = []
