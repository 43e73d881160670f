"""The script that rebuilds the bundled series."""

from __future__ import annotations

import gzip
import importlib.util
import zipfile
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def build():
    """The script as a module."""
    path = Path(__file__).parents[2] / "scripts" / "build_datasets.py"
    spec = importlib.util.spec_from_file_location("build_datasets", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class TestBuildScript:
    def test_length_of_day(self, build):
        def line(mjd, polar, ut1, value):
            text = [" "] * 187
            for start, field in ((8, f"{mjd:8.2f}"), (17, polar), (58, ut1), (80, f"{value:7.4f}")):
                text[start - 1 : start - 1 + len(field)] = field
            return "".join(text)

        finals = "\n".join(
            [
                line(50631, "I", "I", 9.0),  # before the first day
                line(50632, "I", "I", 0.5826),
                line(50633, "I", "P", 9.0),  # predicted
                line(50634, "P", "I", 9.0),
                line(61040, "I", "I", -0.25),
                line(61041, "I", "I", 9.0),  # after the last day
                f" 1 1 1 {61042:8.2f} ".ljust(187),  # a day without values
            ]
        )
        expected = "date,lod_ms\n1997-07-03,0.5826\n2025-12-31,-0.2500\n"
        assert build.length_of_day_text(finals.encode()) == expected

    def test_wti(self, build):
        source = b"Date,DCOILWTICO\r\n1/2/1986,25.56\r\n1/3/1986,.\r\n12/31/1999,26\r\n"
        expected = "date,price_usd\n1986-01-02,25.56\n1999-12-31,26\n"
        assert build.wti_text(gzip.compress(source)) == expected

    def test_missing_wheel(self, build, tmp_path):
        with pytest.raises(SystemExit, match=r"holds no astropy_iers_data-0\.2026\.11\.2"):
            build.main(["--wheels", str(tmp_path), "--check"])

    def test_other_content_stops_before_writing(self, build, tmp_path, monkeypatch):
        wheel = tmp_path / "arch-8.0.0-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr("arch/data/wti/wti.csv.gz", gzip.compress(b"Date,X\n1/2/1986,1\n"))
        monkeypatch.setattr(build, "SOURCES", {"wti": build.SOURCES["wti"]})
        monkeypatch.setattr(build, "DATA", tmp_path)
        with pytest.raises(SystemExit, match=r"expected d81e4c0b.* Nothing was written"):
            build.main(["--wheels", str(tmp_path)])
        assert [path.name for path in tmp_path.iterdir()] == [wheel.name]
