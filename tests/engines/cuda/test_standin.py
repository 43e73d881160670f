"""What stands in for CuPy and the GPU notices what a GPU would not, or only by chance."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from shim_build import CompileError
from standin import FakeCupy

KERNELS = """
extern "C" __global__ void train(const float* from, float* to, int n, float factor)
{
  SHARED_MEMORY(shared);
  shared[threadIdx.x] = from[blockIdx.x * blockDim.x + threadIdx.x];
  LEAVE
  __syncthreads();
  to[blockIdx.x * blockDim.x + threadIdx.x] = factor * shared[blockDim.x - 1 - threadIdx.x + n];
}
extern "C" __global__ void place(const float* from, float* to) { *to = *from; }
extern "C" __global__ void gradient(const float* from, float* to) { *to = *from; }
extern "C" __global__ void sgd(const float* from, float* to) { *to = *from; }
extern "C" __global__ void adam(const float* from, float* to) { *to = *from; }
"""


@pytest.fixture
def cupy():
    return FakeCupy()


def launch(cupy, args, shared_mem=32, leave="", blocks=2):
    module = cupy.RawModule(code=KERNELS.replace("LEAVE", leave), options=("-DANY",))
    stream = cupy.cuda.Stream(non_blocking=True)
    stream.wait_event(cupy.cuda.get_current_stream().record())
    with stream:
        module.get_function("train")((blocks,), (8,), args, shared_mem=shared_mem)
    cupy.cuda.get_current_stream().wait_event(stream.record())


def arguments(cupy, n=16):
    from_, to = cupy.empty(n, dtype=np.float32), cupy.empty(n, dtype=np.float32)
    from_[...] = np.arange(n)
    return [from_, to, np.int32(0), np.float32(2.0)]


def test_runs_a_kernel(cupy):
    args = arguments(cupy)
    launch(cupy, args)
    assert args[1].tolist() == [2.0 * i for i in [*range(7, -1, -1), *range(15, 7, -1)]]


def test_shared_memory_is_poisoned(cupy):
    args = arguments(cupy)
    args[2] = np.int32(1)
    launch(cupy, args, shared_mem=48)
    assert np.isnan(args[1][[0, 8]]).all()
    assert np.isfinite(args[1][1:8]).all()


def test_a_thread_that_leaves_is_noticed(cupy):
    with pytest.raises(AssertionError, match="some threads ended while others waited"):
        launch(cupy, arguments(cupy), leave="if (threadIdx.x == 3) return;")


def test_a_write_beyond_the_end_is_noticed(cupy):
    with pytest.raises(AssertionError):
        launch(cupy, arguments(cupy), blocks=3)


@pytest.mark.parametrize(
    ("index", "wrong"),
    [(0, np.zeros(16)), (1, np.zeros((4, 8), "f4")[:, ::2]), (2, 0), (3, 2.0), (3, np.int32(2))],
)
def test_wrong_arguments_are_noticed(cupy, index, wrong):
    args = arguments(cupy)
    args[index] = wrong
    with pytest.raises(AssertionError):
        launch(cupy, args)
    with pytest.raises(AssertionError, match="train"):
        launch(cupy, arguments(cupy)[:3])


def test_much_shared_memory_must_be_asked_for(cupy):
    with pytest.raises(AssertionError):
        launch(cupy, arguments(cupy), shared_mem=50_000)


def test_streams_must_wait_for_each_other(cupy):
    stream, done = cupy.cuda.Stream(non_blocking=True), []
    work = functools.partial(done.append, 1)
    with stream, pytest.raises(AssertionError, match="wait for an event first"):
        stream.submit(work)
    stream.wait_event(cupy.cuda.get_current_stream().record())
    with stream:
        stream.submit(work)
    assert done == []
    cupy.cuda.get_current_stream().wait_event(stream.record())
    assert done == [1]


def test_nothing_is_allocated_while_a_graph_is_captured(cupy):
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        with pytest.raises(AssertionError, match="allocate before"):
            cupy.empty(3, dtype=np.float32)


def test_warnings_of_the_compiler_are_errors(cupy):
    with pytest.raises(CompileError, match="unused"):
        cupy.RawModule(code=KERNELS.replace("LEAVE", "int unused = 1;"), options=("-DANY",))
