"""The digests a file is compared with: SHA-256 (the Hub's LFS files, every pin) and git's blob SHA-1 (its plain files)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import xxhash

from fetcher.artifact import Digest, DigestAlgorithm
from fetcher.errors import DigestUnavailable
from fetcher.integrity import lanes
from fetcher.integrity.hasher import Hasher


def new_hasher(algorithm: DigestAlgorithm, *, size: int | None, streams: int = 1) -> Hasher:
    """A running digest of a file of `size` bytes, one of `streams` that are advanced together (`lanes.advance`).

    git's needs the size first: without it, DigestUnavailable.
    """
    if algorithm == "sha256":
        return lanes.new_sha256(streams=streams)
    if size is None:
        raise DigestUnavailable("a git digest can't be checked for a file whose size the source does not tell")
    # Not a defence against forgery, git's own identity: usedforsecurity=False keeps it working on FIPS hosts.
    hasher = hashlib.sha1(usedforsecurity=False)
    hasher.update(b"blob %d\0" % size)
    return hasher


class DigestCheck:
    """All digests of one file, advanced together. Feed it the bytes in order, then ask `mismatch`."""

    __slots__ = ("_hashers",)

    def __init__(self, digests: Iterable[Digest], *, size: int | None, streams: int = 1) -> None:
        self._hashers = [(digest, new_hasher(digest.algorithm, size=size, streams=streams)) for digest in digests]

    @property
    def hashers(self) -> list[Hasher]:
        """To be fed all the bytes, in order; for those who advance several files at once."""
        return [hasher for _, hasher in self._hashers]

    def save(self) -> bytes | None:
        """The state of all, to go on from in another process; None when it can't be had."""
        if len(self._hashers) != 1:
            return None
        return lanes.saved(self._hashers[0][1])

    def restore(self, state: bytes, *, length: int) -> None:
        """Go on from what `save` returned for the same digests after `length` bytes. Raises DigestUnavailable."""
        if [digest.algorithm for digest, _ in self._hashers] != ["sha256"]:
            raise DigestUnavailable("only a single SHA-256 can be continued")
        self._hashers = [(self._hashers[0][0], lanes.restored(state, length=length))]

    def update(self, data: bytes | bytearray | memoryview) -> None:
        for _, hasher in self._hashers:
            hasher.update(data)

    def mismatch(self) -> tuple[Digest, str] | None:
        """The first expected digest that the bytes do not have, and the one they have; None when all agree."""
        for expected, hasher in self._hashers:
            actual = hasher.hexdigest()
            if actual != expected.hex:
                return expected, f"{expected.algorithm}:{actual}"
        return None


def new_chunk_hasher() -> Hasher:
    """XXH3-128, which runs at memory speed (9.4 GB/s a core where SHA-256 without SHA-NI does 0.2-0.4)."""
    return xxhash.xxh3_128()
