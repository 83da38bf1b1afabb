"""The heads and short bodies of answers. Pure except for the date."""

from __future__ import annotations

from collections.abc import Iterable
from email.utils import formatdate
from http import HTTPStatus

from fetcher.artifact import ByteRange

Field = tuple[str, str]
PLAIN = "text/plain; charset=utf-8"


def head(status: int, fields: Iterable[Field], *, length: int, persistent: bool) -> bytes:
    """Return the head of an answer with a body of `length` bytes."""
    lines = [
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
        f"Date: {formatdate(usegmt=True)}",
        f"Content-Length: {length}",
        *(f"{name}: {value}" for name, value in fields),
        *([] if persistent else ["Connection: close"]),
    ]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def short(
    status: int, body: bytes, *, persistent: bool, kind: str = PLAIN, fields: Iterable[Field] = (), only_head: bool = False
) -> bytes:
    """Return a whole answer that is a few lines of text, or the head of it."""
    start = head(status, [("Content-Type", kind), *fields], length=len(body), persistent=persistent)
    return start if only_head else start + body


def of_file(size: int, tag: str, sent: ByteRange | None) -> tuple[int, list[Field]]:
    """Return status and fields of the answer that sends a file of `size` bytes, or the part `sent` of it."""
    fields = [("Content-Type", "application/octet-stream"), ("Accept-Ranges", "bytes"), ("ETag", tag)]
    if sent is None:
        return 200, fields
    return 206, [*fields, ("Content-Range", f"bytes {sent.start}-{sent.stop - 1}/{size}")]
