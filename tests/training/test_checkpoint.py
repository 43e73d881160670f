"""Files: what is written, what is read, and what is refused in words that help."""

from __future__ import annotations

import hashlib
import json
import os
import tracemalloc

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


def parts(path):
    """The header, the text of the entry and the bytes of the arrays."""
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    return header, json.loads(header["__metadata__"]["rnn_xp"].split(" ", 2)[2]), data[start:]


def entry(text, number="2"):
    """A metadata entry whose digest is right, whatever the text."""
    text = text if isinstance(text, str) else json.dumps(text)
    return f"{number} {hashlib.sha256(text.encode()).hexdigest()} {text}"


def put(path, header, text, values):
    """A file whose digest is right, whatever it holds."""
    header = {**header, "__metadata__": {"rnn_xp": entry(text)}}
    packed = json.dumps(header).encode()
    path.write_bytes(len(packed).to_bytes(8, "little") + packed + values)


def refused(path, message, **limits):
    with pytest.raises(CheckpointError, match=message) as caught:
        checkpoint.load(path, **limits)
    assert str(caught.value).startswith(f"{path} ")
    return str(caught.value)


class TestSaveAndLoad:
    def test_round_trip(self, path):
        arrays, meta = checkpoint.load(path)
        assert meta == META
        assert arrays.keys() == ARRAYS.keys()
        for name, array in ARRAYS.items():
            assert arrays[name].dtype == array.dtype
            assert arrays[name].shape == array.shape
            assert np.array_equal(arrays[name], array)
            assert arrays[name].flags.writeable
            assert arrays[name].flags.owndata, "else a part would keep the whole file in memory"

    def test_equal_content_gives_equal_bytes(self, path, tmp_path):
        again = tmp_path / "again.safetensors"
        checkpoint.save(again, dict(reversed(ARRAYS.items())), dict(reversed(META.items())))
        assert again.read_bytes() == path.read_bytes()
        checkpoint.save(again, {k: v.astype(v.dtype.newbyteorder(">")) for k, v in ARRAYS.items()}, META)  # fmt: skip  # noqa: E501
        assert again.read_bytes() == path.read_bytes()
        checkpoint.save(again, {k: np.asarray(v, order="F") for k, v in ARRAYS.items()}, META)
        assert again.read_bytes() == path.read_bytes()

    def test_any_memory_layout(self, tmp_path):
        """safetensors' own writer scrambles transposes and slices."""
        w = np.arange(24.0).reshape(4, 6)
        views = {
            "transpose": w.T,
            "slice": w[:, 1:3],
            "backwards": w[::-1],
            "fortran": np.asfortranarray(w),
            "swapped": w.astype(">f8"),
        }
        checkpoint.save(tmp_path / "f", views, {})
        arrays, _ = checkpoint.load(tmp_path / "f")
        for name, view in views.items():
            assert np.array_equal(arrays[name], view), name
            assert arrays[name].dtype.isnative

    def test_the_manifest_says_what_is_in_the_file(self, path):
        header, content, _ = parts(path)
        assert content["metadata"] == META
        assert content["manifest"]["b"][:2] == ["F32", [4]]
        assert content["manifest"]["w"][2] == hashlib.sha256(ARRAYS["w"].tobytes()).hexdigest()
        assert content["manifest"].keys() == ARRAYS.keys() == header.keys() - {"__metadata__"}

    def test_readable_by_safetensors_itself(self, path):
        assert np.array_equal(safetensors.numpy.load_file(path)["w"], ARRAYS["w"])

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_a_state_that_is_not_finite_is_not_written(self, tmp_path, value):
        with pytest.raises(ValueError, match="w has values that are not finite"):
            checkpoint.save(tmp_path / "f", {"w": np.asarray([1.0, value])}, {})
        assert not any(tmp_path.iterdir())

    def test_metadata_that_is_not_finite_is_no_json(self, tmp_path):
        with pytest.raises(ValueError, match="not JSON compliant"):
            checkpoint.save(tmp_path / "f", ARRAYS, {"loss": float("nan")})
        assert not any(tmp_path.iterdir())

    @pytest.mark.parametrize(
        "dtype", ["complex128", "object", "U3", "S3", "datetime64[s]", "f4,i4", "longdouble"]
    )
    def test_a_dtype_that_the_file_cannot_hold(self, tmp_path, dtype):
        with pytest.raises(TypeError, match=r"^w is .*, but .*f can hold float16 to float64, inte"):
            checkpoint.save(tmp_path / "f", {"w": np.zeros(2, dtype)}, {})
        assert not any(tmp_path.iterdir())

    @pytest.mark.parametrize("name", ["__metadata__", "a\ud800", "\udfff", 3, b"w", None])
    def test_a_name_that_the_file_cannot_hold(self, tmp_path, name):
        with pytest.raises(ValueError, match="cannot name an array; .* was not written"):
            checkpoint.save(tmp_path / "f", {name: np.ones(2)}, {})
        assert not any(tmp_path.iterdir())

    def test_metadata_that_could_not_be_read_again(self, tmp_path):
        with pytest.raises(ValueError, match=r"metadata take 5\d* bytes, over 4194304; .* in an a"):
            checkpoint.save(tmp_path / "f", ARRAYS, {"note": "x" * 5_000_000})
        assert not any(tmp_path.iterdir())
        checkpoint.save(tmp_path / "f", ARRAYS, {"note": "x" * 4_000_000})
        assert len(checkpoint.load(tmp_path / "f")[1]["note"]) == 4_000_000


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
        start = 8 + int.from_bytes(data[:8], "little")
        for length in range(len(data)):
            path.write_bytes(data[:length])
            refused(path, "cut short" if length < start else r"has \d+ bytes of arrays, but 72 w")
        path.write_bytes(data + b"\0")
        refused(path, "has 73 bytes of arrays, but 72 were written")

    def test_says_what_is_wrong(self, path, tmp_path):
        data = path.read_bytes()
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        refused(path, "is damaged: 'b' does not fit its sha256")
        assert data.count(b"epoch") == 1
        path.write_bytes(data.replace(b"epoch", b"epoxy"))
        refused(path, "is damaged: its metadata do not fit their sha256")
        path.write_bytes(b"not a model")
        refused(path, "cannot be read: it is cut short, or not a safetensors file")
        path.write_bytes(b"\x05\0\0\0\0\0\0\0not a model")
        refused(path, r"is damaged \(JSONDecodeError: Expecting value")
        safetensors.numpy.save_file({"w": np.ones(2)}, path)
        refused(path, "was not written by rnn_xp: it has no digest")
        with pytest.raises(FileNotFoundError):
            checkpoint.load(tmp_path / "absent")

    @pytest.mark.parametrize(
        ("old", "new", "message"),
        [
            (
                b'"shape":[2,3]',
                b'"shape":[3,2]',
                r"has 'w' as \['F64', \[3, 2\]\], but \['F64', \[2, 3\]\] was",
            ),
            (b'"F32"', b'"I32"', r"has 'b' as \['I32', \[4\]\], but \['F32', \[4\]\] was"),
            (b'"w":{', b'"v":{', "lacks the array 'w', which was written"),
            (b"[56,72]", b"[56,71]", "'b' does not lie where it should"),
        ],
    )
    def test_names_the_array_that_differs_from_the_manifest(self, path, old, new, message):
        """The same bytes, read as something else."""
        data = path.read_bytes()
        assert data.count(old) == 1
        path.write_bytes(data.replace(old, new))
        refused(path, message)

    def test_an_array_too_few_or_too_many_although_all_digests_are_right(self, path):
        header, content, values = parts(path)
        less = {name: about for name, about in header.items() if name != "b"}
        put(path, less, content, values[:-16])
        refused(path, "lacks the array 'b', which was written")
        more = {**header, "x": {"dtype": "U8", "shape": [1], "data_offsets": [72, 73]}}
        put(path, more, content, values + b"\0")
        refused(path, "has an array 'x', which was not written")

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_values_that_are_not_finite_although_the_digest_is_right(self, path, value):
        header, content, values = parts(path)
        values = values[:-4] + np.float32(value).tobytes()
        content["manifest"]["b"][2] = hashlib.sha256(values[-16:]).hexdigest()
        put(path, header, content, values)
        refused(path, "has values that are not finite in 'b'")

    def test_bools_that_are_none(self, tmp_path):
        path = tmp_path / "f"
        checkpoint.save(path, {"on": np.asarray([True, False, True])}, {})
        header, content, _ = parts(path)
        content["manifest"]["on"][2] = hashlib.sha256(b"\0\2\1").hexdigest()
        put(path, header, content, b"\0\2\1")
        refused(path, "'on' has bools that are neither 0 nor 1")

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (entry("{}", "1"), "is of format '1', but this version reads '2'"),
            (entry("{}", "20"), "is of format '20', but this version reads '2'"),
            ('["{\\"epoch\\": 7}", "abc"]', r"is of format '\[.*, but this version reads '2'"),
            ("", "is of format '', but this"),
            ("x" * 10**6, "is of format 'xxxxxxxxx', but this"),
            ("2", "metadata do not fit their sha256"),
            ("2 abc {}", "metadata do not fit their sha256"),
            (entry("{"), "is damaged .JSONDecodeError: "),
            (entry("{}"), "it has no manifest"),
            (entry("[]"), "it has no manifest"),
            (entry({"manifest": {}}), "it has no manifest"),
            (entry({"manifest": {}, "metadata": []}), "it has no manifest"),
            (entry({"manifest": [], "metadata": {}}), "it has no manifest"),
            (entry({"manifest": {"w": None}, "metadata": {}}), "manifest does not describe 'w'"),
            (entry({"manifest": {"w": ["F9", [2], ""]}, "metadata": {}}), "does not describe 'w'"),
            (entry({"manifest": {"w": ["F64", [-2], ""]}, "metadata": {}}), "not describe 'w'"),
            (entry('{"manifest": {}, "manifest": {}, "metadata": {}}'), "a key is there twice"),
            (entry('{"manifest": {}, "metadata": {"a": NaN}}'), "nan|NaN is not a finite number"),
            (entry('{"manifest": {}, "metadata": {"a": -Infinity}}'), "-Infinity is not a finite"),
            (entry('{"manifest": {}, "metadata": {"a": 1e999}}'), "1e999 is not a finite"),
            (
                entry('{"manifest": {}, "metadata": {"a": ' + "9" * 9999 + "}}"),
                "ValueError: Exceed",
            ),
            (entry("[" * 100_000), "RecursionError"),
            (entry("{" + '"a":[' * 100_000), "is damaged"),
        ],
        ids=range(23),
    )
    def test_an_entry_of_another_kind(self, tmp_path, text, message):
        path = tmp_path / "f"
        safetensors.numpy.save_file({"w": np.ones(2)}, path, metadata={"rnn_xp": text})
        refused(path, message)

    @pytest.mark.parametrize(
        "header",
        [
            *(b"[]", b"7", b"null", b"{}", b"\xff{}", "{}".encode("utf-16"), b"[" * 200_000),
            *(b'{"__metadata__":{"rnn_xp":7}}', b'{"__metadata__":7}', b'{"a":' * 200_000),
            b'{"__metadata__":{},"__metadata__":{}}',
            b'{"__metadata__":{"rnn_xp":"2 \\ud800 \\udfff"}}',
            b"",
        ],
    )
    def test_a_header_of_another_kind(self, tmp_path, header):
        path = tmp_path / "f"
        path.write_bytes(len(header).to_bytes(8, "little") + header)
        refused(path, "is damaged|was not written by rnn_xp|is of format")


