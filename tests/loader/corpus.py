"""Safetensors files at the edges of the format.

READ: every reader must accept them. REFUSED: every reader must refuse them. STRICTER: this reader refuses them, although the
safetensors package accepts them. The cases of the package's own tests (safetensors/src/tensor.rs, bindings/python/tests) are
included, written again from their descriptions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from tests.loader.making import content, entry

OFFSETS = "'t'.data_offsets"
DATA = bytes(range(16))
TENSOR = entry("I32", [2, 2], 0, 16)
FIELDS = '"dtype":"I32","shape":[2,2],"data_offsets":[0,16]'


@dataclass(frozen=True, slots=True)
class Refused:
    """A file that every reader must refuse, the field that the error names, and a part of its message."""

    name: str
    content: bytes
    field: str
    words: str


@dataclass(frozen=True, slots=True)
class Stricter:
    """A file that the safetensors package accepts, and the reason why this reader refuses it."""

    name: str
    content: bytes
    words: str
    reason: str


def one(**changes: Any) -> bytes:
    """A file with one tensor, `t`, with some fields changed."""
    return content({"t": {**TENSOR, **changes}}, DATA)


def text(header: str) -> bytes:
    return content(header, DATA)


def raw(**fields: str) -> bytes:
    """A file with one tensor, `t`, whose fields are this JSON, valid or not."""
    written = {"dtype": '"I32"', "shape": "[2,2]", "data_offsets": "[0,16]", **fields}
    return text('{"t":{' + ",".join(f'"{name}":{value}' for name, value in written.items()) + "}}")


def empty(shape: list[int]) -> bytes:
    """A file with one empty tensor of this shape."""
    return content({"z": entry("U8", shape, 0, 0)})


READ: dict[str, bytes] = {
    "a tensor": text(f'{{"t":{{{FIELDS}}}}}'),
    "no tensor": content("{}"),
    "no tensor but metadata": content('{"__metadata__":{"framework":"pt"}}     '),
    "metadata that is null": text(f'{{"__metadata__":null,"t":{{{FIELDS}}}}}'),
    "white space after the header": content("{}\r \t\n"),
    # From the package's tests: a writer may align the data with a page this way.
    "white space before the header": content("\t\n{}\r "),
    "a header length that is not a multiple of eight": content({"t": entry("U8", [3], 0, 3)}, b"abc"),
    "a scalar": content({"t": entry("I32", [], 0, 4)}, bytes(4)),
    "a tensor without elements": content({"t": entry("I32", [2, 0], 0, 0)}),
    "a zero before what would overflow": empty([0, 2**63, 2**63]),
    "the largest extent": empty([2**64 - 1, 0]),
    "tensors in another order than their data": content(
        {"b": entry("U8", [3], 13, 16), "c": entry("F32", [3], 0, 12), "a": entry("I8", [1], 12, 13)}, DATA
    ),
    "empty tensors between others": content(
        {"b": entry("U8", [12], 4, 16), "z": entry("U8", [0], 4, 4), "a": entry("F32", [], 0, 4), "y": entry("U8", [0], 0, 0),
         "x": entry("U8", [0], 16, 16)}, DATA
    ),
    "data that is not aligned": content({"a": entry("U8", [1], 0, 1), "b": entry("F64", [1], 1, 9)}, DATA[:9]),
    "an empty name": content({"": TENSOR}, DATA),
    "a name beyond ASCII": content({"ключ 🔑": TENSOR}, DATA),
    "a name of escapes": text(f'{{"\\ud83d\\ude00\\u0041\\n":{{{FIELDS}}}}}'),
    "a name with the delete character": content({"t\x7f": TENSOR}, DATA),
    "names with a number below zero": content({"t-0": entry("U8", [4], 0, 4), "t-1": entry("U8", [12], 4, 16)}, DATA),
    "a field's name in escapes": text('{"t":{"dt\\u0079pe":"I32","shape":[2,2],"data_offsets":[0,16]}}'),
    "an unknown field": one(quantization={"bits": [4, -0.5, None, True], "-0": "-0"}),
    "an unknown field with a negative zero": raw(x="-0"),
    "an unknown field, 127 levels deep": raw(x="[" * 125 + "]" * 125),
    "an unknown field with the largest number": raw(x="[1.7976931348623157e308,1e-999]"),
    "a shape of 5,000 ones": one(shape=[2, 2, *[1] * 5000]),
    "four bits, evenly": content({"t": entry("F4", [32], 0, 16)}, DATA),
    "six bits, evenly": content({"t": entry("F6_E2M3", [4], 0, 3)}, b"abc"),
}  # fmt: skip

REFUSED = [
    # The length.
    Refused("an empty file", b"", "header length", "0 bytes, less than the 8"),
    Refused("a file of seven bytes", bytes(7), "header length", "7 bytes, less than the 8"),
    Refused("nothing but a length", (60).to_bytes(8, "little"), "header length", "60 bytes, but only 0 follow"),
    Refused("a length of none", content(""), "header", "not JSON"),
    Refused("a length beyond the file", content("{}", length=3), "header length", "3 bytes, but only 2 follow"),
    Refused("a length above the limit", content("{}", length=100_000_001), "header length", "exceed the limit of 100000000"),
    Refused("the largest length", content("{}", length=2**64 - 1), "header length", "18446744073709551615 bytes"),
    Refused("a length that is negative, signed", content("{}", length=2**63), "header length", "9223372036854775808 bytes"),
    Refused("a length that ends within the header", content('{"a":1}', length=3), "header", "not JSON"),
    # The text.
    Refused("a byte that is not UTF-8", content(b"\xff"), "header", "not UTF-8"),
    Refused("a name that is not UTF-8", content(b'{"\xc3\x28":{}}'), "header", "not UTF-8"),
    Refused("half a surrogate pair in UTF-8", content('{"\ud800":{}}'), "header", "not UTF-8"),
    Refused("half a surrogate pair as an escape", text(f'{{"\\ud800":{{{FIELDS}}}}}'), "header", "surrogate"),
    Refused("the other half in a value", raw(x='"\\uDC00"'), "header", "surrogate"),
    Refused("a byte order mark", text(f'\ufeff{{"t":{{{FIELDS}}}}}'), "header", "not JSON"),
    Refused("an open brace", content("{"), "header", "not JSON"),
    Refused("a list", content("[]"), "header", "[] is not a JSON object"),
    Refused("a string", content('"{}"'), "header", "'{}' is not a JSON object"),
    Refused("null", content("null"), "header", "None is not a JSON object"),
    Refused("text behind the object", content("{}{}"), "header", "not JSON"),
    Refused("NUL behind the object", content("{}\0\0"), "header", "not JSON"),
    Refused("a comma too many", text(f'{{"t":{{{FIELDS}}},}}'), "header", "not JSON"),
    Refused("a comment", text(f'{{/**/"t":{{{FIELDS}}}}}'), "header", "not JSON"),
    Refused("single quotes", content("{'t':1}"), "header", "not JSON"),
    Refused("a control character in a name", text(f'{{"t\x01":{{{FIELDS}}}}}'), "header", "not JSON"),
    Refused("an escape that is none", text(f'{{"\\x74":{{{FIELDS}}}}}'), "header", "not JSON"),
    Refused("NaN", raw(x="NaN"), "header", "NaN is not JSON"),
    Refused("Infinity", raw(shape="[Infinity]"), "header", "Infinity is not"),
    Refused("-Infinity", raw(x="-Infinity"), "header", "-Infinity is not JSON"),
    Refused("a number beyond a double", raw(x="[1e999]"), "'t'.'x'", "out of range"),
    Refused("an integer beyond a double", raw(x='{"y":1' + "0" * 400 + "}"), "'t'.'x'", "out of range"),
    Refused("an integer of 5,000 digits", raw(x="1" + "0" * 5000), "header", "digits"),
    Refused("128 levels", raw(x="[" * 126 + "]" * 126), "'t'.'x'", "deeper than 127"),
    Refused("128 levels of objects", raw(x='{"x":' * 126 + "1" + "}" * 126), "'t'.'x'", "deeper than 127"),
    Refused("a nesting bomb", content("[" * 1_000_000), "header", "deeper than 127"),
    Refused("a nesting bomb of objects", content('{"a":' * 200_000), "header", "deeper than 127"),
    Refused("900 levels in a shape", raw(shape="[" * 900 + "]" * 900), "'t'.shape", "is not an integer"),
    Refused("900 levels in a dtype", raw(dtype="[" * 900 + "]" * 900), "'t'.dtype", "is not a dtype of safetensors"),
    Refused("900 levels for an entry", content('{"t":' + "[" * 900 + "]" * 900 + "}"), "'t'", "is not a JSON object"),
    Refused("900 levels of lists", content("[" * 900 + "]" * 900), "header", "is not a JSON object"),
    # The metadata.
    Refused("metadata that is a list", content('{"__metadata__":[]}'), "__metadata__", "not a JSON object"),
    Refused("metadata that is a tensor", content({"__metadata__": TENSOR}, DATA), "__metadata__['shape']", "not a string"),
    Refused("metadata with a number", content('{"__metadata__":{"a":1}}'), "__metadata__['a']", "not a string"),
    Refused("metadata with null", content('{"__metadata__":{"a":null}}'), "__metadata__['a']", "not a string"),
    Refused("metadata twice", content('{"__metadata__":{},"__metadata__":{}}'), "header", "duplicate key '__metadata__'"),
    # The entry.
    Refused("an entry that is null", content('{"t":null}'), "'t'", "None is not a JSON object"),
    Refused("an entry that is a number", content('{"t":1}'), "'t'", "1 is not a JSON object"),
    Refused("no dtype", content({"t": {"shape": [0], "data_offsets": [0, 0]}}), "'t'.dtype", "missing"),
    Refused("no shape", content({"t": {"dtype": "U8", "data_offsets": [0, 0]}}), "'t'.shape", "missing"),
    Refused("no offsets", content({"t": {"dtype": "U8", "shape": [0]}}), OFFSETS, "missing"),
    Refused("a field twice", raw(x='1,"dtype":"I32"'), "header", "duplicate key 'dtype'"),
    # The dtype.
    Refused("a dtype of another library", one(dtype="float32"), "'t'.dtype", "'float32' is not a dtype"),
    Refused("a dtype in small letters", one(dtype="i32"), "'t'.dtype", "'i32' is not a dtype"),
    Refused("a dtype that is a number", one(dtype=9), "'t'.dtype", "9 is not a dtype"),
    Refused("a dtype that is null", one(dtype=None), "'t'.dtype", "None is not a dtype"),
    Refused("a dtype that is a list", one(dtype=["I32"]), "'t'.dtype", "['I32'] is not a dtype"),
    # The shape.
    Refused("a shape that is null", one(shape=None), "'t'.shape", "not a list"),
    Refused("a shape that is a number", one(shape=4), "'t'.shape", "not a list"),
    Refused("a shape that is a string", one(shape="22"), "'t'.shape", "not a list"),
    Refused("a shape that is an object", one(shape={}), "'t'.shape", "not a list"),
    Refused("an extent below zero", one(shape=[-2, -2]), "'t'.shape", "-2 is not an integer"),
    Refused("an extent that is a float", one(shape=[2.0, 2]), "'t'.shape", "2.0 is not an integer"),
    Refused("an extent that is true", one(shape=[2, 2, True]), "'t'.shape", "True is not an integer"),
    Refused("an extent that is a string", one(shape=["2", 2]), "'t'.shape", "'2' is not an integer"),
    Refused("an extent that is null", one(shape=[None]), "'t'.shape", "None is not an integer"),
    Refused("an extent that is a list", one(shape=[[2, 2]]), "'t'.shape", "[2, 2] is not an integer"),
    Refused("an extent of minus zero", raw(shape="[-0]"), "'t'.shape", "-0.0 is not an integer"),
    Refused("an extent with a leading zero", raw(shape="[02,2]"), "header", "not JSON"),
    Refused("an extent beyond 64 bits", empty([2**64, 0]), "'z'.shape", "18446744073709551616 is not an integer"),
    Refused("elements beyond 64 bits", one(shape=[2, 2**64 - 2]), "'t'.shape", "number of elements exceeds"),
    Refused("elements beyond 64 bits that wrap to zero", empty([2**32, 2**32]), "'z'.shape", "number of elements exceeds"),
    Refused("elements beyond 64 bits before a zero", empty([2**63, 4, 0]), "'z'.shape", "number of elements exceeds"),
    Refused("bits beyond 64 bits", one(shape=[2, 2**63 - 1]), "'t'.shape", "number of bits exceeds"),
    Refused("bits beyond 64 bits that wrap to zero", empty([2**61]), "'z'.shape", "number of bits exceeds"),
    Refused("half a byte", one(dtype="F4", shape=[31]), "'t'.shape", "31 elements of F4 take 124 bits"),
    Refused("three quarters of a byte", one(dtype="F6_E3M2", shape=[1]), "'t'.shape", "1 elements of F6_E3M2 take 6 bits"),
    # The offsets.
    Refused("offsets that are null", one(data_offsets=None), OFFSETS, "not a list of two"),
    Refused("offsets that are a string", one(data_offsets="\0\x10"), OFFSETS, "not a list of two"),
    Refused("offsets that are an object", one(data_offsets={"0": 0, "1": 16}), OFFSETS, "not a list of two"),
    Refused("one offset", one(data_offsets=[16]), OFFSETS, "not a list of two"),
    Refused("three offsets", one(data_offsets=[0, 16, 16]), OFFSETS, "not a list of two"),
    Refused("an offset that is a float", one(data_offsets=[0, 16.0]), OFFSETS, "[0, 16.0] are not two integers"),
    Refused("an offset that is false", one(data_offsets=[False, 16]), OFFSETS, "[False, 16] are not two integers"),
    Refused("an offset that is a string", one(data_offsets=["0", 16]), OFFSETS, "['0', 16] are not two integers"),
    Refused("an offset below zero", one(data_offsets=[-16, 0]), OFFSETS, "[-16, 0] are not two integers"),
    Refused("an offset of minus zero", raw(data_offsets="[-0,16]"), OFFSETS, "[-0.0, 16] are"),
    Refused("an offset in exponents", raw(data_offsets="[0,1.6e1]"), OFFSETS, "[0, 16.0] are"),
    Refused("offsets beyond 64 bits", one(data_offsets=[2**64, 2**64 + 16]), OFFSETS, "instead of 0: leaves a gap"),
    Refused("an end before the beginning", one(data_offsets=[16, 0]), OFFSETS, "[16, 0] ends before it begins"),
    Refused("more bytes than the shape takes", one(shape=[2, 1]), OFFSETS, "16 bytes, but I32 of shape [2, 1] takes 8"),
    Refused("fewer bytes than the shape takes", one(data_offsets=[0, 4]), OFFSETS, "4 bytes, but I32 of shape [2, 2]"),
    Refused("no bytes for a scalar", content({"t": entry("U8", [], 0, 0)}), OFFSETS, "0 bytes, but U8 of shape []"),
    # Gaps and overlaps.
    Refused(
        "ten tensors at one place", content({f"w{n}": TENSOR for n in range(10)}, DATA),
        "'w1'.data_offsets", "instead of 16: overlaps",
    ),
    Refused(
        "an overlap by one byte",
        content({"a": entry("U8", [9], 0, 9), "b": entry("U8", [8], 8, 16)}, DATA),
        "'b'.data_offsets", "instead of 9: overlaps",
    ),
    Refused(
        "an empty tensor within another",
        content({"a": entry("U8", [0], 8, 8), "t": TENSOR}, DATA), "'a'.data_offsets", "instead of 16: overlaps",
    ),
    Refused(
        "a gap at the beginning", content({"a": entry("U8", [15], 1, 16)}, DATA),
        "'a'.data_offsets", "instead of 0: leaves a gap",
    ),
    Refused(
        "a gap between two tensors",
        content({"a": entry("U8", [7], 0, 7), "b": entry("U8", [8], 8, 16)}, DATA),
        "'b'.data_offsets", "instead of 7: leaves a gap",
    ),
    Refused("a polyglot", content({"t": TENSOR}, DATA + b"PK\5\6"), OFFSETS, "the data has 20: no bytes are allowed"),
    Refused("a polyglot without tensors", content("{}", b"PK"), "header", "end at byte 0 of the data, but the data has 2"),
    Refused("a truncated file", content({"t": TENSOR}, DATA[:-2]), OFFSETS, "the data has 14: the file is truncated"),
    Refused("a file without its data", content({"t": TENSOR}), OFFSETS, "the data has 0: the file is truncated"),
]  # fmt: skip

STRICTER = [
    Stricter(
        "a tensor twice", text(f'{{"t":{{{FIELDS}}},"t":{{{FIELDS}}}}}'), "duplicate key 't'",
        "readers differ: serde and Python take the last one, others the first",
    ),
    Stricter(
        "metadata with a key twice", content('{"__metadata__":{"a":"1","a":"2"}}'), "duplicate key 'a'", "as above"
    ),
    Stricter(
        "an unknown field twice", raw(x='1,"x":2'), "duplicate key 'x'",
        "as above, for readers that know the field",
    ),
    Stricter(
        "a key twice within an unknown field", raw(x='{"y":1,"y":2}'), "duplicate key 'y'",
        "as above",
    ),
    Stricter(
        "a name with NUL", content({"t\0u": TENSOR}, DATA), "the name contains a NUL character",
        "a reader of C strings sees another name; versions of the package after 0.8 refuse it too",
    ),
    Stricter(
        "metadata with NUL in a key", content({"__metadata__": {"a\0": "b"}}), "__metadata__['a\\x00']: contains a NUL",
        "as above",
    ),
    Stricter(
        "metadata with NUL in a value", content({"__metadata__": {"a": "\0"}}), "__metadata__['a']: contains a NUL", "as above"
    ),
    Stricter(
        "an entry that is a list", text('{"t":["I32",[2,2],[0,16]]}'), "'t': ['I32', [2, 2], [0, 16]] is not a JSON object",
        "an accident of serde's derived readers: the format requires an object, and other readers do too",
    ),
    Stricter(
        "a dtype that is an object", one(dtype={"I32": None}), "'t'.dtype: {'I32': None} is not a dtype of safetensors",
        "as above: serde's other way to write an enum",
    ),
]  # fmt: skip

each_refused = pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.name)
each_stricter = pytest.mark.parametrize("case", STRICTER, ids=lambda case: case.name)
each_read = pytest.mark.parametrize("whole", READ.values(), ids=READ.keys())
