#!/usr/bin/env bash
# sktime 1.2.0, pandas 2.3.3
#
# Expected: a long table with the index (instance, time) whose rows come time by time, as a logger
# or a query writes them, is either refused as a panel or turned into the same series as the same
# rows sorted by instance.
#
# Seen: the format check calls the table a valid "pd-multiindex" panel and conversion to "df-list"
# separates the instances rightly, but conversion to "numpy3D" only cuts the column into equal
# pieces: each "series" of the array is a mixture of the instances. Nothing is said.
#
# Why it matters: numpy3D (instance, channel, time) is what classifiers and recurrent nets take.
# Shape, dtype and number of labels fit, so the net trains on mixed series under wrong labels.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --no-compile sktime==1.2.0 pandas==2.3.3 numpy==2.3.5

"$work/venv/bin/python" -W error::UserWarning - <<'PY'
import numpy as np
import pandas as pd
from sktime.datatypes import check_is_mtype, convert_to

rows = [(name, step) for step in range(3) for name in ("a", "b")]
index = pd.MultiIndex.from_tuples(rows, names=["sensor", "step"])
values = [{"a": 10.0, "b": 20.0}[name] + step for name, step in rows]
by_time = pd.DataFrame({"x": values}, index=index)
by_instance = by_time.sort_index()

true = [[10, 11, 12], [20, 21, 22]]
assert convert_to(by_instance, "numpy3D")[:, 0].tolist() == true

valid, message, facts = check_is_mtype(by_time, "pd-multiindex", "Panel", return_metadata=True)
assert valid and message == "" and facts["n_instances"] == 2 and facts["is_equal_length"]
assert [frame["x"].tolist() for frame in convert_to(by_time, "df-list")] == true
mixed = convert_to(by_time, "numpy3D")
assert mixed.shape == (2, 1, 3)
assert mixed[:, 0].tolist() == [[10, 20, 11], [21, 12, 22]], mixed
assert np.array_equal(np.sort(mixed, axis=None), np.sort(np.array(true), axis=None))
print("numpy3D of the interleaved panel:", mixed[:, 0].tolist(), "instead of", true)
PY
