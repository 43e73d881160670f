"""Writers that die in any system call, full disks, and what they leave: nothing is ever half."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import stat
import warnings

import numpy as np
import pytest

from rnn_xp import checkpoint

if not hasattr(os, "fork"):
    pytest.skip("this platform has no fork", allow_module_level=True)

import fcntl
import resource

CALLS = ("open", "write", "fsync", "replace", "close", "unlink")
REAL = {call: getattr(os, call) for call in CALLS}
VALUES = {"old": 1.0, "new": 2.0}


def save(path, which, size=300):
    checkpoint.save(path, {"w": np.full(size, VALUES[which])}, {"is": which})


def content(path):
    """Which of the two states the file holds, entirely."""
    try:
        arrays, metadata = checkpoint.load(path)
    except checkpoint.CheckpointError:
        return "broken"
    assert np.all(arrays["w"] == VALUES[metadata["is"]])
    return metadata["is"]


def start(function):
    """A process that runs but this function; its exit code is what the function returns."""
    with warnings.catch_warnings():  # of threads: the child runs but a writer, and no other thread
        warnings.simplefilter("ignore")
        child = os.fork()
    if child == 0:
        code = 70
        try:
            code = function() or 0
        finally:
            os._exit(code)
    return child


def wait(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def patched(act, setattr):
    """Let `act(call, args)` run before every call of a writer."""

    def wrap(call):
        def wrapped(*args, **kwargs):
            act(call, args)
            return REAL[call](*args, **kwargs)

        return wrapped

    for call in CALLS:
        setattr(os, call, wrap(call))


def half(args):
    REAL["write"](args[0], bytes(args[1])[: len(args[1]) // 2])


def die_in_call(k, writer):
    """Run the writer in a process that dies in its call number k; name that call, or None."""
    reading, writing = os.pipe()

    def child():
        calls = []

        def act(call, args):
            calls.append(call)
            if len(calls) == k:
                REAL["write"](writing, call.encode())
                if call == "write":
                    half(args)
                os._exit(9)

        patched(act, setattr)
        writer()

    code = wait(start(child))
    os.close(writing)
    with open(reading, "rb") as pipe:
        call = pipe.read().decode()
    assert code == (9 if call else 0)
    return call or None


def crash_everywhere(folder, writer):
    """Let the writer die in call 1, 2, ...: for each the call, then content and files left over."""
    path, found = folder / "f", []
    for k in range(1, 100):
        save(path, "old")
        call = die_in_call(k, lambda: writer(path))
        found.append((call, content(path), len(os.listdir(folder)) - 1))
        checkpoint.sweep(folder)
        assert os.listdir(folder) == ["f"]
        if call is None:
            return found
    raise AssertionError("the writer never came to its end")


class TestCrashes:
    def test_a_writer_may_die_in_any_call(self, tmp_path):
        assert crash_everywhere(tmp_path, lambda path: save(path, "new")) == [
            *(("open", "old", 0), ("write", "old", 1), ("fsync", "old", 1), ("replace", "old", 1)),
            *(("close", "new", 0), ("open", "new", 0), ("fsync", "new", 0), ("close", "new", 0)),
            (None, "new", 0),
        ]

    def test_also_while_it_clears_up_after_an_error(self, tmp_path):
        def fail(*args):
            raise OSError(errno.ENOSPC, "no space left on device")

        def writer(path):
            os.replace = fail
            with contextlib.suppress(OSError):
                save(path, "new")

        assert crash_everywhere(tmp_path, writer) == [
            *(("open", "old", 0), ("write", "old", 1), ("fsync", "old", 1), ("close", "old", 1)),
            *(("unlink", "old", 1), (None, "old", 0)),
        ]

    def test_together_they_died_in_every_kind_of_call(self, tmp_path):
        calls = [call for call, *_ in crash_everywhere(tmp_path, lambda path: save(path, "new"))]
        assert {*calls, "unlink"} == {*CALLS, None}

    def test_the_harness_finds_a_writer_in_place(self, tmp_path):
        save(tmp_path / "f", "new")
        data = (tmp_path / "f").read_bytes()

        def in_place(path):
            file = os.open(path, os.O_WRONLY | os.O_TRUNC)
            os.write(file, data)
            os.fsync(file)
            os.close(file)

        assert crash_everywhere(tmp_path, in_place) == [
            *(("open", "old", 0), ("write", "broken", 0), ("fsync", "new", 0), ("close", "new", 0)),
            (None, "new", 0),
        ]


class TestFullDisks:
    def test_a_limit_on_the_size_of_files(self, tmp_path):
        path = tmp_path / "f"
        save(path, "old")

        def child():
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
            try:
                save(path, "new", size=10_000)
            except OSError as error:
                return error.errno
            return 0

        assert wait(start(child)) == errno.EFBIG
        assert content(path) == "old"
        assert os.listdir(tmp_path) == ["f"]

    def test_no_space_in_any_call(self, tmp_path, monkeypatch):
        """Before the rename the old file stays; after it the new one is there, and whole."""
        path, found = tmp_path / "f", []
        for k in range(1, 100):
            save(path, "old")
            calls = []

            def act(call, args, k=k, calls=calls):
                calls.append(call)
                if len(calls) == k:
                    if call == "close":
                        REAL["close"](*args)
                    elif call == "write":
                        half(args)
                    raise OSError(errno.ENOSPC, "no space left on device")

            with monkeypatch.context() as patch:
                patched(act, patch.setattr)
                try:
                    save(path, "new")
                except OSError as error:
                    found.append((calls[k - 1], content(path), error.errno))
                else:
                    break
            assert os.listdir(tmp_path) == ["f"], calls
        assert found == [
            *((call, "old", errno.ENOSPC) for call in ("open", "write", "fsync", "replace")),
            *((call, "new", errno.ENOSPC) for call in ("close", "open", "fsync", "close")),
        ]

    def test_writes_may_be_short(self, tmp_path, monkeypatch):
        monkeypatch.setattr(os, "write", lambda file, data: REAL["write"](file, data[:7]))
        save(tmp_path / "f", "new")
        assert content(tmp_path / "f") == "new"

    @pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, OSError])
    @pytest.mark.parametrize("step", ["write", "fsync", "replace"])
    def test_an_interruption_leaves_nothing(self, tmp_path, monkeypatch, step, error):
        def interrupt(*args):
            raise error("now")

        before = os.listdir("/dev/fd")
        monkeypatch.setattr(os, step, interrupt)
        with pytest.raises(error, match="now"):
            checkpoint.atomic_write(tmp_path / "f", b"new")
        assert not any(tmp_path.iterdir())
        assert os.listdir("/dev/fd") == before


class TestAtomicWrite:
    def test_replaces(self, tmp_path):
        path = tmp_path / "f"
        checkpoint.atomic_write(path, b"old")
        checkpoint.atomic_write(str(path), b"")
        assert path.read_bytes() == b""
        assert os.listdir(tmp_path) == ["f"]

    def test_the_data_reach_the_disk_before_the_name_and_the_name_after(
        self, tmp_path, monkeypatch
    ):
        steps, flags = [], []

        def act(call, args):
            if call == "open":
                flags.append(args[1])
            if call == "fsync":
                status = os.fstat(args[0])
                is_folder = os.path.samestat(status, tmp_path.stat())
                steps.append("folder" if is_folder else status.st_size)
            if call == "replace":
                steps.append(tuple(os.path.basename(name) for name in args))

        patched(act, monkeypatch.setattr)
        checkpoint.atomic_write(tmp_path / "f", b"new")
        assert steps == [3, steps[1], "folder"]
        temporary, name = steps[1]
        assert name == "f"
        assert checkpoint._TEMPORARY.fullmatch(temporary)
        assert temporary.startswith(f"f.tmp.{os.getpid()}.")
        assert all(flag & os.O_CLOEXEC for flag in flags)
        assert flags[0] & os.O_EXCL

    def test_no_file_that_is_there_is_taken_for_a_temporary_one(self, tmp_path, monkeypatch):
        monkeypatch.setattr(checkpoint.secrets, "token_hex", lambda n: "0" * 2 * n)
        taken = tmp_path / f"f.tmp.{os.getpid()}.{'0' * 16}"
        taken.write_bytes(b"mine")
        with pytest.raises(FileExistsError):
            checkpoint.atomic_write(tmp_path / "f", b"new")
        assert taken.read_bytes() == b"mine"
        assert not (tmp_path / "f").exists()

    @pytest.mark.parametrize("umask", [0o022, 0o027, 0o077, 0o000])
    def test_permissions_as_of_any_new_file(self, tmp_path, umask):
        before = os.umask(umask)
        try:
            checkpoint.atomic_write(tmp_path / "f", b"new")
        finally:
            os.umask(before)
        assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == 0o666 & ~umask

    def test_a_link_stays_and_what_it_points_to_is_replaced(self, tmp_path):
        (tmp_path / "there").mkdir()
        file, link = tmp_path / "there" / "f", tmp_path / "link"
        link.symlink_to(os.path.join("there", "f"))
        for data in (b"where nothing was", b"new"):
            checkpoint.atomic_write(link, data)
            assert link.is_symlink()
            assert not file.is_symlink()
            assert file.read_bytes() == data
        assert os.listdir(tmp_path / "there") == ["f"]

    def test_a_target_that_is_no_regular_file_stays(self, tmp_path):
        loop, fifo = tmp_path / "loop", tmp_path / "fifo"
        loop.symlink_to(loop)
        os.mkfifo(fifo)
        (tmp_path / "folder").mkdir()
        for path in (loop, fifo, tmp_path / "folder"):
            with pytest.raises(OSError, match="not a regular file, cannot be replaced"):
                checkpoint.atomic_write(path, b"new")
        assert loop.is_symlink()
        assert stat.S_ISFIFO(fifo.stat().st_mode)
        with pytest.raises(FileNotFoundError):
            checkpoint.atomic_write(tmp_path / "absent" / "f", b"new")
        assert sorted(os.listdir(tmp_path)) == ["fifo", "folder", "loop"]


class TestSweep:
    def test_what_a_living_writer_holds_stays_until_it_dies(self, tmp_path):
        reading, writing = os.pipe()

        def child():
            os.replace = lambda *args: (os.write(writing, b"!"), signal.pause())
            save(tmp_path / "f", "new")

        writer = start(child)
        try:
            assert os.read(reading, 1) == b"!"
            checkpoint.sweep(tmp_path)
            (name,) = os.listdir(tmp_path)
        finally:
            os.kill(writer, signal.SIGKILL)
            assert wait(writer) == -signal.SIGKILL
        assert name.startswith(f"f.tmp.{writer}.")
        checkpoint.sweep(str(tmp_path))
        assert os.listdir(tmp_path) == []
        os.close(reading)
        os.close(writing)

    def test_a_process_id_used_again_is_no_hindrance(self, tmp_path):
        (tmp_path / f"f.tmp.{os.getpid()}.0123456789abcdef").write_bytes(b"half")
        checkpoint.sweep(tmp_path)
        assert os.listdir(tmp_path) == []

    def test_other_files_stay(self, tmp_path):
        names = [
            *("f.tmp.1", "f.tmp.1.0123456789ABCDEF", "f.tmp.1.0123456789abcde", "f.tmp", "f"),
            *(".tmp.1.0123456789abcdef", "f.tmp.x.0123456789abcdef", "tmp.1.0123456789abcdef"),
            *("f.tmp.1.0123456789abcdef0", "f.tmp.1.0123456789abcdef.bak", "f.tmp.1.\n"),
        ]
        for name in names:
            (tmp_path / name).write_bytes(b"mine")
        (tmp_path / "folder.tmp.1.0123456789abcdef").mkdir()
        os.mkfifo(tmp_path / "fifo.tmp.1.0123456789abcdef")
        (tmp_path / "link.tmp.1.0123456789abcdef").symlink_to(tmp_path / "f")
        before = sorted(os.listdir(tmp_path))
        checkpoint.sweep(tmp_path)
        assert sorted(os.listdir(tmp_path)) == before
        with pytest.raises(FileNotFoundError):
            checkpoint.sweep(tmp_path / "absent")

    def test_between_creation_and_lock(self, tmp_path, monkeypatch):
        """The writer notices that its file is gone, and makes another."""
        real, locked = fcntl.flock, []

        def slow(file, operation):
            locked.append(file)
            if len(locked) == 1:
                checkpoint.sweep(tmp_path)
                assert os.listdir(tmp_path) == []
            real(file, operation)

        monkeypatch.setattr(fcntl, "flock", slow)
        save(tmp_path / "f", "new")
        assert len(locked) == 3
        assert content(tmp_path / "f") == "new"
        assert os.listdir(tmp_path) == ["f"]

    def test_without_locks_all_stays_and_writing_goes_on(self, tmp_path, monkeypatch):
        def fail(*args):
            raise OSError(errno.ENOLCK, "no locks available")

        monkeypatch.setattr(fcntl, "flock", fail)
        save(tmp_path / "f", "new")
        left = tmp_path / "f.tmp.1.0123456789abcdef"
        left.write_bytes(b"half")
        checkpoint.sweep(tmp_path)
        assert content(tmp_path / "f") == "new"
        assert left.exists()

    def test_two_writers_two_sweepers_and_a_reader_in_one_folder(self, tmp_path):
        path = tmp_path / "f"
        save(path, "old")

        def writer(which):
            for _ in range(100):
                save(path, which)
                checkpoint.sweep(tmp_path)

        children = [start(lambda which=which: writer(which)) for which in VALUES]
        seen = {content(path) for _ in range(300)}
        assert [wait(child) for child in children] == [0, 0]
        assert seen <= {"old", "new"}
        assert os.listdir(tmp_path) == ["f"]
