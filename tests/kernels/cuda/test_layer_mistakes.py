"""What must be noticed: a barrier removed, or a mistake in the source of the layers' kernels."""

from __future__ import annotations

import re
import shutil
import subprocess

import numpy as np
import pytest
import raw_kernels
from layer_cases import BOUND, KERNELS, build, device, error

from rnn_xp.kernels.cuda import plan

SOURCE, WITH_NORM = KERNELS.layer.source(), "all, layer norm"
SIZES = {  # rows of a block at the sizes that are compiled for a GPU
    "rnn-tanh": ((8, 128), (2, 128), (8, 50), (8, 256), (2, 256)),
    "rnn-relu": ((8, 128), (2, 256)),
    "gru": ((2, 128), (1, 96), (4, 64), (4, 50), (4, 256), (1, 200)),
    "lstm": ((2, 128), (1, 96), (4, 64), (4, 50), (4, 256), (1, 200)),
}
PLAIN = (1, 2, 3, 5, 6, 7, 12, 13, 14)  # of the products too, and with layer normalisation:
WITH_NORMS = (*range(1, 11), 13, 14, 15)
CLUSTER = {"hidden": 134, "rows": 36}  # 2 rows to a cluster; the last block is not full
SHARED_LIMIT = {"sm_80": 166912, "sm_90": 232448, "sm_100": 232448}


def noticed(cell, option="all", hidden=20, rows=140, inputs=2, **changes):
    """Return True if an error shows, with 2 rows to a block and every option.

    A mistake may leave memory as it was found: whatever lies there, it is for the error to show it.
    """
    with device(**changes), np.errstate(all="ignore"):
        scale = 0.5 if hidden < 100 else 0.04
        problem = build(
            cell, option, rows=rows, hidden=hidden, inputs=inputs, bidirectional=True, scale=scale
        )
        try:
            return not error(problem) < 10 * BOUND
        except raw_kernels.LaunchError:
            return True


@pytest.mark.full("rnn-tanh", "gru")
@pytest.mark.parametrize(
    ("option", "number"),
    [("all", n) for n in (*PLAIN, 17, 18)] + [(WITH_NORM, n) for n in (*WITH_NORMS, 16)],
)
@pytest.mark.parametrize("cell", ["rnn-tanh", "gru", "lstm"])
def test_a_barrier_removed(cell, option, number):
    assert noticed(cell, option, options=(f"-DDROP_BARRIER={number}",))


@pytest.mark.full("rnn-tanh", "gru")
@pytest.mark.parametrize(
    ("option", "number"),
    [("all", n) for n in PLAIN] + [(WITH_NORM, n) for n in (*WITH_NORMS, 11)],
)
@pytest.mark.parametrize("cell", ["rnn-tanh", "gru", "lstm"])
def test_a_barrier_removed_of_a_cluster(cell, option, number):
    """Every block has some of the inputs' gradients to give."""
    assert noticed(cell, option, **CLUSTER, inputs=140, options=(f"-DDROP_BARRIER={number}",))


def test_the_kernels_have_no_other_barrier():
    assert SOURCE.count("CLUSTER_SYNC()") == 2
    assert SOURCE.count("barrier.cluster") == 2
    assert SOURCE.count("__syncthreads") == 1
    matmul = KERNELS.stack.matmul
    every = SOURCE + matmul.collect_source() + matmul.multiply_source()
    assert sorted(map(int, re.findall(r"BARRIER\((\d+)\)", every))) == list(range(1, 21))


