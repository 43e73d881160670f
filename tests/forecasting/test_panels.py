"""Panels as people hold them: long tables, and a table of what does not change of each series."""

from __future__ import annotations

import numpy as np
import pytest
from forecasters import quick, waves

import rnn_xp as rx
from rnn_xp.forecasting.static import read_static

pd = pytest.importorskip("pandas")

DAYS = pd.date_range("2024-01-01", periods=120)
SHOPS = {"b": waves(120), "a": 5.0 + waves(120, seed=1)}


def long_table(seed=None):
    """One shop below the other, or all rows in any order."""
    rows = [
        {"shop": name, "day": day, "sold": sold, "rain": 0.1 * k, "city": "x"}
        for name, values in SHOPS.items()
        for k, (day, sold) in enumerate(zip(DAYS, values, strict=True))
    ]
    frame = pd.DataFrame(rows)
    return frame if seed is None else frame.sample(frac=1.0, random_state=seed)


class TestLong:
    @pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow", "dict"])
    @pytest.mark.parametrize("seed", [None, 3])
    def test_the_forecasts_are_those_of_a_mapping_of_series(self, library, seed):
        frame = long_table(seed)
        if library == "dict":
            frame = {name: frame[name].to_list() for name in frame}
        elif library == "polars":
            frame = pytest.importorskip("polars").DataFrame(
                {name: frame[name].to_numpy() for name in frame}
            )
        elif library == "pyarrow":
            frame = pytest.importorskip("pyarrow").table(
                {name: frame[name].to_numpy() for name in frame}
            )
        series = rx.from_long(frame, id="shop", time="day", value="sold")
        expected = {name: pd.Series(values, index=DAYS) for name, values in SHOPS.items()}
        assert set(series) == {"a", "b"}
        found, wanted = (quick().fit(given).predict(3) for given in (series, expected))
        for name in SHOPS:
            np.testing.assert_allclose(found[name], wanted[name], rtol=1e-4)
            assert found[name].index.equals(wanted[name].index)

    def test_columns_become_features(self):
        series, past = (
            rx.from_long(long_table(), id="shop", time="day", value=value)
            for value in ("sold", ["rain"])
        )
        f = quick().fit(series, past=past)
        assert f.fitted.panel.features[0] == ("rain",)
        assert f.fitted.designs[0].past.shape[1] == 1

    def test_several_columns_name_a_series(self):
        series = rx.from_long(long_table(), id=["city", "shop"], time=None, value="sold")
        assert list(series) == [("x", "b"), ("x", "a")]
        assert quick().fit(series).predict(2).keys() == {("x", "b"), ("x", "a")}

    def test_lengths_may_differ(self):
        frame = long_table().iloc[:-30]
        lengths = [len(s) for s in rx.from_long(frame, "shop", "day", "sold").values()]
        assert lengths == [120, 90]

    def test_what_cannot_be_taken_is_named(self):
        with pytest.raises(ValueError, match="the table has no column 'store'; it has shop, day"):
            rx.from_long(long_table(), id="store", time="day", value="sold")
        frame = long_table()
        frame.loc[7, "shop"] = None
        with pytest.raises(ValueError, match="row 7 has no name in shop"):
            rx.from_long(frame, id="shop", time="day", value="sold")
        twice = pd.concat([long_table(), long_table().iloc[:1]])
        with pytest.raises(ValueError, match="duplicate dates: 2024-01-01"):
            quick().fit(rx.from_long(twice, id="shop", time="day", value="sold"))
        with pytest.raises(TypeError, match="'shop' holds text.*rnn_xp.from_long"):
            quick().fit(long_table()[["shop", "sold"]])


def maps(rows=160, seed=0):
    """Six chaotic series of two kinds: what follows a value in one kind is minus that in the other.

    Neither their mean nor their spread tells them apart.
    """
    rng, panel = np.random.default_rng(seed), {}
    for k in range(6):
        z = [rng.uniform(-0.5, 0.5)]
        for _ in range(rows - 1):
            z.append((0.98 if k % 2 else -0.98) * (2.0 * z[-1] ** 2 - 1.0))
        panel[f"s{k}"] = np.asarray(z)
    return panel


KINDS = {f"s{k}": float(k % 2) for k in range(6)}


