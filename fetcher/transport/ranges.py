"""HTTP's byte ranges (RFC 9110, section 14): inclusive on the wire, half-open everywhere else.

Whatever a head says is compared with what was asked for before a byte of the body is taken.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from fetcher.artifact import ByteRange, RemoteFile
from fetcher.errors import BadResponse, ContentChanged, RangesUnsupported

LEAST_SLICE = 64 * 1024
"""Bytes. A server that cuts ranges shorter than that would need 160,000 requests for 10 GiB."""


def range_header(byte_range: ByteRange) -> str:
    """The value of `Range` for a range of at least one byte."""
    return f"bytes={byte_range.start}-{byte_range.stop - 1}"


def parse_content_range(text: str) -> tuple[ByteRange | None, int | None]:
    """`bytes 0-9/100` → the range and the total, each None where it says `*`. Raises BadResponse."""
    match = re.fullmatch(r"\s*bytes\s+(?:(\d{1,19})-(\d{1,19})|\*)/(\d{1,19}|\*)\s*", text)
    if match is None or (match[1] and int(match[2]) < int(match[1])):
        raise BadResponse(f"a Content-Range that makes no sense: {text[:80]!r}")
    byte_range = ByteRange(int(match[1]), int(match[2]) + 1) if match[1] else None
    return byte_range, None if match[3] == "*" else int(match[3])


def content_length(headers: Mapping[str, str]) -> int | None:
    """Bytes announced for the body; None when it is not (chunked). Raises BadResponse."""
    text = headers.get("Content-Length")
    if text is None or "chunked" in headers.get("Transfer-Encoding", "").lower():
        return None
    if not re.fullmatch(r"\d{1,19}", text.strip()):
        raise BadResponse(f"a Content-Length that is no number: {text[:40]!r}")
    return int(text)


def validator(headers: Mapping[str, str]) -> str | None:
    """What identifies the content: a strong ETag, else Last-Modified; None when neither is sent."""
    etag = headers.get("ETag", "").strip()
    if etag and not etag.startswith("W/"):
        return f"etag {etag}"
    modified = headers.get("Last-Modified", "").strip()
    return f"modified {modified}" if modified else None


def parts_differ(file: RemoteFile, known: str | None, seen: str | None) -> bool:
    """Whether two answers with these validators may be parts of two contents, which nothing would notice later.

    Replicas and edges of a content network give one content several ETags and times. So where a digest will decide, a
    validator is only a hint, and the parts are put together.
    """
    return not file.digests and known is not None and seen is not None and seen != known


def refuse_encoded(headers: Mapping[str, str]) -> None:
    """Raises BadResponse for a body that is not the content itself."""
    encoding = headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise BadResponse(f"the server sends Content-Encoding {encoding[:20]} although identity was asked for")


def sent_part(headers: Mapping[str, str], *, wanted: ByteRange) -> tuple[ByteRange, int | None]:
    """The part of `wanted` that comes, from its first byte on, and the file's size when the head tells it.

    Some servers cut every range short: what comes is used as far as it goes. Raises RangesUnsupported where asking once more
    would bring the same useless part, BadResponse for the bytes of another place.
    """
    if headers.get("Content-Type", "").lower().startswith("multipart/byteranges"):
        raise RangesUnsupported("the server answers one range with several parts")
    try:
        said, total = parse_content_range(headers.get("Content-Range", ""))
    except BadResponse:
        said, total = None, None
    if said is None:
        raise RangesUnsupported("the server sends a part without saying which one")
    if said.start != wanted.start:
        raise BadResponse(f"{_asked(wanted)}, and the server sends Content-Range {headers.get('Content-Range', '')[:80]!r}")
    length = content_length(headers)
    if length is not None and length > len(said):
        raise BadResponse(
            f"{_asked(wanted)}, and the server announces {length:,} bytes under Content-Range "
            f"{headers.get('Content-Range', '')[:80]!r}"
        )
    end = wanted.stop if total is None else min(wanted.stop, total)
    part = ByteRange(said.start, said.stop if length is None else said.start + length)
    if part.stop > end or len(part) < min(LEAST_SLICE, end - wanted.start):
        raise RangesUnsupported(f"the server sends {len(part):,} bytes for a range of {len(wanted):,}")
    return part, total


def check_part(status: int, headers: Mapping[str, str], *, wanted: ByteRange, size: int | None) -> int:
    """The head of an answer to a range request. Returns how many bytes come, which may be fewer than `wanted`.

    Raises RangesUnsupported for the whole file and for a part that is of no use, ContentChanged for another size, BadResponse
    for anything else.
    """
    refuse_encoded(headers)
    if status == 200:
        raise RangesUnsupported("the server ignores Range and sends the whole file")
    if status != 206:
        raise BadResponse(f"{_asked(wanted)}, and the server answers with status {status}")
    part, total = sent_part(headers, wanted=wanted)
    if size is not None and total is not None and total != size:
        raise ContentChanged(f"the file has {total:,} bytes now, not {size:,}")
    return len(part)


def check_whole(status: int, headers: Mapping[str, str], *, size: int | None) -> int | None:
    """The head of an answer to a request without a range. Returns the size it tells. Raises as `check_part`."""
    refuse_encoded(headers)
    if status != 200:
        raise BadResponse(f"the whole file was asked for, and the server answers with status {status}{_place(headers)}")
    length = content_length(headers)
    if size is not None and length is not None and length != size:
        raise ContentChanged(f"the file has {length:,} bytes now, not {size:,}")
    return length


def _asked(wanted: ByteRange) -> str:
    return f"{range_header(wanted)} was asked for"


def _place(headers: Mapping[str, str]) -> str:
    said = headers.get("Content-Range", "")
    return f" and Content-Range {said[:80]!r}" if said else ""
