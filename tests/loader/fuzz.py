"""Generate safetensors files: valid files, and files with changes."""

from __future__ import annotations

import json
from copy import deepcopy
from math import prod
from typing import Any

from hypothesis import strategies as st

from loader.checkpoint.dtypes import DTYPES
from tests.loader.making import content

Header = dict[str, Any]

_NAMES = st.text(max_size=6).filter(lambda name: "\0" not in name and name != "__metadata__") | st.sampled_from(
    ["model.layers.0.mlp.weight", "t-0", 'quote"', "back\\slash", "🔑"]
)
_SHAPES = st.lists(st.integers(0, 5), max_size=4)
_SPACE = st.text(" \t\r\n", max_size=9)
_EXTRA = st.dictionaries(
    _NAMES.filter(lambda name: name not in ("dtype", "shape", "data_offsets")),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _NAMES,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=3),
        max_leaves=5,
    ),
    max_size=2,
)

_WRONG = st.sampled_from(
    [None, True, False, -1, 0, 1, 2, 7, 8, 0.0, -0.0, 8.0, 1e300, 2**31, 2**32, 2**61, 2**63, 2**64 - 1, 2**64, 10**400,
     "", "U8", "F4", "F6_E2M3", "\0", "\ud800", "x" * 9, [], [0], [0, 0], [2**63, 2, 0], [0, 2**63, 2], [[0]], {},
     {"U8": None}, {"a": "b"}, float("inf"), float("nan")]
).map(deepcopy)  # fmt: skip
"""Copies, because later changes modify them. Python writes NaN and infinities in a way that is not JSON."""

_TEXTS = st.sampled_from(
    [b"-", b"-0", b"0", b"00", b".0", b"e0", b"1e999", b"NaN", b"Infinity", b"null", b"true", b'"', b"\\", b"\\u0000",
     b"\\ud800", b"\\udc00", b"\\ud83d\\ude00", b"\\u00", b"\\x", b"/", b"//", b"/**/", b",", b":", b"{", b"}", b"[", b"]",
     b"{}", b"[]", b"\0", b"\x01", b"\x7f", b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\xc2\x85",
     b"\xe2\x80\xa8", b" ", b"\n", b"\x0b",
     b'"dtype":', b'"shape":[0],', b'"x":{},', b'"":null,', b'"__metadata__":{},', b"[" * 130, b'{"":' * 130]
)  # fmt: skip


@st.composite
def _headers(draw: st.DrawFn) -> tuple[Header, bytes]:
    """Generate a valid header, with its tensors in any order, and the data."""
    entries: Header = {}
    position = 0
    for name in draw(st.lists(_NAMES, max_size=4, unique=True)):
        dtype, shape = draw(st.sampled_from(list(DTYPES.values()))), draw(_SHAPES)
        if prod(shape) * dtype.bits % 8:
            shape.append(4)
        size = prod(shape) * dtype.bits // 8
        fields = {"dtype": dtype.name, "shape": shape, "data_offsets": [position, position + size]} | draw(_EXTRA)
        entries[name] = dict(draw(st.permutations(list(fields.items()))))
        position += size
    header = dict(draw(st.permutations(list(entries.items()))))
    if draw(st.booleans()):
        header["__metadata__"] = draw(st.none() | st.dictionaries(_NAMES, _NAMES, max_size=3))
    return header, (bytes(range(256)) * (position // 256 + 1))[:position]


@st.composite
def _texts(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """Generate a valid header as JSON text, with random white space and escapes, and the data."""
    header, data = draw(_headers())
    indent, ascii_only = draw(st.sampled_from([None, 1])), draw(st.booleans())
    text = draw(_SPACE) + json.dumps(header, indent=indent, ensure_ascii=ascii_only) + draw(_SPACE)
    return text.encode(), data


@st.composite
def valid_files(draw: st.DrawFn) -> bytes:
    return content(*draw(_texts()))


@st.composite
def files_with_wrong_values(draw: st.DrawFn) -> bytes:
    """Change, remove or add one to three values; sometimes make the data one byte longer or shorter."""
    header, data = draw(_headers())
    for _ in range(draw(st.integers(1, 3))):
        _change(draw, header)
    data = draw(st.sampled_from([data, data, data, data[:-1], data + b"\0"]))
    return content(json.dumps(header, ensure_ascii=True), data)


def _change(draw: st.DrawFn, holder: Any) -> None:
    """Walk down from `holder` to a random value and change it."""
    keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
    key = draw(st.sampled_from(keys)) if keys else None
    if key is not None and isinstance(holder[key], dict | list) and draw(st.integers(0, 3)):
        _change(draw, holder[key])
    elif key is not None and draw(st.integers(0, 3)):
        holder[key] = draw(_changed(holder[key]))
    elif key is not None and draw(st.booleans()):
        del holder[key]
    elif isinstance(holder, dict):
        holder[draw(_NAMES | st.just("__metadata__"))] = draw(_WRONG)
    else:
        holder.insert(draw(st.integers(0, len(holder))), draw(_WRONG))


def _changed(value: Any) -> st.SearchStrategy[Any]:
    """Return another value, often a near one: readers tend to miss errors by one."""
    if type(value) is int and abs(value) < 2**64:
        return st.sampled_from([value - 1, value + 1, value * 8, -value, float(value)]) | _WRONG
    if isinstance(value, str):
        return st.sampled_from(sorted(DTYPES)) | _WRONG
    return _WRONG


@st.composite
def files_with_wrong_bytes(draw: st.DrawFn) -> bytes:
    """Change, remove or add bytes anywhere in the file, the length included."""
    whole = bytearray(draw(valid_files()))
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, max(0, len(whole) - 1)) | st.integers(0, min(8, len(whole))))
        count = draw(st.integers(0, 4))
        whole[place : place + count] = draw(st.binary(min_size=count, max_size=count) | st.binary(max_size=4))
    return bytes(whole)


@st.composite
def files_with_wrong_text(draw: st.DrawFn) -> bytes:
    """Insert pieces of JSON at random places; the length of the header stays right."""
    text, data = draw(_texts())
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(text)))
        text = text[:place] + draw(_TEXTS) + text[place + draw(st.integers(0, 2)) :]
    return content(text, data)
