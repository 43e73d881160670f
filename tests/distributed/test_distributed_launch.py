"""What is found of a launcher and of MPI, with stand-ins for both, and what is said otherwise."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

import rnn_xp as rx
from rnn_xp.cli import main, ranks
from rnn_xp.distributed import CommError, gpus, launched_ranks
from rnn_xp.distributed import mpi as join
from rnn_xp.distributed.world import _SIZES, _found
from rnn_xp.engines.threads import count_workers


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch):
    for name in (*_SIZES, "RNN_XP_MPI_TIMEOUT"):
        monkeypatch.delenv(name, raising=False)
    _found.clear()
    yield
    _found.clear()


class World:
    """MPI_COMM_WORLD of one rank, as mpi4py shows it."""

    def __init__(self, size=1):
        self.size, self.aborted = size, []

    def Dup(self):  # noqa: N802 - its name
        return self

    def Get_rank(self):  # noqa: N802
        return 0

    def Get_size(self):  # noqa: N802
        return self.size

    def Iallgather(self, row, found):  # noqa: N802
        found[...] = row
        return SimpleNamespace(Test=lambda: True)

    def Irecv(self, row, partner):  # noqa: N802
        return SimpleNamespace(Test=lambda: False)

    def Abort(self, status):  # noqa: N802
        self.aborted.append(status)
        raise SystemExit(status)


@pytest.fixture
def world(monkeypatch):
    found = World()
    package, library = ModuleType("mpi4py"), ModuleType("mpi4py.MPI")
    library.COMM_WORLD = found
    library.Get_library_version = lambda: "Other MPI 7.1\nwith more"
    package.MPI = library
    monkeypatch.setitem(sys.modules, "mpi4py", package)
    monkeypatch.setitem(sys.modules, "mpi4py.MPI", library)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    return found


@pytest.mark.parametrize("name", _SIZES)
def test_launchers_say_how_many_there_are(name, monkeypatch):
    assert launched_ranks() == 1
    monkeypatch.setenv(name, "3")
    assert launched_ranks() == 3


def test_without_a_launcher_mpi_is_not_looked_for(monkeypatch):
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    assert ranks.join() is None
    assert ranks.describe(None) == []


def test_mpi4py_is_missing(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    monkeypatch.setenv("PMI_SIZE", "2")
    with pytest.raises(ImportError, match=r"pip install -e '\.\[mpi\]' mpich"):
        join()
    assert main(["train", "--epochs", "1"]) == 2
    assert "needs mpi4py" in capsys.readouterr().err


def test_mpi4py_of_another_mpi_than_the_launcher(world, monkeypatch):
    """Or else each process would train alone, and all write to one folder."""
    monkeypatch.setenv("PMI_SIZE", "2")
    with pytest.raises(CommError, match=r"started 2 processes.*sees one.*Other MPI 7\.1\."):
        join()


def test_a_rank_is_joined_once(world):
    assert join() is join()
    assert (join().rank, join().size, join().sharing) == (0, 1, 1)


@pytest.mark.parametrize("text", ["soon", "0", "-1", "nan"])
def test_a_deadline_that_is_none(text, world, monkeypatch):
    monkeypatch.setenv("RNN_XP_MPI_TIMEOUT", text)
    with pytest.raises(ValueError, match="RNN_XP_MPI_TIMEOUT must be a number of seconds > 0"):
        join()


def test_no_answer_ends_all(world, monkeypatch, capsys):
    monkeypatch.setenv("RNN_XP_MPI_TIMEOUT", "0.1")
    with pytest.raises(SystemExit):
        join().exchange(1, None, [])
    assert world.aborted == [75]
    assert "rank 0: no answer of another rank in 0.1 s" in capsys.readouterr().err


def test_an_exception_that_nobody_catches_ends_all(world, capsys):
    join()
    with pytest.raises(SystemExit):
        sys.excepthook(KeyError, KeyError("lost"), None)
    assert world.aborted == [1]
    assert "KeyError: 'lost'" in capsys.readouterr().err


def test_ranks_divide_the_cores_they_share(monkeypatch):
    numpy, strict = rx.get_backend("numpy"), rx.get_backend("array_api_strict")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    assert [count_workers(None, numpy, sharing) for sharing in (1, 2, 3, 20)] == [8, 4, 2, 1]
    assert count_workers(5, numpy, 4) == 5
    assert count_workers(5, strict, 4) == 1


def test_training_on_one_rank_imports_no_mpi():
    code = """
