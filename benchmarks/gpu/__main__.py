"""Check and time everything on a CUDA GPU, in less than nine minutes; what fails is in the report.

    python -m benchmarks.gpu                        all; writes benchmarks/results/gpu/
    python -m benchmarks.gpu --sections environment,agreement
    python -m benchmarks.gpu --sections products    own products beside cuBLAS
    python -m benchmarks.gpu --sections layers      ragged rows, stacks and wide layers
    python -m benchmarks.gpu --sections steps       options, minibatches, L-BFGS and LM
    python -m benchmarks.gpu --sections benchmark --seconds 1500
    python -m benchmarks.gpu --sections benchmark --cases "N = 256" --libraries rnn_xp
    python -m benchmarks.gpu --wheels DIR           takes packages that are missing from there
    python -m benchmarks.gpu --cpu-dry-run          tiny sizes on the CPU, to try the script

Needs CuPy, NumPy and safetensors; array-api-compat, -extra and -strict, threadpoolctl and tqdm,
which may come from --wheels; pytest and hypothesis for the tests; and compares with torch and jax
where they are installed. The package itself need not be. Exits with 2 if there is no usable CUDA
device, and with 1 if anything does not hold.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.machine import some_of

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "benchmarks" / "results" / "gpu"
SECONDS, DRY_SECONDS = 510.0, 240.0
LIMITS = {  # seconds of each section; the benchmark has what is left
    "environment": 30.0,
    "capture": 40.0,
    "agreement": 110.0,
    "sanitizer": 120.0,
    "tests": 120.0,
    "training": 70.0,
    "products": 40.0,
    "layers": 110.0,
    "steps": 70.0,
    "benchmark": 0.0,
}
LIBRARIES = ("rnn_xp", "torch", "jax")
TOGETHER = ("agreement", "sanitizer", "tests")  # whose times say nothing: they may run at once
ROUNDS, DRY_ROUNDS = (False, False, True), (False, True)  # whether TF32 is on
UNSET = (  # what would change how others compute, or where
    *("RNN_XP_BACKEND", "RNN_XP_DEVICE", "RNN_XP_DTYPE", "CUPY_TF32", "NVIDIA_TF32_OVERRIDE"),
    *("JAX_ENABLE_X64", "JAX_DEFAULT_MATMUL_PRECISION", "JAX_PLATFORMS"),
)
WHEELS = {  # distribution: what is imported
    "array-api-compat": "array_api_compat",
    "array-api-strict": "array_api_strict",
    "safetensors": "safetensors",
    "threadpoolctl": "threadpoolctl",
    "tqdm": "tqdm",
    "pytest": "pytest",
    "hypothesis": "hypothesis",
}


def prepare(wheels, folder, dry):
    """Let this process and its children import what they need, and compute as is usual."""
    paths = [str(ROOT)]
    missing = [name for name, module in WHEELS.items() if importlib.util.find_spec(module) is None]
    if wheels is not None and missing:
        paths.append(folder)
        for name in missing:  # one by one: not all of them need be there
            subprocess.run(
                [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps",
                 "--find-links", str(wheels), "--target", folder, name], check=False,
            )  # fmt: skip
    sys.path[:0] = paths
    inherited = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = os.pathsep.join([*paths, *([inherited] if inherited else [])])
    for name in UNSET:
        os.environ.pop(name, None)
    os.environ |= {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "MPLBACKEND": "Agg"}
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(Path(folder, "jax"))  # for the second round
    if dry:
        os.environ["JAX_PLATFORMS"] = "cpu"


def command_of(section, dry, **options):
    """The command that does a section in a process of its own."""
    words = [sys.executable, "-m", "benchmarks.gpu", "--one", section]
    return [*words, "--options", json.dumps(options), *(["--cpu-dry-run"] if dry else [])]


def do_one(section, options, dry):
    """Do a section here; its records go to a file, or to nowhere."""
    from benchmarks.gpu import (
        Place,
        benchmark,
        correctness,
        environment,
        layers,
        products,
        steps,
    )

    place, out = Place(dry), options.pop("out", None)
    records = {
        "environment": environment.environment,
        "capture": environment.capture,
        "agreement": correctness.agreement,
        "small": correctness.small,
        "sanitizer": correctness.sanitizer,
        "tests": correctness.tests,
        "training": correctness.training,
        "products": products.products,
        "layers": layers.layers,
        "steps": steps.steps,
        "references": benchmark.references,
        "times": benchmark.times,
    }[section](place, **options)
    done = []
    with open(out or os.devnull, "a", encoding="utf-8") as file:
        for record in records:
            file.write(json.dumps(record, default=float) + "\n")
            file.flush()
            done.append(record)
    return int(any_wrong(done))


class Section:
    """A process that does a section, and what became of it."""

    def __init__(self, section, dry, folder, environment=None, **options):
        self.section, self.began = section, time.perf_counter()
        own = Path(tempfile.mkdtemp(dir=folder))
        self.out, self.errors = own / "records", own / "errors"
        command = command_of(section, dry, out=str(self.out), **options)
        with open(self.errors, "w") as errors:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env={**os.environ, **(environment or {})},
                stdout=subprocess.DEVNULL, stderr=errors, start_new_session=True,
            )  # fmt: skip

    def stop(self):
        """End it, and what it has started, unless it is over."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def finish(self, seconds):
        """Wait so long, and stop it then with all it has started; what there is of it."""
        try:
            code = self.process.wait(max(seconds, 0.0))
            status = "done" if code in (0, 1) else f"ended with status {code}"
        except subprocess.TimeoutExpired:
            self.stop()
            status = f"stopped after {seconds:.0f} s"
        errors = self.errors.read_text(errors="replace").strip()
        lines = self.out.read_text().splitlines(keepends=True) if self.out.exists() else []
        records = [json.loads(line) for line in lines if line.endswith("\n")]
        broken = status != "done" or (code == 1 and not any_wrong(records))
        return {
            "section": self.section,
            "status": status,
            "error": (errors[-4000:] or status) if broken else "",
            "seconds": time.perf_counter() - self.began,
            "records": records,
        }


