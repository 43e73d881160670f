"""What holds for any content and any bytes: the same comes back, or a CheckpointError."""

from __future__ import annotations

import hashlib
import json
import math

import hypothesis
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rnn_xp import checkpoint

SETTINGS = hypothesis.settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
DTYPES = [
    *("float16", "float32", "float64", "int8", "int16", "int32", "int64"),
    *("uint8", "uint16", "uint32", "uint64", "bool", ">f4", ">f8", ">i4"),
]
NAMES = st.text(max_size=8).filter(lambda name: name != "__metadata__")
NUMBERS = st.floats(allow_nan=False, allow_infinity=False) | st.integers()
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@st.composite
def any_array(draw):
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    elements = {"allow_nan": False, "allow_infinity": False} if dtype.kind == "f" else None
    array = draw(hnp.arrays(dtype, shape, elements=elements))
    layout = draw(st.sampled_from(["C", "F", "transposed", "backwards", "read-only", "broadcast"]))
    match layout:
        case "F":
            return np.asfortranarray(array)
        case "transposed":
            return array.T
        case "backwards":
            return array[(slice(None, None, -1),) * array.ndim]
        case "read-only":
            array.flags.writeable = False
        case "broadcast":
            return np.broadcast_to(array, (2, *array.shape))
    return array


CONTENT = st.dictionaries(NAMES, any_array(), max_size=5)


@SETTINGS
@hypothesis.given(arrays=CONTENT, metadata=st.dictionaries(st.text(), JSON, max_size=4))
def test_what_is_written_comes_back(tmp_path, arrays, metadata):
    path = tmp_path / "f"
    checkpoint.save(path, arrays, metadata)
    found, about = checkpoint.load(path)
    assert json.dumps(about, sort_keys=True) == json.dumps(metadata, sort_keys=True)  # 1 is not 1.0
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        native = array.astype(array.dtype.newbyteorder("="))
        assert found[name].dtype == native.dtype
        assert found[name].dtype.isnative
        assert found[name].shape == native.shape
        assert found[name].tobytes() == native.tobytes()  # the sign of zero too
        assert found[name].flags.c_contiguous
        assert found[name].flags.writeable
    data = path.read_bytes()
    checkpoint.save(path, dict(reversed(found.items())), dict(reversed(about.items())))
    assert path.read_bytes() == data


def load(path, data):
    """Content, or None for a CheckpointError. Nothing else may come out."""
    path.write_bytes(data)
    try:
        return checkpoint.load(path)
    except checkpoint.CheckpointError:
        return None


def framed(header, values=b""):
    return len(header).to_bytes(8, "little") + header + values


@SETTINGS
@hypothesis.given(st.binary(max_size=400))
def test_any_bytes(tmp_path, data):
    assert load(tmp_path / "f", data) is None
    assert load(tmp_path / "f", framed(data)) is None
    assert load(tmp_path / "f", framed(data[:200], data[200:])) is None


@SETTINGS
@hypothesis.given(JSON)
def test_any_json_in_any_place(tmp_path, value):
    """As the header, the entry, the text, the manifest and what it says of an array."""
    path, text = tmp_path / "f", json.dumps(value)
    assert load(path, framed(text.encode())) is None
    assert load(path, framed(json.dumps({"__metadata__": value}).encode())) is None
    assert load(path, framed(json.dumps({"__metadata__": {"rnn_xp": value}}).encode())) is None
    assert load(path, forge({}, text)) is None
    assert load(path, forge({"a": value}, manifest={"a": ["U8", [1], digest(b"\0")]})) is None
    assert load(path, forge({"a": place("U8", [1], 0, 1)}, manifest={"a": value})) is None
    for part in range(3):
        manifest = ["U8", [1], digest(b"\0")]
        about = dict(zip(("dtype", "shape", "data_offsets"), ("U8", [1], [0, 1]), strict=True))
        assert load(path, forge({"a": about}, manifest={"a": manifest})) is not None
        if value != manifest[part]:
            manifest[part] = value
            assert load(path, forge({"a": about}, manifest={"a": manifest})) is None
        key = list(about)[part]
        if value != about[key]:
            forged = forge({"a": {**about, key: value}}, manifest={"a": ["U8", [1], digest(b"\0")]})
            assert load(path, forged) is None
    if not isinstance(value, dict):
        assert load(path, forge({}, manifest=value)) is None
        assert load(path, forge({}, manifest={}, metadata=value)) is None