import sys
import rnn_xp as rx
x, y = rx.make_windows([k % 7 / 7 for k in range(50)], seq_length=5)
rx.fit(rx.Network(hidden_size=3), x, y, optimizer=rx.optim.adam(), epochs=1)
print([name for name in sys.modules if name.startswith("mpi4py")])
"""
    root = str(Path(rx.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([root, *sys.path])},
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "[]"


class TestGPUs:
    """Each rank of a machine is shown one: `take_own_gpu`."""

    @staticmethod
    def rank(number, size=4):
        return SimpleNamespace(local_rank=number, size=size)

    @pytest.fixture(autouse=True)
    def machine(self, monkeypatch, tmp_path):
        """Two GPUs are there, as the driver shows them."""
        for name in ("0000:17:00.0", "0000:65:00.0"):
            (tmp_path / name).mkdir()
        monkeypatch.setattr(gpus, "_PRESENT", tmp_path)
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES")

    def shown(self):
        return os.environ.get("CUDA_VISIBLE_DEVICES")

    @pytest.mark.parametrize(("local_rank", "gpu"), [(0, "0"), (1, "1"), (2, "0"), (3, "1")])
    def test_by_the_number_of_the_rank(self, local_rank, gpu):
        assert gpus.take_own_gpu(self.rank(local_rank)) == gpu == self.shown()

    def test_of_those_that_the_user_shows(self, monkeypatch):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5, GPU-7f,2")
        assert gpus.take_own_gpu(self.rank(1)) == "GPU-7f"

    @pytest.mark.parametrize("one", ["3", "", "GPU-7f"])
    def test_what_a_scheduler_has_done_is_left_alone(self, one, monkeypatch):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", one)
        assert gpus.take_own_gpu(self.rank(1)) == ""
        assert self.shown() == one

    def test_one_rank_or_no_driver(self, monkeypatch, tmp_path):
        assert gpus.take_own_gpu(self.rank(0, size=1)) == ""
        monkeypatch.setattr(gpus, "_PRESENT", tmp_path / "none")
        assert gpus.take_own_gpu(self.rank(1)) == ""
        assert self.shown() is None

    @pytest.mark.parametrize(
        ("option", "variable", "expected"),
        [
            *((None, "", "1"), ("cuda", "", "1"), (None, "cuda", "1")),
            *(("cuda:0", "", None), (None, "cuda:1", None)),
        ],
    )
    def test_a_number_is_obeyed(self, option, variable, expected, monkeypatch):
        monkeypatch.setenv("RNN_XP_DEVICE", variable)
        gpus.take_own_gpu(self.rank(1), option)
        assert self.shown() == expected

    @pytest.mark.parametrize("script", ["rnn-xp train", "scripts/train_windows.py"])
    def test_before_anything_looks_for_a_gpu(self, script, monkeypatch, tmp_path):
        """By the time a backend is asked for, the process sees its own."""
        seen = []

        def look(*given, **options):
            seen.append(self.shown())
            raise ValueError("enough")

        comm = self.rank(1)
        comm.rank = 1
        if script == "rnn-xp train":
            monkeypatch.setattr(ranks, "join", lambda: comm)
            monkeypatch.setattr("rnn_xp.cli.train.get_backend", look)
            assert main(["train"]) == 2
        else:
            monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "scripts"))
            import train_windows

            for name in "xy":
                np.save(tmp_path / f"{name}-0.npy", np.zeros((3, 2, 1)[: 2 + (name == "x")]))
            monkeypatch.setattr(train_windows, "launched_ranks", lambda: 2)
            monkeypatch.setattr(train_windows, "mpi", lambda: comm)
            monkeypatch.setattr(rx, "fit", look)
            monkeypatch.setattr(sys, "argv", [script, str(tmp_path), "--out", str(tmp_path)])
            with pytest.raises(ValueError, match="enough"):
                train_windows.main()
        assert seen == ["1"]


def test_ranks_are_numbered_by_machine(world, monkeypatch):
    """Of four ranks on two machines, and two of them on the same cores."""
    hosts = ["a", "b", "a", "b"]
    world.Get_rank = lambda: 2
    world.size = 4

    def gather(row, found):
        mine = row.tobytes()
        others = [bytes(32) if host == "b" else mine for host in hosts]
        found[...] = np.frombuffer(b"".join(others), np.uint8).reshape(4, 32)
        return SimpleNamespace(Test=lambda: True)

    world.Iallgather = gather
    comm = join()
    assert (comm.rank, comm.local_rank, comm.sharing) == (2, 1, 2)


@pytest.mark.parametrize(("value", "expected"), [("1", True), ("0", False), ("", False)])
def test_device_buffers_are_asked_for(value, expected, world, monkeypatch):
    monkeypatch.setenv("RNN_XP_MPI_DEVICE_BUFFERS", value)
    assert join().device_buffers is expected
    assert join(device_buffers=not expected).device_buffers is expected  # it is the one there is
    _found.clear()
    assert join(device_buffers=not expected).device_buffers is not expected


def test_what_is_still_to_be_computed_is_waited_for(world, monkeypatch):
    """MPI reads a GPU's memory at once, whatever streams have still to do."""
    waited, buffer = [], object()
    known = SimpleNamespace(synchronize=lambda: waited.append(buffer))
    monkeypatch.setattr("rnn_xp.distributed.world.backend_of", {buffer: known}.get)
    world.Isend = lambda row, partner: SimpleNamespace(Test=lambda: waited == [buffer])
    comm = join(device_buffers=True)
    comm.exchange(1, buffer, None)
    assert waited == [buffer]