def any_wrong(records):
    return any(record.get("holds") is False for record in records)


def run(args, folder, stack):
    """Do all sections that were asked for, and write what there is after each.

    Whatever ends this, no section is left running: the stack stops them.
    """
    from benchmarks.gpu import report

    end = time.perf_counter() + args.seconds
    scale = args.seconds / SECONDS
    words = ["--cpu-dry-run"] if args.cpu_dry_run else []
    words += [] if args.sections == list(LIMITS) else [f"--sections {','.join(args.sections)}"]
    words += [f'--cases "{args.cases}"'] if args.cases else []
    words += (
        [] if args.libraries == list(LIBRARIES) else [f"--libraries {','.join(args.libraries)}"]
    )
    usual = DRY_SECONDS if args.cpu_dry_run else SECONDS
    words += [] if args.seconds == usual else [f"--seconds {args.seconds:g}"]
    results = {
        "command": " ".join(["python -m benchmarks.gpu", *words]),
        "date": datetime.date.today().isoformat(),
        "dry": args.cpu_dry_run, "picture": None, "sections": [],
    }  # fmt: skip

    def done(found):
        results["sections"].append(found)
        wrong = sum(record.get("holds") is False for record in found["records"])
        print(f"{found['section']}: {found['status']}, {len(found['records'])} records, {wrong} "
              f"do not hold, {found['seconds']:.0f} s", flush=True)  # fmt: skip
        if found["error"]:
            print(found["error"][-1000:], flush=True)
        write(results, args.out, report)

    def start(section, **options):
        started = Section(section, args.cpu_dry_run, folder, **options)
        stack.callback(started.stop)
        return started

    def begin(section):
        limit = min(LIMITS[section] * scale, end - time.perf_counter())
        options = {
            "sanitizer": {
                "command": command_of("small", args.cpu_dry_run), "seconds": limit - 2.0,
            },
            "tests": {"seconds": limit - 2.0},
            "training": {"script": str(ROOT / "scripts" / "train.py")},
        }  # fmt: skip
        return start(section, **options.get(section, {})), time.perf_counter() + limit

    about = {"references": folder, "only": args.cases}
    background = start("references", **about) if "benchmark" in args.sections else None
    begun = {}
    for section in args.sections:
        if section != "benchmark":
            group = TOGETHER if section in TOGETHER else (section,)
            for each in group:
                if each in args.sections and each not in begun:
                    begun[each] = begin(each)
            started, limit = begun[section]
            done(started.finish(limit - time.perf_counter()))
            continue
        done(background.finish(end - time.perf_counter()))
        jobs = [
            (number, tf32, library)
            for number, tf32 in enumerate(DRY_ROUNDS if args.cpu_dry_run else ROUNDS)
            for library in args.libraries
        ]  # fmt: skip
        for at, (number, tf32, library) in enumerate(jobs):
            share = (end - time.perf_counter()) / (len(jobs) - at)
            # A contender that is being timed when its time is out may still finish.
            job = start(
                "times", environment={"CUPY_TF32": str(int(tf32))}, library=library, tf32=tf32,
                round=number, seconds=0.75 * share, **about,
            )  # fmt: skip
            done(job.finish(share))
    return results


