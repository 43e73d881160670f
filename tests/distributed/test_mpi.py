"""Ranks of MPI: the bits of one rank, and what happens when something happens to one of them.

Each launch has a hard limit and may leave no process behind.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
import time
from typing import ClassVar

import numpy as np
import pytest
from device import require_device
from mpi_launch import GFORKER, HYDRA, LIMIT, TESTS, Launch, on_torch, said, train, until
from rank_runs import EPOCHS, KINDS, alone, fit

import rnn_xp
from rnn_xp import checkpoint
from rnn_xp.distributed import fingerprint
from rnn_xp.training.callbacks import Checkpoint

pytestmark = [
    pytest.mark.mpi,
    pytest.mark.skipif(
        importlib.util.find_spec("mpi4py") is None, reason="mpi4py is not installed"
    ),
]


@functools.cache
def expected(kind, epochs=EPOCHS):
    return fingerprint((alone(kind) if epochs == EPOCHS else fit(kind, epochs=epochs)).params)


def assert_resumable(folder, kind="adam"):
    """The file goes on, on one rank, to the bits of a run that nothing happened to."""
    result = fit(kind, resume=Checkpoint(folder).last)
    assert fingerprint(result.params) == expected(kind)


class TestBits:
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("ranks", [1, 2, 3, 4])
    def test_after_thirty_epochs(self, ranks, kind, tmp_path):
        done = train(ranks, tmp_path, kind)
        assert (done.status, done.err) == (0, "")
        assert said(tmp_path, ranks) == [expected(kind), str(EPOCHS), ""]

    @pytest.mark.parametrize("kind", KINDS)
    def test_from_four_ranks_to_two(self, kind, tmp_path):
        assert train(4, tmp_path, kind, EPOCHS // 2).status == 0
        assert said(tmp_path, 4)[0] == expected(kind, EPOCHS // 2)
        assert train(2, tmp_path, kind).status == 0
        assert said(tmp_path, 2)[0] == expected(kind)

    @pytest.mark.parametrize("ranks", [2, 3])
    def test_sums_that_stay_on_the_device(self, ranks, tmp_path):
        """With torch on a CPU, whose memory any MPI can read."""
        pytest.importorskip("torch")
        settings = {"RNN_XP_BACKEND": "torch", "RNN_XP_MPI_DEVICE_BUFFERS": "1"}
        done = train(ranks, tmp_path, "adam", fault="device buffers", **settings)
        assert (done.status, done.err) == (0, "")
        assert said(tmp_path, ranks)[0] == fingerprint(fit("adam", backend=on_torch()).params)
        (tmp_path / "fast").mkdir()
        fast = train(ranks, tmp_path / "fast", "adam", fault="fast device buffers", **settings)
        assert (fast.status, fast.err) == (0, "")

    def test_the_usual_launcher(self, tmp_path):
        assert train(2, tmp_path, "adam", launcher=HYDRA).status == 0
        assert said(tmp_path, 2)[0] == expected("adam")


@pytest.mark.device
class TestOnAGPU:
    """Ranks that share one GPU: slow, and to the same bits as one."""

    SETTINGS: ClassVar = {"RNN_XP_BACKEND": "cupy"}

    @pytest.fixture
    def same_bits(self, tmp_path):
        require_device()

        def check(ranks, kind, **more):
            done = train(ranks, tmp_path, kind, limit=60.0, **self.SETTINGS, **more)
            assert (done.status, done.err) == (0, "")
            backend = rnn_xp.get_backend("cupy", dtype="float32")
            alone = {
                name: backend.to_numpy(p) for name, p in fit(kind, backend=backend).params.items()
            }
            assert said(tmp_path, ranks)[0] == fingerprint(alone)

        return check

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("ranks", [2, 3])
    def test_through_the_host(self, ranks, kind, same_bits):
        same_bits(ranks, kind)

    @pytest.mark.parametrize("kind", KINDS)
    def test_device_buffers(self, kind, same_bits):
        """In managed memory, which an MPI that knows no CUDA can read where it lies."""
        same_bits(
            2, kind, fault="device buffers", RNN_XP_MPI_DEVICE_BUFFERS="1", RNN_XP_TEST_MANAGED="1"
        )


@pytest.mark.parametrize("launcher", [GFORKER, HYDRA])
class TestFaults:
    def test_an_exception_on_one_rank_ends_all_with_its_message(self, launcher, tmp_path):
        done = train(2, tmp_path, "adam", fault="exception", launcher=launcher)
        assert done.status != 0
        assert "RuntimeError: the disk is on fire" in done.err
        assert_resumable(tmp_path)

    def test_a_rank_that_exits(self, launcher, tmp_path):
        """Without ``python -m mpi4py`` the others end at their deadline."""
        done = train(2, tmp_path, "adam", fault="exit", launcher=launcher, RNN_XP_MPI_TIMEOUT="2")
        assert done.status != 0
        assert "rank 0: no answer of another rank in 2 s" in done.err
        assert_resumable(tmp_path)

    def test_a_rank_that_stalls(self, launcher, tmp_path):
        done = train(3, tmp_path, "adam", fault="stall", launcher=launcher, RNN_XP_MPI_TIMEOUT="2")
        assert done.status != 0
        assert "no answer of another rank in 2 s" in done.err
        assert_resumable(tmp_path)

    def test_a_rank_that_is_killed(self, launcher, tmp_path):
        """What the launcher says is not to be relied upon: gforker's status is 0."""
        done = train(3, tmp_path, "adam", fault="kill", launcher=launcher)
        assert not list(tmp_path.glob("rank-*"))
        assert done.seconds < LIMIT
        assert_resumable(tmp_path)

    def test_nan_on_one_rank(self, launcher, tmp_path):
        done = train(2, tmp_path, "adam", fault="nan", launcher=launcher)
        assert done.status != 0
        assert "DivergenceError: training diverged: the loss is not finite at epoch" in done.err
        checkpoint.load(tmp_path / "last.safetensors")  # whole, and finite

    def test_one_rank_that_stops(self, launcher, tmp_path):
        done = train(3, tmp_path, "adam", fault="stop", launcher=launcher)
        assert done.status == 0
        assert said(tmp_path, 3)[1:] == ["9", "the last rank is tired"]
        assert_resumable(tmp_path)

    def test_ranks_with_other_settings(self, launcher, tmp_path):
        done = train(2, tmp_path, "adam", fault="seed", launcher=launcher)
        assert done.status != 0
        assert "CommError: ranks 0 and 1 were started differently. arrays of the start" in done.err
        assert "seed: 0 and 1" in done.err
        assert not list(tmp_path.iterdir())


