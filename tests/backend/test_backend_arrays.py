"""Arrays in and out of a backend, what is refused, and the guards that the tests rely on."""

from __future__ import annotations

import array_api_compat
import numpy as np
import pytest
from frozen import Frozen, freeze
from guard import HostSyncError, no_host_sync

from rnn_xp.backend import (
    Backend,
    array_namespace,
    backend_of,
    device_of,
    float_dtype,
    get_backend,
    to_numpy,
)


@pytest.mark.parametrize("dtype", ["float32", "float64", ">f8", "float16"])
def test_asarray_casts_floats_and_shares_nothing(case, dtype):
    host = np.arange(1024.0).reshape(32, 32).astype(dtype)
    array = case.backend.asarray(host)
    assert array.dtype == case.dtype
    assert backend_of(array) == case.backend
    host[...] = -1.0
    back = case.backend.to_numpy(array)
    assert back.dtype == case.dtype_name
    np.testing.assert_array_equal(back, np.arange(1024.0).reshape(32, 32))


def test_asarray_of_a_read_only_view_with_odd_strides(case):
    series = np.arange(20.0)
    windows = np.lib.stride_tricks.sliding_window_view(series, 10)[::-1]
    array = case.backend.asarray(windows)
    np.testing.assert_array_equal(to_numpy(array), windows)
    assert series[0] == 0.0


@pytest.mark.parametrize(
    "host",
    [[1, 2, 3], [True, False], np.array([1, 2], dtype="uint32"), np.int32(7), np.zeros((0, 2))],
)
def test_asarray_keeps_integers_and_booleans(case, host):
    array = case.backend.asarray(host)
    kinds = {"i": "integral", "u": "integral", "b": "bool", "f": "real floating"}
    assert case.xp.isdtype(array.dtype, kinds[np.asarray(host).dtype.kind])
    np.testing.assert_array_equal(to_numpy(array), host)


def test_asarray_where_the_device_has_no_int64():
    backend = get_backend("array_api_strict", device="no_x64")
    assert backend.asarray([1, 2]).dtype == backend.xp.int32
    with pytest.raises(TypeError, match="no integer dtype of array_api_strict"):
        backend.asarray([2**40])


@pytest.mark.parametrize("host", [[1j], ["a"], [None], np.array(["2024-01-01"], dtype="M8[D]")])
def test_asarray_takes_real_numbers_only(case, host):
    with pytest.raises(TypeError, match="real numbers are required"):
        case.backend.asarray(host)


def test_asarray_without_copy_shares_on_numpy_and_stays_read_only():
    backend = get_backend("numpy", dtype="float64")
    host = np.arange(3.0)
    assert np.shares_memory(backend.asarray(host, copy=False), host)
    assert not np.shares_memory(backend.asarray(host), host)
    host.flags.writeable = False
    assert not backend.asarray(host, copy=False).flags.writeable
    assert backend.asarray(host).flags.writeable


def test_asarray_without_copy_never_writes_to_the_caller(case):
    host = np.arange(3.0).astype(case.dtype_name)
    host.flags.writeable = False
    array = case.backend.asarray(host, copy=False)
    if case.backend.name == "torch":
        array += 1.0
    np.testing.assert_array_equal(host, [0.0, 1.0, 2.0])


def test_to_numpy_takes_arrays_only():
    with pytest.raises(
        TypeError, match=r"an array with an Array API namespace is required; given list\. Convert"
    ):
        to_numpy([1.0])


@pytest.mark.torch
def test_to_numpy_of_a_tensor_that_records_gradients():
    torch = pytest.importorskip("torch")
    z = torch.tensor([1.0 + 2.0j], requires_grad=True)
    np.testing.assert_array_equal(to_numpy(torch.conj(z)), [1.0 - 2.0j])
    np.testing.assert_array_equal(to_numpy(torch.imag(torch.conj(z))), [-2.0])


def test_mixed_libraries_are_named_with_the_repair(case):
    host, array = np.zeros(2), case.array([0.0])
    if case.backend.name == "numpy":
        assert array_namespace(host, None, array) is case.xp
        return
    with pytest.raises(
        TypeError, match=r"given numpy\.ndarray and .*asarray\(to_numpy\(x\)\)"
    ) as e:
        array_namespace(host, array)
    assert case.backend.name.partition("_")[0] in str(e.value)