@pytest.mark.cover("values", "cell")
@pytest.mark.parametrize(
    ("cell", "right", "wrong"),
    [
        ("rnn-tanh", "dh * (1.f - after * after)", "dh * (1.f - after)"),
        ("rnn-relu", "after <= 0.f ? 0.f : dh", "dh"),
        ("gru", "da[2] = dz[2] * r", "da[2] = dz[2]"),
        ("gru", "dh = dh * u", "dh = 0.f"),
        ("gru", "gate, q, begins ? 0.f : kept.before[k]", "gate, q, kept.before[k]"),
        ("gru", "of_h[G - 1] += biases[G * HP + k]", "of_h[G - 1]"),
        ("gru", "write(a + row * G * H + 2 * H + j0", "write(a + row * G * H + H + j0"),
        ("gru", "a[row + g * H + k] = d[g]", "a[row + g * H + k] = dz[g]"),
        ("lstm", "dc = dc * f;", ""),
        ("lstm", "dc += dh * o *", "dc = dh * o *"),
        ("lstm", "= h_own[1] = c_own[0] = c_own[1] = 0.f", "= h_own[1] = 0.f"),
        ("lstm", "dh[0] = dh[1] = dc[0] = dc[1] = 0.f", "dh[0] = dh[1] = 0.f"),
        ("lstm", "read(c_own, initial_c + at, own)", "read(c_own, initial_h + at, own)"),
        ("lstm", "read(dc, dfinal_c + at, own)", "read(dc, dfinal_h + at, own)"),
        ("lstm", "write(dinitial_c + at, dc, own)", "write(dinitial_c + at, dh, own)"),
        ("lstm", "entering = {h_own[0] * factor[0]", "entering = {h_own[0]"),
        ("lstm", "through[0], factor[0], dh[0]", "through[0], 1.f, dh[0]"),
        ("lstm", "if (entered && inside)", "if (false)"),
        ("lstm", "gates[g] = zs[g][k] + biases[g * HP + k]", "gates[g] = zs[g][k]"),
        ("lstm", "return idle && idle", "return idle && t > 0 && idle"),
        ("lstm", "if (t < first || t > last) return;", "if (t <= first || t > last) return;"),
        ("lstm", "return reverse ? T - 1 - i : i;", "return i;"),
        ("lstm", "state(reverse ? t + 2 : t, n, j)", "state(t, n, j)"),
        ("lstm", "lengths ? lengths[n] : T", "lengths ? lengths[n] - (lengths[n] > 1) : T"),
        ("lstm", "multiply_back(sum, da + k0, w)", "multiply_back(sum, da, w)"),
        ("lstm", "if (owns) losses.add", "if (owns && t < length) losses.add"),
        ("lstm", "i > 0 || dinitial_h", "i > 0"),
        ("lstm", "fetch(i - 1);\n        if", "if"),
        ("lstm", "float sum[R][G][2] = {};", "float sum[R][G][2] = {{{1.f}}};"),
    ],
)  # fmt: skip
def test_a_mistake(cell, right, wrong):
    assert SOURCE.count(right) == 1, right
    assert noticed(cell, edit=staticmethod(lambda source: source.replace(right, wrong)))


@pytest.mark.cover("values", "cell")
@pytest.mark.parametrize(
    ("cell", "right", "wrong"),
    [
        ("gru", "a[k] *= inv, scale[k] *= a[k];", "a[k] *= inv, scale[k] = a[k];"),
        ("gru", "inv * (scale[g][k] * d[k] - a[k] * e)", "inv * (scale[g][k] * d[k] + a[k] * e)"),
        ("gru", "fmaf(scale[g][k] * d[k], a[k], along)", "fmaf(d[k], a[k], along)"),
        ("gru", "dgain[g][k] = fmaf(d[k], a[k], dgain[g][k]);", "dgain[g][k] += d[k];"),
        ("gru", "db[g][k] += d[k];", ""),
        ("gru", "inverses[course.row(t, n)] = inv;", "inverses[course.row(t, n)] = 1.f;"),
        ("gru", "buffer = 1 - buffer;  // another thread may still read", ""),
        ("gru", "(slice * 2 * G + G + g) * HP + c0, db[g]", "(slice * 2 * G + g) * HP + c0, db[g]"),
        ("gru", "sum[0] += dgains[(r * BIASES + g) * HP + c0];", ""),
        ("gru", "sums += blockIdx.x / C", "sums += 0 / C"),
        ("gru", "columns + column] - mean;", "columns + column];"),
        ("gru", "squares / (float)width + EPS", "squares / (float)width"),
        ("gru", "if (CELL == GRU) dgains[G * HP] += d[G - 1];", ""),
        ("gru", "kept.normal[NORM ? G - 1 : 0][k], gains[G", "kept.normal[0][k], gains[G"),
        ("gru", "inverses[row] = inv;", "inverses[row] = 1.f;"),
        ("gru", "kept.inv * (d[0] - kept.normal[g][0] * e)", "kept.inv * d[0]"),
        ("gru", "product[g][1] *= gain[1];", ""),
        ("gru", "i < ROUNDS + DGAINS; i += THREADS", "i < ROUNDS; i += THREADS"),
        ("gru", "dgains[g * HP] = fmaf(d[g], n[g][k], dgains[g * HP]);",
                "dgains[g * HP] = d[g] * n[g][k];"),
        ("gru", "d[g] *= gains[g * HP];\n    along", "along"),
        ("gru", "i < R * (BUFFERS * G * KP + C * PARTS)", "i < R * BUFFERS * G * KP"),
        ("gru", "write(a + row + g * H, d, own);", "if (active) write(a + row + g * H, d, own);"),
    ],
)  # fmt: skip
def test_a_mistake_in_layer_normalisation(cell, right, wrong):
    assert SOURCE.count(right) == 1, right
    changed = staticmethod(lambda source: source.replace(right, wrong))
    assert noticed(cell, WITH_NORM, edit=changed)


