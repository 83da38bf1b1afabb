"""Which chunks of an artifact a peer has, as one peer tells another: `GET /v1/<key>/have?listing=...&since=...&wait=...`.

::

    {"format": 1, "listing": "<64 hex>", "at": "<epoch>.<counter>", "chunk_size": 16777216, "complete": true,
     "node": "<32 hex>"}
    {"format": 1, ..., "complete": false, "files": {"model-00001.safetensors": "<bitmap in base64>"}}

`complete`: every chunk of every file. Otherwise `files` has the bitmap of each file that changed after `since`: bit `i % 8` of
byte `i // 8` is chunk `i`, and bits beyond the file are 0. A bitmap replaces the former one, so a chunk can be withdrawn. A
`since` of another epoch gets every file: one begins with each run of the server, and when a fetch is published. The counter of
an epoch only grows. An answer that would be too large tells the oldest changes, and the next request gets the rest at once.
`node` is the identity of the peer's cache root, the same at all of its addresses.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import field, replace
from typing import Any

from fetcher.quantities import ceil_div
from fetcher.values import dataclass

FORMAT_VERSION = 1
HEAD = 1024
"""Bytes of a document beside its files, at most."""
LARGEST = 4 * 1024 * 1024
"""Bytes of the largest document that is read. A chunk takes a sixth of a byte, so bitmaps of 800 GB take 9 KB."""
_MARK = re.compile("[0-9a-f]{16}[.](0|[1-9][0-9]{0,15})")


@dataclass(frozen=True, slots=True, order=True)
class Mark:
    """A moment of a server: how often its map of an artifact had changed, since `epoch` (16 hex digits) began."""

    epoch: str
    counter: int

    @classmethod
    def parse(cls, text: str) -> Mark | None:
        """Parse `EPOCH.COUNTER`; None if it is anything else."""
        return cls(text[:16], int(text[17:])) if _MARK.fullmatch(text) else None

    def __str__(self) -> str:
        return f"{self.epoch}.{self.counter}"


@dataclass(frozen=True, slots=True)
class HaveMap:
    """The chunks of an artifact that a peer has: all if `complete`, else those in the bitmaps of `files`."""

    listing: str
    at: Mark
    chunk_size: int
    complete: bool
    files: Mapping[str, bytes] = field(default_factory=dict)
    node: str = ""

    def has(self, path: str, chunk: int) -> bool:
        bits = self.files.get(path, b"")
        return self.complete or (chunk // 8 < len(bits) and bool(bits[chunk // 8] >> chunk % 8 & 1))

    def as_number(self, sizes: Mapping[str, int]) -> int:
        """Return the chunks as one number: bit `i` is chunk `i` of all files in the order of `sizes`, their bytes."""
        start, number = 0, 0
        for path, size in sizes.items():
            count = ceil_div(size, self.chunk_size)
            number |= ((1 << count) - 1 if self.complete else int.from_bytes(self.files.get(path, b""), "little")) << start
            start += count
        return number

    def followed_by(self, later: HaveMap) -> HaveMap:
        """Return this map with the changes of `later`, the answer to `since=` this one's mark."""
        if later.at.epoch != self.at.epoch or later.listing != self.listing or later.complete:
            return later
        return replace(later, files={**self.files, **later.files})

    def to_bytes(self) -> bytes:
        document: dict[str, Any] = {
            "format": FORMAT_VERSION,
            "listing": self.listing,
            "at": str(self.at),
            "chunk_size": self.chunk_size,
            "complete": self.complete,
        }
        if not self.complete:
            document["files"] = {path: base64.b64encode(bits).decode() for path, bits in self.files.items()}
        if self.node:
            document["node"] = self.node
        return json.dumps(document, separators=(",", ":")).encode()

    @classmethod
    def from_bytes(cls, data: bytes, sizes: Mapping[str, int]) -> HaveMap:
        """Parse the answer of a peer, who is not trusted. `sizes`: the bytes of each file of the listing.

        Raises ValueError if it is malformed, names a file that is not listed, or has a bitmap of another length.
        """
        try:
            return cls._read(data, sizes)
        except (KeyError, TypeError, AttributeError, RecursionError, binascii.Error) as error:
            raise ValueError(f"malformed map of chunks: {error!r}") from error

    @classmethod
    def _read(cls, data: bytes, sizes: Mapping[str, int]) -> HaveMap:
        if len(data) > LARGEST:
            raise ValueError(f"a map of chunks of {len(data)} bytes")
        document = json.loads(data)
        listing, at, chunk_size = document["listing"], Mark.parse(document["at"]), document["chunk_size"]
        if document["format"] != FORMAT_VERSION or at is None or not re.fullmatch("[0-9a-f]{64}", listing):
            raise ValueError("the map of chunks has another format")
        if type(chunk_size) is not int or chunk_size < 1 or type(document["complete"]) is not bool:
            raise ValueError("the map of chunks has no size of a chunk")
        files = {} if document["complete"] else document["files"]
        bitmaps = {path: _bitmap(text, ceil_div(sizes[path], chunk_size)) for path, text in files.items()}
        node = document.get("node", "")
        if not isinstance(node, str) or not re.fullmatch("([0-9a-f]{32})?", node):
            raise ValueError("the map of chunks has a malformed identity")
        return cls(listing, at, chunk_size, document["complete"], bitmaps, node)


def room(path: str, chunks: int) -> int:
    """Return the most bytes that a file with so many chunks takes in a document."""
    # Six characters at most for a unit of UTF-16, and beside path and base64 two pairs of quotes, a colon and a comma.
    return 3 * len(path.encode("utf-16-le", "surrogatepass")) + 4 * ceil_div(ceil_div(chunks, 8), 3) + 6


def bitmap(chunks: Iterable[int], count: int) -> bytes:
    """Return the bitmap of `chunks` of a file that has `count` chunks."""
    bits = bytearray(ceil_div(count, 8))
    for chunk in chunks:
        bits[chunk // 8] |= 1 << chunk % 8
    return bytes(bits)


def _bitmap(text: str, count: int) -> bytes:
    bits = base64.b64decode(text, validate=True)
    if len(bits) != ceil_div(count, 8) or (bits and bits[-1] >> ((count - 1) % 8 + 1)):
        raise ValueError(f"a bitmap of {len(bits)} bytes for {count} chunks")
    return bits