def write(results, out, report):
    """The files, with what there is so far."""
    out.mkdir(parents=True, exist_ok=True)
    results["picture"] = "gpu.png" if report.draw(results, out / "gpu.png") else None
    text = json.dumps(results, indent=1, default=float)
    (out / "gpu.json").write_text(text + "\n", encoding="utf-8")
    (out / "gpu.md").write_text(report.page(results), encoding="utf-8")


def main(argv=None):
    parser = argparse.ArgumentParser(description="Check and time everything on a CUDA GPU.")
    parser.add_argument("--sections", type=some_of(LIMITS), default=list(LIMITS), metavar="NAMES")
    parser.add_argument("--libraries", type=some_of(LIBRARIES), default=list(LIBRARIES),
                        metavar="NAMES", help="whose epochs are timed")  # fmt: skip
    parser.add_argument(
        "--cases", default="", metavar="REGEX", help="time only what has this in its name"
    )
    parser.add_argument("--seconds", type=float, help="how long it may take (510)")
    parser.add_argument("--wheels", type=Path, metavar="DIR", help="install from there what misses")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "benchmarks" / "results" / "gpu", metavar="DIR"
    )
    parser.add_argument("--cpu-dry-run", action="store_true", help="tiny sizes on the CPU")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--options", type=json.loads, default={}, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    args.seconds = args.seconds or (DRY_SECONDS if args.cpu_dry_run else SECONDS)
    if args.one:  # in a process that another has prepared
        return do_one(args.one, args.options, args.cpu_dry_run)
    with tempfile.TemporaryDirectory() as folder:
        prepare(args.wheels, folder, args.cpu_dry_run)
        if not args.cpu_dry_run:
            import rnn_xp as rx

            cupy = next(status for status in rx.backends() if status.name == "cupy")
            if not cupy.usable:
                print(f"no usable CUDA device: {cupy.reason}", file=sys.stderr)
                return 2
        with contextlib.ExitStack() as stack:
            results = run(args, folder, stack)
        from benchmarks.gpu import report

        for holds, sentence in report.verdicts(results):
            print("holds:" if holds else "MISSED:", sentence)
        broken = any(section["error"] for section in results["sections"])
        return 1 if broken or report.failures(results) else 0


if __name__ == "__main__":
    sys.exit(main())
