"""Vectors of sixteen numbers compute the bits that vectors of eight compute."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

CODE = """
import hashlib
import numpy as np
import rnn_xp as rx
from rnn_xp.kernels import make_workspace
from rnn_xp.kernels.numba.product import VECTORS

backend = rx.get_backend("numpy", dtype="float32")
x = np.random.default_rng(0).standard_normal((77, 9, 3)).astype("float32")
y = np.ones((77, 1), "float32")
print(*VECTORS)
for cell in ("rnn", "gru", "lstm"):
    for hidden in (5, 8, 13, 50, 64, 137):
        for norm in (False, True):
            net = rx.Network(cell=cell, input_size=3, hidden_size=hidden, layer_norm=norm)
            params = net.init(0, backend)
            made = [net.predict(params, x), net.predict(params, x[:1])]
            _, grads = net.value_and_grad(params, x, y, workspace=make_workspace(backend))
            made += [grads[name] for name in sorted(grads)]
            digest = hashlib.sha256(b"".join(a.tobytes() for a in made)).hexdigest()
            print(cell, hidden, norm, digest)
"""
NO_AVX512 = {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx,+avx2,+fma,+bmi,+bmi2"}


def run(**variables):
    environment = {**os.environ, "RNN_XP_KERNELS": "numba", **variables}
    ran = subprocess.run(
        [sys.executable, "-c", CODE], env=environment, capture_output=True, text=True, check=True
    )
    return ran.stdout.splitlines()


@pytest.mark.full  # compiles all kernels twice
def test_bits_do_not_depend_on_the_vectors(tmp_path):
    pytest.importorskip("numba", reason="numba is not installed")
    vectors, *wide = run(NUMBA_CACHE_DIR=str(tmp_path))
    if vectors != "16 8":
        pytest.skip("this CPU has no AVX-512")
    vectors, *narrow = run(NUMBA_CACHE_DIR=str(tmp_path), **NO_AVX512)
    assert vectors == "8"
    assert wide == narrow
    assert len(set(wide)) == 36
