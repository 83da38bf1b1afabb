"""HTTP/1.1 requests, read strictly: whatever is ambiguous is refused, and the connection ends. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import field
from functools import lru_cache
from types import MappingProxyType
from urllib.parse import unquote

from fetcher.artifact import ByteRange
from fetcher.values import dataclass

LARGEST_HEAD = 16 * 1024
"""Bytes of a request. A path of 4,096 bytes takes three times as many if each of them is escaped."""
END = b"\r\n\r\n"

_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_LINE = re.compile(rb"([A-Z]{1,16}) ([\x21-\x7e]+) HTTP/1\.([01])")
_RANGE = re.compile("bytes=([0-9]{1,18})?-([0-9]{1,18})?", re.IGNORECASE)
_SEVERAL = re.compile(r"bytes=[0-9, -]+", re.IGNORECASE)
_MOST_FIELDS = 64
_KEPT = 128
"""Targets that are kept unescaped: one that waits for a change is looked at again and again. 2 MiB at most."""


class BadRequest(Exception):
    """The request is refused with `status`. The rest of what the client sends can't be understood, so the connection ends."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status
        self.why = why


class NotSatisfiable(Exception):
    """No byte of the file is in the range that was asked for."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request without a body. Names of `fields` are in lower case. `persistent`: another request may follow."""

    method: str
    target: str
    fields: Mapping[str, str] = field(default_factory=dict)
    persistent: bool = True

    @property
    def segments(self) -> tuple[str, ...]:
        """The unescaped segments of the path. They are looked up as they are, never as a path of a filesystem."""
        return _segments(self.target)

    @property
    def query(self) -> Mapping[str, str]:
        return _query(self.target)

    @property
    def bearer(self) -> str | None:
        """The token in the field Authorization; None without one."""
        scheme, _, token = self.fields.get("authorization", "").partition(" ")
        return token.strip() if scheme.lower() == "bearer" and token.strip() else None


@lru_cache(_KEPT)
def _segments(target: str) -> tuple[str, ...]:
    return tuple(unquote(each, errors="surrogateescape") for each in target.partition("?")[0].split("/")[1:])


@lru_cache(_KEPT)
def _query(target: str) -> Mapping[str, str]:
    pairs = (pair.partition("=") for pair in target.partition("?")[2].split("&"))
    return MappingProxyType({name: unquote(value) for name, _, value in pairs})


def parse(head: bytes) -> Request:
    """Parse the bytes of a request up to its empty line. Raises BadRequest."""
    line, *rest = head.split(b"\r\n")
    match = _LINE.fullmatch(line)
    if match is None:
        raise BadRequest(400, "the first line is not a request of HTTP/1.1")
    fields = _fields(rest)
    if "transfer-encoding" in fields or fields.get("content-length", "0") != "0":
        raise BadRequest(400, "a request here has no body")
    if match[3] == b"1" and "host" not in fields:
        raise BadRequest(400, "the field Host is missing")
    target = re.sub("^https?://[^/?]*", "", match[2].decode(), flags=re.IGNORECASE)
    if not target.startswith("/"):
        raise BadRequest(400, "the target is not a path")
    words = {word.strip() for word in fields.get("connection", "").lower().split(",")}
    persistent = "close" not in words if match[3] == b"1" else "keep-alive" in words
    return Request(match[1].decode(), target, fields, persistent)


def _fields(lines: list[bytes]) -> dict[str, str]:
    """The fields by name. Repeated ones are refused: two proxies could believe two different ones."""
    if len(lines) > _MOST_FIELDS:
        raise BadRequest(431, f"more than {_MOST_FIELDS} fields")
    fields: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon or not _TOKEN.fullmatch(name) or b"\0" in value or b"\r" in value or b"\n" in value:
            raise BadRequest(400, "a field is malformed")
        key = name.decode().lower()
        if key in fields:
            raise BadRequest(400, f"the field {key} is there twice")
        fields[key] = value.decode("latin-1").strip(" \t")
    return fields


def part(request: Request, size: int, tag: str) -> ByteRange | None:
    """Return the range of a file of `size` bytes that the request is for; None for the whole file.

    A field that is malformed, or for another version of the file, is ignored (RFC 9110, 14.2 and 13.1.5). Raises
    NotSatisfiable, also for several ranges.
    """
    text = request.fields.get("range", "").replace(" ", "")
    if request.fields.get("if-range", tag) != tag or request.method != "GET":
        return None
    match = _RANGE.fullmatch(text)
    if match is None:
        if _SEVERAL.fullmatch(text) and "," in text:
            raise NotSatisfiable
        return None
    if match[1] is None:
        return _last(int(match[2]), size) if match[2] else None
    start, stop = int(match[1]), min(size, int(match[2]) + 1) if match[2] else size
    if match[2] and int(match[2]) < start:
        return None  # RFC 9110, 14.1.1: it is invalid
    if start >= size:
        raise NotSatisfiable
    return ByteRange(start, stop)


def _last(count: int, size: int) -> ByteRange:
    if count == 0 or size == 0:
        raise NotSatisfiable
    return ByteRange(max(0, size - count), size)
