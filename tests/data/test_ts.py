"""The ``.ts`` format: what is read, and each thing that cannot be."""

from __future__ import annotations

import re

import numpy as np
import pytest

from rnn_xp.data.gaps import filled
from rnn_xp.data.ts import read_ts

HEAD = "# of tests\n@problemName Waves\n@timeStamps false\n@classLabel true up down\n"


def read(text, missing="error"):
    return read_ts(text.encode(), "waves.ts", missing)


def test_sequences_of_unequal_length_and_several_features():
    content = read(HEAD + "@univariate false\n@dimensions 2\n@equalLength false\n@data\n"
                   "1,2,3:-1,-2,-3:up\n\n# between\n 4.5 , 5e-1 : 0,1 : down \n")  # fmt: skip
    assert content.labels == ("up", "down")
    assert content.names == ("line 9", "line 12")
    assert content.features == ("0", "1")
    assert content.sequences[0].tolist() == [[1, -1], [2, -2], [3, -3]]
    assert content.sequences[1].tolist() == [[4.5, 0], [0.5, 1]]


def test_keys_in_any_case_windows_lines_and_a_mark_at_the_front():
    text = "\ufeff@PROBLEMNAME x\r\n@UniVariate TRUE\r\n@CLASSLABEL True a b\r\n@DATA\r\n1,2:a\r\n"
    assert read(text).labels == ("a",)


def test_sequences_without_labels():
    content = read("@classLabel false\n@data\n1,2\n3\n")
    assert content.labels is None
    assert [len(row) for row in content.sequences] == [2, 1]


def test_what_all_features_lack_at_the_end_is_no_step():
    content = read("@classLabel true a\n@dimensions 2\n@data\n1,2,?,NaN:3,4,?,?:a\n")
    assert content.sequences[0].tolist() == [[1, 3], [2, 4]]


def test_gaps_are_dropped_or_filled():
    text = HEAD + "@missing true\n@data\n1,?,3,5:up\n"
    assert read(text, "drop").sequences[0][:, 0].tolist() == [1, 3, 5]
    assert read(text, "interpolate").sequences[0][:, 0].tolist() == [1, 2, 3, 5]
    with pytest.raises(ValueError, match="waves.ts: line 7, step 1: a value is missing. Pass mis"):
        read(text)
    both = HEAD + "@dimensions 2\n@data\n1,?,3:?,2,2:up\n"
    assert read(both, "drop").sequences[0].tolist() == [[3, 2]]
    with pytest.raises(ValueError, match="line 7, step 0: .* at an end .*cannot be interpolated"):
        read(both, "interpolate")


def test_each_feature_is_filled_by_itself():
    row = np.array([[0.0, 5.0], [np.nan, 6.0], [np.nan, np.nan], [6.0, 8.0]])
    assert filled(row, "interpolate", str).tolist() == [[0, 5], [2, 6], [4, 7], [6, 8]]
    assert filled(row[:1], "error", str) is not None


REFUSED = {
    "no header": ("1,2,3:up\n", "line 1 comes before @data, but does not start with @ or #"),
    "no data": (HEAD, "waves.ts has no line @data"),
    "no sequence": (HEAD + "@data\n\n", "waves.ts has no sequence below @data"),
    "a key that is not known": ("@frequency 3\n", "line 1: @frequency is not known. Valid: class"),
    "a key twice": ("@missing true\n@missing false\n", "line 2: @missing is there twice"),
    "a flag": ("@missing maybe\n", "line 1: @missing must be true or false, got 'maybe'"),
    "a flag without a value": ("@univariate\n", "@univariate must be true or false, got ''"),
    "a number": ("@dimensions two\n", "@dimensions must be a whole number >= 1, got 'two'"),
    "none": ("@seriesLength 0\n", "@serieslength must be a whole number >= 1, got '0'"),
    "time stamps": ("@timeStamps true\n", "line 1: sequences with time stamps are not read. Write"),
    "targets": ("@targetLabel true\n", "the targets are numbers, but classes are needed"),
    "no labels": ("@classLabel true\n", "@classLabel true must be followed by different labels"),
    "equal labels": ("@classLabel true a a\n", "must be followed by different labels"),
    "a label": (HEAD + "@data\n1,2:up\n1,2:left\n", "line 7: the label 'left' is none of the"),
    "a missing label": (HEAD + "@univariate true\n@data\n1,2\n", "line 7: the label '1,2' is none"),
    "a word": (HEAD + "@data\n1,x,3:up\n", "line 6: value 1 is 'x', which is no number"),
    "an empty value": (HEAD + "@data\n1,,3:up\n", "line 6: value 1 is '', which is no number"),
    "infinite": (HEAD + "@data\n1,inf:up\n", "line 6: value 1 is infinite"),
    "features": (HEAD + "@dimensions 2\n@data\n1,2:up\n", "line 7 has 1 features, but 2 are exp"),
    "more features": (HEAD + "@data\n1:up\n1:2:up\n", "line 7 has 2 features, but 1 are expected"),
    "unequal features": (HEAD + "@data\n1,2:3:up\n", "line 6: the features have 1 and 2 values"),
    "steps": (
        HEAD + "@equalLength true\n@seriesLength 3\n@data\n1,2:up\n",
        "line 8 has 2 steps, but all sequences have 3 by the header (@equalLength true)",
    ),
    "unequal steps": (HEAD + "@equalLength true\n@data\n1,2:up\n1:up\n", "line 8 has 1 steps, but"),
    "nothing but gaps": (HEAD + "@data\n?,?:up\n", "line 6 has no value. Leave the sequence out"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_as_it_should_be_is_named_by_its_line(case):
    text, message = REFUSED[case]
    with pytest.raises(ValueError, match=re.escape(message)):
        read(text, "drop")


def test_bytes_that_are_no_text():
    with pytest.raises(ValueError, match="waves.ts: line 2 is not UTF-8 text"):
        read_ts(b"# x\n\xff\n", "waves.ts")


def test_a_thousand_mutations_are_read_or_refused_in_words():
    rng = np.random.default_rng(0)
    told, good = [], (HEAD + "@univariate true\n@data\n1,2,3:up\n-4,5e3,.5:down\n").encode()
    for _ in range(1000):
        data = bytearray(good)
        for _ in range(rng.integers(1, 4)):
            data[rng.integers(len(data))] = rng.integers(256)
        try:
            content = read_ts(bytes(data), "waves.ts", "drop")
        except ValueError as error:
            told.append(str(error))
            continue
        assert all(np.isfinite(row).all() and len(row) for row in content.sequences)
        assert content.labels is None or len(content.labels) == len(content.sequences)
    assert len(told) > 300
    assert all(text.startswith("waves.ts") for text in told)
