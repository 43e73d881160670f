"""Launches ranks of MPI, each with a hard limit, and finds what they leave behind."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
from rank_runs import EPOCHS

import rnn_xp

TESTS = Path(__file__).parent
LIMIT = 30.0  # seconds until a launch counts as hanging
GFORKER, HYDRA = "mpiexec.gforker", "mpiexec"  # the first listens to no network


@dataclasses.dataclass
class Done:
    status: int
    out: str
    err: str
    seconds: float


class Launch:
    """Ranks that are running."""

    def __init__(self, ranks, *command, launcher=GFORKER, **settings):
        here = Path(sys.executable).with_name(launcher)
        self.mark = f"RNN_XP_TEST={uuid.uuid4()}"
        name, _, value = self.mark.partition("=")
        paths = [str(Path(rnn_xp.__file__).parents[1]), str(TESTS), *sys.path]
        self.begun = time.monotonic()
        self.process = subprocess.Popen(
            [str(here if here.exists() else launcher), "-n", str(ranks), sys.executable, *command],
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(paths),
                "UCX_TLS": "self,sm",
                "RNN_XP_BACKEND": "numpy",
                name: value,
                **settings,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def processes(self):
        """Ids of the launcher and all that it has started."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                try:
                    environment = (entry / "environ").read_bytes()
                    zombie = (entry / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
                except OSError:
                    continue
                if self.mark.encode() in environment and not zombie:
                    found.append(int(entry.name))
        return found

    def ranks(self):
        """Ids of the ranks."""
        ids = []
        for number in self.processes():
            try:
                words = Path(f"/proc/{number}/cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if words[0].decode() == sys.executable:
                ids.append(number)
        return ids

    def wait(self, limit=LIMIT):
        try:
            out, err = self.process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            self.end()
            out, err = self.process.communicate()
            pytest.fail(f"the ranks hang: {out} {err}")
        seconds = time.monotonic() - self.begun
        until = time.monotonic() + 5.0
        while (left := self.processes()) and time.monotonic() < until:
            time.sleep(0.05)
        self.end()
        assert not left, f"processes are left: {left}; {out} {err}"
        return Done(self.process.returncode, out, err, seconds)

    def end(self):
        for number in self.processes():
            try:
                os.kill(number, signal.SIGKILL)
            except ProcessLookupError:
                continue


def train(ranks, folder, kind, epochs=EPOCHS, fault="", limit=LIMIT, **options):
    command = [str(TESTS / "mpi_training.py"), str(folder), kind, str(epochs), fault]
    return Launch(ranks, *command, **options).wait(limit)


def said(folder, ranks):
    """Hash, epochs and reason to stop, which all ranks must have alike."""
    found = {Path(folder, f"rank-{k}-of-{ranks}").read_text() for k in range(ranks)}
    assert len(found) == 1
    return found.pop().split(" ", 2)


def on_torch():
    return rnn_xp.get_backend("torch", device="cpu", dtype="float32")


def until(condition, seconds=LIMIT):
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.02)
