"""Products that a CUDA graph can record, on the CPU: any strides, any sizes, the same bits."""

from __future__ import annotations

import re
import shutil
import subprocess

import cupy_stand_in
import numpy as np
import pytest
import raw_kernels
from layer_cases import KERNELS, device

from rnn_xp.kernels.cuda import plan

MATMUL = KERNELS.stack.matmul
TILES = [plan.Tile(tall, wide) for tall in (16, 32, 64) for wide in (16, 32, 64)]
ARCHITECTURES = ("sm_80", "sm_90", "sm_100")


def _padded(a):
    wide = np.full((a.shape[0], a.shape[1] + 3), np.nan, "f4")
    wide[:, 2:-1] = a
    return wide[:, 2:-1]


LAYOUTS = {  # of the same numbers
    "rows": np.ascontiguousarray,
    "columns": np.asfortranarray,
    "part of wider rows": _padded,
    "part of wider columns": lambda a: _padded(a.T).T,
    "every second row": lambda a: np.repeat(a, 2, axis=0)[::2],
    "every second column": lambda a: np.repeat(a, 2, axis=1)[:, ::2],
    "backwards": lambda a: np.ascontiguousarray(a[::-1, ::-1])[::-1, ::-1],
}

WIDTHS = {"none": (), "1": (1,), "64": (64,), "5 and 70": (5, 70), "three": (3, 4, 2)}


def sides(rows, terms, columns):
    rng = np.random.default_rng(rows + 7 * terms + 31 * columns)
    return [rng.standard_normal(s).astype("f4") for s in ((rows, terms), (terms, columns))]


def multiplied(a, b):
    out = cupy_stand_in.empty((a.shape[0], b.shape[1]), "f4")
    assert MATMUL.multiply(*map(cupy_stand_in.counted, (a, b)), out) is out
    return np.asarray(out)


def error(a, b, made=None):
    """The largest error relative to the sum of the terms' sizes; infinite if it is no number."""
    wide = [side.astype("f8") for side in (a, b)]
    exact, scale = wide[0] @ wide[1], np.abs(wide[0]) @ np.abs(wide[1]) + 1e-30
    worst = np.max(np.abs((multiplied(a, b) if made is None else made) - exact) / scale, initial=0)
    return worst if np.isfinite(worst) else np.inf


def bound(terms):
    return 6e-8 * (terms + 1)  # every addition rounds by at most so much of the sum


class TestMultiply:
    @pytest.mark.cover("pairs")
    @pytest.mark.parametrize("right", LAYOUTS)
    @pytest.mark.parametrize("left", LAYOUTS)
    @pytest.mark.parametrize("columns", [1, 4, 17, 70])
    @pytest.mark.parametrize("terms", [0, 1, 16, 65, 130])
    @pytest.mark.parametrize("rows", [1, 16, 33, 130])
    def test_agrees_with_float64(self, rows, terms, columns, left, right):
        a, b = sides(rows, terms, columns)
        a, b = LAYOUTS[left](a), LAYOUTS[right](b)
        assert error(a, b) <= bound(terms)

    @pytest.mark.parametrize("tile", TILES, ids=str)
    def test_the_tile_changes_no_bit(self, monkeypatch, tile):
        a, b = sides(70, 77, 67)
        expected = multiplied(a, b)
        monkeypatch.setattr(MATMUL, "tile_of", lambda rows, columns: tile)
        assert np.array_equal(multiplied(a, b), expected)

    def test_a_row_has_the_same_bits_among_any_others(self):
        a, b = sides(9000, 70, 40)
        whole = multiplied(a, b)
        for some in (slice(0, 1), slice(3, 60), slice(8999, 9000)):
            assert np.array_equal(multiplied(a[some], b), whole[some])

    def test_the_same_bits_in_every_order_of_threads(self):
        a, b, made = *sides(70, 77, 67), []
        for shuffled in (False, True, True):
            with device(shuffled=shuffled):
                made.append(multiplied(a, b))
        assert np.array_equal(made[0], made[1])
        assert np.array_equal(made[0], made[2])

    @pytest.mark.parametrize("shape", [(0, 3), (3, 0)])
    def test_without_results_nothing_is_launched(self, shape):
        a, b = sides(shape[0], 5, shape[1])
        with cupy_stand_in.launches() as noted:
            assert multiplied(a, b).shape == shape
        assert noted == []

    def test_is_one_launch_without_copies(self):
        a, b = sides(30, 20, 10)
        with cupy_stand_in.launches() as noted:
            multiplied(np.asfortranarray(a), _padded(b))
        assert noted == ["product_tiles"]

    def test_a_nan_shows_in_its_row_alone(self):
        a, b = sides(20, 30, 10)
        a[4, 29] = np.nan
        made = multiplied(a, b)
        assert np.isnan(made[4]).all()
        assert not np.isnan(np.delete(made, 4, axis=0)).any()


def grads(left, rights):
    workspace = KERNELS.Workspace("float32")
    counted = cupy_stand_in.counted
    return MATMUL.weight_grads(counted(left), list(map(counted, rights)), workspace)


def worst(left, rights):
    """The largest error of any product or of the sums, as `error` has it."""
    products, sums = grads(left, rights)
    ones = np.ones((left.shape[0], 1), "f4")
    made = [*map(np.asarray, products), np.asarray(sums)[:, None]]
    assert [a.shape for a in made] == [(left.shape[1], b.shape[1]) for b in (*rights, ones)]
    return max(error(left.T, b, a) for a, b in zip(made, (*rights, ones), strict=True))