@pytest.mark.cover("values", "cell")
@pytest.mark.parametrize(
    ("cell", "right", "wrong"),
    [
        ("gru", "*cluster_map(to, rank) = value", "*to = value"),
        ("gru", "rank * PARTS + pair, share(t, n)", "pair, share(t, n)"),
        ("gru", "for (int first = rank * HP;", "for (int first = 0;"),
        ("gru", "const int j = rank * U + c;", "const int j = c;"),
        ("gru", "rank < C; ++rank) *cluster", "rank < C - 1; ++rank) *cluster"),
        ("gru", "? H - rank * U : U;", "? H - rank * U : U - 1;"),
        ("gru", "slice) * KP + j0, entering", "slice) * KP + c0, entering"),
        ("gru", "b_h + g * H + j0", "b_h + g * H + c0"),
        ("gru", "w_hh[(g * H + k) * H + j0 + c]", "w_hh[(g * H + k) * H + c0 + c]"),
        ("gru", "C + rank) * PARTS + c0 / 2, squares", "C) * PARTS + c0 / 2, squares"),
        ("gru", "C + rank) * PARTS + c0 / 2, along", "C) * PARTS + c0 / 2, along"),
        ("gru", "add_parts(parts + slice * C * PARTS, C * PARTS) / ",
                "add_parts(parts + slice * C * PARTS, PARTS) / "),
        ("gru", "send(dn, d, own);", "write(dn, d, own);"),
        ("gru", "i < R * C * PARTS; i += THREADS", "i < 0; i += THREADS"),
        ("gru", "if (j0 == 0) inverses[row]", "if (j0 == 0 && t > 0) inverses[row]"),
    ],
)  # fmt: skip
def test_a_mistake_in_clusters(cell, right, wrong):
    assert SOURCE.count(right) == 1, right
    changed = staticmethod(lambda source: source.replace(right, wrong))
    assert noticed(cell, WITH_NORM, **CLUSTER, edit=changed)


@pytest.mark.parametrize("kept", ["buffer;  // a block", "buffer;\n"])
def test_a_buffer_that_is_not_changed_in_a_cluster(kept):
    """Layer normalisation has a further barrier, which hides it."""
    right = f"buffer = 1 - {kept}"
    assert SOURCE.count(right) == 1
    changed = staticmethod(lambda source: source.replace(right, f"buffer = {kept}"))
    assert noticed("lstm", **CLUSTER, edit=changed)


@pytest.mark.parametrize("where", [{}, CLUSTER], ids=["block", "cluster"])
@pytest.mark.parametrize("option", ["all", WITH_NORM])
def test_without_a_change_nothing_is_noticed(option, where):
    for cell in ("rnn-tanh", "rnn-relu", "gru", "lstm"):
        assert not noticed(cell, option, **where)


@pytest.mark.full
@pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is not installed")
@pytest.mark.parametrize("architecture", SHARED_LIMIT)
@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize(
    ("cell", "rows", "hidden"), [(cell, *size) for cell, sizes in SIZES.items() for size in sizes]
)
def test_compiles_without_spills(cell, rows, hidden, norm, architecture, tmp_path):
    (tmp_path / "layer.cu").write_text(SOURCE)
    if hidden > 128 and architecture == "sm_80":
        pytest.skip("has no clusters")
    size = plan.Size(cell, "float32", hidden, SHARED_LIMIT["sm_90"], norm, clusters=True)
    if plan._sizes(size._replace(shared_limit=SHARED_LIMIT[architecture]), rows) is None:
        pytest.skip("has too little shared memory for so many rows, so that fewer are chosen")
    options = plan._sizes(size, rows).options
    command = ["nvcc", *options, f"-arch={architecture}", "-Xptxas", "-v", "-cubin", "layer.cu"]
    compiled = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert compiled.returncode == 0, compiled.stderr
    assert "warning" not in compiled.stderr
    spills = re.findall(
        r"entry function '(\w+)'.*?(\d+) bytes spill stores, (\d+) bytes spill loads",
        compiled.stderr,
        re.DOTALL,
    )
    assert {name for name, *_ in spills} == set(raw_kernels.NAMES)
    assert {(name, "0", "0") for name, *_ in spills} == set(spills)
