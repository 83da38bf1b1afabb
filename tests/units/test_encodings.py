"""Documents compressed without our request are read, and none grows beyond its bound."""

from __future__ import annotations

import gzip
import zlib

import pytest

from fetcher.errors import BadResponse
from fetcher.transport.encodings import decoded

PLAIN = b'{"sha": "abc"}' * 20


def bare(content: bytes) -> bytes:
    packing = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packing.compress(content) + packing.flush()


@pytest.mark.parametrize(
    ("content", "encoding"),
    [
        (PLAIN, ""),
        (PLAIN, " Identity"),
        (gzip.compress(PLAIN, mtime=0), "gzip"),
        (gzip.compress(PLAIN, mtime=0), "X-GZIP "),
        (zlib.compress(PLAIN), "deflate"),
        (bare(PLAIN), "deflate"),
    ],
)
def test_common_encodings_are_decoded(content: bytes, encoding: str) -> None:
    assert decoded(content, encoding, limit=len(PLAIN), what="a page") == PLAIN


def test_a_small_body_that_decompresses_beyond_the_bound_is_refused() -> None:
    with pytest.raises(BadResponse, match="more than 1,000 bytes for a page"):
        decoded(gzip.compress(bytes(50_000_000)), "gzip", limit=1000, what="a page")


@pytest.mark.parametrize(
    ("content", "encoding", "why"),
    [
        (b"no gzip", "gzip", "damaged"),
        (b"", "gzip", "truncated"),
        (gzip.compress(PLAIN, mtime=0)[:-9], "gzip", "truncated"),
        (gzip.compress(PLAIN, mtime=0), "gzip, gzip", "although identity was requested"),
        (PLAIN, "br", "although identity was requested"),
    ],
)
def test_an_undecodable_body_is_reported(content: bytes, encoding: str, why: str) -> None:
    with pytest.raises(BadResponse, match=why):
        decoded(content, encoding, limit=10_000, what="a page")
