"""The door between host and device: selection, errors, conversion; and the tools of the tests."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
import textwrap
import types
from pathlib import Path

import array_api_compat
import numpy as np
import pytest
from stubs import dpnp_with, stub

import rnn_xp
from rnn_xp.backend import (
    BackendError,
    BackendStatus,
    array_namespace,
    backend_of,
    backends,
    device_of,
    get_backend,
    selection,
)
from rnn_xp.backend.adapters import MlxAdapter

ROOT = Path(rnn_xp.__file__).parents[1]
NO_DRIVER = "cudaErrorInsufficientDriver: CUDA driver version is insufficient"


def run_python(code, **variables):
    """Run `code` in a fresh interpreter that knows this checkout."""
    path = os.pathsep.join([str(ROOT), *sys.path])
    return subprocess.run(
        [sys.executable, "-P", "-c", textwrap.dedent(code)],
        env={**os.environ, "PYTHONPATH": path, **variables},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def cupy_without_gpu():
    """What CuPy is on a machine without a GPU: it imports, and the first array raises."""

    def ones(*args, **kwargs):
        raise RuntimeError(f"{NO_DRIVER}\nand a second line that nobody needs")

    return stub("cupy", ones=ones)


def torch_with_gpus(count, *, xpu=0, mps=0):
    """As much of torch as is asked for its devices."""

    def gpus(count):
        return types.SimpleNamespace(
            is_available=lambda: count > 0, device_count=lambda: count, synchronize=lambda: None
        )

    return stub(
        "torch",
        device=lambda text: text,
        **{name: gpus(number) for name, number in {"cuda": count, "xpu": xpu, "mps": mps}.items()},
        backends=types.SimpleNamespace(mps=gpus(mps)),
        get_default_device=lambda: "cpu",
    )


# Selection


def test_default_is_numpy_on_the_cpu_in_float32():
    backend = get_backend()
    assert (backend.name, backend.device, backend.dtype) == ("numpy", "cpu", np.dtype("float32"))
    assert backend.xp is array_api_compat.array_namespace(np.zeros(1))
    assert str(backend) == f"numpy {np.__version__} (cpu, float32)"
    assert backend.version == np.__version__
    backend.synchronize()


def test_variables_select_and_arguments_win(monkeypatch):
    monkeypatch.setenv("RNN_XP_BACKEND", " array_api_strict ")
    monkeypatch.setenv("RNN_XP_DEVICE", "device1")
    monkeypatch.setenv("RNN_XP_DTYPE", "float64")
    chosen = get_backend()
    assert (chosen.name, chosen.device_name, chosen.dtype_name) == (
        *("array_api_strict", "device1", "float64"),
    )
    assert get_backend(device="device2").device_name == "device2"
    assert get_backend(dtype="float32").dtype_name == "float32"
    assert get_backend("array_api_strict").device_name == "device1"


def test_device_variable_speaks_of_the_backend_in_the_variable(monkeypatch):
    monkeypatch.setenv("RNN_XP_BACKEND", "array_api_strict")
    monkeypatch.setenv("RNN_XP_DEVICE", "device1")
    assert get_backend("numpy").device_name == "cpu"
    monkeypatch.setenv("RNN_XP_BACKEND", "")
    assert get_backend("array_api_strict").device_name == "device1"
    with pytest.raises(BackendError, match="RNN_XP_DEVICE=device1"):
        get_backend("numpy")


@pytest.mark.parametrize(
    ("given", "name"), [(None, "CPU_DEVICE"), ("cpu", "CPU_DEVICE"), ("no_x64", "no_x64")]
)
def test_strict_devices(given, name):
    strict = pytest.importorskip("array_api_strict")
    backend = get_backend("array_api_strict", device=given)
    assert backend.device_name == name
    assert backend.device == strict.Device(name)
    assert backend.xp is strict


def test_every_case_is_what_it_was_asked_to_be(case):
    backend = case.backend
    first = backend.xp.zeros((2,), dtype=backend.dtype, device=backend.device)
    assert backend_of(first) == backend
    assert array_namespace(first, None) is backend.xp
    assert device_of(first) == backend.device
    assert str(backend).startswith(f"{backend.name} {backend.version} ({backend.device_name}")
    assert backend.dtype_name in ("float32", "float64")
    backend.synchronize()


def test_backend_survives_copying_and_pickling(case):
    for twin in (copy.deepcopy(case.backend), pickle.loads(pickle.dumps(case.backend))):
        assert twin == case.backend


# What cannot be had


def test_unknown_name_lists_the_valid_ones(monkeypatch):
    with pytest.raises(
        BackendError, match=r"name='tensorflow' is not known\. .*numpy, cupy, torch"
    ):
        get_backend("tensorflow")
    monkeypatch.setenv("RNN_XP_BACKEND", "NumPy")
    with pytest.raises(BackendError, match="RNN_XP_BACKEND=NumPy is not known"):
        get_backend()


def test_unknown_dtype_lists_the_valid_ones(monkeypatch):
    with pytest.raises(BackendError, match=r"dtype='float16' .* float32, float64\."):
        get_backend(dtype="float16")
    monkeypatch.setenv("RNN_XP_DTYPE", "double")
    with pytest.raises(BackendError, match="RNN_XP_DTYPE=double is not known"):
        get_backend()


def test_numpy_has_no_gpu_and_says_who_has(monkeypatch):
    monkeypatch.setenv("RNN_XP_DEVICE", "cuda:0")
    with pytest.raises(
        BackendError, match=r"numpy has no device 'cuda:0' here \(RNN_XP_DEVICE=cud"
    ):
        get_backend()
    with pytest.raises(BackendError, match=r"device='cuda'.* one of: cpu\..* choose cupy, torch"):
        get_backend("numpy", device="cuda")


@pytest.mark.parametrize("name", ["torch", "jax"])
@pytest.mark.parametrize("device", ["cuda", "cuda:7", "gpu", "tpu", "nonsense"])
def test_absent_device_lists_those_present(name, device):
    pytest.importorskip(name)
    with pytest.raises(BackendError, match=rf"{name} has no device '{device}'.* one of: cpu\."):
        get_backend(name, device=device)


def test_device_without_float64():
    with pytest.raises(
        BackendError, match=r"no_float64 has no float64 \(dtype='float64'\).*device1"
    ):
        get_backend("array_api_strict", device="no_float64", dtype="float64")


@pytest.mark.parametrize(
    ("name", "install"),
    [
        ("cupy", r"pip install -e '\.\[cuda12x\]' \(or cuda13x or rocm7"),
        ("torch", r"pip install -e '\.\[torch\]'"),
        ("jax", r"pip install -e '\.\[jax\]'"),
        ("dpnp", r"pip install -e '\.\[dpnp\]'"),
        ("mlx", r"pip install -e '\.\[mlx\]'"),
        ("array_api_strict", r"pip install -e '\.\[strict\]'"),
    ],
)
def test_missing_package_names_the_install_command(monkeypatch, name, install):
    monkeypatch.setitem(sys.modules, name, None)  # importing it raises ModuleNotFoundError
    with pytest.raises(BackendError, match=rf"name='{name}'.*not installed\. Install .*{install}"):
        get_backend(name)


def test_broken_package_is_not_called_missing(monkeypatch, tmp_path):
    (tmp_path / "cupy.py").write_text("import a_library_that_is_not_there")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    with pytest.raises(BackendError, match="is installed but broken: ModuleNotFoundError: No mod"):
        get_backend("cupy")


def test_cupy_without_a_gpu_gives_the_reason_in_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", cupy_without_gpu())
    monkeypatch.setenv("RNN_XP_BACKEND", "cupy")
    with pytest.raises(BackendError) as caught:
        get_backend()
    message = str(caught.value)
    assert message.startswith("backend cupy was asked for (RNN_XP_BACKEND=cupy), but cupy 9.9 is")
    assert f"no CUDA device is usable: RuntimeError: {NO_DRIVER}" in message
    assert "nvidia-smi" in message
    assert "second line" not in message


def test_jax_does_not_narrow_float64_silently():
    pytest.importorskip("jax")
    code = """
        from rnn_xp.backend import BackendError, get_backend
        import numpy as np
        b = get_backend("jax")
        assert str(b.asarray([1, 2]).dtype) == "int32"
        try:
            b.asarray([2**40])
        except TypeError as error:
            print(error)
        try:
            get_backend("jax", dtype="float64")
        except BackendError as error:
            print(error)
    """
    done = run_python(code, JAX_ENABLE_X64="0")
    assert done.returncode == 0, done.stderr
    assert "no integer dtype of jax" in done.stdout
    assert "has no float64 (dtype='float64'). Set JAX_ENABLE_X64=1 before" in done.stdout


def test_jax_platform_that_fails_to_start():
    pytest.importorskip("jax")
    code = "from rnn_xp.backend import get_backend; get_backend('jax')"
    done = run_python(code, JAX_PLATFORMS="tpu")
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert "BackendError: backend jax was asked for" in last
    assert "no device is usable" in last


# auto


@pytest.fixture
def opened(monkeypatch):
    """What is opened, on a machine where only stand-ins for torch and others may have a GPU."""
    settings = []
    monkeypatch.setattr(selection, "open_backend", lambda *given: settings.append(given) or "it")
    for name in ("torch", "cupy"):
        space = f"array_api_compat.{name}"
        monkeypatch.setitem(sys.modules, space, stub(space))
    monkeypatch.setitem(sys.modules, "cupy", cupy_without_gpu())
    monkeypatch.setitem(sys.modules, "torch", torch_with_gpus(0))
    monkeypatch.setitem(sys.modules, "dpnp", None)
    monkeypatch.setattr(MlxAdapter, "devices", lambda self: (["Device(cpu, 0)"], "Device(cpu, 0)"))
    monkeypatch.setattr(MlxAdapter, "version", lambda self: "9.9")
    monkeypatch.setattr(MlxAdapter, "namespace", lambda self: None)
    return settings


def test_auto_without_a_gpu_takes_numpy_and_says_what_each_library_lacks(opened, capsys):
    get_backend("auto")
    assert opened[-1][0].value == "numpy"
    said = capsys.readouterr().err
    assert "auto chose it; cupy: cupy 9.9 is installed but no CUDA device is usable" in said
    assert "; torch: no CUDA or XPU or MPS device; dpnp: the package dpnp is not inst" in said
    assert said.rstrip().endswith("; mlx: no GPU device")
    assert "jax" not in said


def test_auto_prefers_cupy_then_torch_then_dpnp_then_mlx(opened, monkeypatch):
    monkeypatch.setattr(
        MlxAdapter, "devices", lambda self: (["Device(cpu, 0)", "Device(gpu, 0)"], "Device(gpu, 0)")
    )
    get_backend("auto")
    assert [setting.value for setting in opened[-1]] == ["mlx", "gpu", "float32", "fp32"]
    monkeypatch.setitem(sys.modules, "dpnp", dpnp_with("level_zero:gpu:0", "opencl:cpu:0"))
    get_backend("auto")
    assert [setting.value for setting in opened[-1]] == ["dpnp", "gpu", "float32", "fp32"]
    for present, chosen in (
        ({"mps": 1}, "mps"), ({"xpu": 1, "mps": 1}, "xpu"), ({"count": 2, "xpu": 1}, "cuda"),
    ):  # fmt: skip
        torch = torch_with_gpus(**{"count": 0, **present})
        monkeypatch.setitem(sys.modules, "torch", torch)
        get_backend("auto")
        assert [setting.value for setting in opened[-1]] == ["torch", chosen, "float32", "fp32"]
    get_backend("auto", device="cuda:1")
    assert [setting.value for setting in opened[-1]] == ["torch", "cuda:1", "float32", "fp32"]
    get_backend("auto", device="cpu")
    assert opened[-1][0].value == "numpy"


@pytest.mark.parametrize("kind", ["xpu", "mps"])
def test_torch_on_other_gpus_is_reached_as_on_cuda(kind, monkeypatch):
    torch = torch_with_gpus(0, **{kind: 1})
    space = stub(
        "array_api_compat.torch",
        float32=np.float32,
        zeros=lambda shape, dtype, device: np.zeros(shape, dtype),
        __array_namespace_info__=lambda: types.SimpleNamespace(
            dtypes=lambda device: {"float32", "float64", "complex128"}
        ),
    )
    properties = types.SimpleNamespace(has_fp64=False)
    torch.xpu.get_device_properties = lambda device: properties
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "array_api_compat.torch", space)
    backend = get_backend("torch", device=kind)
    assert backend.device_name == get_backend("torch", device=f"{kind}:0").device_name
    assert backend.device_name == f"{kind}:0"  # as tensors report it
    assert backend.is_accelerator
    with pytest.raises(BackendError, match=rf"torch on {kind}:0 has no float64 .* of: cpu, or"):
        get_backend("torch", device=kind, dtype="float64")
    properties.has_fp64 = True
    if kind == "xpu":
        space.float64 = np.float64
        assert get_backend("torch", device=kind, dtype="float64").dtype_name == "float64"


def test_auto_never_falls_back_from_a_gpu_that_was_named(monkeypatch):
    for name in ("cupy", "torch", "dpnp", "mlx", "mlx.core"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setenv("RNN_XP_BACKEND", "auto")
    assert get_backend().name == "numpy"
    monkeypatch.setenv("RNN_XP_DEVICE", "cuda:0")
    with pytest.raises(BackendError, match="RNN_XP_DEVICE=cuda:0"):
        get_backend()


# backends()


def test_backends_reports_everything_and_leaves_no_trace(monkeypatch, tmp_path):
    (tmp_path / "cupy.py").write_text(
        f"__version__ = '9.9'\ndef ones(*a, **k):\n    raise RuntimeError('{NO_DRIVER}')\n"
    )
    (tmp_path / "torch.py").write_text("import missing_part_of_torch\n")
    monkeypatch.syspath_prepend(tmp_path)
    before, variables = set(sys.modules), dict(os.environ)
    found = {status.name: status for status in backends()}
    assert set(sys.modules) == before
    assert dict(os.environ) == variables
    assert list(found) == ["numpy", "cupy", "torch", "jax", "dpnp", "mlx", "array_api_strict"]
    assert found["numpy"] == BackendStatus("numpy", True, True, np.__version__, ("cpu",), "")
    assert found["cupy"].installed
    assert not found["cupy"].usable
    assert found["cupy"].version == "9.9"
    assert found["cupy"].reason.endswith(f"no CUDA device is usable: RuntimeError: {NO_DRIVER}")
    assert found["torch"].reason.endswith("No module named 'missing_part_of_torch'")
    assert "device1" in found["array_api_strict"].devices


def test_backends_survives_a_library_that_kills_the_process(monkeypatch, tmp_path):
    (tmp_path / "cupy.py").write_text("import os\nos.write(2, b'segfault\\n')\nos._exit(3)\n")
    monkeypatch.syspath_prepend(tmp_path)
    numpy, cupy, *_ = backends()
    assert numpy.usable
    assert not cupy.usable
    assert cupy.reason == "trying it failed: segfault"


def test_backends_without_an_interpreter_to_start(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert not any(status.usable for status in backends())


def test_missing_libraries_are_reported_as_not_installed(tmp_path):
    names = ("cupy", "torch", "jax", "dpnp", "mlx", "array_api_strict")
    for name in names:
        (tmp_path / f"{name}.py").write_text(f'raise ModuleNotFoundError("gone", name="{name}")')
    code = "from rnn_xp.backend import backends\nfor s in backends(): print(s.name, s.reason)"
    path = os.pathsep.join([str(tmp_path), str(ROOT), *sys.path])
    done = run_python(code, PYTHONPATH=path)
    assert done.stdout.splitlines() == [
        "numpy ",
        *(f"{name} the package {name} is not installed" for name in names),
    ]


# Host to device and back


# What arrays say about themselves


# The tools of the tests catch what they are there to catch
