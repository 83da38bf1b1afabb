"""What a root offers of one artifact: values."""

from __future__ import annotations

from collections.abc import Mapping

from fetcher.artifact import ByteRange
from fetcher.quantities import ceil_div
from fetcher.values import dataclass


@dataclass(frozen=True, slots=True)
class OfferedFile:
    """A file of `size` bytes. `tag` names its content."""

    size: int
    tag: str


@dataclass(frozen=True, slots=True)
class Offer:
    """A published artifact, or what there is of one by now. `listing` is the digest of its listing, `chunk_size` in bytes.

    `held`: the bitmap of the chunks of each file; None for all of them. `authenticated`: a credential was used to fetch it, so
    not everybody may have it.
    """

    key: str
    listing: str
    files: Mapping[str, OfferedFile]
    chunk_size: int
    authenticated: bool
    mark: str = ""
    """Size, time and inode of the manifest, if it is published."""
    held: Mapping[str, bytes] | None = None

    @property
    def complete(self) -> bool:
        return self.held is None

    def holds(self, path: str, part: ByteRange) -> bool:
        """Whether every chunk with a byte of `part` is here."""
        if self.held is None:
            return True
        bits = self.held.get(path, b"")
        chunks = range(part.start // self.chunk_size, ceil_div(part.stop, self.chunk_size))
        return all(chunk // 8 < len(bits) and bits[chunk // 8] >> chunk % 8 & 1 for chunk in chunks)