def test_ranks_killed_at_random(request, tmp_path):
    """One after the other, while they start and while they train; it goes on where it was."""
    rng, last = random.Random(0), tmp_path / "last.safetensors"
    epochs = [0]
    for number in range(request.config.getoption("--kills")):
        before = last.stat().st_mtime_ns if last.exists() else 0
        launch = Launch(
            2, str(TESTS / "mpi_training.py"), str(tmp_path), "adam", "100000", "slow",
            launcher=[GFORKER, HYDRA][number % 2], RNN_XP_MPI_TIMEOUT="5",
        )  # fmt: skip
        until(lambda launch=launch: len(launch.ranks()) == 2)
        if number % 4 < 3:
            until(lambda before=before: last.exists() and last.stat().st_mtime_ns > before)
        time.sleep(rng.uniform(0.0, 1.0))
        os.kill(rng.choice(launch.ranks()), signal.SIGKILL)
        launch.wait()
        epochs.append(checkpoint.load(last)[1]["training"]["epoch"])
    assert epochs == sorted(epochs)
    print(f"epochs after each kill: {epochs[1:]}")
    assert train(2, tmp_path, "adam", epochs[-1] + 5).status == 0
    assert said(tmp_path, 2)[0] == expected("adam", epochs[-1] + 5)