class TestBounds:
    def test_a_file_over_the_limit_is_not_read(self, tmp_path, path):
        size = path.stat().st_size
        checkpoint.load(path, limit=size)
        refused(path, f"has {size} bytes, over the limit of {size - 1}", limit=size - 1)
        with open(tmp_path / "sparse", "wb") as file:
            file.truncate((4 << 30) + 1)
        refused(tmp_path / "sparse", "has 4294967297 bytes, over the limit of 4294967296")

    def test_a_header_too_long_is_not_parsed(self, tmp_path):
        length = (4 << 20) + 1
        (tmp_path / "f").write_bytes(length.to_bytes(8, "little") + b"[" * length)
        refused(tmp_path / "f", "has a header of 4194305 bytes, over 4194304")

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="FIFOs are of POSIX")
    def test_what_is_not_a_regular_file_is_not_read(self, tmp_path):
        os.mkfifo(tmp_path / "fifo")
        for path in (tmp_path / "fifo", tmp_path, "/dev/zero", "/dev/null"):
            refused(path, "is not a regular file")

    def test_it_is_opened_and_read_once(self, path, monkeypatch):
        opened, real = [], os.open
        monkeypatch.setattr(os, "open", lambda *args: opened.append(args) or real(*args))
        checkpoint.load(path)
        assert len(opened) == 1
        assert opened[0][1] & os.O_CLOEXEC

    def test_no_descriptor_is_left_open(self, path, tmp_path):
        before = os.listdir("/dev/fd")
        checkpoint.load(path)
        refused(path, "limit", limit=3)
        refused(tmp_path, "regular")
        assert os.listdir("/dev/fd") == before

    def test_memory_when_all_is_well(self, tmp_path):
        checkpoint.save(tmp_path / "f", {"w": np.ones(1 << 19)}, {})
        assert peak(lambda: checkpoint.load(tmp_path / "f")) < 2.5 * (4 << 20)

    def test_bytes_cannot_be_read_twice(self, tmp_path):
        """A thousand arrays of the same MiB would be a GiB."""
        values, names = bytes(1 << 20), [f"a{i}" for i in range(1000)]
        digest = hashlib.sha256(values).hexdigest()
        about = {"dtype": "U8", "shape": [1 << 20], "data_offsets": [0, 1 << 20]}
        content = {"manifest": {k: ["U8", [1 << 20], digest] for k in names}, "metadata": {}}
        put(tmp_path / "f", dict.fromkeys(names, about), content, values)
        size = (tmp_path / "f").stat().st_size
        assert peak(lambda: refused(tmp_path / "f", "'a1' does not lie")) < 8 * size

    @pytest.mark.parametrize(
        ("shape", "message"),
        [
            *(([1 << 62], "does not lie where"), ([0, 1 << 62, 1 << 62], "is damaged .ValueError")),
            *((shape, "manifest does not describe 'w'") for shape in ([1 << 63, 0], [1] * 65)),
            *((shape, "manifest does not describe 'w'") for shape in ([10**4000] * 500, [True])),
        ],
        ids=range(6),
    )
    def test_shapes_that_cannot_be(self, tmp_path, shape, message):
        content = {
            "manifest": {"w": ["U8", shape, hashlib.sha256(b"").hexdigest()]},
            "metadata": {},
        }
        about = {"dtype": "U8", "shape": shape, "data_offsets": [0, 0]}
        put(tmp_path / "f", {"w": about}, content, b"")
        size = (tmp_path / "f").stat().st_size
        assert peak(lambda: refused(tmp_path / "f", message)) < 8 * size + 100_000

    @pytest.mark.parametrize(
        "piece", ["[],", "{},", "0,", '"",', "[" * 800 + "]" * 800 + ",", "1.5,", '"\U0001f600",']
    )
    def test_json_takes_at_most_sixty_times_its_length(self, tmp_path, piece):
        text = '{"manifest": {}, "metadata": {"a": [' + piece * (300_000 // len(piece)) + "0]}}"
        put(tmp_path / "f", {}, text, b"")
        size = (tmp_path / "f").stat().st_size
        assert peak(lambda: checkpoint.load(tmp_path / "f")) < 60 * size


def peak(function):
    """The most memory that is held at a time while the function runs."""
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
