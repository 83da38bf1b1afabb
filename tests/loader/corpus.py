"""Safetensors files at the edges of the format: what every reader must read, what every reader must refuse, and what this
one refuses although the safetensors package reads it.

Among them are the vectors of the package's own tests (safetensors/src/tensor.rs, bindings/python/tests), made anew from
what they say.
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
    """A file that no reader may take, the field that the error names, and words of what it says."""

    name: str
    content: bytes
    field: str
    words: str


@dataclass(frozen=True, slots=True)
class Stricter:
    """A file that the safetensors package takes, and why this reader does not."""

    name: str
    content: bytes
    words: str
    reason: str


def one(**changes: Any) -> bytes:
    """A file with one tensor, `t`, in which some fields are others."""
    return content({"t": {**TENSOR, **changes}}, DATA)


def text(header: str) -> bytes:
    return content(header, DATA)


def raw(**fields: str) -> bytes:
    """A file with one tensor, `t`, whose fields are this JSON, however wrong."""
    written = {"dtype": '"I32"', "shape": "[2,2]", "data_offsets": "[0,16]", **fields}
    return text('{"t":{' + ",".join(f'"{name}":{value}' for name, value in written.items()) + "}}")


def empty(shape: list[int]) -> bytes:
    """A file with one tensor of no elements and this shape."""
    return content({"z": entry("U8", shape, 0, 0)})


READ: dict[str, bytes] = {
    "a tensor": text(f'{{"t":{{{FIELDS}}}}}'),
    "no tensor": content("{}"),
    "no tensor but metadata": content('{"__metadata__":{"framework":"pt"}}     '),
    "metadata that are null": text(f'{{"__metadata__":null,"t":{{{FIELDS}}}}}'),
    "white space behind the header": content("{}\r \t\n"),
    # The package's tests: writers may move the data to a page's boundary like this.
    "white space before the header": content("\t\n{}\r "),
    "a header that is no multiple of eight": content({"t": entry("U8", [3], 0, 3)}, b"abc"),
    "a scalar": content({"t": entry("I32", [], 0, 4)}, bytes(4)),
    "no elements": content({"t": entry("I32", [2, 0], 0, 0)}),
    "a zero before what would overflow": empty([0, 2**63, 2**63]),
    "the largest extent": empty([2**64 - 1, 0]),
    "tensors in another order than their data": content(
        {"b": entry("U8", [3], 13, 16), "c": entry("F32", [3], 0, 12), "a": entry("I8", [1], 12, 13)}, DATA
    ),
    "empty tensors between others": content(
        {"b": entry("U8", [12], 4, 16), "z": entry("U8", [0], 4, 4), "a": entry("F32", [], 0, 4), "y": entry("U8", [0], 0, 0),
         "x": entry("U8", [0], 16, 16)}, DATA
    ),
    "data that are not aligned": content({"a": entry("U8", [1], 0, 1), "b": entry("F64", [1], 1, 9)}, DATA[:9]),
    "an empty name": content({"": TENSOR}, DATA),
    "a name beyond ASCII": content({"ключ 🔑": TENSOR}, DATA),
    "a name of escapes": text(f'{{"\\ud83d\\ude00\\u0041\\n":{{{FIELDS}}}}}'),
    "a name with the delete character": content({"t\x7f": TENSOR}, DATA),
    "names with a number below zero": content({"t-0": entry("U8", [4], 0, 4), "t-1": entry("U8", [12], 4, 16)}, DATA),
    "a field's name in escapes": text('{"t":{"dt\\u0079pe":"I32","shape":[2,2],"data_offsets":[0,16]}}'),
    "a field nobody knows": one(quantization={"bits": [4, -0.5, None, True], "-0": "-0"}),
    "a field nobody knows with a negative zero": raw(x="-0"),
    "a field nobody knows, 127 levels deep": raw(x="[" * 125 + "]" * 125),
    "a field nobody knows with the largest number": raw(x="[1.7976931348623157e308,1e-999]"),
    "a shape of 5,000 ones": one(shape=[2, 2, *[1] * 5000]),
    "four bits, evenly": content({"t": entry("F4", [32], 0, 16)}, DATA),
    "six bits, evenly": content({"t": entry("F6_E2M3", [4], 0, 3)}, b"abc"),
}  # fmt: skip

REFUSED = [
    # The length.
    Refused("an empty file", b"", "header length", "0 bytes, fewer than the 8"),
    Refused("a file of seven bytes", bytes(7), "header length", "7 bytes, fewer than the 8"),
    Refused("nothing but a length", (60).to_bytes(8, "little"), "header length", "60 bytes, more than the 0 that follow"),
    Refused("a length of none", content(""), "header", "not JSON"),
    Refused("a length beyond the file", content("{}", length=3), "header length", "3 bytes, more than the 2 that follow"),
    Refused("a length above the limit", content("{}", length=100_000_001), "header length", "the 100000000 a header may"),
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
    Refused("a list", content("[]"), "header", "[] is no JSON object"),
    Refused("a string", content('"{}"'), "header", "'{}' is no JSON object"),
    Refused("null", content("null"), "header", "None is no JSON object"),
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
    Refused("900 levels in a shape", raw(shape="[" * 900 + "]" * 900), "'t'.shape", "no whole number"),
    Refused("900 levels in a dtype", raw(dtype="[" * 900 + "]" * 900), "'t'.dtype", "is none that safetensors knows"),
    Refused("900 levels for an entry", content('{"t":' + "[" * 900 + "]" * 900 + "}"), "'t'", "is no JSON object"),
    Refused("900 levels of lists", content("[" * 900 + "]" * 900), "header", "is no JSON object"),
    # The metadata.
    Refused("metadata that are a list", content('{"__metadata__":[]}'), "__metadata__", "no JSON object"),
    Refused("metadata that are a tensor", content({"__metadata__": TENSOR}, DATA), "__metadata__['shape']", "no string"),
    Refused("metadata with a number", content('{"__metadata__":{"a":1}}'), "__metadata__['a']", "no string"),
    Refused("metadata with null", content('{"__metadata__":{"a":null}}'), "__metadata__['a']", "no string"),
    Refused("metadata twice", content('{"__metadata__":{},"__metadata__":{}}'), "header", "'__metadata__' is there twice"),
    # The entry.
    Refused("an entry that is null", content('{"t":null}'), "'t'", "None is no JSON object"),
    Refused("an entry that is a number", content('{"t":1}'), "'t'", "1 is no JSON object"),
    Refused("no dtype", content({"t": {"shape": [0], "data_offsets": [0, 0]}}), "'t'.dtype", "missing"),
    Refused("no shape", content({"t": {"dtype": "U8", "data_offsets": [0, 0]}}), "'t'.shape", "missing"),
    Refused("no offsets", content({"t": {"dtype": "U8", "shape": [0]}}), OFFSETS, "missing"),
    Refused("a field twice", raw(x='1,"dtype":"I32"'), "header", "'dtype' is there twice"),
    # The dtype.
    Refused("a dtype of another library", one(dtype="float32"), "'t'.dtype", "'float32' is none"),
    Refused("a dtype in small letters", one(dtype="i32"), "'t'.dtype", "'i32' is none"),
    Refused("a dtype that is a number", one(dtype=9), "'t'.dtype", "9 is none"),
    Refused("a dtype that is null", one(dtype=None), "'t'.dtype", "None is none"),
    Refused("a dtype that is a list", one(dtype=["I32"]), "'t'.dtype", "['I32'] is none"),
    # The shape.
    Refused("a shape that is null", one(shape=None), "'t'.shape", "no list"),
    Refused("a shape that is a number", one(shape=4), "'t'.shape", "no list"),
    Refused("a shape that is a string", one(shape="22"), "'t'.shape", "no list"),
    Refused("a shape that is an object", one(shape={}), "'t'.shape", "no list"),
    Refused("an extent below zero", one(shape=[-2, -2]), "'t'.shape", "-2 is no whole number"),
    Refused("an extent that is a float", one(shape=[2.0, 2]), "'t'.shape", "2.0 is no whole number"),
    Refused("an extent that is true", one(shape=[2, 2, True]), "'t'.shape", "True is no whole number"),
    Refused("an extent that is a string", one(shape=["2", 2]), "'t'.shape", "'2' is no whole number"),
    Refused("an extent that is null", one(shape=[None]), "'t'.shape", "None is no whole number"),
    Refused("an extent that is a list", one(shape=[[2, 2]]), "'t'.shape", "[2, 2] is no whole number"),
    Refused("an extent of minus zero", raw(shape="[-0]"), "'t'.shape", "-0.0 is no"),
    Refused("an extent with a leading zero", raw(shape="[02,2]"), "header", "not JSON"),
    Refused("an extent beyond 64 bits", empty([2**64, 0]), "'z'.shape", "18446744073709551616 is no whole number"),
    Refused("elements beyond 64 bits", one(shape=[2, 2**64 - 2]), "'t'.shape", "number of elements exceeds"),
    Refused("elements beyond 64 bits that wrap to zero", empty([2**32, 2**32]), "'z'.shape", "number of elements exceeds"),
    Refused("elements beyond 64 bits before a zero", empty([2**63, 4, 0]), "'z'.shape", "number of elements exceeds"),
    Refused("bits beyond 64 bits", one(shape=[2, 2**63 - 1]), "'t'.shape", "number of bits exceeds"),
    Refused("bits beyond 64 bits that wrap to zero", empty([2**61]), "'z'.shape", "number of bits exceeds"),
    Refused("half a byte", one(dtype="F4", shape=[31]), "'t'.shape", "31 elements of F4 are 124 bits"),
    Refused("three quarters of a byte", one(dtype="F6_E3M2", shape=[1]), "'t'.shape", "1 elements of F6_E3M2 are 6 bits"),
    # The offsets.
    Refused("offsets that are null", one(data_offsets=None), OFFSETS, "no list of two"),
    Refused("offsets that are a string", one(data_offsets="\0\x10"), OFFSETS, "no list of two"),
    Refused("offsets that are an object", one(data_offsets={"0": 0, "1": 16}), OFFSETS, "no list of two"),
    Refused("one offset", one(data_offsets=[16]), OFFSETS, "no list of two"),
    Refused("three offsets", one(data_offsets=[0, 16, 16]), OFFSETS, "no list of two"),
    Refused("an offset that is a float", one(data_offsets=[0, 16.0]), OFFSETS, "[0, 16.0] are not two whole"),
    Refused("an offset that is false", one(data_offsets=[False, 16]), OFFSETS, "[False, 16] are not two whole"),
    Refused("an offset that is a string", one(data_offsets=["0", 16]), OFFSETS, "['0', 16] are not two whole"),
    Refused("an offset below zero", one(data_offsets=[-16, 0]), OFFSETS, "[-16, 0] are not two whole"),
    Refused("an offset of minus zero", raw(data_offsets="[-0,16]"), OFFSETS, "[-0.0, 16] are"),
    Refused("an offset in exponents", raw(data_offsets="[0,1.6e1]"), OFFSETS, "[0, 16.0] are"),
    Refused("offsets beyond 64 bits", one(data_offsets=[2**64, 2**64 + 16]), OFFSETS, "not at 0: leaves a hole"),
    Refused("an end before the beginning", one(data_offsets=[16, 0]), OFFSETS, "[16, 0] ends before it begins"),
    Refused("more bytes than the shape takes", one(shape=[2, 1]), OFFSETS, "16 bytes, where I32 of shape [2, 1] takes 8"),
    Refused("fewer bytes than the shape takes", one(data_offsets=[0, 4]), OFFSETS, "4 bytes, where I32 of shape [2, 2]"),
    Refused("no bytes for a scalar", content({"t": entry("U8", [], 0, 0)}), OFFSETS, "0 bytes, where U8 of shape []"),
    # How they lie together.
    Refused(
        "ten tensors at one place", content({f"w{n}": TENSOR for n in range(10)}, DATA),
        "'w1'.data_offsets", "not at 16: overlaps",
    ),
    Refused(
        "an overlap by one byte",
        content({"a": entry("U8", [9], 0, 9), "b": entry("U8", [8], 8, 16)}, DATA), "'b'.data_offsets", "not at 9: overlaps",
    ),
    Refused(
        "an empty tensor within another",
        content({"a": entry("U8", [0], 8, 8), "t": TENSOR}, DATA), "'a'.data_offsets", "not at 16: overlaps",
    ),
    Refused(
        "a hole at the beginning", content({"a": entry("U8", [15], 1, 16)}, DATA), "'a'.data_offsets", "not at 0: leaves a hole"
    ),
    Refused(
        "a hole between two",
        content({"a": entry("U8", [7], 0, 7), "b": entry("U8", [8], 8, 16)}, DATA),
        "'b'.data_offsets", "not at 7: leaves a hole",
    ),
    Refused("a polyglot", content({"t": TENSOR}, DATA + b"PK\5\6"), OFFSETS, "which has 20: nothing may follow"),
    Refused("a polyglot without tensors", content("{}", b"PK"), "header", "end at byte 0 of the data, which has 2"),
    Refused("a file cut off", content({"t": TENSOR}, DATA[:-2]), OFFSETS, "which has 14: the file is cut off"),
    Refused("a file without its data", content({"t": TENSOR}), OFFSETS, "which has 0: the file is cut off"),
]  # fmt: skip

STRICTER = [
    Stricter(
        "a tensor twice", text(f'{{"t":{{{FIELDS}}},"t":{{{FIELDS}}}}}'), "the key 't' is there twice",
        "two readers may take different ones: serde and Python the last, others the first",
    ),
    Stricter(
        "metadata with a key twice", content('{"__metadata__":{"a":"1","a":"2"}}'), "the key 'a' is there twice", "as above"
    ),
    Stricter(
        "an unknown field twice", raw(x='1,"x":2'), "the key 'x' is there twice",
        "as above, for whoever knows it",
    ),
    Stricter(
        "a key twice within an unknown field", raw(x='{"y":1,"y":2}'), "the key 'y' is there twice",
        "as above",
    ),
    Stricter(
        "a name with NUL", content({"t\0u": TENSOR}, DATA), "a NUL character in the name",
        "what reads C strings takes it for another; the package refuses it too since, after 0.8",
    ),
    Stricter(
        "metadata with NUL in a key", content({"__metadata__": {"a\0": "b"}}), "__metadata__['a\\x00']: a NUL", "as above"
    ),
    Stricter(
        "metadata with NUL in a value", content({"__metadata__": {"a": "\0"}}), "__metadata__['a']: a NUL", "as above"
    ),
    Stricter(
        "an entry that is a list", text('{"t":["I32",[2,2],[0,16]]}'), "'t': ['I32', [2, 2], [0, 16]] is no JSON object",
        "an accident of serde's derived readers, not the format: it says an object, and other readers hold it to that",
    ),
    Stricter(
        "a dtype that is an object", one(dtype={"I32": None}), "'t'.dtype: {'I32': None} is none that safetensors knows",
        "as above: serde's other way to write an enum",
    ),
]  # fmt: skip

each_refused = pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.name)
each_stricter = pytest.mark.parametrize("case", STRICTER, ids=lambda case: case.name)
each_read = pytest.mark.parametrize("whole", READ.values(), ids=READ.keys())
