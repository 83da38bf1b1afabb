"""HTTP's byte ranges (RFC 9110, section 14): inclusive on the wire, half-open everywhere else.

Every head is compared with the request before the first byte of the body is read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from fetcher.artifact import ByteRange, RemoteFile
from fetcher.errors import BadResponse, ContentChanged, RangesUnsupported

LEAST_SLICE = 64 * 1024
"""Bytes of a part that a server must send at least. With shorter parts, 10 GiB would need 160,000 requests."""


def range_header(byte_range: ByteRange) -> str:
    """The value of the Range header for a range of at least one byte."""
    return f"bytes={byte_range.start}-{byte_range.stop - 1}"


def parse_content_range(text: str) -> tuple[ByteRange | None, int | None]:
    """Parse a Content-Range such as `bytes 0-9/100` into range and total; `*` becomes None. Raises BadResponse."""
    match = re.fullmatch(r"\s*bytes\s+(?:(\d{1,19})-(\d{1,19})|\*)/(\d{1,19}|\*)\s*", text)
    if match is None or (match[1] and int(match[2]) < int(match[1])):
        raise BadResponse(f"the server sends an invalid Content-Range: {text[:80]!r}")
    byte_range = ByteRange(int(match[1]), int(match[2]) + 1) if match[1] else None
    return byte_range, None if match[3] == "*" else int(match[3])


def content_length(headers: Mapping[str, str]) -> int | None:
    """The announced length of the body in bytes; None if there is none (chunked). Raises BadResponse."""
    text = headers.get("Content-Length")
    if text is None or "chunked" in headers.get("Transfer-Encoding", "").lower():
        return None
    if not re.fullmatch(r"\d{1,19}", text.strip()):
        raise BadResponse(f"the server sends a Content-Length that is not a number: {text[:40]!r}")
    return int(text)


def validator(headers: Mapping[str, str]) -> str | None:
    """The identity of the content: a strong ETag, else Last-Modified; None if neither is sent."""
    etag = headers.get("ETag", "").strip()
    if etag and not etag.startswith("W/"):
        return f"etag {etag}"
    modified = headers.get("Last-Modified", "").strip()
    return f"modified {modified}" if modified else None


def parts_differ(file: RemoteFile, known: str | None, seen: str | None) -> bool:
    """Whether answers with these validators may be parts of different contents, and no later check would detect it.

    Replicas and edges of a content network give one content several ETags and times. So if a digest is known, it decides, and
    different validators are ignored.
    """
    return not file.digests and known is not None and seen is not None and seen != known


def refuse_encoded(headers: Mapping[str, str]) -> None:
    """Raise BadResponse if the body is compressed or otherwise encoded."""
    encoding = headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise BadResponse(f"the server sends Content-Encoding {encoding[:20]} although identity was requested")


def sent_part(headers: Mapping[str, str], *, wanted: ByteRange) -> tuple[ByteRange, int | None]:
    """The part of `wanted` that the server sends, from the first byte on, and the file's size if the head tells it.

    Some servers shorten every range; a shorter part is used. Raises RangesUnsupported if another request would bring the same
    useless part, BadResponse for bytes of another position.
    """
    if headers.get("Content-Type", "").lower().startswith("multipart/byteranges"):
        raise RangesUnsupported("the server answers one range with several parts")
    try:
        announced, total = parse_content_range(headers.get("Content-Range", ""))
    except BadResponse:
        announced, total = None, None
    if announced is None:
        raise RangesUnsupported("the server sends a part without its position")
    if announced.start != wanted.start:
        raise BadResponse(f"{_requested(wanted)}, and the server sends Content-Range {headers.get('Content-Range', '')[:80]!r}")
    length = content_length(headers)
    if length is not None and length > len(announced):
        raise BadResponse(
            f"{_requested(wanted)}, and the server announces {length:,} bytes under Content-Range "
            f"{headers.get('Content-Range', '')[:80]!r}"
        )
    end = wanted.stop if total is None else min(wanted.stop, total)
    part = ByteRange(announced.start, announced.stop if length is None else announced.start + length)
    if part.stop > end or len(part) < min(LEAST_SLICE, end - wanted.start):
        raise RangesUnsupported(f"the server sends {len(part):,} bytes for a range of {len(wanted):,}")
    return part, total


def check_part(status: int, headers: Mapping[str, str], *, wanted: ByteRange, size: int | None) -> int:
    """Check the head of an answer to a range request. Returns the number of bytes, which may be fewer than `wanted`.

    Raises RangesUnsupported for the whole file or a useless part, ContentChanged for another size, BadResponse for anything
    else.
    """
    refuse_encoded(headers)
    if status == 200:
        raise RangesUnsupported("the server ignores Range and sends the whole file")
    if status != 206:
        raise BadResponse(f"{_requested(wanted)}, and the server answers with status {status}")
    part, total = sent_part(headers, wanted=wanted)
    if size is not None and total is not None and total != size:
        raise ContentChanged(f"the file has {total:,} bytes now, not {size:,}")
    return len(part)


def check_whole(status: int, headers: Mapping[str, str], *, size: int | None) -> int | None:
    """Check the head of an answer to a request without a range. Returns the announced size in bytes, or None.

    Raises ContentChanged for another size, BadResponse for anything else that is not the whole file.
    """
    refuse_encoded(headers)
    if status != 200:
        raise BadResponse(f"the whole file was requested, and the server answers with status {status}{_position(headers)}")
    length = content_length(headers)
    if size is not None and length is not None and length != size:
        raise ContentChanged(f"the file has {length:,} bytes now, not {size:,}")
    return length


def _requested(wanted: ByteRange) -> str:
    return f"{range_header(wanted)} was requested"


def _position(headers: Mapping[str, str]) -> str:
    content_range = headers.get("Content-Range", "")
    return f" and Content-Range {content_range[:80]!r}" if content_range else ""
