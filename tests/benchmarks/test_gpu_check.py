"""`benchmarks/gpu` on a machine without a GPU: a dry run of it all, and how it says so."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import gpu
from benchmarks.gpu import __main__ as command
from benchmarks.gpu import benchmark, correctness, environment, report, tiers, timing

ROOT = Path(__file__).parents[2]
DRY = gpu.Place(dry=True)
CASE = DRY.cases()[0]


def run(*words, **environment):
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", *words],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": "", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_without_a_gpu_it_says_so_and_stops(tmp_path):
    process = run("--out", str(tmp_path / "out"), CUDA_VISIBLE_DEVICES="")
    assert process.returncode == 2, process.stderr
    assert process.stderr.startswith("no usable CUDA device: ")
    assert process.stdout == ""
    assert not (tmp_path / "out").exists()


@pytest.mark.full
def test_a_dry_run_does_every_section(tmp_path):
    process = run("--cpu-dry-run", "--out", str(tmp_path), "--seconds", "900")
    assert process.returncode == 0, process.stdout + process.stderr
    results = json.loads((tmp_path / "gpu.json").read_text())
    found = {section["section"]: section for section in results["sections"]}
    assert found.keys() == {*command.LIMITS, "references", "times"} - {"benchmark"}
    assert {section["status"] for section in results["sections"]} == {"done"}
    jobs = [section for section in results["sections"] if section["section"] == "times"]
    assert len(jobs) == len(command.DRY_ROUNDS) * len(command.LIBRARIES)
    timed = report.timed(results, tf32=False)
    assert list(timed) == DRY.cases()
    for names in timed.values():
        assert {"rnn_xp, portable code", "rnn_xp, kernels", "jax, scan"} <= names.keys()
    errors = [record["error_of_loss"] for record in found["agreement"]["records"]
              if "error_of_loss" in record]  # fmt: skip
    assert len(errors) == 2 * 2 * len(correctness.NETWORKS)
    assert found["tests"]["records"][0]["passed"] > 5
    assert [record["what"] for record in found["training"]["records"]][2].startswith("lbfgs: test")
    page = (tmp_path / "gpu.md").read_text()
    for words in ("A dry run on the CPU", "## Sanitizer", "| jax, scan |", "gpu.png"):
        assert words in page
    assert str(tmp_path) not in page
    assert (tmp_path / "gpu.png").stat().st_size > 1000


@pytest.mark.full
@pytest.mark.parametrize("section", ["products", "layers", "steps"])
def test_a_section_alone(section, tmp_path):
    process = run("--cpu-dry-run", "--sections", section, "--out", str(tmp_path))
    assert process.returncode == 0, process.stdout + process.stderr
    (found,) = json.loads((tmp_path / "gpu.json").read_text())["sections"]
    assert found["status"] == "done"
    bits = [r for r in found["records"] if r["what"].endswith(": bits")]
    assert len(bits) == (13 if section == "steps" else 0)
    assert all(record["holds"] for record in bits)


@pytest.mark.parametrize("words", [["--sections", "environment,speed"], ["--libraries", "mxnet"]])
def test_bad_arguments(words):
    with pytest.raises(SystemExit):
        command.main(words)


@pytest.mark.full
def test_some_cases_and_libraries_alone(tmp_path):
    words = ("--sections", "benchmark", "--cases", "GRU, N = 16,", "--libraries", "rnn_xp")
    process = run("--cpu-dry-run", "--out", str(tmp_path), *words)
    assert process.returncode == 0, process.stdout + process.stderr
    results = json.loads((tmp_path / "gpu.json").read_text())
    names = [section["section"] for section in results["sections"]]
    assert names == ["references", *["times"] * len(command.DRY_ROUNDS)]
    assert [str(case) for case in report.timed(results, False)] == [
        "GRU, N = 16, T = 4, I = 1, H = 5"
    ]
    assert results["command"].endswith('--cases "GRU, N = 16," --libraries rnn_xp')


class TestSections:
    @staticmethod
    def section(code, seconds, tmp_path, monkeypatch):
        """A section whose process runs other code."""
        monkeypatch.setattr(
            command, "command_of", lambda *given, out: [sys.executable, "-c", code, out]
        )
        return command.Section("x", True, str(tmp_path)).finish(seconds)

    WRITE = "import sys, time; f = open(sys.argv[1], 'w'); "

    def test_what_is_stopped_keeps_its_records(self, tmp_path, monkeypatch):
        code = self.WRITE + """f.write('{"what": "a"}\\n{"wh'); f.flush(); time.sleep(60)"""
        found = self.section(code, 2.0, tmp_path, monkeypatch)
        assert found["status"] == found["error"] == "stopped after 2 s"
        assert found["records"] == [{"what": "a"}]

    def test_no_section_outlives_the_command(self, tmp_path, monkeypatch):
        started = []

        def begin(self, *given, **options):
            child = [sys.executable, "-c", "import time; time.sleep(60)"]
            self.process = subprocess.Popen(child, start_new_session=True)
            started.append(self.process)

        def finish(self, seconds):
            raise KeyboardInterrupt

        monkeypatch.setattr(command.Section, "__init__", begin)
        monkeypatch.setattr(command.Section, "finish", finish)
        monkeypatch.setattr(command, "prepare", lambda *given: None)
        with pytest.raises(KeyboardInterrupt):
            command.main(["--cpu-dry-run", "--out", str(tmp_path)])
        assert len(started) == 2  # the references in the background, and the first section
        assert all(process.poll() is not None for process in started)

    def test_what_dies_says_why(self, tmp_path, monkeypatch):
        found = self.section("raise OSError('no driver')", 60.0, tmp_path, monkeypatch)
        assert found["status"] == "done"
        assert found["error"].endswith("OSError: no driver")
        found = self.section("import os; os.abort()", 60.0, tmp_path, monkeypatch)
        assert found["error"] == found["status"] == "ended with status -6"

    def test_what_does_not_hold_is_no_error_of_the_section(self, tmp_path, monkeypatch):
        code = (
            self.WRITE + """f.write('{"what": "a", "holds": false}\\n'); f.close(); sys.exit(1)"""
        )
        found = self.section(code, 60.0, tmp_path, monkeypatch)
        assert (found["status"], found["error"]) == ("done", "")

    def test_attempts(self):
        def left_out():
            raise gpu.LeftOutError("no such engine")

        assert gpu.attempt("a", lambda: {"value": 1}) == {"what": "a", "value": 1}
        assert gpu.attempt("a", left_out) == {"what": "a", "note": "no such engine"}
        failed = gpu.attempt("a", lambda: 1 / 0)
        assert failed["holds"] is False
        assert "ZeroDivisionError" in failed["error"]


class TestBenchmark:
    def test_what_is_wrong_is_not_timed(self, tmp_path):
        assert [r["what"] for r in benchmark.references(DRY, tmp_path)] == [
            str(case) for case in DRY.cases()
        ]

        class Off(tiers.Tier):
            def gradient(self):
                found = super().gradient()
                return found | {"layer0.b_h": 1.001 * found["layer0.b_h"]}

        def make():
            return Off(tiers.KERNELS, DRY, CASE)

        found = benchmark._timed(make, CASE, tmp_path, 1.0, DRY)
        assert found["holds"] is False
        assert found["wrong"].endswith("gradient of layer0.b_h is off by 1.0e-03, over 0.0001")
        assert "wall" in benchmark._timed(make, CASE, tmp_path, 100.0, DRY)

    def test_a_sample_is_long_enough_and_waited_for_once(self, monkeypatch):
        done = []

        class Device(timing.Epochs):
            """An epoch takes a microsecond on the device, and handing one over a millisecond."""

            name, unit, now = "device", 5, 0.0

            def run(self, epochs):
                done.append(epochs)
                Device.now += 1e-3 * epochs

            def synchronize(self):
                done.append("wait")

            def loss(self):
                return 0.0

            def event(self):
                return Device.now

            def elapsed(self, first, last):
                return (last - first) * 1e3 * 1e-3

        clock = SimpleNamespace(perf_counter=lambda: Device.now)
        monkeypatch.setattr(timing, "time", clock)
        found = timing.measure(Device(), 1.0)
        assert found["wall"] == pytest.approx(1000.0)
        assert found["device"] == pytest.approx(1.0)
        assert found["epochs"] == 50
        assert 18 <= found["samples"] <= 20
        assert done[-3:] == ["wait", 50, "wait"]

    def test_the_fused_engine_comes_before_what_takes_long(self):
        cases = gpu.Place(dry=False).cases("^RNN")
        found = list(tiers.contenders(DRY, cases, False, None))
        assert len(found) == 4 * len(cases) == len({(case, name) for case, name, _ in found})
        fused = ["fused" in name for _, name, _ in found]
        assert [case for case, _, _ in found[:4]] == [cases[0]] * 4
        assert fused[4:] == sorted(fused[4:], reverse=True)

    def test_tiers_differ_in_what_they_compute_with(self):
        engines = {
            tier: tiers.make_engine(tier, CASE.net, DRY.backend(), *CASE.data)
            for tier in (tiers.PORTABLE, tiers.KERNELS)
        }
        for tier, engine in engines.items():
            with engine._workspace() as workspace:
                assert (workspace is None) is (tier == tiers.PORTABLE)
        with pytest.raises(gpu.LeftOutError):
            tiers.make_engine(tiers.FUSED, CASE.net, DRY.backend(), *CASE.data)


class TestDevice:
    """What is asked of CuPy, with something in its place."""

    @staticmethod
    def cupy(refuse):
        """Refuses products and reads in a capture if it shall; its graphs do nothing."""
        state = SimpleNamespace(capturing=False)

        class Stream(contextlib.nullcontext):
            def __init__(self, non_blocking):
                super().__init__()

            def begin_capture(self):
                state.capturing = True

            def end_capture(self):
                state.capturing = False
                return SimpleNamespace(launch=lambda stream: None)

            def synchronize(self):
                pass

        class Array(np.ndarray):
            def __getitem__(self, index):
                if state.capturing and refuse:
                    raise RuntimeError("the current stream is capturing")
                return super().__getitem__(index)

        def matmul(a, b):
            if state.capturing and refuse:
                raise NotImplementedError("calling cuBLAS API during stream capture")
            return np.matmul(a, b)

        cuda = SimpleNamespace(
            Stream=Stream, Device=lambda: SimpleNamespace(synchronize=lambda: None)
        )

        def ones(shape, dtype):
            return np.ones(shape, dtype).view(Array)

        return SimpleNamespace(
            cuda=cuda, matmul=matmul, add=np.add, zeros=np.zeros, where=np.where,
            asarray=np.asarray, asnumpy=np.asarray, ones=ones,
        )  # fmt: skip

    @pytest.mark.parametrize("refuse", [True, False])
    def test_capture(self, refuse):
        place = SimpleNamespace(dry=False, cupy=self.cupy(refuse))
        found = [record["holds"] for record in environment.capture(place)]
        # Its graphs are never replayed; float32 and products are NumPy's.
        assert found == [False, refuse, refuse, True, True]

    def test_the_sanitizer_is_told_what_to_do(self, tmp_path, monkeypatch):
        tool = tmp_path / "compute-sanitizer"
        tool.write_text('#!/bin/sh\necho "========= $*"\ntest "$2" = memcheck\n')
        tool.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        found = list(correctness.sanitizer(DRY, ["python", "small"], 60.0))
        assert [record["holds"] for record in found] == [True, False]
        assert found[0]["detail"] == "========= --tool memcheck --error-exitcode 9 python small"

    def test_without_a_sanitizer(self, monkeypatch):
        monkeypatch.setattr(correctness.shutil, "which", lambda *given, **options: None)
        found = list(correctness.sanitizer(DRY, [], 60.0))
        assert [record["note"] for record in found] == ["compute-sanitizer is not there"] * 2


def test_summary_of_tests():
    alone = "a.py::one[x y] PASSED  [ 1%]\na.py::two FAILED [ 2%]\na.py::three SKIPPED (no) [3%]\n"
    found = correctness.summary(alone + "=== FAILURES ===\nassert 1 == 2\n")
    assert [found[word] for word in ("passed", "failed", "skipped")] == [1, 1, 1]
    assert found["holds"] is False
    assert "a.py::two" in found["error"]
    assert "assert 1 == 2" in found["error"]
    parallel = "[gw0] [  1%] PASSED a.py::one \n[gw11] [100%] PASSED a.py::two \n"
    assert correctness.summary(parallel)["passed"] == 2
    assert correctness.summary(parallel)["holds"] is True
    assert correctness.summary("no tests ran")["holds"] is False
    broken = parallel + "____ ERROR collecting tests/a.py ____\nImportError\n"
    assert correctness.summary(broken)["holds"] is False


class TestReport:
    @staticmethod
    def results(**walls):
        case = report.Case("rnn", *gpu.SIZES[0])
        names = {
            "fused": "rnn_xp, fused engine", "eager": "torch, eager", "graph": "torch, CUDA graph",
        }  # fmt: skip
        records = [
            {
                "what": name, "case": vars(case) | {}, "name": names[name], "tf32": False,
                "wall": wall + more, "p10": wall, "p90": wall, "device": wall / 2,
            }
            for name, wall in walls.items() for more in (0.0, 7.0)
        ]  # fmt: skip
        section = {"section": "times", "status": "done", "error": "", "seconds": 1.0}
        return {
            "command": "x", "date": "today", "dry": False, "picture": None,
            "sections": [section | {"records": records}],
        }  # fmt: skip

    def test_verdicts(self):
        found = report.verdicts(self.results(fused=50.0, eager=400.0, graph=60.0))
        assert [holds for holds, _ in found] == [True, True, False]
        assert found[2][1].endswith("torch, CUDA graph ÷ fused engine: 1.2, at least 1.5")
        assert report.verdicts(self.results(eager=1.0)) == []

    def test_table(self):
        lines = report.times_tables(self.results(fused=50.0, eager=400.0), tf32=False)
        assert lines[-2:] == [
            "| rnn_xp, fused engine | 50 | 25 | 50 / 57 | 50 to 50 | 8.00 |",
            "| torch, eager | 400 | 200 | 400 / 407 | 400 to 400 | 1.00 |",
        ]

    def test_what_failed_is_on_the_page(self):
        results = self.results(fused=50.0)
        results["sections"] += [
            {
                "section": "agreement", "status": "stopped after 3 s", "seconds": 3.0,
                "error": "Killed", "records": [
                    {"what": "gru", "holds": False, "error": "Traceback\nValueError: no"},
                    {"what": "rnn", "holds": True, "error_of_loss": 1.234567e-8},
                ],
            }
        ]  # fmt: skip
        page = report.page(results)
        for words in (
            "### agreement: gru", "ValueError: no", "The section agreement: stopped after 3 s",
            "Killed", "| rnn | holds | error_of_loss 1.23e-08 |", "| gru | **does not hold** |",
        ):  # fmt: skip
            assert words in page
