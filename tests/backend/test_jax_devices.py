"""JAX with two devices: its own default, and batches that are split over both."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import rnn_xp as rx

pytestmark = pytest.mark.full  # a process of its own, with several devices

pytest.importorskip("jax", reason="jax is not installed")

SCRIPT = """
import json
import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
import rnn_xp as rx

seen = {}
first, second = jax.devices()
seen["plain"] = rx.get_backend("jax").device_name
with jax.default_device(second):
    seen["context"] = rx.get_backend("jax").device_name
    seen["named"] = rx.get_backend("jax", device="cpu").device_name
    params = rx.Network(hidden_size=2).init(0, rx.get_backend("jax"))
    seen["weights"] = sorted({array.device.id for array in params.values()})
jax.config.update("jax_default_device", second)
seen["option"] = rx.get_backend("jax").device_name
jax.config.update("jax_default_device", "cpu")
seen["platform"] = rx.get_backend("jax").device_name
jax.config.update("jax_default_device", None)

rng, backend = np.random.default_rng(0), rx.get_backend("jax")
mesh = Mesh(np.asarray([first, second]), ("rows",))
halves = NamedSharding(mesh, PartitionSpec("rows"))
net = rx.Network(hidden_size=3, output_size=3)
x, y = rng.standard_normal((8, 2, 1)), rng.integers(0, 3, 8)


def train(place):
    here = [jax.device_put(backend.asarray(values), place) for values in (x, y)]
    result = rx.fit(net, *here, loss="cross_entropy", optimizer=rx.optim.adam(0.05), epochs=2)
    pred, _ = net.forward(result.params, here[0])
    return result, pred


one, expected = train(first)
two, pred = train(halves)
seen["losses"] = [one.history["loss"], two.history["loss"]]
seen["difference"] = max(
    float(np.abs(np.asarray(one.params[name]) - np.asarray(two.params[name])).max())
    for name in one.params
)
seen["whole"] = all(
    array.sharding.is_fully_replicated and len(array.sharding.device_set) == 2
    for array in two.params.values()
)
seen["pred"] = [str(pred.sharding.spec[0]), float(np.abs(np.asarray(pred - jax.device_put(
    expected, halves))).max())]
seen["device"] = two.backend.device_name
try:
    rx.fit(net, jax.device_put(backend.asarray(x), halves), backend.asarray(y),
           loss="cross_entropy", optimizer=rx.optim.adam(0.05), epochs=1)
except ValueError as error:
    seen["mixed"] = str(error)
seen["elsewhere"] = {}
at = {place: jax.device_put(backend.asarray(x), place) for place in (first, second)}
weights = jax.device_put(backend.asarray(np.ones(8)), second)
for name, given in {
    "sample_weight": {"sample_weight": weights},
    "x": {"validation": (at[second], y)},
}.items():
    try:
        rx.fit(net, at[first], y, loss="cross_entropy", optimizer=rx.optim.adam(0.05), epochs=1,
               **given)
    except ValueError as error:
        seen["elsewhere"][name] = str(error)
print(json.dumps(seen))
"""


@pytest.fixture(scope="module")
def seen():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={
            **{name: value for name, value in os.environ.items() if "COMPILATION_CACHE" in name},
            "XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu",
            "PYTHONPATH": str(Path(rx.__file__).parents[1]), "PATH": "",
        },
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("said", ["context", "option"])
def test_the_default_device_of_jax_is_the_default_here(seen, said):
    assert seen["plain"] == seen["platform"] == "cpu"
    assert seen[said] == "cpu:1"


def test_weights_are_made_on_the_default_device(seen):
    assert seen["weights"] == [1]


def test_a_named_device_overrides_the_default_of_jax(seen):
    assert seen["named"] == "cpu"


def test_a_batch_split_over_devices_trains_whole_weights_as_one_device_does(seen):
    one, two = seen["losses"]
    assert two == pytest.approx(one, rel=1e-5)
    assert seen["difference"] < 1e-5
    assert seen["whole"] is True
    assert seen["device"] == "cpu, cpu:1"


def test_predictions_stay_split_as_the_batch_is(seen):
    spec, difference = seen["pred"]
    assert spec == "rows"
    assert difference < 1e-5


def test_targets_on_one_device_beside_a_split_batch_are_refused(seen):
    assert "y is on cpu and the training is on cpu, cpu:1. Move" in seen["mixed"]


@pytest.mark.parametrize("name", ["sample_weight", "x"])
def test_an_array_on_another_device_is_refused_by_its_name(seen, name):
    assert f"{name} is on cpu:1 and the training is on cpu. Move" in seen["elsewhere"][name]
