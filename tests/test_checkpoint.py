"""Files: atomic, checked, without pickle."""

from __future__ import annotations

import os
import stat

import numpy as np
import pytest
import safetensors.numpy

from rnn_xp import checkpoint
from rnn_xp.checkpoint import CheckpointError

ARRAYS = {"w": np.arange(6.0).reshape(2, 3), "b": np.ones(4, dtype="float32"), "s": np.asarray(2.5)}
META = {"epoch": 7, "note": "größer", "list": [1, 2.5, None]}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "model.safetensors"
    checkpoint.save(path, ARRAYS, META)
    return path


class TestSaveAndLoad:
    def test_round_trip(self, path):
        arrays, meta = checkpoint.load(path)
        assert meta == META
        assert arrays.keys() == ARRAYS.keys()
        for name, array in ARRAYS.items():
            assert arrays[name].dtype == array.dtype
            assert arrays[name].shape == array.shape
            assert np.array_equal(arrays[name], array)

    def test_equal_content_gives_equal_bytes(self, path, tmp_path):
        again = tmp_path / "again.safetensors"
        checkpoint.save(again, dict(reversed(ARRAYS.items())), dict(reversed(META.items())))
        assert again.read_bytes() == path.read_bytes()

    def test_any_memory_layout(self, tmp_path):
        """safetensors' own writer scrambles transposes and slices."""
        w = np.arange(24.0).reshape(4, 6)
        views = {
            "transpose": w.T,
            "slice": w[:, 1:3],
            "backwards": w[::-1],
            "fortran": np.asfortranarray(w),
        }
        checkpoint.save(tmp_path / "f", views, {})
        arrays, _ = checkpoint.load(tmp_path / "f")
        for name, view in views.items():
            assert np.array_equal(arrays[name], view), name

    def test_readable_by_safetensors_itself(self, path):
        assert np.array_equal(safetensors.numpy.load_file(path)["w"], ARRAYS["w"])

    def test_a_state_that_is_not_finite_is_not_written(self, tmp_path):
        with pytest.raises(ValueError, match="w has values that are not finite"):
            checkpoint.save(tmp_path / "f", {"w": np.asarray([1.0, np.nan])}, {})
        assert not any(tmp_path.iterdir())

    def test_metadata_that_is_not_finite_is_no_json(self, tmp_path):
        with pytest.raises(ValueError, match="not JSON compliant"):
            checkpoint.save(tmp_path / "f", ARRAYS, {"loss": float("nan")})
        assert not any(tmp_path.iterdir())


class TestDamage:
    def test_every_single_bit_matters(self, path):
        """Flip a bit of each byte: an error each time, never other content."""
        data = path.read_bytes()
        for i in range(len(data)):
            path.write_bytes(data[:i] + bytes([data[i] ^ 1]) + data[i + 1 :])
            try:
                arrays, meta = checkpoint.load(path)
            except CheckpointError:
                continue
            assert meta == META, f"byte {i}"
            assert all(np.array_equal(arrays[k], v) for k, v in ARRAYS.items()), f"byte {i}"

    def test_every_truncation(self, path):
        data = path.read_bytes()
        for length in range(len(data)):
            path.write_bytes(data[:length])
            with pytest.raises(CheckpointError):
                checkpoint.load(path)

    def test_says_what_is_wrong(self, path, tmp_path):
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
        with pytest.raises(
            CheckpointError, match="is damaged: its content does not fit its sha256"
        ):
            checkpoint.load(path)
        path.write_bytes(b"not a model")
        with pytest.raises(CheckpointError, match="cannot be read .* or not a safetensors file"):
            checkpoint.load(path)
        safetensors.numpy.save_file({"w": np.ones(2)}, path)
        with pytest.raises(CheckpointError, match="was not written by rnn_xp"):
            checkpoint.load(path)
        with pytest.raises(FileNotFoundError):
            checkpoint.load(tmp_path / "absent")

    @pytest.mark.parametrize(("old", "new"), [(b"[2,3]", b"[3,2]"), (b'"F32"', b'"I32"')])
    def test_the_digest_covers_shape_and_dtype(self, path, old, new):
        """The same bytes, read as something else."""
        data = path.read_bytes()
        assert data.count(old) == 1
        path.write_bytes(data.replace(old, new))
        with pytest.raises(CheckpointError, match="does not fit its sha256"):
            checkpoint.load(path)

    @pytest.mark.parametrize(
        ("entry", "reason"),
        [
            ("x", "Expecting value"),
            ("null", "cannot unpack"),
            ("[1, 2]", "'int' object has no attribute 'encode'"),
        ],
    )
    def test_an_entry_of_another_kind(self, tmp_path, entry, reason):
        path = tmp_path / "f"
        safetensors.numpy.save_file({"w": np.ones(2)}, path, metadata={"rnn_xp": entry})
        with pytest.raises(CheckpointError, match=f"is damaged: .*{reason}"):
            checkpoint.load(path)


class TestAtomicWrite:
    def test_replaces(self, tmp_path):
        path = tmp_path / "f"
        checkpoint.atomic_write(path, b"old")
        checkpoint.atomic_write(path, b"new")
        assert path.read_bytes() == b"new"
        assert [p.name for p in tmp_path.iterdir()] == ["f"]

    @pytest.mark.skipif(not hasattr(os, "O_DIRECTORY"), reason="folders reach the disk on POSIX")
    def test_the_data_reach_the_disk_before_the_name_and_the_name_after(
        self, tmp_path, monkeypatch
    ):
        path, steps = tmp_path / "f", []
        fsync, replace = os.fsync, os.replace

        def record_fsync(file):
            status = os.fstat(file)
            steps.append("folder" if stat.S_ISDIR(status.st_mode) else status.st_size)
            fsync(file)

        def record_replace(old, new):
            steps.append((os.path.basename(old), os.path.basename(new)))
            replace(old, new)

        monkeypatch.setattr(os, "fsync", record_fsync)
        monkeypatch.setattr(os, "replace", record_replace)
        checkpoint.atomic_write(path, b"new")
        assert steps == [3, (f"f.tmp.{os.getpid()}", "f"), "folder"]  # 3 bytes, out of the buffer

    @pytest.mark.parametrize("step", ["fsync", "replace"])
    def test_an_error_leaves_the_old_file_and_nothing_else(self, tmp_path, monkeypatch, step):
        path = tmp_path / "f"
        checkpoint.atomic_write(path, b"old")

        def fail(*args, **kwargs):
            raise OSError("no space left on device")

        monkeypatch.setattr(os, step, fail)
        with pytest.raises(OSError, match="no space left"):
            checkpoint.atomic_write(path, b"new")
        assert path.read_bytes() == b"old"
        assert [p.name for p in tmp_path.iterdir()] == ["f"]

    def test_an_interruption_too(self, tmp_path, monkeypatch):
        def interrupt(*args):
            raise KeyboardInterrupt

        monkeypatch.setattr(os, "replace", interrupt)
        with pytest.raises(KeyboardInterrupt):
            checkpoint.atomic_write(tmp_path / "f", b"new")
        assert not any(tmp_path.iterdir())
