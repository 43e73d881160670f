"""CuPy's kernels as CuPy itself writes them out, compiled for GPUs that need not be there."""

from __future__ import annotations

import cupy_stand_in
import numpy as np
import pytest
import raw_kernels

import rnn_xp as rx
from rnn_xp.optim import first_order

NDARRAY, INDEXER, SCALAR = 1, 2, 3  # CuPy's kinds of arguments


@pytest.fixture(scope="module")
def compiler():
    """CuPy, and NVRTC by which it compiles."""
    cupy = pytest.importorskip("cupy", reason="cupy is not installed")
    try:
        cupy.cuda.nvrtc.getVersion()
    except Exception as error:
        if type(error).__name__ != "DynamicLibNotFoundError":
            raise
        pytest.skip("the NVRTC library is not installed")
    return cupy


@pytest.fixture
def kernels():
    """All of the layers' kernels of single steps."""
    cupy_stand_in.load("cupy")
    return cupy_stand_in.ElementwiseKernel.made


@pytest.fixture
def optimizers(monkeypatch):
    """The sources of Adam and of SGD, with their options."""
    fusion = cupy_stand_in.load("fusion")
    monkeypatch.setattr(first_order, "pointwise", lambda f, sets, *, xp: fusion.run(f, sets))
    raw_kernels.made.clear()
    for dtype in ("float32", "float64"):
        params = {"w": np.ones((2, 3), dtype)}
        for optimizer in (rx.optim.adam(0.1), rx.optim.sgd(0.1, momentum=0.5)):
            optimizer.update(params, optimizer.init(params), params)
    assert len(raw_kernels.made) == 4
    return raw_kernels.made


def code(cupy, kernel, dtype, strided):
    """The text of a kernel for contiguous matrices, or with a strided first array."""
    module = cupy._core._kernel
    infos = []
    for raw, type, name in kernel.reads + kernel.writes:
        if type == "int32" or (not raw and name.startswith("s")):
            number = np.dtype("int32") if type == "int32" else dtype
            infos.append(module._ArgInfo(SCALAR, cupy._core._scalar.CScalar, number, 0, True, True))
        else:
            contiguous = not (strided and name == "own")
            infos.append(
                module._ArgInfo(NDARRAY, cupy.ndarray, dtype, 2 if raw else 1, contiguous, True)
            )
    infos.append(module._ArgInfo(INDEXER, cupy._core._carray.Indexer, None, 1, True, True))
    reads, writes, operation, name = next(
        key for key, made in cupy_stand_in.ElementwiseKernel.made.items() if made is kernel
    )
    real = cupy.ElementwiseKernel(
        reads, writes, operation, name, preamble=kernel.preamble, return_tuple=kernel.return_tuple
    )
    types = module._TypeMap((("T", dtype),))
    return module._get_elementwise_kernel_code(
        tuple(infos), types, real.params, operation, name, kernel.preamble
    )


@pytest.mark.parametrize("architecture", [80, 90])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_kernels_compile(compiler, kernels, dtype, architecture):
    from cupy.cuda.compiler import CompileException, _NVRTCProgram

    names = {kernel.name for kernel in kernels.values()}
    assert len(names) == 4 + 4
    include = f"-I{compiler.__path__[0]}/_core/include"
    options = (
        "-std=c++17", "-ftz=true", "--device-as-default-execution-space", include,
        f"-arch=sm_{architecture}",
    )  # fmt: skip
    head = "#include <cupy/carray.cuh>\n"
    for kernel in kernels.values():
        for strided in (False, True):
            text = head + code(compiler, kernel, np.dtype(dtype), strided)
            image, _ = _NVRTCProgram(text, "kernel.cu", method="cubin").compile(options)
            assert image[:4] == b"\x7fELF"
        if dtype == "float32":  # no constant or function has made a double of anything
            assert b".f64" not in ptx(_NVRTCProgram, text, options)
    with pytest.raises(CompileException):
        _NVRTCProgram(text.replace("const T", "const U", 1), "k.cu", method="cubin").compile(
            options
        )


@pytest.mark.parametrize("architecture", [80, 90])
def test_optimizers_compile(compiler, optimizers, architecture):
    from cupy.cuda.compiler import _NVRTCProgram

    for text, given in optimizers:
        options = (*given, "-ftz=true", "--device-as-default-execution-space")
        options += (f"-arch=sm_{architecture}",)
        image, _ = _NVRTCProgram(text, "kernel.cu", method="cubin").compile(options)
        assert image[:4] == b"\x7fELF"
        if "typedef float" in text:
            assert b".f64" not in ptx(_NVRTCProgram, text, options)


def ptx(program, text, options):
    """The assembly of a kernel."""
    virtual = [option.replace("sm_", "compute_") for option in options]
    return program(text, "kernel.cu", method="ptx").compile(tuple(virtual))[0]