class TestWeightGrads:
    @pytest.mark.cover("pairs")
    @pytest.mark.parametrize("layout", LAYOUTS)
    @pytest.mark.parametrize("widths", WIDTHS)
    @pytest.mark.parametrize("lefts", [1, 4, 65])
    @pytest.mark.parametrize("rows", [1, 16, 257, 1000])
    def test_agrees_with_float64(self, rows, lefts, widths, layout):
        rng = np.random.default_rng(rows + lefts)
        left, *rights = (
            LAYOUTS[layout](rng.standard_normal((rows, width)).astype("f4"))
            for width in (lefts, *WIDTHS[widths])
        )
        assert worst(left, rights) <= bound(rows)

    def test_many_equal_rows_lose_no_digits(self):
        """One sum after another in float32 would lose digits of 0.1's."""
        left = np.full((200_000, 1), 0.1, "f4")
        _, sums = grads(left, [])
        assert abs(float(sums[0]) / (200_000 * float(np.float32(0.1))) - 1.0) < 1e-4

    def test_is_two_launches_for_any_number_of_rows(self):
        for rows in (3, 3000):
            left, right = np.ones((rows, 4), "f4"), np.ones((rows, 5), "f4")
            with cupy_stand_in.launches() as noted:
                grads(left, [right, right])
            assert noted[1:] == ["collect", "add_up"]  # the workspace is new


def noticed(right, wrong):
    """Return True if a mistake in the source shows in a product."""
    assert MATMUL.multiply_source().count(right) == 1, right
    edit = staticmethod(lambda source: source.replace(right, wrong))
    return shows(edit=edit)


def shows(**changes):
    found = []
    with device(**changes), np.errstate(all="ignore"), pytest.MonkeyPatch.context() as patch:
        for tile in (plan.Tile(16, 32), plan.Tile(64, 16)):
            patch.setattr(MATMUL, "tile_of", lambda rows, columns, tile=tile: tile)
            for left, right in (("rows", "columns"), ("columns", "part of wider rows")):
                a, b = sides(70, 150, 40)
                a, b = LAYOUTS[left](a), LAYOUTS[right](b)
                try:
                    found.append(error(a, b) > 10 * bound(150))
                except raw_kernels.LaunchError:
                    found.append(True)
    return any(found)


@pytest.mark.parametrize("number", [19, 20])
def test_a_barrier_removed(number):
    assert shows(options=(f"-DDROP_BARRIER={number}",))


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("entry * of_entry + k * of_term", "entry * of_entry + k"),
        ("entry * of_entry + k * of_term", "entry + k * of_term"),
        ("entry < entries && k < terms", "entry < entries && k + 1 < terms"),
        ("entry < entries && k < terms", "entry + 1 < entries && k < terms"),
        ("side.at(entry + i / DEPTH, k + i % DEPTH)", "side.at(entry + i / DEPTH, i % DEPTH)"),
        ("side.at(entry + i % COUNT, k + i / COUNT)", "side.at(i % COUNT, k + i / COUNT)"),
        ("i / DEPTH * PITCH + i % DEPTH", "i % COUNT * PITCH + i / COUNT"),
        ("i0 = blockIdx.x / across * TALL", "i0 = blockIdx.x % across * TALL"),
        ("j0 = blockIdx.x % across * WIDE", "j0 = blockIdx.x / across * WIDE"),
        ("left_row, left_term, rows, terms}", "left_term, left_row, rows, terms}"),
        ("right_column, right_term, columns", "right_term, right_column, columns"),
        ("of_left.read(side, i0, k0 + DEPTH)", "of_left.read(side, i0, k0)"),
        ("of_right.read(other, j0, k0 + DEPTH)", "of_right.read(other, 0, k0 + DEPTH)"),
        ("k0 < terms; k0 += DEPTH", "k0 + DEPTH <= terms; k0 += DEPTH"),
        ("rights + (j * ACROSS + tx) * PITCH", "rights + (j * ACROSS + ty) * PITCH"),
        ("lefts + (i * ACROSS + ty) * PITCH", "lefts + ty * PITCH"),
        ("int k = 0; k < DEPTH; k += 4", "int k = 0; k < DEPTH - 4; k += 4"),
        ("fmaf(a[i][e], b[j][e], sum[i][j])", "fmaf(a[i][e], b[j][e], sum[i][0])"),
        ("(long long)m * columns + n] =", "(long long)m * WIDE + n] ="),
        ("m < rows && n < columns", "m < rows && n + 1 < columns"),
    ],
)  # fmt: skip
def test_a_mistake(right, wrong):
    assert noticed(right, wrong)


def test_without_a_change_nothing_is_noticed():
    assert not shows()


def test_a_tile_is_small_where_there_are_few_results():
    for (rows, columns), tile in {
        (64, 4): (16, 16), (64, 512): (16, 16), (256, 512): (16, 32), (8317, 1): (32, 16),
        (10**6, 30): (64, 32), (10**6, 512): (64, 64), (4, 10**6): (16, 64),
    }.items():  # fmt: skip
        assert plan.tile_of(rows, columns) == tile


@pytest.mark.full
@pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is not installed")
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("tile", [*TILES, None], ids=str)
def test_compiles_without_spills(tile, architecture, tmp_path):
    """Without a tile it is the kernel for many rows."""
    source, options = MATMUL.collect_source(), plan.COLLECT_OPTIONS
    if tile is not None:
        source, options = MATMUL.multiply_source(), tile.options
    (tmp_path / "product.cu").write_text(source)
    command = ["nvcc", *options, f"-arch={architecture}", "-Xptxas", "-v", "-cubin", "product.cu"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr
    found = re.findall(r"(\d+) bytes spill stores, (\d+) bytes spill loads", done.stderr)
    assert found == [("0", "0")] * (2 if tile is None else 1)