def digest(data):
    return hashlib.sha256(data).hexdigest()


def place(code, shape, begin, end):
    return {"dtype": code, "shape": shape, "data_offsets": [begin, end]}


def forge(header, text=None, *, manifest=None, metadata=None, values=b"\0"):
    """A file whose text fits its digest, whatever it says."""
    if text is None:
        metadata = {} if metadata is None else metadata
        text = json.dumps({"manifest": manifest, "metadata": metadata})
    entry = f"2 {digest(text.encode())} {text}"
    return framed(json.dumps({"__metadata__": {"rnn_xp": entry}, **header}).encode(), values)


@st.composite
def tampered(draw):
    """Content, the manifest of it, and the same with one difference between them."""
    shapes = st.tuples(st.integers(1, 4), st.integers(1, 4))
    whole = {
        name: np.arange(1.0, 1 + math.prod(shape), dtype=draw(st.sampled_from(["f4", "f8", "i4"])))
        .reshape(shape)
        for name, shape in draw(st.dictionaries(NAMES, shapes, min_size=2, max_size=4)).items()
    }  # fmt: skip
    name, other = draw(st.permutations(sorted(whole)))[:2]
    array, changed = whole[name], dict(whole)
    match kind := draw(st.sampled_from(KINDS)):
        case "missing":
            del changed[name]
        case "extra":
            changed[draw(NAMES.filter(lambda new: new not in whole))] = np.ones(2)
        case "renamed":
            changed[draw(NAMES.filter(lambda new: new not in whole))] = changed.pop(name)
        case "shape":
            hypothesis.assume(array.shape[0] != array.shape[1])
            changed[name] = array.reshape(array.shape[::-1])
        case "flat":
            changed[name] = array.reshape(-1)
        case "longer":
            changed[name] = np.concatenate([array, array])
        case "dtype":
            changed[name] = array.view({"f4": "i4", "f8": "i8", "i4": "f4"}[array.dtype.str[1:]])
        case "wider":
            changed[name] = array.astype("f2")
        case "value":
            changed[name] = array + np.asarray(draw(st.integers(1, 3)), array.dtype)
        case "exchanged":
            hypothesis.assume(whole[name].tobytes() != whole[other].tobytes())
            changed[name], changed[other] = changed[other], changed[name]
        case "sign":
            changed[name] = -array
    return kind, whole, changed


KINDS = [
    *("missing", "extra", "renamed", "shape", "flat", "longer", "dtype", "wider", "value"),
    *("exchanged", "sign"),
]
CODES = {"float32": "F32", "float64": "F64", "int32": "I32"}


def test_tampering_is_noticed_although_the_digest_is_right(tmp_path):
    path, seen = tmp_path / "f", set()

    @hypothesis.settings(SETTINGS, max_examples=300)
    @hypothesis.given(tampered())
    def check(case):
        kind, whole, changed = case
        manifest = {
            name: [CODES[array.dtype.name], array.shape, digest(array.tobytes())]
            for name, array in whole.items()
        }
        text = json.dumps({"manifest": manifest, "metadata": {}})
        entry = {"rnn_xp": f"2 {digest(text.encode())} {text}"}
        path.write_bytes(safetensors.numpy.save(whole, metadata=entry))
        assert checkpoint.load(path)[0].keys() == whole.keys()
        path.write_bytes(safetensors.numpy.save(changed, metadata=entry))
        differ = {*whole, *changed} - {n for n in whole if changed.get(n) is whole[n]}
        with pytest.raises(checkpoint.CheckpointError) as caught:
            checkpoint.load(path)
        assert any(repr(name) in str(caught.value) for name in differ), kind
        seen.add((kind, " ".join(str(caught.value).split(" ")[1:3])))

    check()
    assert {kind for kind, _ in seen} == set(KINDS)
    assert {"lacks the", "has an", "is damaged:"} <= {message for _, message in seen}
    exact = {("missing", "lacks the"), ("extra", "has an"), ("value", "is damaged:")}
    assert {case for case in seen if case[0] in ("missing", "extra", "value")} == exact
