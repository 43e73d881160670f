"""docs/guide/transformations.md: its code runs, on two devices of JAX and on torch."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import rnn_xp as rx

ROOT = Path(rx.__file__).parents[1]
DOCS = ROOT / "docs"
PAGE = (DOCS / "guide" / "transformations.md").read_text(encoding="utf-8")
SECTIONS = {
    section.partition("\n")[0]: "\n".join(re.findall(r"```python\n(.*?)```", section, re.DOTALL))
    for section in PAGE.split("\n## ")[1:]
}


def run(source):
    settings = {
        **os.environ, "PYTHONPATH": str(ROOT), "RNN_XP_BACKEND": "", "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", source], env=settings, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_page_has_these_sections():
    assert [*SECTIONS] == [
        "A training step, compiled by JAX",
        "An ensemble in one call: jax.vmap",
        "Rows over devices: shard_map",
        "JAX's own guards",
        "torch.func",
        "torch.compile",
    ]
    assert "guide/transformations\n" in (DOCS / "index.md").read_text(encoding="utf-8")


@pytest.mark.full  # compiles for half a minute
def test_the_examples_of_jax_run_on_two_devices():
    pytest.importorskip("jax", reason="jax is not installed")
    step, ensemble, devices, guards = list(SECTIONS.values())[:4]
    run("\n".join([step, ensemble, devices, "assert len(jax.devices()) == 2", guards]))


@pytest.mark.torch
def test_the_example_of_torch_func_runs():
    run("import numpy as np\nimport rnn_xp as rx\n" + SECTIONS["torch.func"])


@pytest.mark.full
@pytest.mark.torch
def test_the_example_of_torch_compile_runs():
    head = "import numpy as np\nimport rnn_xp as rx\n"
    run(head + SECTIONS["torch.func"] + SECTIONS["torch.compile"])


NET = rx.Network(cell="rnn", hidden_size=3, recurrent_dropout=0.5)
X, Y = rx.make_windows(np.sin(np.arange(9.0)), seq_length=2)


def test_a_generator_under_jit_is_refused_and_masks_are_taken():
    jax = pytest.importorskip("jax", reason="jax is not installed")
    backend = rx.get_backend("jax", device="cpu")
    params, x, y = NET.init(0, backend), backend.asarray(X), backend.asarray(Y)
    rng = np.random.default_rng(0)
    with pytest.raises(TypeError, match=r"all its calls would have one dropout mask\. Draw the ma"):
        jax.jit(lambda p: NET.value_and_grad(p, x, y, rng=rng))(params)
    one, two = (NET.dropout_masks(np.random.default_rng(seed), x) for seed in range(2))
    loss = jax.jit(lambda p, masks: NET.value_and_grad(p, x, y, rng=masks)[0])
    assert float(loss(params, one)) != float(loss(params, two))
    assert float(loss(params, one)) == pytest.approx(
        float(NET.value_and_grad(params, x, y, rng=one)[0]), rel=1e-6
    )


@pytest.mark.torch
def test_a_generator_under_vmap_of_torch_is_refused():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    backend = rx.get_backend("torch", device="cpu")
    params, x, y = NET.init(0, backend), backend.asarray(X), backend.asarray(Y)
    stacked = {name: torch.stack([p, p]) for name, p in params.items()}
    rng = np.random.default_rng(0)
    with pytest.raises(TypeError, match="all its calls would have one dropout mask"):
        torch.func.vmap(lambda p: NET.value_and_grad(p, x, y, rng=rng)[0])(stacked)