@pytest.mark.parametrize("arrays", [(), (None,), ([1.0],), ("x",)])
def test_no_array_at_all(arrays):
    with pytest.raises(TypeError, match=r"an array .*required; given (none|list|str)\."):
        array_namespace(*arrays)


def test_float_dtype_of_one_dtype(case):
    x, y = case.array([[1.0]]), case.array([2.0])
    assert float_dtype(x=x, mask=None, y=y) == case.dtype
    z = case.array([1.0 + 1j])
    assert float_dtype(z=z) == z.dtype


def test_float_dtype_names_the_two_that_differ(case):
    wide = case.xp.asarray([1.0], dtype=case.xp.complex64, device=case.device)
    narrow = case.xp.asarray([1.0], dtype=case.xp.float32, device=case.device)
    with pytest.raises(TypeError, match=r"x is float32, but layer0\.w_xh is complex64"):
        float_dtype(**{"x": narrow, "layer0.w_xh": wide})
    with pytest.raises(TypeError, match=r"float32 or float64 is required; y is (int|bool)"):
        float_dtype(x=case.array([1.0]), y=case.array([1]))


def test_float_dtype_and_namespace_while_jax_traces():
    jax = pytest.importorskip("jax")
    seen = []

    @jax.jit
    def traced(x, y):
        seen.append((array_namespace(x, y), device_of(x), float_dtype(x=x, y=y)))
        with pytest.raises(TypeError, match="given one that is being traced"):
            backend_of(x)
        return x + y

    traced(jax.numpy.zeros(2), jax.numpy.zeros(2))
    assert seen == [(jax.numpy, None, np.dtype("float64"))]


@pytest.mark.parametrize("dtype", ["int64", "float16", "complex128"])
def test_backend_of_needs_float32_or_float64(dtype):
    with pytest.raises(TypeError, match="float32 or float64 is required"):
        backend_of(np.zeros(2, dtype=dtype))


def test_backend_is_frozen():
    with pytest.raises(AttributeError):
        get_backend().name = "other"
    assert isinstance(hash(get_backend()), int)
    assert isinstance(get_backend(), Backend)


def test_frozen_arrays_and_their_results_cannot_be_written():
    x = freeze([[1.0, 2.0], [3.0, 4.0]])
    for result in (x + 1.0, np.matmul(x, x), np.stack([x, x]), np.where(x > 1, x, 0.0), x.T, x[0]):
        assert isinstance(result, Frozen)
        with pytest.raises(ValueError, match="read-only"):
            result[...] = 0.0
    with pytest.raises(ValueError, match="read-only"):
        x *= 2.0
    assert np.mean(x, axis=0).tolist() == [2.0, 3.0]
    buffer = np.zeros((2, 2))
    assert np.add(x, x, out=buffer) is buffer
    buffer += x
    assert buffer.flags.writeable


@pytest.mark.parametrize(
    "read",
    [
        float,
        int,
        bool,
        str,
        lambda x: x if x > 0 else -x,
        lambda x: to_numpy(x),
        lambda x: array_api_compat.array_namespace(x).asarray(
            x, device=get_backend("array_api_strict").device
        ),
    ],
)
def test_guard_notices_a_read_from_the_host(read):
    strict = pytest.importorskip("array_api_strict")
    x = strict.asarray(1.0, device=strict.Device("device1"))
    y = strict.asarray(1.0)
    with no_host_sync(), pytest.raises(HostSyncError, match="device1"):
        read(x)
    with no_host_sync(allow=1) as seen:
        read(x)
    assert len(seen) == 1
    with no_host_sync() as seen:
        strict.sqrt(x + x * 2.0)
        read(y)
    assert seen == []


def test_case_compares_library_dtype_shape_and_values(case):
    x = case.array([[1.0, 2.0]])
    case.assert_close(x * 2.0, [[2.0, 4.0]])
    case.assert_close(case.array([3]), np.array([3]))
    case.assert_close(case.jit(lambda tree: tree["x"] + 1.0)({"x": x}), [[2.0, 3.0]])
    for wrong in ([[1.0, 2.0001]], [[1.0], [2.0]], [[1, 2]], [[1.0 + 0j, 2.0]]):
        with pytest.raises(AssertionError):
            case.assert_close(x, wrong)
    with pytest.raises(AssertionError):
        case.assert_close(x * 1e-30, [[0.0, 0.0]])
