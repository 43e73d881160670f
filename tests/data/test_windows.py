"""Windows, their targets and the split in time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnn_xp.data.windows import as_series, cast_windows, make_windows, num_windows, time_split


class TestWorkedExamples:
    def test_one_to_ten_with_seq_length_3(self):
        x, y = make_windows(range(1, 11), seq_length=3)
        expected = [[1, 2, 3], [2, 3, 4], [3, 4, 5], [4, 5, 6], [5, 6, 7], [6, 7, 8], [7, 8, 9]]
        assert x.shape == (7, 3, 1)
        assert x[:, :, 0].tolist() == expected
        assert y.tolist() == [[4], [5], [6], [7], [8], [9], [10]]

    def test_one_to_fourteen_with_seq_length_10(self):
        x, y = make_windows(np.arange(1, 15), seq_length=10)
        assert x.shape == (4, 10, 1)
        assert x[0, :, 0].tolist() == list(range(1, 11))
        assert x[3, :, 0].tolist() == list(range(4, 14))
        assert y.tolist() == [[11], [12], [13], [14]]

    def test_8327_values_give_8317_windows(self):
        x, y = make_windows(np.arange(1, 8328, dtype=np.float32), seq_length=10)
        assert x.shape == (8317, 10, 1)
        assert y.shape == (8317, 1)
        assert x[-1, :, 0].tolist() == list(range(8317, 8327))
        assert y[-1].tolist() == [8327]


class TestNumWindows:
    @pytest.mark.parametrize(
        ("n", "seq_length", "horizon", "expected"),
        [(8327, 10, 1, 8317), (2082, 10, 1, 2072), (2082, 10, 10, 2063), (11, 10, 1, 1)],
    )
    def test_value(self, n, seq_length, horizon, expected):
        assert num_windows(n, seq_length, horizon) == expected

    def test_numpy_integers(self):
        count = num_windows(np.int64(14), np.int32(10))
        assert count == 4
        assert type(count) is int

    def test_one_value_short(self):
        message = r"10 values is too short .* at least 11 values are required, 1 more"
        with pytest.raises(ValueError, match=message):
            num_windows(10, 10)

    def test_horizon_counts(self):
        with pytest.raises(ValueError, match=r"at least 15 values are required, 3 more"):
            num_windows(12, 10, horizon=5)

    @pytest.mark.parametrize("name", ["seq_length", "horizon"])
    @pytest.mark.parametrize("value", [0, -3])
    def test_below_one(self, name, value):
        with pytest.raises(ValueError, match=rf"{name} must be at least 1, got {value}\."):
            num_windows(**{"n": 20, "seq_length": 3, name: value})

    @pytest.mark.parametrize("name", ["n", "seq_length", "horizon"])
    @pytest.mark.parametrize("value", [3.0, "3", True, np.True_, None])
    def test_not_an_integer(self, name, value):
        with pytest.raises(TypeError, match=rf"{name} must be an integer, got"):
            num_windows(**{"n": 20, "seq_length": 3, name: value})


class TestMakeWindows:
    def test_horizon(self):
        x, y = make_windows([1, 2, 3, 4, 5, 6], seq_length=2, horizon=3)
        assert x[:, :, 0].tolist() == [[1, 2], [2, 3]]
        assert y.tolist() == [[3, 4, 5], [4, 5, 6]]

    def test_several_columns_target_is_column_0(self):
        series = np.asarray([[0, 10, 20], [1, 11, 21], [2, 12, 22], [3, 13, 23]])
        x, y = make_windows(series, seq_length=2)
        assert x.shape == (2, 2, 3)
        assert x.tolist() == [[[0, 10, 20], [1, 11, 21]], [[1, 11, 21], [2, 12, 22]]]
        assert y.tolist() == [[2], [3]]

    def test_every_entry_against_its_definition(self):
        series = np.random.default_rng(0).normal(size=(23, 2))
        x, y = make_windows(series, seq_length=5, horizon=4)
        assert x.shape == (15, 5, 2)
        assert y.shape == (15, 4)
        for k in range(15):
            assert np.array_equal(x[k], series[k : k + 5])
            assert np.array_equal(y[k], series[k + 5 : k + 9, 0])

    @pytest.mark.parametrize("shape", [(30,), (30, 2)])
    def test_read_only_views(self, shape):
        series = np.random.default_rng(1).normal(size=shape)
        x, y = make_windows(series, seq_length=4, horizon=2)
        assert np.shares_memory(x, series)
        assert np.shares_memory(y, series)
        for array in (x, y):
            with pytest.raises(ValueError, match="read-only"):
                array[0, 0] = 0.0

    def test_read_only_series(self):
        series = np.arange(5.0)
        series.flags.writeable = False
        assert make_windows(series, 3)[1].tolist() == [[3.0], [4.0]]

    @pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
    def test_float_dtype_kept(self, dtype):
        x, y = make_windows(np.arange(9, dtype=dtype), 3)
        assert x.dtype == y.dtype == dtype

    @pytest.mark.parametrize("values", [list(range(9)), np.arange(9, dtype=np.uint8)])
    def test_integers_become_float64(self, values):
        x, y = make_windows(values, 3)
        assert x.dtype == y.dtype == np.float64

    @pytest.mark.parametrize(
        "values",
        [np.ones(9, complex), np.ones(9, bool), np.ones(9, object), ["a"] * 9],
        ids=["complex", "bool", "object", "text"],
    )
    def test_not_real_numbers(self, values):
        with pytest.raises(TypeError, match="series must hold real numbers, got dtype"):
            make_windows(values, 3)

    def test_masked_array(self):
        with pytest.raises(TypeError, match=r"masked array would lose its mask"):
            make_windows(np.ma.masked_equal(np.arange(9.0), 4.0), 3)

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    def test_not_finite(self, bad):
        series = np.arange(20.0)
        series[[7, 9]] = bad
        message = rf"series\[7\] is {bad}: all values must be finite \(2 are not\)"
        with pytest.raises(ValueError, match=message):
            make_windows(series, 3)

    def test_not_finite_in_a_column(self):
        series = np.ones((20, 3))
        series[4, 2] = np.nan
        with pytest.raises(ValueError, match=r"series\[4, 2\] is nan"):
            make_windows(series, 3)

    @pytest.mark.parametrize("shape", [(), (5, 2, 2), (5, 0)])
    def test_wrong_rank(self, shape):
        with pytest.raises(ValueError, match=r"must have shape \(n,\) or \(n, I\), got \("):
            make_windows(np.ones(shape), 3)

    def test_too_short(self):
        with pytest.raises(ValueError, match="a series of 0 values is too short"):
            make_windows([], 3)
        with pytest.raises(ValueError, match="a series of 10 values is too short"):
            make_windows(np.arange(10), 10)


class TestCastWindows:
    SLICES = (
        np.s_[:], np.s_[3:], np.s_[2:7], np.s_[:, 1:], np.s_[::-1], np.s_[:, ::-1],
        np.s_[::-1, ::-1], np.s_[::2], np.s_[:, ::2], np.s_[::2, ::2], np.s_[..., ::-1],
        np.s_[..., 0], np.s_[0:0], np.s_[:, 0], np.s_[5], np.s_[:1, :1],
    )  # fmt: skip

    @given(
        values=st.integers(20, 40), columns=st.integers(1, 3), seq_length=st.integers(1, 9),
        horizon=st.integers(1, 4), which=st.integers(0, 1), cut=st.sampled_from(SLICES),
        dtypes=st.permutations(["float32", "float64", "float16"]), frozen=st.booleans(),
    )  # fmt: skip
    def test_is_a_cast(self, values, columns, seq_length, horizon, which, cut, dtypes, frozen):
        before, after, _ = dtypes
        series = np.random.default_rng(0).normal(size=(values, columns)).astype(before)
        series.flags.writeable = not frozen
        given = make_windows(series, seq_length, horizon)[which][cut]
        found = cast_windows(given, after)
        assert found.dtype == after
        assert found.shape == given.shape
        assert np.array_equal(found, given.astype(after))
        assert np.array_equal(cast_windows(found, before), found.astype(before))

    @pytest.mark.parametrize("columns", [1, 3])
    @pytest.mark.parametrize("cut", [np.s_[:], np.s_[100:], np.s_[::-1, ::-1], np.s_[:, 2:]])
    def test_windows_stay_a_view_of_one_series(self, columns, cut):
        x, y = make_windows(np.random.default_rng(0).normal(size=(300, columns)), 10, 5)
        for windows in (x[cut], y[cut]):
            found = cast_windows(windows, "float32")
            assert found.strides[0] == found.strides[1]
            first, last = np.lib.array_utils.byte_bounds(found)
            assert last - first == (sum(found.shape[:2]) - 1) * (found.strides[0])
            assert not found.flags.writeable

    @pytest.mark.parametrize("cut", [np.s_[0:0], np.s_[:, 0:0], np.s_[0:0, 0:0], np.s_[..., 0:0]])
    def test_of_nothing(self, cut):
        x, _ = make_windows(np.ones(9), 4)
        found = cast_windows(x[cut], "float32")
        assert found.dtype == np.float32
        assert found.shape == x[cut].shape

    def test_of_whole_numbers(self):
        windows = np.lib.stride_tricks.sliding_window_view(np.arange(20), 4)
        found = cast_windows(windows, "float32")
        assert found.tolist() == windows.tolist()
        assert found.strides == (4, 4)

    @pytest.mark.parametrize(
        "windows", [np.ones((3, 2)), np.ones(3), np.ones((0, 2)), make_windows(np.ones(9), 3)[0]]
    )
    def test_what_has_the_dtype_is_not_copied(self, windows):
        assert np.shares_memory(cast_windows(windows, "float64"), windows) or not windows.size
        assert cast_windows(windows, "float64").strides == windows.strides

    def test_what_is_no_window_is_copied(self):
        array = np.random.default_rng(0).normal(size=(6, 5, 2))
        found = cast_windows(array, "float32")
        assert np.array_equal(found, array.astype("float32"))
        assert found.flags.owndata
        for same in (np.broadcast_to(array[0, 0], array.shape), np.broadcast_to(1.5, (3, 4))):
            assert np.array_equal(cast_windows(same, "float32"), same.astype("float32"))

    def test_only_what_the_windows_show_is_read(self):
        """A value outside the rows would overflow, which warns."""
        series = np.ones(30)
        x, _ = make_windows(series, 5)
        series[[2, 20]] = 1e300
        assert np.array_equal(cast_windows(x[3:16], "float32"), np.ones((13, 5, 1)))


class TestAsSeries:
    def test_is_a_view(self):
        series = np.arange(5.0)
        assert np.shares_memory(as_series(series), series)
        assert as_series(series).shape == (5, 1)

    def test_name_in_messages(self):
        with pytest.raises(ValueError, match=r"train\[1\] is nan"):
            as_series([1.0, np.nan], "train")


class TestTimeSplit:
    @pytest.mark.parametrize(("n", "train", "test"), [(10409, 8327, 2082), (8321, 6656, 1665)])
    def test_sizes_of_the_bundled_series(self, n, train, test):
        parts = time_split(np.arange(n))
        assert [len(part) for part in parts] == [train, test]

    def test_order_and_views(self):
        values = np.arange(20.0).reshape(10, 2)
        train, test = time_split(values, fraction=0.7)
        assert np.shares_memory(train, values)
        assert np.shares_memory(test, values)
        assert np.array_equal(np.concatenate([train, test]), values)
        assert train.shape == (7, 2)

    @pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5, np.nan])
    def test_fraction_outside(self, fraction):
        with pytest.raises(ValueError, match="fraction must lie between 0 and 1"):
            time_split([1, 2, 3], fraction)

    @pytest.mark.parametrize(("n", "counts"), [(1, "0 for training and 1"), (0, "0 for training")])
    def test_empty_part(self, n, counts):
        with pytest.raises(ValueError, match=f"leaves {counts} .*both parts need at least 1"):
            time_split(np.ones(n))

    def test_scalar(self):
        with pytest.raises(ValueError, match="must have a time axis"):
            time_split(3.0)
