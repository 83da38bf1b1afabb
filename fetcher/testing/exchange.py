"""Requests and responses as plain values.

The server uses bare streams, because an HTTP library refuses to break the protocol in the ways that clients must survive.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from types import MappingProxyType
from typing import Literal
from urllib.parse import parse_qsl, unquote, urlsplit

from fetcher.artifact import ByteRange
from fetcher.testing.content import Content, Slice, body_of

OriginName = Literal["hub", "cdn"]


@dataclass(frozen=True, slots=True)
class Request:
    """A request. `target` is the raw request target, `path` its decoded path; header names are in lower case.

    `at` is the time of arrival on the server's monotonic clock, in seconds.
    """

    origin: OriginName
    method: str
    target: str
    headers: Mapping[str, str]
    scheme: str = "http"
    at: float = 0.0
    body: bytes = b""

    @property
    def path(self) -> str:
        return unquote(urlsplit(self.target).path)

    @property
    def query(self) -> dict[str, str]:
        return dict(parse_qsl(urlsplit(self.target).query, keep_blank_values=True))

    @property
    def range(self) -> str | None:
        """The Range header, unparsed."""
        return self.headers.get("range")

    @property
    def byte_range(self) -> ByteRange | None:
        """The requested range, or None if it does not have both ends."""
        match = re.fullmatch(r"bytes=(\d+)-(\d+)", self.range or "")
        return ByteRange(int(match[1]), int(match[2]) + 1) if match else None

    @property
    def token(self) -> str | None:
        """The bearer token, or None."""
        scheme, _, value = self.headers.get("authorization", "").partition(" ")
        return value if scheme.lower() == "bearer" else None


@dataclass(frozen=True, slots=True)
class Response:
    """A response. Its Content-Length is that of `body`, unless `chunked`; `trailing` are invalid bytes sent after the body.

    `content` is the whole file that `body` is a part of: faults need it.
    """

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: Slice = field(default_factory=lambda: body_of(b""))
    content: Content | None = None
    chunked: bool = False
    trailing: bytes = b""

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    def with_header(self, name: str, value: str) -> Response:
        kept = tuple((key, old) for key, old in self.headers if key.lower() != name.lower())
        return replace(self, headers=(*kept, (name, value)))

    def head(self) -> bytes:
        reason = HTTPStatus(self.status).phrase if self.status in HTTPStatus._value2member_map_ else "Unknown"
        length = ("Transfer-Encoding", "chunked") if self.chunked else ("Content-Length", str(len(self.body)))
        lines = [f"HTTP/1.1 {self.status} {reason}"]
        lines += [f"{name}: {value}" for name, value in (*self.headers, length)]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def parse_head(origin: OriginName, head: bytes, *, scheme: str, at: float) -> Request:
    """Parse the head of a request. Raises ValueError if it is not an HTTP/1.1 request."""
    first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    method, target, _version = first.split(" ")
    pairs = (line.partition(":") for line in lines)
    headers = MappingProxyType({name.strip().lower(): value.strip() for name, _, value in pairs})
    return Request(origin, method, target, headers, scheme, at)


def parse_range(text: str | None, size: int) -> ByteRange | None:
    """Parse `bytes=a-b`, `bytes=a-` or `bytes=-n` for content of `size` bytes. Returns None for no, several or invalid ranges.

    Raises ValueError if the range is outside the content.
    """
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", text or "")
    if not match or match[0] == "bytes=-":
        return None
    if not match[1]:
        start, stop = max(0, size - int(match[2])), size
    else:
        start, stop = int(match[1]), min(int(match[2]) + 1 if match[2] else size, size)
    if start >= size or start >= stop:
        raise ValueError(f"range {text} is outside of {size} bytes")
    return ByteRange(start, stop)


def serve_content(request: Request, content: Content, headers: Mapping[str, str]) -> Response:
    """Respond with 200, 206 or 416 according to the request's Range and If-Range."""
    fixed = (*headers.items(), ("Accept-Ranges", "bytes"), ("Content-Type", "application/octet-stream"))
    condition = request.headers.get("if-range")
    wanted = request.range if condition in (None, headers.get("ETag")) else None
    try:
        part = parse_range(wanted, content.size)
    except ValueError:
        return Response(416, (*fixed, ("Content-Range", f"bytes */{content.size}")))
    if part is None:
        return Response(200, fixed, Slice(content, 0, content.size), content)
    where = ("Content-Range", f"bytes {part.start}-{part.stop - 1}/{content.size}")
    return Response(206, (*fixed, where), Slice(content, part.start, part.stop), content)
