"""What is peculiar to MLX: arrays without a device, results that wait, a narrow float64."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import rnn_xp as rx
from rnn_xp.backend import BackendError, array_namespace, backend_of, get_backend, to_numpy

pytestmark = pytest.mark.libraries
mx = pytest.importorskip("mlx.core", reason="mlx is not installed")


@pytest.fixture(scope="module")
def backend():
    return get_backend("mlx", device="cpu")


def test_float64_is_refused_because_its_exponential_has_few_digits(backend):
    with pytest.raises(BackendError, match=r"mlx on cpu has no float64 .*six digits only, or choo"):
        get_backend("mlx", device="cpu", dtype="float64")
    x = mx.zeros((4, 2, 1), dtype=mx.float64)
    with pytest.raises(TypeError, match=r"an array of mlx is float64, in which mlx does not compu"):
        rx.fit(rx.Network(hidden_size=2), x, x[:, 0], optimizer=rx.optim.adam(), epochs=1)


def test_the_exponential_of_a_float64_has_six_digits_and_that_of_a_float32_is_right():
    x = np.linspace(-20.0, 20.0, 4001)

    def error(dtype):
        got = np.asarray(mx.exp(mx.array(x, dtype=getattr(mx, dtype))), dtype=np.float64)
        want = np.exp(x.astype(dtype).astype(np.float64))
        return float(np.max(np.abs(got / want - 1.0)))

    assert error("float32") < 2e-6
    assert 1e-8 < error("float64") < 1e-5  # where it is better, `lacks` can go


def test_other_devices_and_dtypes_are_refused_at_creation(backend):
    xp = backend.xp
    with pytest.raises(ValueError, match=r"on its default device, Device\(cpu, 0\), not on Device"):
        xp.zeros(2, device=mx.Device(mx.gpu, 0))
    with pytest.raises(TypeError, match="mlx has no complex128; convert"):
        xp.asarray(np.ones(2, dtype=complex))


def test_arrays_find_the_completed_namespace_and_the_default_device(backend):
    x = mx.zeros((2, 3))
    assert array_namespace(x, None, x) is backend.xp
    assert backend_of(x) == backend
    assert str(backend_of(x)) == f"mlx {mx.__version__} (cpu, float32)"
    assert backend.xp.asarray(np.ones(2)).dtype == mx.float64  # what is said is kept
    for again in (copy.deepcopy(backend), pickle.loads(pickle.dumps(backend))):
        assert again == backend


def test_the_parts_of_linear_algebra_that_mlx_lacks(backend):
    host = np.random.default_rng(0).standard_normal((4, 3)).astype("float32")
    matrix = host.T @ host + np.eye(3, dtype="float32")
    linalg, a = backend.xp.linalg, backend.asarray(matrix)
    for got, want in (
        (linalg.vector_norm(a), np.linalg.norm(matrix)),
        (linalg.diagonal(a), np.diag(matrix)),
        (linalg.cholesky(a), np.linalg.cholesky(matrix)),
        (linalg.solve(a, backend.asarray(host.T)), np.linalg.solve(matrix, host.T)),
    ):
        np.testing.assert_allclose(to_numpy(got), want, rtol=1e-5, atol=1e-5)


MEMORY = """
import resource
import numpy as np
import rnn_xp as rx

x, y = rx.make_windows(np.sin(np.arange(610.0)), 10)
net, backend = rx.Network(hidden_size=32), rx.get_backend("mlx", device="cpu")


def train(rows):
    adam = rx.optim.adam()
    rx.fit(net, x[:rows], y[:rows], optimizer=adam, epochs=1, batch_size=1, backend=backend)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


print(-train(5) + train(600))
"""


def test_an_epoch_of_single_rows_does_not_keep_what_led_to_each_update():
    """Without `MlxAdapter.computed` it would: 110 MB, of operations that wait for the end."""
    path = os.pathsep.join([str(Path(rx.__file__).parents[1]), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", MEMORY], env={**os.environ, "PYTHONPATH": path},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    kilobytes = int(done.stdout) / (1024 if sys.platform == "darwin" else 1)
    assert kilobytes < 20_000


def test_the_gradients_hold_against_the_oracle_that_runs_on_numpy(backend):
    net = rx.Network(cell="lstm", hidden_size=4)
    rng = np.random.default_rng(0)
    x, y = (backend.asarray(rng.standard_normal(shape)) for shape in ((3, 5, 1), (3, 1)))
    errors = rx.testing.check_gradients(net, net.init(0, backend), x, y)
    assert max(errors.values()) < 2e-5


def test_draws_are_refused_while_mlx_compiles(backend):
    net = rx.Network(hidden_size=4, num_layers=2, dropout=0.5)
    params, x = net.init(0, backend), backend.asarray(np.ones((3, 5, 1)))

    def forward(x):
        return net.vjp(params, x, rng=np.random.default_rng(0))[0]

    def plain(x):
        return net.forward(params, x)[0]

    np.testing.assert_allclose(to_numpy(mx.compile(plain)(x)), to_numpy(plain(x)), rtol=1e-6)
    with pytest.raises(TypeError, match=r"masks|draw"):
        mx.compile(forward)(x)
