"""Kernels in pure Array API: sums over many rows keep their digits."""

from __future__ import annotations

import numpy as np
import pytest

from rnn_xp.kernels.portable import sum_rows


@pytest.mark.parametrize("rows", [1, 2, 4095, 4096, 4097, 8192, 8193, 12_287])
def test_sum_rows_is_the_sum_at_every_seam_of_the_blocks(rows, case):
    a = np.random.default_rng(rows).standard_normal((rows, 3)).astype(case.dtype_name)
    with case.guard():
        found = case.jit(lambda a: sum_rows(a, xp=case.xp))(case.array(a))
    error = np.abs(case.to_numpy(found) - a.astype("f8").sum(axis=0))
    assert found.shape == (3,)
    assert found.dtype == case.dtype
    assert (error <= case.tolerance * np.abs(a).sum(axis=0)).all()


@pytest.mark.parametrize(
    "library", ["numpy", "jax", pytest.param("torch", marks=pytest.mark.torch)]
)
@pytest.mark.parametrize("rows", [100_000, 1_000_000, 5_000_000])
def test_terms_of_one_sign_and_size_keep_their_digits_in_float32(library, rows):
    """One after the other they lose 6 % of 1e7: a term vanishes beside the sum before it."""
    xp = pytest.importorskip({"jax": "jax.numpy"}.get(library, library))
    a = (np.random.default_rng(0).standard_normal((rows, 1)) + 100.0).astype("f4")
    array = xp.asarray(a)
    if library == "torch":
        xp = pytest.importorskip("array_api_compat.torch")
    found = float(np.asarray(sum_rows(array, xp=xp))[0])
    assert found == pytest.approx(float(a.astype("f8").sum()), rel=2e-6)


def test_complex_numbers_too():
    a = np.ones((5000, 2)) * (1.0 + 1e-30j)
    found = sum_rows(a, xp=np)
    assert np.array_equal(found.real, [5000.0] * 2)
    np.testing.assert_allclose(found.imag, [5000 * 1e-30] * 2, rtol=1e-13)
