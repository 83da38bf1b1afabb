"""Decompresses small documents, within a limit, if a server or a proxy compressed them although we requested identity."""

from __future__ import annotations

import zlib

from fetcher.errors import BadResponse

_EITHER = 32 + zlib.MAX_WBITS
"""zlib's value for an automatically detected gzip or zlib header."""


def decoded(content: bytes, encoding: str, *, limit: int, what: str) -> bytes:
    """Decode `content` from Content-Encoding `encoding`. Raises BadResponse, also if the result exceeds `limit` bytes."""
    match encoding.strip().lower():
        case "" | "identity":
            return content
        case "gzip" | "x-gzip":
            return _unpacked(content, _EITHER, limit, what)
        case "deflate":
            # RFC 9110 defines deflate as zlib's format, but some servers send the bare stream.
            zlibs = len(content) > 1 and content[0] & 0x0F == 8 and int.from_bytes(content[:2], "big") % 31 == 0
            return _unpacked(content, zlib.MAX_WBITS if zlibs else -zlib.MAX_WBITS, limit, what)
        case other:
            raise BadResponse(f"the server sends {what} in Content-Encoding {other[:20]!r} although identity was requested")


def _unpacked(content: bytes, wbits: int, limit: int, what: str) -> bytes:
    unpacking = zlib.decompressobj(wbits)
    try:
        plain = unpacking.decompress(content, limit + 1)
    except zlib.error as error:
        raise BadResponse(f"the server sends {what} compressed and damaged") from error
    if len(plain) > limit:
        raise BadResponse(f"the server sends more than {limit:,} bytes for {what}")
    if not unpacking.eof:
        raise BadResponse(f"the server sends {what} compressed and truncated")
    return plain
