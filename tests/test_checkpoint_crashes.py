"""Writers that die in any system call, full disks, and what they leave: nothing is ever half."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import signal
import stat
import warnings
from pathlib import Path

import numpy as np
import pytest

from rnn_xp import checkpoint

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork")

CALLS = ("open", "write", "fsync", "replace", "close", "unlink")
OLD, NEW = ({"w": np.full(300, value)} for value in (1.0, 2.0))
REAL = {call: getattr(os, call) for call in CALLS}


def fork():
    with warnings.catch_warnings():  # of threads: the child runs but a writer, and no other thread
        warnings.simplefilter("ignore")
        return os.fork()


def run_in_child(function):
    """The exit code of a process that runs but this function."""
    child = fork()
    if child == 0:
        code = 70
        try:
            code = function() or 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def intercept(act):
    """Let `act(call, arguments)` run before every call; what it returns goes to the call."""

    def wrap(call):
        def wrapped(*args, **kwargs):
            return REAL[call](*act(call, args), **kwargs)

        return wrapped

    return {call: wrap(call) for call in CALLS}


def die_in_call(k, writer):
    """Run the writer in a process that dies in its call number k; name that call, or None."""
    reading, writing = os.pipe()

    def child():
        count = 0

        def act(call, args):
            nonlocal count
            count += 1
            if count < k:
                return args
            REAL["write"](writing, call.encode())
            if call == "write":
                REAL["write"](args[0], args[1][: len(args[1]) // 2])
            os._exit(9)

        for call, wrapped in intercept(act).items():
            setattr(os, call, wrapped)
        writer()

    code = run_in_child(child)
    os.close(writing)
    with open(reading, "rb") as pipe:
        call = pipe.read().decode()
    assert code == (9 if call else 0)
    return call or None


def content(path):
    """Which of the two states the file holds, entirely."""
    try:
        arrays, metadata = checkpoint.load(path)
    except (OSError, checkpoint.CheckpointError):
        return "broken"
    for name, state in (("old", OLD), ("new", NEW)):
        if metadata == {"is": name} and np.array_equal(arrays["w"], state["w"]):
            return name
    return "mixed"


def crash_everywhere(folder, writer):
    """Let the writer die in call 1, 2, ...: the calls, the content after each, files left over."""
    path, found = folder / "f", []
    for k in range(1, 100):
        checkpoint.save(path, OLD, {"is": "old"})
        call = die_in_call(k, lambda: writer(path))
        if call is None:
            assert content(path) == "new"
            return found
        found.append((call, content(path), len(os.listdir(folder)) - 1))
        checkpoint.sweep(folder)
        assert os.listdir(folder) == ["f"]
    raise AssertionError("the writer never came to its end")


def write_new(path):
    checkpoint.save(path, NEW, {"is": "new"})


def write_new_in_place(path):
    """As an ordinary writer does: what the harness is there to find."""
    with contextlib.suppress(FileNotFoundError):
        data = path.with_name("new").read_bytes()
    file = os.open(path, os.O_WRONLY | os.O_TRUNC)
    os.write(file, data)
    os.fsync(file)
    os.close(file)


class TestCrashes:
    def test_a_writer_may_die_in_any_call(self, tmp_path):
        assert crash_everywhere(tmp_path, write_new) == [
            *(("open", "old", 0), ("write", "old", 1), ("fsync", "old", 1), ("replace", "old", 1)),
            *(("close", "new", 0), ("open", "new", 0), ("fsync", "new", 0), ("close", "new", 0)),
        ]

    def test_also_where_it_clears_up_after_an_error(self, tmp_path):
        def full(*args):
            raise OSError(errno.ENOSPC, "no space left on device")

        def writer(path):
            counted, os.replace = os.replace, full
            with pytest.raises(OSError, match="no space left"):
                write_new(path)
            os.replace = counted
            os.rename(path.with_name("new"), path)  # so that the run which does not die ends well

        checkpoint.save(tmp_path / "new", NEW, {"is": "new"})
        folder = tmp_path / "folder"
        folder.mkdir()
        (tmp_path / "new").rename(folder / "new.safetensors")
        found = []
        for k in range(1, 100):
            checkpoint.save(folder / "f", OLD, {"is": "old"})
            call = die_in_call(k, lambda: self.fail_in_replace(folder / "f", full))
            assert content(folder / "f") == "old"
            checkpoint.sweep(folder)
            assert sorted(os.listdir(folder)) == ["f", "new.safetensors"]
            if call is None:
                break
            found.append(call)
        assert found == ["open", "write", "fsync", "close", "unlink"]

    @staticmethod
    def fail_in_replace(path, full):
        os.replace = full
        with pytest.raises(OSError, match="no space left"):
            write_new(path)

    def test_the_harness_finds_a_writer_in_place(self, tmp_path):
        write_new(tmp_path / "new")
        data = (tmp_path / "new").read_bytes()
        (tmp_path / "new").unlink()

        def in_place(path):
            file = os.open(path, os.O_WRONLY | os.O_TRUNC)
            os.write(file, data)
            os.fsync(file)
            os.close(file)

        found = crash_everywhere(tmp_path, in_place)
        assert [(call, state) for call, state, _ in found] == [
            *(("open", "old"), ("write", "broken"), ("fsync", "new"), ("close", "new")),
        ]
