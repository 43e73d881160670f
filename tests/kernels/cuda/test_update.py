"""What an update in a CUDA graph reads and writes beside its arithmetic, on the CPU."""

from __future__ import annotations

import shutil
import subprocess

import cupy_stand_in
import numpy as np
import pytest
from layer_cases import device

KERNELS = cupy_stand_in.load("cuda/update")
COUNTS = (1, 2, 255, 1024, 1025, 5000)


def counted(array):
    return cupy_stand_in.counted(np.array(array))


def arrays(count=6, rows=()):
    rng = np.random.default_rng(0)
    sizes = [COUNTS[k % len(COUNTS)] for k in range(count)]
    kinds = ("f4", "i4", "f8")
    return [
        counted((100 * rng.standard_normal((*rows, size))).astype(kinds[k % 3]))
        for k, size in enumerate(sizes)
    ]


@pytest.mark.parametrize("count", [1, 6, 88, 89, 200])
def test_copies_of_any_number_and_size(count):
    """Beyond 88 in further launches; what lies behind an array stays."""
    given = arrays(count)
    buffers = [counted(np.full(a.size + 7, -1, a.dtype)) for a in given]
    places = [buffer[: a.size] for buffer, a in zip(buffers, given, strict=True)]
    with cupy_stand_in.launches() as noted:
        KERNELS.copy(list(zip(given, places, strict=True)))
    assert noted == ["copy"] * -(-count // 88)
    for a, buffer in zip(given, buffers, strict=True):
        assert np.array_equal(buffer[: a.size], a)
        assert np.all(buffer[a.size :] == -1)


@pytest.mark.parametrize("at", [0, 3])
def test_the_beginning_of_a_row_of_each_table(at):
    tables = arrays(rows=(4,))
    places = [counted(np.zeros(max(1, table.shape[1] // 2), table.dtype)) for table in tables]
    KERNELS.copy(list(zip(tables, places, strict=True)), counted(np.asarray([at], "i4")))
    for table, place in zip(tables, places, strict=True):
        assert np.array_equal(place, table[at, : place.size])


def test_a_loss_is_written_under_the_number_of_its_update():
    values, totals, at = counted(np.zeros(3, "f4")), counted(np.ones(3, "f4")), counted([1])
    at = counted(at.astype("i4"))
    KERNELS.record(*(counted(np.asarray(a, "f4")) for a in (2.5, 7.0)), values, totals, at)
    assert (values.tolist(), totals.tolist(), at.tolist()) == ([0, 2.5, 0], [1, 7, 1], [2])


def test_arrays_as_one_vector():
    rng = np.random.default_rng(0)
    given = [rng.standard_normal(shape).astype("f4") for shape in ((3, 4), (), (5,), (4, 2))]
    given[-1] = given[-1].T  # not contiguous
    vector = KERNELS.joined([counted(a) if a.ndim else cupy_stand_in.counted(a) for a in given])
    assert np.array_equal(vector, np.concatenate([np.ravel(a) for a in given]))


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("blockIdx.x >= table.of[k + 1].first", "blockIdx.x > table.of[k + 1].first"),
        ("at ? *at * line.pitch : 0", "at ? *at * line.words : 0"),
        ("at ? *at * line.pitch : 0", "0"),
        ("(blockIdx.x - line.first) * SPAN", "blockIdx.x * SPAN"),
        ("i < line.words", "i <= line.words"),
        ("i < begin + SPAN && ", "i < begin + THREADS && "),
        ("++*at;", ""),
        ("values[*at]", "values[0]"),
        ("totals[*at] = *total;", ""),
    ],
)
def test_a_mistake_is_noticed(right, wrong):
    assert KERNELS.source().count(right) == 1
    edit = staticmethod(lambda source: source.replace(right, wrong))
    with device(edit=edit), pytest.raises(AssertionError):
        _all_of_it()
    _all_of_it()


def _all_of_it():
    test_copies_of_any_number_and_size(6)
    test_the_beginning_of_a_row_of_each_table(3)
    test_a_loss_is_written_under_the_number_of_its_update()


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is not installed")
@pytest.mark.parametrize("architecture", ["sm_80", "sm_90", "sm_100"])
def test_compiles_for_a_gpu(tmp_path, architecture):
    source = tmp_path / "update.cu"
    source.write_text(KERNELS.source())
    command = ["nvcc", *KERNELS.OPTIONS, f"-arch={architecture}", "-Xptxas", "-v", "-cubin"]
    done = subprocess.run(
        [*command, str(source), "-o", str(tmp_path / "update.cubin")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stderr.count("0 bytes spill stores, 0 bytes spill loads") == 2
