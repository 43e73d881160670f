"""Kill the training at any moment: no file is broken, and the resumed run is the same run.

`make crash-test` does it fifty times; the tests do it a few.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from rnn_xp import checkpoint

SETTINGS = [
    *("--cell", "gru", "--hidden-size", "8", "--layers", "2", "--dropout", "0.2"),
    *("--seq-length", "5", "--train-fraction", "0.1", "--batch-size", "100", "--seed", "5"),
    *("--epochs", "60", "--validation", "0.2", "--patience", "1000000", "--workers", "1"),
]
FILES = {"last.safetensors", "best.safetensors", "config.toml"}


def command(*arguments):
    return [sys.executable, "-m", "rnn_xp.cli", "train", *arguments]


STARTED: list[subprocess.Popen] = []


@pytest.fixture(autouse=True)
def nothing_is_left_running():
    """Also not where a test fails."""
    yield
    while STARTED:
        end(STARTED.pop())


def start(*arguments, **streams):
    streams = streams or {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    STARTED.append(subprocess.Popen(command(*arguments), **streams))
    return STARTED[-1]


def end(process):
    process.kill()
    process.wait()
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()


def train(folder):
    return start(*SETTINGS, "--checkpoint-every", "1", "--out", str(folder))


def wait_for(path, process, seconds=60.0):
    end = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < end
        time.sleep(0.002)


def finish(folder):
    done = subprocess.run(
        command("--resume", str(folder), "--json"),
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def outcome(folder):
    """All that must not depend on what happened on the way."""
    arrays, about = checkpoint.load(Path(folder) / "last.safetensors")
    model, _ = checkpoint.load(Path(folder) / "model.safetensors")
    about["training"].pop("seconds")
    about["arguments"].pop("checkpoint_every")
    history = (Path(folder) / "history.csv").read_text()
    return (
        {name: array.tobytes() for name, array in {**arrays, **model}.items()},
        about,
        history,
    )


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted") / "run"
    process = train(folder)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return outcome(folder)


def test_killed_at_random_moments(tmp_path, uninterrupted, pytestconfig):
    """SIGKILL, again and again until the run is done; every file it leaves is whole."""
    kills, rng, run = 0, random.Random(0), 0
    wanted = pytestconfig.getoption("kills")
    at = []
    while kills < wanted:
        run += 1
        folder = tmp_path / f"run-{run}"
        process = train(folder)
        wait_for(folder / "last.safetensors", process)
        while process.poll() is None:
            time.sleep(rng.uniform(0.0, 0.35))
            end(process)
            if process.returncode == -signal.SIGKILL:
                kills += 1
            for name in FILES & {path.name for path in folder.iterdir()} - {"config.toml"}:
                _, about = checkpoint.load(folder / name)
                if name == "last.safetensors":
                    at.append(about["training"]["epoch"])
            if process.returncode != -signal.SIGKILL or kills >= wanted:
                break
            epoch = at[-1]
            process = start("--resume", str(folder))
            late = time.monotonic() + 60
            while process.poll() is None and time.monotonic() < late:
                if checkpoint.load(folder / "last.safetensors")[1]["training"]["epoch"] > epoch:
                    break
        finish(folder)
        assert outcome(folder) == uninterrupted
        assert not list(folder.glob("*.tmp.*")), "what a killed writer left is swept up"
    assert len(set(at)) > 1 or wanted == 1
    print(f"{kills} kills in {run} runs, at epochs {sorted(at)}")


@pytest.mark.full("15")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_the_epoch_and_says_how_to_go_on(tmp_path, uninterrupted, number):
    folder = tmp_path / "run"
    process = train(folder)
    wait_for(folder / "last.safetensors", process)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    epoch = checkpoint.load(folder / "last.safetensors")[1]["training"]["epoch"]
    assert 1 <= epoch < 60
    last = err.splitlines()[-1]
    name = signal.Signals(number).name
    assert f"{name}: ending after this epoch; a second one ends at once" in err
    assert last == (
        f"rnn-xp: interrupted by {name} after epoch {epoch} of 60; resume with: "
        f"rnn-xp train --resume {folder}"
    )
    assert "Traceback" not in err
    assert {path.name for path in folder.iterdir()} <= FILES
    finish(folder)
    assert outcome(folder) == uninterrupted


@pytest.mark.full
def test_a_second_signal_ends_at_once_and_leaves_the_previous_checkpoint_whole(tmp_path):
    """With an epoch that takes long, so that both signals come within it."""
    folder = tmp_path / "run"
    slow = [*SETTINGS, "--cell", "lstm", "--hidden-size", "128", "--seq-length", "60"]
    slow += ["--train-fraction", "0.5", "--batch-size", "300", "--checkpoint-every", "1"]
    process = start(*slow, "--out", str(folder))
    wait_for(folder / "last.safetensors", process, 120)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    for line in process.stderr:
        if "a second one ends at once" in line:
            break
    process.send_signal(signal.SIGINT)
    sent = time.monotonic()
    _, rest = process.communicate(timeout=60)
    assert process.returncode == 130
    assert time.monotonic() - sent < 10.0
    assert rest.strip().splitlines()[-1] == (
        f"rnn-xp: interrupted; resume with: rnn-xp train --resume {folder}"
    )
    assert checkpoint.load(folder / "last.safetensors")[1]["training"]["epoch"] >= 1
    assert not list(folder.glob("*.tmp.*"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_keeps_the_run_though_nobody_reads_what_it_says(tmp_path, number):
    """As at the end of a pipe whose reader was interrupted too."""
    folder, (reader, writer) = tmp_path / "run", os.pipe()
    settings = [*SETTINGS, "--epochs", "100000", "--out", str(folder)]
    process = start(*settings, stdout=writer, stderr=writer)
    os.close(writer)
    wait_for(folder / "config.toml", process)
    os.close(reader)
    process.send_signal(number)
    assert process.wait(timeout=60) in (128 + number, 141)
    assert checkpoint.load(folder / "last.safetensors")[1]["training"]["epoch"] >= 1


def test_interrupted_before_there_is_anything_to_go_on_from(tmp_path):
    folder = tmp_path / "run"
    slow = [*SETTINGS, "--cell", "lstm", "--hidden-size", "256", "--seq-length", "60"]
    slow += ["--train-fraction", "0.5", "--batch-size", "300"]
    process = start(*slow, "--out", str(folder))
    wait_for(folder, process)
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    for line in process.stderr:
        if "a second one ends at once" in line:
            break
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.strip().splitlines()[-1] == "rnn-xp: interrupted; nothing was written"
    assert not folder.exists()


@pytest.mark.full
def test_a_run_whose_results_were_not_written_is_finished(tmp_path, uninterrupted):
    """All epochs are done, but the process died before the table and the plots."""
    folder = tmp_path / "run"
    process = train(folder)
    assert process.communicate(timeout=120) is not None
    for name in ("model.safetensors", "history.csv", "metrics.json", "predictions.csv"):
        os.unlink(folder / name)
    finish(folder)
    assert outcome(folder) == uninterrupted
    assert np.isfinite(json.loads((folder / "metrics.json").read_text())["final_loss"])
