"""What options cost: nothing is timed that is wrong, and the table and verdicts say what was."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.cpu import WrongError, options, options_page, sections
from benchmarks.cpu.contenders import kinds_of_kernels

pytest.importorskip("numba", reason="numba is not installed")


@pytest.fixture
def case():
    return options.Case("gru", 12, 6, 2, 8)


@pytest.mark.parametrize("option", options.OPTIONS)
@pytest.mark.parametrize("kind", kinds_of_kernels())
def test_every_step_is_right(case, kind, option):
    options.check(case, options.Step(case, kind, option))


@pytest.mark.torch
@pytest.mark.parametrize("stack", options.STACKS)
@pytest.mark.parametrize("cell", options.CELLS)
@pytest.mark.parametrize("option", options.RAGGED)
def test_torch_computes_the_same(cell, stack, option):
    case = options.Case(cell, 12, 6, 2, 8, *stack)
    options.check(case, options.TorchStep(case, option))


def test_what_is_wrong_is_not_timed(case, monkeypatch):
    step = options.Step(case, "numpy", "mask")
    step.arrays["mask"] = ~step.arrays["mask"]
    with pytest.raises(WrongError, match=r"numpy, mask: (loss is|gradient of)"):
        options.check(case, step)
    step = options.Step(case, "numpy", "plain")
    right = step.step()
    wrong = right[1] | {"layer0.w_hh": 1.01 * right[1]["layer0.w_hh"]}
    monkeypatch.setattr(step, "step", lambda: (right[0], wrong))
    with pytest.raises(WrongError, match=r"gradient of layer0.w_hh is off by 1.0e-02"):
        options.check(case, step)


def test_lengths_are_between_a_quarter_and_all_of_the_steps():
    lengths = options.Case("rnn", 5000, 40, 1, 1).arrays("lengths")["lengths"]
    assert (lengths.min(), lengths.max()) == (10, 40)
    assert np.mean(lengths) == pytest.approx(25.0, rel=0.02)


def test_the_section_times_every_option_of_every_case(monkeypatch):
    monkeypatch.setattr(options, "SIZES", ((9, 5, 2, 4),))
    clock = sections.Clock(0.1)
    (result,) = sections.options(["rnn"], clock, True)
    names = {f"{kind}, {option}" for kind in kinds_of_kernels() for option in options.OPTIONS}
    assert names <= result["times"].keys()
    assert result["wrong"] == []


def test_table_and_verdicts():
    times = {"numpy, plain": [0.010], "numpy, lengths": [0.007], "numpy, mask": [0.014]}
    times |= {"torch, packed": [0.020], "torch, plain": [0.005]}
    sizes = dict(zip("NTIH", (64, 100, 8, 64), strict=True))
    result = {"cell": "lstm", **sizes, "layers": 2, "directions": 1, "times": times}
    assert options_page.options_table([result])[2:] == [
        "| LSTM, N = 64, T = 100, I = 8, H = 64, 2 layers | numpy | 10 | 0.70 | 1.40 |  |  |  |  |"
        "  |"
        " 0.35 | 2.00 |"
    ]
    case = "worst of 1 (LSTM, N = 64, T = 100, I = 8, H = 64, 2 layers)"
    assert [(what, round(value, 6), most) for what, value, most in
            options_page.options_verdicts([result])] == [
        (f"NumPy kernels, lengths ÷ plain, {case}", 0.7, 0.8),
        (f"NumPy kernels, mask ÷ plain, {case}", 1.4, 1.3),
        (f"NumPy kernels, lengths ÷ torch, packed, {case}", 0.35, 0.5),
    ]  # fmt: skip
