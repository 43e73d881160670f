"""Bundled series, the CSV reader, and the script that builds the files."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
from pathlib import Path

import numpy as np
import pytest

from rnn_xp.data import datasets
from rnn_xp.data.datasets import CATALOGUE, load, names, read_csv


class TestLoad:
    def test_names(self):
        assert names() == ["length_of_day", "wti"]

    def test_length_of_day(self):
        series = load("length_of_day")
        assert series.values.shape == (10409,)
        assert series.values.dtype == np.float64
        assert (series.dates[0], series.dates[-1]) == ("1997-07-03", "2025-12-31")
        assert len(series.dates) == 10409
        assert (series.unit, series.column) == ("ms", "lod_ms")
        train, test = series.values[:8327], series.values[8327:]
        assert (train.min(), train.max()) == (-1.0516, 2.6864)
        assert f"{(train < 0).mean():.0%} {(test < 0).mean():.0%}" == "9% 60%"
        assert "U.S. Naval Observatory" in series.source

    def test_length_of_day_has_no_gap(self):
        days = np.asarray(load("length_of_day").dates, dtype="datetime64[D]")
        assert np.all(np.diff(days) == np.timedelta64(1, "D"))

    def test_wti(self):
        series = load("wti")
        assert series.values.shape == (8321,)
        assert (series.dates[0], series.dates[-1]) == ("1986-01-02", "2019-01-03")
        assert (series.unit, series.column) == ("USD/barrel", "price_usd")
        train = series.values[:6656]
        assert (train.min(), train.max()) == (10.25, 145.31)
        assert (series.values[0], series.values[-1]) == (25.56, 46.92)
        assert "U.S. Energy Information Administration" in series.source

    @pytest.mark.parametrize("name", names())
    def test_digest_of_the_text(self, name):
        packed = (Path(datasets.__file__).parent / "bundled" / f"{name}.csv.gz").read_bytes()
        digest = hashlib.sha256(gzip.decompress(packed)).hexdigest()
        assert digest == CATALOGUE[name].sha256 == load(name).sha256
        assert digest[:8] == {"length_of_day": "eb1993d5", "wti": "d81e4c0b"}[name]

    @pytest.mark.parametrize("name", names())
    def test_licence_page_has_the_same_facts(self, name):
        page = (Path(__file__).parents[2] / "DATA_LICENSES.md").read_text(encoding="utf-8")
        assert CATALOGUE[name].sha256 in page
        assert CATALOGUE[name].source in page
        assert f"{len(load(name).values):,}" in page

    def test_unknown_name(self):
        message = r"there is no dataset 'gold'\. Valid: length_of_day, wti\."
        with pytest.raises(ValueError, match=message):
            load("gold")

    def test_changed_digit(self, tmp_path, monkeypatch):
        packed = (datasets._FOLDER / "wti.csv.gz").read_bytes()
        text = gzip.decompress(packed).replace(b"25.56", b"25.57", 1)
        (tmp_path / "wti.csv.gz").write_bytes(gzip.compress(text))
        monkeypatch.setattr(datasets, "_FOLDER", tmp_path)
        with pytest.raises(ValueError, match=r"wti\.csv\.gz is damaged: its text has sha256"):
            load("wti")

    def test_cut_off_file(self, tmp_path, monkeypatch):
        packed = (datasets._FOLDER / "wti.csv.gz").read_bytes()
        (tmp_path / "wti.csv.gz").write_bytes(packed[:1000])
        monkeypatch.setattr(datasets, "_FOLDER", tmp_path)
        with pytest.raises(ValueError, match=r"wti\.csv\.gz is a damaged gzip file"):
            load("wti")

    def test_cannot_be_changed(self):
        series = load("wti")
        with pytest.raises(ValueError, match="read-only"):
            series.values[0] = 0.0
        with pytest.raises(dataclasses.FrozenInstanceError):
            series.unit = "EUR"
        with pytest.raises(TypeError):
            CATALOGUE["mine"] = CATALOGUE["wti"]


class TestLayout:
    def test_dates_and_values(self, read):
        text = "day,level\n2024-01-01,1.5\n2024-01-02,-2e-1\n"
        series = read(text, file="tide.csv")
        assert series.values.tolist() == [1.5, -0.2]
        assert series.dates == ("2024-01-01", "2024-01-02")
        assert (series.name, series.column, series.unit, series.source) == (
            "tide",
            "level",
            "",
            "tide.csv",
        )
        assert series.sha256 == hashlib.sha256(text.encode()).hexdigest()

    @pytest.mark.parametrize(
        ("text", "column"),
        [
            ("level\n1\n2\n3\n", "level"),
            ("1\n2\n3\n", "0"),
            ("2024-01-01,1\n2024-01-02,2\n2024-01-03,3\n", "1"),
            ("day;level\n1 Jan;1\n2 Jan;2\n3 Jan;3\n", "level"),
            ("day\tlevel\n1 Jan\t1\n2 Jan\t2\n3 Jan\t3", "level"),
            ("day, level\r\n1 Jan, 1\r\n2 Jan, 2\r\n3 Jan, 3\r\n", "level"),
            ("\ufefflevel\n1\n2\n3\n", "level"),
            ("level\r1\r2\r3\r", "level"),
            ('"level, m","note"\n"1","a;b"\n"2","c;d"\n"3",""\n', "level, m"),
            ("price; USD\n1\n2\n3\n", "price; USD"),
            ("\n\nlevel\n1\n2\n3\n\n\n", "level"),
            ("day,level\n\n1 Jan,1\n\n2 Jan,2\n3 Jan,3\n", "level"),
            ("place,level\nOslo,1\nOslo,2\nOslo,3\n", "level"),
        ],
        ids=[
            "one column",
            "no header",
            "no header, dates",
            "semicolons",
            "tabs, no last newline",
            "CRLF, blanks",
            "BOM",
            "CR",
            "quotes",
            "separator in the header only",
            "empty lines around",
            "empty lines between",
            "text column",
        ],
    )
    def test_values_and_column(self, read, text, column):
        series = read(text)
        assert series.values.tolist() == [1, 2, 3]
        assert series.column == column
        assert read(text, column=column).values.tolist() == [1, 2, 3]

    def test_gzip_under_any_name(self, read):
        packed = gzip.compress(b"level\n1\n2\n")
        for file in ("tide.csv.gz", "tide.csv"):
            series = read(packed, file=file)
            assert series.values.tolist() == [1, 2]
            assert series.name == "tide"
            assert series.sha256 == hashlib.sha256(b"level\n1\n2\n").hexdigest()

    def test_path_as_text(self, read, tmp_path):
        read("1\n2\n")
        assert read_csv(str(tmp_path / "mine.csv")).values.tolist() == [1, 2]

    def test_single_value(self, read):
        assert read("5\n").values.tolist() == [5]

    def test_first_row_with_a_gap_is_not_a_header(self, read):
        series = read("2024-01-01,NA\n2024-01-02,1\n2024-01-03,2\n", missing="drop")
        assert series.values.tolist() == [1, 2]
        assert series.dates == ("2024-01-02", "2024-01-03")

    def test_header_that_is_a_number_above_values(self, read):
        assert read("day,2024\n1 Jan,1\n2 Jan,2\n").column == "2024"

    def test_no_dates(self, read):
        assert read("place,level\nOslo,1\nOslo,2\n").dates is None

    def test_dates_behind_the_values(self, read):
        assert read("level,day\n1,2024-01-01\n2,2024-01-02\n").dates[1] == "2024-01-02"


class TestColumns:
    TEXT = "day,open,close,year\n1 Jan,1,10,2001\n2 Jan,2,20,2002\n"

    @pytest.mark.parametrize("column", ["close", 2, "2"])
    def test_by_name_or_index(self, read, column):
        series = read(self.TEXT, column=column)
        assert series.values.tolist() == [10, 20]
        assert series.column == "close"
        assert series.dates == ("1 Jan", "2 Jan")

    def test_date_column(self, read):
        assert read(self.TEXT, column="open", date_column="year").dates == ("2001", "2002")

    def test_date_column_of_numbers_is_not_a_column_of_values(self, read):
        assert read("year,spots\n1749,80.9\n1750,83.4\n", date_column=0).values[1] == 83.4

    def test_name_before_index(self, read):
        assert read("day,0\n1 Jan,5\n2 Jan,6\n", column="0").values.tolist() == [5, 6]

    def test_several_columns(self, read):
        message = r"several columns of numbers: 'open', 'close', 'year'\. Say which"
        with pytest.raises(ValueError, match=message):
            read(self.TEXT)

    def test_several_columns_without_header(self, read):
        with pytest.raises(ValueError, match=r"several columns of numbers: 0, 1\. Say which"):
            read("1,2\n3,4\n")

    @pytest.mark.parametrize("column", ["Close", 4, -1, "9"])
    def test_unknown_column(self, read, column):
        message = rf"no column {column!r}\. Valid: 'day', 'open', 'close', 'year', or an index"
        with pytest.raises(ValueError, match=message):
            read(self.TEXT, column=column)
        with pytest.raises(ValueError, match=message):
            read(self.TEXT, column="open", date_column=column)

    def test_name_without_header(self, read):
        message = r"no column 'level'\. Valid: 0, 1 \(the file has no header\)"
        with pytest.raises(ValueError, match=message):
            read("1,2\n3,4\n", column="level")

    def test_doubled_name(self, read):
        with pytest.raises(ValueError, match=r"several columns 'a'\. Give an index"):
            read("a,a\n1,2\n", column="a")

    @pytest.mark.parametrize("column", [True, 1.0, ["open"]])
    def test_neither_name_nor_index(self, read, column):
        with pytest.raises(TypeError, match="given by its name or index, got"):
            read(self.TEXT, column=column)

    def test_same_column_twice(self, read):
        with pytest.raises(ValueError, match="'open' cannot be both values and dates"):
            read(self.TEXT, column="open", date_column=1)

    def test_no_numbers(self, read):
        message = r"no column of numbers; row 2 is \['1 Jan', '1,5'\]\. .*decimals written with a"
        with pytest.raises(ValueError, match=message):
            read("day;level\n1 Jan;1,5\n2 Jan;2,5\n")


class TestCells:
    @pytest.mark.parametrize("cell", ["abc", "1_000", "0x10", "1 2", "--1", "Infinite"])
    def test_junk_names_row_and_column(self, read, cell):
        message = rf"mine\.csv: row 3, column 'level': '{cell}' is not a number\."
        for missing in ("error", "drop", "interpolate"):
            with pytest.raises(ValueError, match=message):
                read(f"day,level\n1 Jan,1\n2 Jan,{cell}\n3 Jan,4\n", missing=missing)

    def test_junk_without_header(self, read):
        with pytest.raises(ValueError, match="row 2, column 1: 'x' is not a number"):
            read("1 Jan,1\n2 Jan,x\n3 Jan,4\n")

    def test_junk_in_a_file_of_one_column(self, read):
        with pytest.raises(ValueError, match="row 2, column 0: 'x' is not a number"):
            read("1\nx\n")

    def test_decimal_comma(self, read):
        with pytest.raises(ValueError, match=r"row 2.*'1,5' is not a number\. Write decimals with"):
            read("day;level\n1 Jan;1,5\n2 Jan;2,5\n", column="level")

    @pytest.mark.parametrize("cell", ["inf", "-Infinity", "1e999"])
    def test_infinite(self, read, cell):
        for missing in ("error", "drop", "interpolate"):
            with pytest.raises(ValueError, match=f"row 2, column 'level': '{cell}' is infinite"):
                read(f"level\n{cell}\n1\n", missing=missing)

    @pytest.mark.parametrize("cell", ["", "NA", "NaN", "nan", "null", "NULL", ".", " "])
    def test_missing_names_row_and_column(self, read, cell):
        message = rf"row 3, column 'level' is missing \('{cell.strip()}'\)\. Pass missing='drop'"
        message = message.replace("'.'", r"'\.'")
        with pytest.raises(ValueError, match=message):
            read(f"day,level\n1 Jan,1\n2 Jan,{cell}\n3 Jan,4\n")

    def test_row_counts_empty_lines(self, read):
        with pytest.raises(ValueError, match="row 5, column 'level': 'x'"):
            read("day,level\n\n1 Jan,1\n\n2 Jan,x\n3 Jan,4\n")

    def test_empty_line_in_a_file_of_one_column_is_a_missing_value(self, read):
        with pytest.raises(ValueError, match="row 3, column 'level' is missing"):
            read("level\n1\n\n3\n")
        assert read("level\n1\n\n3\n", missing="interpolate").values.tolist() == [1, 2, 3]


class TestMissing:
    TEXT = "day,level\n1 Jan,1\n2 Jan,\n3 Jan,NA\n4 Jan,7\n5 Jan,.\n6 Jan,9\n"

    def test_drop(self, read):
        series = read(self.TEXT, missing="drop")
        assert series.values.tolist() == [1, 7, 9]
        assert series.dates == ("1 Jan", "4 Jan", "6 Jan")

    def test_interpolate(self, read):
        series = read(self.TEXT, missing="interpolate")
        assert series.values.tolist() == [1, 3, 5, 7, 8, 9]
        assert len(series.dates) == 6

    @pytest.mark.parametrize(
        ("text", "row"), [("level\nNA\n1\n2\n", 2), ("level\n1\n2\nNA\n", 4), ("NA\n1\n", 1)]
    )
    def test_gap_at_the_edge(self, read, text, row):
        with pytest.raises(ValueError, match=f"row {row}, .* missing and has a value on one side"):
            read(text, missing="interpolate")
        assert read(text, missing="drop").values.tolist()[:1] == [1]

    def test_gaps_elsewhere_do_not_matter(self, read):
        assert read("day,a,b\n1 Jan,1,\n2 Jan,2,5\n", column="a").values.tolist() == [1, 2]

    @pytest.mark.parametrize("missing", ["drop", "interpolate"])
    def test_nothing_left(self, read, missing):
        with pytest.raises(ValueError, match="column 'level' has no values"):
            read("day,level\n1 Jan,NA\n2 Jan,\n", column="level", missing=missing)

    def test_unknown_policy(self, read):
        message = r"missing='skip' is not known\. Valid: error, drop, interpolate\."
        with pytest.raises(ValueError, match=message):
            read(self.TEXT, missing="skip")


class TestFiles:
    @pytest.mark.parametrize("content", ["", "\n\n", " \n", "\ufeff", '""\n'])
    def test_empty(self, read, content):
        with pytest.raises(ValueError, match=r"mine\.csv is empty"):
            read(content)

    @pytest.mark.parametrize("content", ["day,level\n", "level", "day,level\n\n\n"])
    def test_header_only(self, read, content):
        with pytest.raises(ValueError, match=r"has a header \(.*level\) but no rows below it"):
            read(content)

    def test_ragged(self, read):
        with pytest.raises(ValueError, match="row 4 has 3 cells where most rows have 2"):
            read("day,level\n1 Jan,1\n2 Jan,2\n3 Jan,3,3\n4 Jan,4\n")

    def test_too_few_cells(self, read):
        with pytest.raises(ValueError, match="row 3 has 1 cells where most rows have 2"):
            read("day,level\n1 Jan,1\n2 Jan\n3 Jan,3\n")

    def test_not_utf8(self, read):
        message = r"mine\.csv is not UTF-8 text \(byte 0xe9 at offset 1\)\. Save it as UTF-8"
        with pytest.raises(ValueError, match=message):
            read("né,x\n1,2\n".encode("latin-1"))

    def test_utf16(self, read):
        with pytest.raises(ValueError, match="byte 0xff at offset 0"):
            read(b"\xff\xfe" + "level\n1\n".encode("utf-16-le"))

    def test_damaged_gzip(self, read):
        packed = gzip.compress(b"level\n1\n2\n3\n")
        for damaged in (packed[:-9], packed[:12] + b"\x00" + packed[13:], packed + b"tail"):
            with pytest.raises(ValueError, match=r"mine\.csv\.gz is a damaged gzip file"):
                read(damaged, file="mine.csv.gz")

    def test_huge_cell(self, read):
        with pytest.raises(ValueError, match=r"is not a CSV file: field larger than"):
            read('level\n"' + "1" * 200_000 + '"\n')

    def test_no_such_file(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"there is no file .*nothing\.csv"):
            read_csv(tmp_path / "nothing.csv")
        with pytest.raises(FileNotFoundError, match="there is no file"):
            read_csv(tmp_path)
