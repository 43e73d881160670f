"""Mistakes in what the layers of a stack do together: their inputs, and all weight gradients."""

from __future__ import annotations

import numpy as np
import pytest
import raw_kernels
from kernel_options import STACKS
from layer_cases import BOUND, KERNELS, assert_rounding, build, device, error, through_kernels

from rnn_xp.kernels.cuda import plan

SOURCE = KERNELS.layer.source() + KERNELS.stack.matmul.collect_source()
SIZE = {"rows": 9, "steps": 40, "hidden": 20, "inputs": 50, "scale": 0.2}  # more than a tile each
DEEP = {"num_layers": 3, "bidirectional": True, "residual": True, "dropout": 0.3}


def two_rows(kernel, dtype, hidden_size, rows, *, norm):
    """The plan with blocks of 2 rows, however few rows there are."""
    return plan._sizes(KERNELS.layer._size(kernel, dtype, hidden_size, norm), 2)


def noticed(right, wrong, option="all", **settings):
    """Return True if an error shows in a deep stack, with 2 rows to a block."""
    assert SOURCE.count(right) == 1, right
    edit = staticmethod(lambda source: source.replace(right, wrong))
    with (
        device(edit=edit),
        np.errstate(all="ignore"),
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(KERNELS.layer, "plan_of", two_rows)
        patch.setattr(KERNELS.stack.matmul, "parts_of", lambda tiles, rows: 7)
        problem = build("lstm", option, **{**SIZE, **DEEP, **settings})
        try:
            return not error(problem) < 10 * BOUND
        except raw_kernels.LaunchError:
            return True


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        # The products of a block's own rows, and what they read and write.
        ("first[t * of_step + n * of_row + k]", "first[t * of_step + n * width + k]"),
        ("return factors ? value * factors[((", "return false ? value * factors[(("),
        ("right(k0 + k, i / HP, i % HP)", "right(k, i / HP, i % HP)"),
        ("lefts + (slice * LINES + r) * CHUNK", "lefts + r * CHUNK"),
        ("up(terms - k0, 4) : CHUNK", "(terms - k0) / 4 * 4 : CHUNK"),
        ("return row0 + m % R;", "return row0 + m % 1;"),
        ("w_xh[(long long)(g * H + j) * x.width + k]", "w_xh[(long long)j * x.width + k]"),
        ("w_xh[(long long)k * to.width + first + c]", "w_xh[(long long)k * to.width + c]"),
        ("if (factors) value *= factors[at];", ""),
        ("if (residual && 0 <= j && j < H)", "if (residual && 0 <= j)"),
        ("value += losses.of(t, n, j);", ""),
        ("dx[at] = adds ? dx[at] + value : value;", "dx[at] = value;"),
        ("dx[at] = adds ? dx[at] + value : value;", "dx[at] += value;"),
        ("to.write(course, losses, longest + i / count,", "to.write(course, losses, i / count,"),
        ("const int column = course.reverse ? H + j0 : j0;", "const int column = j0;"),
        ("past[1] += state[1];", "past[1] = state[1];"),
        ("i - course.reverse * H", "i"),
        # The weight gradients.
        ("if (offsets[middle] <= r) low", "if (offsets[middle] > r) low"),
        ("      first = next;", ""),
        ("const int n = r - walk.first;", "const int n = (r - walk.first) / 2;"),
        ("return Walk{offsets, N, low, offsets[low], offsets[low + 1]};",
         "return Walk{offsets, N, 0, offsets[0], offsets[0] + 1};"),
        ("factors[row * columns]", "1.f"),
        ("j0 + tx + j < width)", "j0 + tx + j < width - 1)"),
        ("i0 = number / across * TILE", "i0 = number % across * TILE"),
        ("const bool inside = i0 + mine < job.lefts;", "const bool inside = i0 == 0;"),
        ("part < parts; ++part", "part < 1; ++part"),
        ("product[(long long)i * columns + j]", "product[i * columns + (j + 1) % columns]"),
        ("i >= job.skip) job.sums[i - job.skip]", "i < 0) job.sums[i]"),
        ("load4(b, rights + d * TILE + tx)", "load4(b, rights + d * TILE + ty)"),
    ],
)  # fmt: skip
def test_a_mistake(right, wrong):
    assert noticed(right, wrong)


@pytest.mark.parametrize(
    ("option", "right", "wrong"),
    [
        ("lengths", "offsets ? offsets[T] : T * N,", "offsets ? offsets[T] / 2 : T * N,"),
        ("plain", "m = m0 + slice * LINES + r; m < rows", "m = slice * LINES + r; m < rows"),
        ("plain", "offsets ? offsets[T] : T * N,", "T * N - 1,"),
        ("plain", "(total + parts - 1) / parts", "total / parts"),
        ("plain", "const bool there = r < end;", "const bool there = r < end - 1;"),
    ],
)  # fmt: skip
def test_rows_left_out(option, right, wrong):
    """Lengths, a mask or dropout could hide them."""
    assert noticed(right, wrong, option, dropout=0.0)


def test_without_a_change_nothing_is_noticed():
    assert not noticed("return row0 + m % R;", "return row0 + m % R;")


@pytest.mark.cover("pairs")
@pytest.mark.parametrize("parts", [1, 3, 1000])
@pytest.mark.parametrize("option", ["plain", "all", "all, layer norm"])
@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("cell", ["rnn-tanh", "gru", "lstm"])
def test_rows_added_in_any_number_of_parts(monkeypatch, cell, stack, option, parts):
    """Of more parts than there are rows some have none; of one part the rows take several turns."""
    monkeypatch.setattr(KERNELS.stack.matmul, "parts_of", lambda tiles, rows: parts)
    assert_rounding(build(cell, option, rows=90, inputs=70, **STACKS[stack]))


def test_more_products_than_a_launch_computes():
    """They come in several launches; the number of parts, and with it the last bits, may differ."""
    problem = build("gru", "all, layer norm", num_layers=2, bidirectional=True)
    expected = through_kernels(problem)
    with pytest.MonkeyPatch.context() as patch:
        cut = KERNELS.stack.matmul.cut
        patch.setattr(KERNELS.stack.matmul, "cut", lambda items, count: cut(items, min(count, 5)))
        found = through_kernels(problem, launches=4)
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=0, atol=1e-5, err_msg=name)


def test_the_tables_are_within_the_arguments_of_a_kernel():
    assert plan.JOBS * plan.JOB.size + 64 <= 4096
    assert plan.WEIGHTS * plan.WEIGHT.size + 64 <= 4096