SMALL = ["--hidden-size", "4", "--optimizer", "adam", "--seed", "3", "--seq-length", "5"]
PATIENT = ["--patience", "3000"]  # it is a signal that ends the training


def rnn_xp_train(ranks, out, *options, epochs=6, **settings):
    command = ["-m", "rnn_xp.cli", "train", *SMALL, "--epochs", str(epochs), *options]
    return Launch(ranks, *command, "--out", str(out), **settings)


def params(folder):
    arrays, about = checkpoint.load(folder / "model.safetensors")
    return arrays, about


class TestCommandLine:
    def test_two_ranks_write_and_say_what_one_does(self, tmp_path):
        one = rnn_xp_train(1, tmp_path / "one").wait()
        two = rnn_xp_train(2, tmp_path / "two", launcher=HYDRA).wait()
        assert one.status == two.status == 0
        lines = [
            [line.replace("/two", "/one") for line in done.out.splitlines()] for done in (one, two)
        ]
        assert lines[1].pop(lines[1].index("ranks    2, 2 of them on these cores"))
        assert lines[0] == lines[1]
        assert two.err.count("epoch 6/6") == 1
        assert fingerprint(params(tmp_path / "one")[0]) == fingerprint(params(tmp_path / "two")[0])
        metrics = json.loads((tmp_path / "two" / "metrics.json").read_text())
        assert metrics["engine"]["ranks"] == 2
        left = {path.name for path in (tmp_path / "two").iterdir()}
        assert left == {path.name for path in (tmp_path / "one").iterdir()}

    def test_the_fast_reduction(self, tmp_path):
        done = rnn_xp_train(2, tmp_path / "two", "--reduction", "fast").wait()
        one = rnn_xp_train(1, tmp_path / "one").wait()
        assert done.status == one.status == 0
        assert 'reduction = "fast"' in (tmp_path / "two" / "config.toml").read_text()
        expected = params(tmp_path / "one")[0]
        found = params(tmp_path / "two")[0]
        for name in rnn_xp.Forecaster.load(tmp_path / "two").predictor_.net.shapes:
            array = found[name]
            np.testing.assert_allclose(array, expected[name], rtol=1e-3, atol=1e-5)
        told = checkpoint.load(tmp_path / "two" / "last.safetensors")[1]["training"]["run"]
        assert told["where"]["reduction"] == "fast on 2 ranks"

    def test_sigterm_to_the_launcher_keeps_the_epoch(self, tmp_path):
        launch = rnn_xp_train(
            2, tmp_path / "run", "--checkpoint-every", "1", *PATIENT, epochs=3000, launcher=HYDRA
        )
        until(lambda: (tmp_path / "run" / "last.safetensors").exists())
        launch.process.send_signal(signal.SIGTERM)
        done = launch.wait()
        about = checkpoint.load(tmp_path / "run" / "last.safetensors")[1]
        epoch = about["training"]["epoch"]
        assert epoch < 3000
        assert done.status == 128 + signal.SIGTERM
        assert done.err.count("SIGTERM: ending after this epoch") == 1
        assert f"interrupted by SIGTERM after epoch {epoch} of 3000; resume with" in done.err
        assert not (tmp_path / "run" / "model.safetensors").exists()
        again = Launch(
            3, "-m", "rnn_xp.cli", "train", "--resume", str(tmp_path / "run"), "--epochs",
            str(epoch + 4),
        ).wait()  # fmt: skip
        assert again.status == 0, again
        done = rnn_xp_train(1, tmp_path / "whole", *PATIENT, epochs=epoch + 4).wait()
        assert done.status == 0
        found, whole = (params(tmp_path / name)[0] for name in ("run", "whole"))
        assert all(np.array_equal(found[name], array) for name, array in whole.items())

    @pytest.mark.parametrize("launcher", [GFORKER, HYDRA])
    def test_an_error_of_all_is_told_once(self, launcher, tmp_path):
        done = rnn_xp_train(3, tmp_path / "run", epochs=0, launcher=launcher).wait()
        assert done.status != 0
        assert done.err.count("rnn-xp: error: --epochs must be an integer >= 1, got 0") == 1

    @pytest.mark.parametrize("launcher", [GFORKER, HYDRA])
    def test_an_error_of_the_first_ends_all(self, launcher, tmp_path):
        (tmp_path / "run").mkdir()
        done = rnn_xp_train(2, tmp_path / "run", launcher=launcher).wait()
        assert done.status != 0
        assert done.err.count("rnn-xp: error:") == 1
        assert "already exists" in done.err

    def test_divergence_leaves_the_last_good_model(self, tmp_path):
        options = ["--optimizer", "sgd", "--learning-rate", "1e30"]
        done = rnn_xp_train(2, tmp_path / "run", *options, epochs=50, launcher=HYDRA).wait()
        assert done.status == 1
        assert done.err.count("rnn-xp: training diverged") == 1
        assert params(tmp_path / "run")[0]


