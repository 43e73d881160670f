"""A CSV file of the text that a test gives, read."""

from __future__ import annotations

import pytest

from rnn_xp.data.datasets import read_csv


@pytest.fixture
def read(tmp_path):
    """Write a file and read it."""

    def write_and_read(content, /, file="mine.csv", **options):
        data = content.encode() if isinstance(content, str) else content
        (tmp_path / file).write_bytes(data)
        return read_csv(tmp_path / file, **options)

    return write_and_read
