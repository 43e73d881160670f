"""`benchmarks/cpu`: nothing wrong is timed, operations are counted right, tables say so."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import cpu as bench
from benchmarks.cpu import __main__ as command
from benchmarks.cpu import contenders, inference, pieces, report, scaling, sections, timing

Case = bench.Case
TINY = (8, 4, 2, 3)


class TestEquality:
    @pytest.mark.parametrize("cell", bench.CELLS)
    @pytest.mark.parametrize("kind", ["Naive", "Engine", "Fit"])
    def test_what_is_right_passes(self, cell, kind):
        case = Case(cell, *TINY)
        contender = getattr(contenders, kind)(case)
        bench.check_training(contender, bench.reference(case))
        contender.close()

    @pytest.mark.parametrize("kernels", contenders.kinds_of_kernels())
    def test_fit_uses_the_kernels_that_are_named(self, kernels, monkeypatch):
        monkeypatch.setenv("RNN_XP_KERNELS", "portable")
        case, used = Case("lstm", *TINY), []
        fit = contenders.Fit(case, kernels)
        monkeypatch.setattr(
            "rnn_xp.engines.portable.make_workspace",
            lambda backend: used.append(contenders.kernels_of(backend).name),
        )
        bench.check_training(fit, bench.reference(case))
        assert set(used) == {kernels}
        assert contenders.kernels_of(bench.FLOAT32).name == "portable"

    @pytest.mark.parametrize("cell", bench.CELLS)
    @pytest.mark.parametrize("kernels", [False, True])
    @pytest.mark.parametrize("rows", [1, 8])
    def test_predictions(self, cell, kernels, rows):
        case = Case(cell, *TINY)
        forward = inference.Forward(case, rows, kernels)
        bench.check_inference(forward, bench.reference(case))
        forward.params = {name: 1.001 * weight for name, weight in case.weights.items()}
        with pytest.raises(bench.WrongError, match="prediction is off by"):
            bench.check_inference(forward, bench.reference(case))

    @pytest.mark.parametrize("error", [0.5, 2.0])
    def test_the_largest_prediction_is_the_scale(self, error):
        """A first prediction of a hundredth may be off by as much as the others, and no more."""
        right = bench.Reference({}, [], np.asarray([[0.01], [-1.0]]))
        off = right.predictions[:1] + error * bench.PREDICTION_TOLERANCE
        contender = SimpleNamespace(name="c", step=lambda: off)
        if error < 1.0:
            bench.check_inference(contender, right)
        else:
            with pytest.raises(bench.WrongError, match="prediction is off by 2.0e-05"):
                bench.check_inference(contender, right)

    def test_what_is_wrong_is_found_and_not_timed(self):
        class Off(contenders.Naive):
            name = "off"

            def gradient(self):
                found = super().gradient()
                return found | {"layer0.b_h": 1.001 * found["layer0.b_h"]}

        class Still(contenders.Naive):
            name = "still"

            def step(self):
                before = self.params
                loss = super().step()
                self.params = before
                return loss

        class Broken(contenders.Naive):
            name = "broken"

            def step(self):
                raise OSError("no library")

        case = Case("rnn", *TINY)
        planted = [kind(case) for kind in (Off, Still, Broken, contenders.Naive)]
        good, wrong, notes = sections.checked(planted, bench.check_training, bench.reference(case))
        assert [contender.name for contender in good] == ["NumPy, portable code"]
        assert wrong[0].startswith("off: gradient of layer0.b_h is off by 1.0e-03, over 0.0001")
        assert wrong[1].startswith("still: 3 updates lower the loss by 0, not ")
        assert notes == ["broken fails: OSError: no library"]


class TestFlops:
    def test_by_hand(self):
        # Multiplications of a window: three times 4 x 4 in two steps, twice 4 x 1 in three, and
        # three times 4; each goes with an addition.
        assert Case("rnn", N=2, T=3, I=1, H=4).flops == 2 * 2 * (3 * 16 * 2 + 2 * 4 * 3 + 3 * 4)
        assert Case("rnn", *bench.SIZES[0]).flops == pytest.approx(1.142e9, rel=1e-3)

    @pytest.mark.parametrize("cell", bench.CELLS)
    @pytest.mark.parametrize("threads", [1, 2])
    def test_the_products_do_as_many(self, monkeypatch, cell, threads):
        case, multiply, done = Case(cell, *TINY), np.matmul, []

        def count(a, b, out):
            done.append(2 * a.shape[0] * a.shape[1] * b.shape[1])
            return multiply(a, b, out=out)

        products = contenders.Products(case, threads)
        monkeypatch.setattr(contenders.np, "matmul", count)
        products.step()
        products.close()
        assert sum(done) == case.flops


class TestTiming:
    def test_turns(self):
        turns = []

        class Fake(timing.Contender):
            def __init__(self, name):
                self.name = name

            def step(self):
                turns.append(self.name)

            def times(self, seconds, most):
                self.step()
                return [1.0]  # longer than any turn, so no step is left untimed but the first

        found = timing.interleave([Fake("a"), Fake("b")], seconds=0.0, rounds=7)
        assert found == {"a": [1.0] * 5, "b": [1.0] * 5}
        assert "".join(turns) == "aabb" + "ba" + "ab" + "ba" + "ab"

    def test_fit_is_timed_between_epochs(self):
        fit = contenders.Fit(Case("rnn", *TINY))
        taken = fit.times(seconds=60.0, most=6)
        assert len(taken) == 6
        assert min(taken) > 0.0
        assert len(fit.times(seconds=0.0, most=6)) == 1

    @pytest.mark.parametrize("name", sections.OPTIMIZERS)
    def test_overhead_is_a_share(self, name):
        share = sections.overhead(Case("gru", *TINY), sections.OPTIMIZERS[name])
        assert 0.0 < share < 1.0


def given(times=None, cell="rnn", size=bench.SIZES[0], **other):
    """A result of a case, as `sections.steps` gives it; all times in ms."""
    times = times or {
        "rnn_xp, fit, numpy": 20.0,
        "rnn_xp, fit, numba": 10.0,
        "rnn_xp, engine": 19.0,
        "torch, eager": 40.0,
    }
    case = Case(cell, *size)
    result = {
        **dict(zip("NTIH", size, strict=True)),
        "cell": cell,
        "flops": case.flops,
        "times": {name: [1e-3 * value] * 5 for name, value in times.items()},
        "floors": {"products, one": [0.011] * 5, "products, two": [0.008] * 5},
        "overheads": {"Adam": 0.01, "L-BFGS": 0.10},
        "notes": [],
        "wrong": [],
    }
    return result | other


class TestReport:
    def test_table(self):
        result = given({"torch, eager": 40.0, "rnn_xp, fit, numba": 20.0, "jax, scan": 25.0})
        assert report.steps_table(result)[2:] == [
            "| rnn_xp, fit, numba | 20 | 20 to 20 | 5 | 0.50 | 0.80 | 2.50 |",
            "| jax, scan | 25 | 25 to 25 | 5 | 0.62 | 1.00 | 3.12 |",
            "| torch, eager | 40 | 40 to 40 | 5 | 1.00 | 1.60 | 5.00 |",
            "| products, two | 8 | 8 to 8 | 5 | 0.20 | 0.32 | 1.00 |",
        ]

    def test_without_yardsticks(self):
        result = given({"rnn_xp, fit, numpy": 20.0, "rnn_xp, engine": 0.12345})
        assert report.steps_table(result)[2] == (
            "| rnn_xp, engine | 0.123 | 0.123 to 0.123 | 5 |  |  | 0.02 |"
        )

    def test_verdicts(self):
        points = [
            {"value": n, "N": n, "times": [n * each] * 5, "memory": None}
            for n, each in ((100, 9e-6), (8317, 2e-6), (83_170, 1.9e-6), (831_700, 2.4e-6))
        ]
        times = {
            "rnn_xp, fit, numpy": 22.0,
            "rnn_xp, fit, numba": 20.0,
            "torch, eager": 40.0,
            "jax, scan": 16.0,
        }
        slow = {"rnn_xp, fit, numpy": 80.0, "rnn_xp, fit, numba": 40.0, "torch, eager": 40.0}
        results = {
            "steps": [given(times), given(size=bench.SMALL, wrong=["x: off"])],
            "sizes": [given(times), given(slow, "lstm", bench.LARGE, wrong=["y: off"])],
            "inference": [],
            "load_before": "0.10, 0.20, 0.30",
            "scaling": [{"cell": "rnn", "over": "N", "points": points}],
        }
        reference, large = Case("rnn", *bench.REFERENCE), Case("lstm", *bench.LARGE)
        assert report.verdicts(results) == [
            (True, f"holds: {reference}: compiled kernels ÷ torch eager: 0.5, at most 0.8"),
            (
                False,
                f"MISSED by 10 %: {reference}: NumPy kernels ÷ torch eager: 0.55, at most 0.5",
            ),
            (False, f"MISSED by 25 %: {large}: compiled kernels ÷ torch eager: 1, at most 0.8"),
            (True, f"holds: {large}: NumPy kernels ÷ torch eager: 2, at most 2"),
            (
                False,
                "MISSED by 200 %: compiled kernels ÷ torch eager, median of 2: 0.75, at most 0.25",
            ),
            (False, f"MISSED by 25 %: {reference}: compiled kernels ÷ best JAX: 1.25, at most 1"),
            (
                False,
                f"MISSED by 9 %: {reference}: compiled kernels ÷ matrix products: 2.5, at most 2.3",
            ),
            (True, f"holds: {reference}: Adam beyond the gradient: 1 %, at most 5 %"),
            (False, f"MISSED by 100 %: {reference}: L-BFGS beyond the gradient: 10 %, at most 5 %"),
            (
                False,
                "MISSED by 33 %: RNN: time per window from N = 8,317 to 831,700 flat: "
                "20 %, at most 15 %",
            ),
            (False, "WRONG and not timed: x: off"),
            (False, "WRONG and not timed: y: off"),
        ]
        assert report.targets(results)[0].startswith("MISSED")
        results["load_before"] = "1.50, 0.20, 0.30"
        assert report.targets(results)[0].startswith("the machine was not idle")

    @pytest.mark.parametrize(("cell", "most"), [("rnn", 0.5), ("gru", 0.65), ("lstm", 0.65)])
    def test_what_is_asked_of_each_size(self, cell, most):
        results = [given(cell=cell, size=size) for size in bench.SIZES]
        limits = [limit for _, _, limit in report.sizes_verdicts(results)]
        assert limits == [0.8, most, *[0.8, 2.0] * 8, 0.25]
        assert not [*report.sizes_verdicts([given(cell=cell, size=TINY)])]

    def test_sizes_table(self):
        found = [given(), given({"rnn_xp, fit, numpy": 20.0})]
        name = str(Case("rnn", *bench.REFERENCE))
        assert report.sizes_table(found)[2:] == [
            f"| {name} | 10 | 20 | 40 | 0.25 | 0.50 |",
            f"| {name} |  | 20 |  |  |  |",
        ]

    def test_scaling_table(self):
        point = {"value": 10, "N": 10, "times": [1e-4] * 5, "memory": 2_500_000}
        curves = [
            {"cell": "rnn", "over": "N", "points": [point]},
            {"cell": "gru", "over": "N", "points": [point | {"value": 20, "N": 20}]},
        ]
        assert report.scaling_tables(curves)[3:] == [
            "| 10 | 10 | 2.5 |  |  |",
            "| 20 |  |  | 5 | 2.5 |",
        ]
        assert scaling.flatness([point]) is None


def test_pieces(monkeypatch):
    monkeypatch.setattr(pieces, "SECONDS", 0.0)
    found = list(pieces.pieces())
    assert [list(piece) for piece in found] == [["what", *contenders.kinds_of_kernels()]] * 3
    assert all(0.0 < value < 1e4 for piece in found for value in list(piece.values())[1:])
    assert report.pieces_table([{"what": "x", "numpy": 1.234}])[2:] == ["| x | 1.23 |  |"]


def test_a_curve_is_measured():
    points = scaling.measure("lstm", "T", [1, 3], 0.05, 5)
    assert [(point["value"], point["N"]) for point in points] == [(1, 1040), (3, 1040)]
    assert all(len(point["times"]) >= 5 for point in points)


@pytest.mark.full
def test_a_run_writes_everything(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(bench, "QUICK_SIZES", (TINY,))
    monkeypatch.setattr(sections.of_options, "SIZES", (TINY,))
    monkeypatch.setattr(sections, "LIBRARIES", ())
    monkeypatch.setattr(sections, "OVERHEAD_SECONDS", 0.01)
    monkeypatch.setattr(sections, "MOST_SECONDS", 0.3)
    monkeypatch.setattr(inference, "missing", lambda name: True)
    curve = [{"value": value, "N": 10, "times": [1e-4] * 5, "memory": 10**6} for value in (1, 3)]
    monkeypatch.setattr(scaling, "in_a_fresh_process", lambda *_: curve)
    out = tmp_path / "bench"
    assert command.main(["--quick", "--only", "gru", "--seconds", "60", "--out", str(out)]) == 0
    results = json.loads(out.with_name("bench.json").read_text())
    assert {name: len(results[name]) for name in command.SECTIONS} == {
        "steps": 1, "sizes": 1, "pieces": 3, "options": 1, "inference": 2, "scaling": 3,
    }  # fmt: skip
    for section in ("steps", "sizes"):
        assert all(len(taken) >= 5 for taken in results[section][0]["times"].values())
    page = out.with_name("bench.md").read_text()
    for words in (
        "GRU, N = 8, T = 4",
        "## Sizes",
        "## Inference",
        "torch is not installed",
        "bench.png",
    ):
        assert words in page
    assert str(tmp_path) not in page
    assert out.with_name("bench.png").stat().st_size > 1000
    assert "Load average after" in capsys.readouterr().out


def test_what_is_wrong_is_the_exit_status(monkeypatch):
    wrong = {name: [] for name in command.SECTIONS} | {"steps": [given()]}
    wrong |= {"load_before": "nan", "load_after": "nan"}
    monkeypatch.setattr(command, "run", lambda args: wrong)
    assert command.main([]) == 0
    wrong["steps"][0]["wrong"] = ["x: off"]
    assert command.main([]) == 1


def test_bad_arguments(tmp_path):
    for words in (["--only", "rnn,cnn"], ["--sections", ""], ["--out", str(tmp_path / "no" / "x")]):
        with pytest.raises(SystemExit):
            command.main(words)


def test_settings_that_change_libraries_are_left_out():
    names = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "OMP_NUM_THREADS", "PATH", "MPLBACKEND")
    assert [bool(command.UNSET.match(name)) for name in names] == [True] * 3 + [False] * 2