def test_scaling(tmp_path):
    """The script behind benchmarks/results/ranks.md, on few windows."""
    command = [
        sys.executable, "-m", "benchmarks.ranks", "--windows", "2100",
        "--epochs", "3", "--large", "600000", "--out", str(tmp_path / "scaling"),
    ]  # fmt: skip
    subprocess.run(command, check=True, timeout=120, capture_output=True, cwd=TESTS.parents[1])
    text = (tmp_path / "scaling.md").read_text()
    assert "| 2 ranks, strong | 2100 |" in text
    assert "600000 windows, each in full, in 6 files of 26 MB, on 2 ranks" in text
    assert (tmp_path / "scaling.png").stat().st_size > 10_000


def test_files_of_windows(tmp_path):
    """scripts/train_windows.py: on one rank, on two that see all, and on two with a folder each."""
    x, y = rnn_xp.make_windows(np.sin(np.arange(3130.0) / 9).astype("float32"), seq_length=10)
    for folder, rows in {"all": range(3120), "0": range(2080), "1": range(2080, 3120)}.items():
        (tmp_path / folder).mkdir()
        for start in range(rows.start, rows.stop, 1040):
            for name, array in (("x", x), ("y", y)):
                path = tmp_path / folder / f"{name}-{start:04}.npy"
                np.save(path, array[start : start + 1040])

    def run(ranks, folder, out, epochs, *more):
        script = str(TESTS.parents[1] / "scripts" / "train_windows.py")
        words = [str(tmp_path / folder), "--out", str(tmp_path / out), "--epochs", str(epochs)]
        done = Launch(ranks, script, *words, *more).wait()
        assert done.status == 0, done.err
        assert done.out.count(f"in {epochs} epochs") == 1
        assert done.err.count(f"epoch {epochs}/{epochs}") == 1
        arrays, about = checkpoint.load(tmp_path / out / "last.safetensors")
        assert about["training"]["epoch"] == epochs
        return fingerprint(arrays)

    expected = run(1, "all", "one", 6)
    halves = {"batch_size": 1560, "optimizer": rnn_xp.optim.adam(0.01), "epochs": 6}
    whole = rnn_xp.fit(rnn_xp.Network(hidden_size=50), x, y, **halves)
    half = run(1, "all", "half", 6, "--batch-size", "1560")
    arrays = checkpoint.load(tmp_path / "half" / "last.safetensors")[0]
    assert half != expected
    assert all(np.array_equal(arrays[name], param) for name, param in whole.params.items())
    assert run(2, "all", "two", 6) == expected
    run(2, "{rank}", "each", 3, "--sharded")
    assert run(1, "all", "each", 6) == expected
    broken = Launch(2, str(TESTS.parents[1] / "scripts" / "train_windows.py"), "none", "--out", "o")
    done = broken.wait()
    assert done.status != 0
    assert "FileNotFoundError: none has no x-*.npy" in done.err
