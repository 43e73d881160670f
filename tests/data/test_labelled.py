"""Labelled sequences in folders and tables."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from rnn_xp.data.labelled import read_labelled

TABLE = "id,time,x,y,label\na,1,0.5,1,up\na,2,0.7,2,up\nb,1,0.4,3,down\na,3,0.9,4,up\n"


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


REFUSED = {
    "no id": ("seq,v\na,1\n", {}, "has no column 'id', only seq, v. id_column says"),
    "no such id": (TABLE, {"id_column": "who"}, r"no column 'who'. .*id_column='who' cannot"),
    "no such label": (TABLE, {"label_column": "z"}, "label_column='z' cannot be read"),
    "no header": ("1,2,3\n1,3,4\n", {}, "row 1 has no names of columns. Write id, time"),
    "no features": ("id,label\n1,up\n", {}, "has no column of features, only id, label"),
    "two labels": (
        TABLE.replace("a,2,0.7,2,up", "a,2,0.7,2,down"), {},
        r"row 3, column 'label': the label is 'down', but .* in row 2 is 'up'. A sequence has",
    ),
    "no label": (TABLE.replace("2,up", "2,"), {}, "row 3, column .label.: the label is missi"),
    "no name": (TABLE.replace("\nb,", "\n,"), {}, "row 4, column 'id': the name of the sequ"),
    "time": (
        TABLE.replace("a,3", "a,2"), {},
        "row 5, column 'time': 2 does not come after 2 of row 3, of the same sequence 'a'. So",
    ),
    "no time": (TABLE.replace("a,2", "a,soon"), {}, "row 3, column 'time': 'soon' is neith"),
    "a word": (TABLE.replace("0.7", "high"), {}, "row 3, column 'x': 'high' is not a number"),
    "infinite": (TABLE.replace("0.7", "inf"), {}, "row 3, column 'x': 'inf' is infinite"),
    "cells": (TABLE.replace("b,1,", "b,"), {}, "row 4 has 4 cells where most rows have 5"),
    "empty": ("", {}, "t.csv is empty"),
}  # fmt: skip


class TestTables:
    def test_rows_of_a_sequence_need_not_be_together(self, tmp_path):
        data = read_labelled(write(tmp_path / "steps.csv", TABLE))
        assert (data.name, data.names, data.labels) == ("steps", ("a", "b"), ("up", "down"))
        assert data.features == ("x", "y")
        assert data.sequences[0].tolist() == [[0.5, 1], [0.7, 2], [0.9, 4]]
        assert data.sequences[1].tolist() == [[0.4, 3]]
        assert data.sha256 == hashlib.sha256(TABLE.encode()).hexdigest()

    def test_columns_of_other_names_semicolons_and_dates(self, tmp_path):
        text = "who;when;v;what\n7;2024-01-31;1.5;A\n7;2024-02-01;2.5;A\n8;2024-01-01;3;B\n"
        path = write(tmp_path / "t.csv", text)
        data = read_labelled(path, id_column="who", time_column="when", label_column="what")
        assert (data.names, data.labels, data.features) == (("7", "8"), ("A", "B"), ("v",))

    def test_without_times_and_labels(self, tmp_path):
        data = read_labelled(write(tmp_path / "t.csv", "id,v\na,1\na,2\nb,3\n"))
        assert data.labels is None
        assert [row.tolist() for row in data.sequences] == [[[1], [2]], [[3]]]

    def test_missing_values(self, tmp_path):
        path = write(tmp_path / "t.csv", "id,v\na,1\na,\na,4\nb,3\n")
        with pytest.raises(ValueError, match=r"t.csv: row 3, column 'v' is missing .*'drop'"):
            read_labelled(path)
        assert read_labelled(path, missing="drop").sequences[0].tolist() == [[1], [4]]
        filled = read_labelled(path, missing="interpolate").sequences[0]
        assert filled.tolist() == [[1], [2.5], [4]]

    @pytest.mark.parametrize("case", REFUSED)
    def test_what_cannot_be_read_is_named_by_its_row(self, case, tmp_path):
        text, given, message = REFUSED[case]
        with pytest.raises(ValueError, match=message):
            read_labelled(write(tmp_path / "t.csv", text), **given)


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "moves"
    write(made / "left" / "b.csv", "time,x,y\n1,1,2\n2,3,4\n")
    write(made / "left" / "a.csv", "time,x,y\n1,5,6\n")
    write(made / "right" / "c.csv", "time,x,y\n1,7,8\n2,9,10\n3,11,12\n")
    write(made / ".hidden" / "d.csv", "no")
    return made


class TestFolders:
    def test_a_folder_is_a_class_and_a_file_a_sequence(self, folder):
        data = read_labelled(folder)
        assert data.name == "moves"
        assert data.names == ("left/a.csv", "left/b.csv", "right/c.csv")
        assert data.labels == ("left", "left", "right")
        assert data.features == ("x", "y")
        assert data.sequences[1].tolist() == [[1, 2], [3, 4]]

    def test_files_alone_have_no_labels(self, folder):
        data = read_labelled(folder / "left")
        assert (data.names, data.labels) == (("a.csv", "b.csv"), None)

    def test_files_without_a_header(self, tmp_path):
        write(tmp_path / "f" / "a" / "1.csv", "1\n2\n3\n")
        write(tmp_path / "f" / "b" / "1.csv", "4\n5\n")
        data = read_labelled(tmp_path / "f")
        assert data.features == ("0",)
        assert data.sequences[0].tolist() == [[1], [2], [3]]

    def test_the_digest_is_of_names_and_contents(self, folder):
        first = read_labelled(folder).sha256
        (folder / "left" / "a.csv").rename(folder / "left" / "aa.csv")
        second = read_labelled(folder).sha256
        write(folder / "left" / "aa.csv", "time,x,y\n1,5,7\n")
        assert len({first, second, read_labelled(folder).sha256}) == 3

    def test_missing_values(self, folder):
        write(folder / "left" / "a.csv", "time,x,y\n1,5,6\n2,,7\n3,7,8\n")
        with pytest.raises(ValueError, match=r"left/a.csv: row 3, column 'x' is missing"):
            read_labelled(folder)
        filled = read_labelled(folder, missing="interpolate").sequences[0]
        np.testing.assert_array_equal(filled, [[5, 6], [6, 7], [7, 8]])

    def test_what_cannot_be_read_is_named(self, folder):
        write(folder / "right" / "c.csv", "time,x,z\n1,7,8\n")
        with pytest.raises(ValueError, match=r"right/c.csv has the columns x, z, but left/a.csv h"):
            read_labelled(folder)
        write(folder / "right" / "c.csv", "time,x,y\n2,7,8\n1,7,8\n")
        with pytest.raises(ValueError, match=r"right/c.csv: row 3, column 'time': 1 does not come"):
            read_labelled(folder)
        write(folder / "right" / "c.csv", "time\n1\n2\n")
        with pytest.raises(ValueError, match=r"right/c.csv has no column of features, only times"):
            read_labelled(folder)
        (folder / "right" / "c.csv").unlink()
        with pytest.raises(ValueError, match=r"right has no .csv file, but a folder in .* is a cl"):
            read_labelled(folder)
        write(folder / "loose.csv", "1\n")
        with pytest.raises(ValueError, match=r"both folders, .* and files such as loose.csv"):
            read_labelled(folder)

    def test_options_that_have_no_meaning(self, folder, tmp_path):
        with pytest.raises(ValueError, match="label_column='l' is for a table, but this is a fold"):
            read_labelled(folder, label_column="l")
        path = write(tmp_path / "x.ts", "@data\n1\n")
        with pytest.raises(ValueError, match="time_column='t' is for a table, but this is a .ts"):
            read_labelled(path, time_column="t")
        with pytest.raises(ValueError, match="missing='fill' is not known. Valid: error, drop, in"):
            read_labelled(path, missing="fill")

    def test_nothing_there(self, tmp_path):
        with pytest.raises(ValueError, match="there is no file or folder '.*nowhere'"):
            read_labelled(tmp_path / "nowhere")
        (tmp_path / "empty").mkdir()
        with pytest.raises(ValueError, match=r"empty has no .csv file: a folder of sequences has"):
            read_labelled(tmp_path / "empty")


def test_ts_files_are_known_by_their_name(tmp_path):
    data = read_labelled(write(tmp_path / "w.ts", "@classLabel true a b\n@data\n1,2:a\n3:b\n"))
    assert (data.name, data.labels, data.names) == ("w", ("a", "b"), ("line 3", "line 4"))
