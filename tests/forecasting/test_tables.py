"""Series in the tables of other libraries are taken with their names and times."""

from __future__ import annotations

import numpy as np
import pytest
from forecasters import quick, waves

import rnn_xp as rx
from rnn_xp.data.datasets import Series

pd = pytest.importorskip("pandas")

DAYS = pd.date_range("2024-01-01", periods=240)
FRAME = pd.DataFrame({"a": waves(), "b": waves(seed=1)}, index=DAYS.rename("day"))
COLUMNS = {"day": DAYS.to_numpy(), "a": waves(), "b": waves(seed=1)}


class TimeSeries:
    """As much of darts' class as is used."""

    __module__ = "darts.timeseries"

    def __init__(self, frame):
        self.frame = frame

    def to_dataframe(self):
        return self.frame


def tables(library):
    """Return FRAME as a table of a library, and its first series alone."""
    if library == "darts":
        return TimeSeries(FRAME), TimeSeries(FRAME[["a"]])
    module = pytest.importorskip(library)
    if library == "polars":
        frame = module.DataFrame(COLUMNS)
        return frame, frame[["day", "a"]]
    if library == "pyarrow":
        frame = module.table(COLUMNS)
        return frame, frame.select(["day", "a"])
    array = module.DataArray(
        FRAME.to_numpy(), coords={"day": DAYS, "name": ["a", "b"]}, dims=("day", "name")
    )
    return array, array.isel(name=[0])


@pytest.mark.parametrize("library", ["polars", "pyarrow", "xarray", "darts"])
class TestLibraries:
    def test_names_and_times_are_taken(self, library):
        several, one = tables(library)
        found, expected = (quick().fit(given).predict(2) for given in (several, FRAME))
        assert found.columns.tolist() == ["a", "b"]
        assert found.index.equals(expected.index)
        assert np.array_equal(found, expected)
        assert quick().fit(one).predict(2).columns.tolist() == ["a"]

    def test_features_are_matched_by_name_and_time(self, library):
        table, _ = tables(library)
        target = pd.Series(waves(seed=2)[:200], index=DAYS[:200])
        found = quick().fit(target, future=table).predict(future=table)
        plain = FRAME.to_numpy()
        expected = quick().fit(target, future=plain[:200]).predict(future=plain[200:201])
        assert np.array_equal(found, expected)
        late = target.set_axis(target.index + pd.Timedelta(days=365))
        with pytest.raises(ValueError, match="past has no row for 2024-12-31"):
            quick().fit(late, past=table)


@pytest.mark.parametrize("library", ["polars", "pyarrow"])
class TestColumns:
    def test_a_table_without_dates_keeps_its_names(self, library):
        table, _ = tables(library)
        table = table.drop(["day"]) if library == "pyarrow" else table.drop("day")
        found = quick().fit(table).predict(2)
        assert found.keys() == {"a", "b"}
        assert np.array_equal(found["b"], quick().fit(FRAME).predict(2)["b"])

    def test_time_zones_are_kept(self, library):
        module = pytest.importorskip(library)
        hours = pd.date_range("2024-03-20", periods=240, freq="h", tz="Europe/Berlin")
        given = pd.DataFrame({"time": hours, "a": waves()})
        if library == "pyarrow":
            table = module.Table.from_pandas(given)
        else:
            table = module.from_pandas(given)
        found = quick().fit(table).predict(2).index
        assert found.equals(pd.date_range(hours[-1], periods=3, freq="h")[1:])

    def test_columns_that_are_no_series_are_named(self, library):
        module = pytest.importorskip(library)
        make = module.table if library == "pyarrow" else module.DataFrame
        with pytest.raises(TypeError, match="'unique_id' holds text.*one column for each series"):
            quick().fit(make({"unique_id": ["x"] * 240, "y": waves()}))
        long = {"unique_id": [1] * 240, "ds": DAYS.to_numpy(), "y": waves()}
        with pytest.raises(TypeError, match="those of a long table.*one column for each series"):
            quick().fit(make(long))
        with pytest.raises(TypeError, match="those of a long table"):
            quick().fit(pd.DataFrame(long))
        with pytest.raises(TypeError, match="'ds' holds dates, not values. Convert it"):
            quick().fit(make({"ds": DAYS.strftime("%Y-%m-%d").tolist(), "y": waves()}))
        with pytest.raises(TypeError, match="'day' and 'end' both hold dates"):
            quick().fit(make({"day": DAYS.to_numpy(), "end": DAYS.to_numpy(), "y": waves()}))
        with pytest.raises(ValueError, match="no column of values"):
            quick().fit(make({"day": DAYS.to_numpy()}))

    def test_dates_are_checked(self, library):
        module = pytest.importorskip(library)
        make = module.table if library == "pyarrow" else module.DataFrame
        with pytest.raises(ValueError, match="dates are not in order"):
            quick().fit(make({"day": DAYS.to_numpy()[::-1].copy(), "y": waves()}))

    def test_a_single_column_without_a_table(self, library):
        module = pytest.importorskip(library)
        given = module.array(waves()) if library == "pyarrow" else module.Series(waves())
        assert np.array_equal(quick().fit(given).predict(2), quick().fit(waves()).predict(2))


def test_names_that_a_file_cannot_hold_are_refused_before_training():
    with pytest.raises(TypeError, match="a name must be text, a whole number or a tuple"):
        quick().fit(pd.DataFrame({DAYS[0]: waves(), DAYS[1]: waves(seed=1)}))


def test_names_of_groups_come_back_from_a_file(tmp_path):
    f = quick().fit({("north", 1): waves(), ("south", 2): waves(seed=1)})
    f.save(tmp_path / "f")
    assert rx.Forecaster.load(tmp_path / "f").predict().keys() == {("north", 1), ("south", 2)}


def test_a_lazy_table_is_to_be_collected():
    polars = pytest.importorskip("polars")
    with pytest.raises(TypeError, match=r"the table is lazy .* Give its collect\(\)"):
        quick().fit(polars.DataFrame(COLUMNS).lazy())


@pytest.mark.parametrize("lengths", [(240, 240), (240, 200)])
def test_a_list_of_series_is_not_read_as_a_list_of_rows(lengths):
    series = [waves(seed=k)[:length] for k, length in enumerate(lengths)]
    named = [Series(f"s{k}", each, None, "v", "", "", "0" * 64) for k, each in enumerate(series)]
    plain = [each.tolist() for each in series]
    for given in (series, [pd.Series(each) for each in series], plain, named):
        with pytest.raises(
            ValueError, match="a list of 2 series, the first with 240 values: a list"
        ):
            quick().fit(given)


def test_a_list_of_rows_is_a_table():
    expected = quick().fit(FRAME.to_numpy()).predict()
    for rows in (list(FRAME.to_numpy()), FRAME.to_numpy().tolist()):
        assert np.array_equal(quick().fit(rows).predict(), expected)
