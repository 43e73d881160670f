"""Products of register tiles, and sums of them: against exact ones, and to the bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("numba", reason="numba is not installed")
from rnn_xp.kernels.numba import product


class TestProduct:
    @settings(max_examples=60, deadline=None, derandomize=True)
    @given(
        st.tuples(st.integers(1, 40), st.integers(1, 210), st.integers(1, 60)),
        st.booleans(),
        st.booleans(),
        st.integers(0, 5),
    )
    def test_any_shape(self, shape, transposed, add, beside):
        rows, columns, steps = shape
        rng = np.random.default_rng(sum(shape))
        a = rng.standard_normal((steps, rows) if transposed else (rows, steps)).astype("f4")
        b = rng.standard_normal((steps, columns)).astype("f4")
        width = product.padded(columns)
        c = rng.standard_normal((rows, width + beside)).astype("f4")
        before, packed = c.copy(), product.pack(b)
        strides = (1, rows) if transposed else (steps, 1)
        product.multiply(
            a.ctypes.data, *strides, packed.ctypes.data, 16, 16 * steps, c.ctypes.data,
            width + beside, rows, width, steps, add,
        )  # fmt: skip
        exact = (a.T if transposed else a).astype(np.float64) @ b + add * before[:, :columns]
        np.testing.assert_allclose(c[:, :columns], exact, rtol=0, atol=1e-6 * (steps + 1))
        assert np.array_equal(c[:, columns:width], add * before[:, columns:width])
        assert np.array_equal(c[:, width:], before[:, width:]), "nothing is written beside it"

    @settings(max_examples=60, deadline=None, derandomize=True)
    @given(
        st.lists(st.integers(0, 9), min_size=1, max_size=5), st.integers(1, 40),
        st.integers(1, 13), st.booleans(),
    )  # fmt: skip
    def test_a_sum_of_products(self, counts, rows, eighths, add):
        """Of one after the other, and each of its own number of steps: the bits of one by one."""
        rng, columns, parts = np.random.default_rng(rows), 8 * eighths, len(counts)
        a = rng.standard_normal((parts, 9, rows)).astype("f4")
        b = rng.standard_normal((parts, 9, columns)).astype("f4")
        c, numbers = rng.standard_normal((rows, columns)).astype("f4"), np.asarray(counts)
        one_by_one = add * c
        for a_p, b_p, count in zip(a[::-1], b, counts, strict=True):
            product.multiply(
                a_p.ctypes.data, 1, rows, b_p.ctypes.data, columns, 16, one_by_one.ctypes.data,
                columns, rows, columns, count, True,
            )  # fmt: skip
        product.multiply_parts(
            a[-1:].ctypes.data, b.ctypes.data, c.ctypes.data, rows, columns,
            (1, rows, -9 * rows, columns, 16, 9 * columns, columns, parts, numbers.ctypes.data,
             int(add)),
        )  # fmt: skip
        assert np.array_equal(c, one_by_one)

    @pytest.mark.parametrize("columns", range(8, 273, 8))
    def test_a_single_row_of_any_width(self, columns):
        """Its sums are those of the same row among others, to the bit."""
        rng = np.random.default_rng(columns)
        a = rng.standard_normal((6, 20)).astype("f4")
        packed = product.pack(rng.standard_normal((20, columns)).astype("f4"))
        c = np.full((2, 6, columns), np.nan, "f4")
        for rows, out in ((6, c[0]), (1, c[1])):
            product.multiply(
                a.ctypes.data, 20, 1, packed.ctypes.data, 16, 16 * 20, out.ctypes.data, columns,
                rows, columns, 20, False,
            )  # fmt: skip
        assert np.array_equal(c[0, 0], c[1, 0])
        assert np.isnan(c[1, 1:]).all()

    def test_rows_do_not_compete_for_a_place_in_the_cache(self):
        for columns in range(1, 2100):
            length = product.spaced(columns)
            assert length >= product.padded(columns) >= columns
            assert (4 * length) % 1024
