#!/usr/bin/env bash
# duckdb 2.0.1, polars 2.1.0, pandas 3.0.6
#
# Expected: both duckdb's time_bucket and polars' truncate put time stamps into two-week bins that
# start on a Monday at a fixed origin, whatever the data. One week is the same in both, so two
# weeks are too.
#
# Seen: the origins are an odd number of weeks apart. Every fortnight of one straddles two of the
# other: sums and means per bin differ everywhere, though all bins start on Mondays and are as
# many. pandas' "2W" has no fixed origin at all: without the first week of data the bins shift.
#
# Why it matters: a net trained on fortnightly values resampled in the database is fed others when
# a service resamples the same records in a data frame; nothing in dates or counts looks odd.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --no-compile duckdb==2.0.1 polars==2.1.0 pandas==3.0.6 numpy==2.3.5

"$work/venv/bin/python" -W error::UserWarning - <<'PY'
from datetime import date, timedelta

import duckdb
import pandas as pd
import polars as pl

days = [date(2026, 1, 5) + timedelta(days=k) for k in range(140)]
frame = pl.DataFrame({"day": days, "x": [float(k) for k in range(140)]})


def in_polars(every):
    bins = frame.group_by(pl.col("day").dt.truncate(every).alias("bin"), maintain_order=True)
    return dict(bins.agg(pl.col("x").mean()).rows())


def in_duckdb(weeks):
    rows = list(zip(days, frame["x"].to_list()))
    with duckdb.connect() as base:
        base.execute("create table t (day date, x double)")
        base.executemany("insert into t values (?, ?)", rows)
        query = f"select time_bucket(interval '{weeks} weeks', day), avg(x) from t group by 1"
        return dict(sorted(base.execute(query).fetchall()))


def as_dates(bins):
    return {date(key.year, key.month, key.day): value for key, value in bins.items()}


one = as_dates(in_polars("1w")), as_dates(in_duckdb(1))
assert one[0] == one[1]
two = as_dates(in_polars("2w")), as_dates(in_duckdb(2))
assert all(key.weekday() == 0 for bins in two for key in bins)
assert not set(two[0]) & set(two[1]), two
assert not set(two[0].values()) & set(two[1].values()), two
assert {key + timedelta(days=7) for key in two[1]} >= set(two[0]) - {min(two[0])}

series = pd.Series(range(140), index=pd.to_datetime(days))
full, later = series.resample("2W").mean(), series.iloc[7:].resample("2W").mean()
assert not set(full.index) & set(later.index)
print("first whole fortnight: polars", sorted(two[0])[1], "duckdb", sorted(two[1])[1])
PY