class TestStatic:
    def test_they_tell_series_apart(self):
        without, with_them = (
            quick(hidden_size=8, epochs=60, seq_length=1).backtest(maps(), static=static)
            for static in (None, KINDS)
        )
        assert with_them.metrics["rmse"] < 0.2 * without.metrics["rmse"]

    def test_numbers_are_standardised_and_words_become_columns(self):
        rows = read_static({"a": [1.0, "north"], "b": [3.0, "south"], "c": [5.0, "north"]}, "abc")
        table = np.stack(rows)
        assert table.shape == (3, 3)
        np.testing.assert_allclose(table.mean(axis=0), 0.0, atol=1e-12)
        np.testing.assert_allclose(table.std(axis=0), 1.0)
        assert table[0, 1] == table[2, 1] != table[1, 1]
        frame = pd.DataFrame({"n": [5.0, 1.0, 3.0], "w": ["north", "north", "south"]}, list("cab"))
        np.testing.assert_allclose(np.stack(read_static(frame, "abc")), table)
        plain = read_static([[1.0, "north"], [3.0, "south"], [5.0, "north"]], "abc")
        np.testing.assert_allclose(np.stack(plain), table)

    def test_forecasts_go_on_beyond_the_horizon_and_from_a_file(self, tmp_path):
        panel = maps()
        f = quick(horizon=2).fit(panel, static=KINDS)
        found = f.predict(5)
        f.save(tmp_path / "f")
        again = rx.Forecaster.load(tmp_path / "f")
        for name, values in panel.items():
            np.testing.assert_allclose(again.predict(5)[name], found[name], rtol=1e-6)
            longer = f.apply({n: np.append(v, found[n][:3]) for n, v in panel.items()})
            np.testing.assert_allclose(longer.predict(2)[name][1], found[name][4], rtol=1e-4)
            assert len(values) == 160
        assert again.apply(panel).fitted.panel.statics == 1

    def test_training_starts_from_the_linear_path_of_the_values(self):
        panel = maps()
        with_static, without = (
            quick(epochs=1, refit=False).fit(panel, static=static).history_[0]["loss"][0]
            for static in (KINDS, None)
        )
        assert with_static == pytest.approx(without, rel=1e-4)

    def test_beside_other_features(self):
        panel = maps()
        past = {name: waves(160, seed=k)[:, None] for k, name in enumerate(panel)}
        future = {name: waves(160, seed=9 + k)[:, None] for k, name in enumerate(panel)}
        f = quick(horizon=2).fit(panel, past=past, future=future, static=KINDS)
        ahead = {name: np.zeros((2, 1)) for name in panel}
        assert np.isfinite(f.predict(future=ahead)["s1"]).all()
        assert f.fitted.designs[0].scaler.offset[2] == 0.0
        assert f.fitted.designs[0].scaler.scale[2] == 1.0
        with pytest.raises(ValueError, match="past features are not known beyond the series"):
            f.predict(3, future={name: np.zeros((3, 1)) for name in panel})
        result = quick(horizon=2, epochs=2).backtest(
            panel, 120, past=past, future=future, static=KINDS, retrain=20
        )
        assert np.isfinite(result.metrics["rmse"])

    def test_bad_tables_are_named(self):
        panel = maps()
        for static, words in (
            ({"s0": 1.0}, "static has no row for 's1'; its rows are s0"),
            ({**KINDS, "x": 1.0}, "static has a row 'x', but there is no such series"),
            ([1.0, 2.0], "static must have 6 rows, one for each series, got 2"),
            ([2.0] * 6, "static tells no series from another"),
            ([[1.0]] * 5 + [[1.0, 2.0]], "static must have as many values for every series"),
            (
                [1.0, 2.0, np.nan, 4.0, 5.0, 6.0],
                "a value is missing or infinite, row 2 of column 0",
            ),
        ):
            with pytest.raises(ValueError, match=words):
                quick().fit(panel, static=static)
        with pytest.raises(TypeError, match="column 0 must hold numbers or text"):
            quick().fit(panel, static=[[None], [1j], [2], [3], [4], [5]])
        f = quick().fit(panel, static=KINDS)
        others = {f"t{k}": values for k, values in enumerate(panel.values())}
        with pytest.raises(ValueError, match="of others none are known: the series must have the"):
            f.apply(others)
        with pytest.raises(ValueError, match="knows static values of its series is not exported"):
            f.to_onnx(series="s0")
