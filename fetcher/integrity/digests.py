"""Digests that a file is compared with: SHA-256 (LFS files of the Hub, pins) and git's blob SHA-1 (plain files of the Hub).

The MD5 of an object store is compared in the same way, and counts as a checksum."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import replace

import xxhash

from fetcher.artifact import Checksum, Digest, DigestAlgorithm
from fetcher.errors import DigestUnavailable
from fetcher.integrity import lanes
from fetcher.integrity.hasher import Hasher
from fetcher.integrity.md5 import new_md5


def new_hasher(algorithm: DigestAlgorithm, *, size: int | None, streams: int = 1) -> Hasher:
    """Return a running digest of a file of `size` bytes, one of `streams` that `lanes.advance` advances together.

    Raises DigestUnavailable for a git digest without a size: git hashes the size first.
    """
    if algorithm == "sha256":
        return lanes.new_sha256(streams=streams)
    if size is None:
        raise DigestUnavailable("cannot check a git digest: the source does not report the size of the file")
    # git uses SHA-1 as a name, not against forgery: usedforsecurity=False keeps it working on FIPS hosts.
    hasher = hashlib.sha1(usedforsecurity=False)
    hasher.update(b"blob %d\0" % size)
    return hasher


class DigestCheck:
    """All digests of one file and its MD5 `checksums`, advanced together. Feed it the bytes in order, then ask `mismatch`."""

    __slots__ = ("_hashers",)

    def __init__(
        self, digests: Iterable[Digest], *, size: int | None, streams: int = 1, checksums: Iterable[Checksum] = ()
    ) -> None:
        self._hashers: list[tuple[Digest | Checksum, Hasher]] = [
            (digest, new_hasher(digest.algorithm, size=size, streams=streams)) for digest in digests
        ]
        self._hashers += [(checksum, new_md5(checksum.parts)) for checksum in checksums]

    @property
    def hashers(self) -> list[Hasher]:
        """The running digests, for a caller that advances several files at once. Feed each of them all bytes in order."""
        return [hasher for _, hasher in self._hashers]

    def save(self) -> bytes | None:
        """Return the state, to resume from in another process; None unless the file has a single digest that can be saved."""
        if len(self._hashers) != 1:
            return None
        return lanes.saved(self._hashers[0][1])

    def restore(self, state: bytes, *, length: int) -> None:
        """Resume from a state that `save` returned for the same digests after `length` bytes. Raises DigestUnavailable."""
        if [digest.algorithm for digest, _ in self._hashers] != ["sha256"]:
            raise DigestUnavailable("only a single SHA-256 can be resumed")
        self._hashers = [(self._hashers[0][0], lanes.restored(state, length=length))]

    def update(self, data: bytes | bytearray | memoryview) -> None:
        for _, hasher in self._hashers:
            hasher.update(data)

    def mismatch(self) -> tuple[Digest | Checksum, str] | None:
        """Return the first expected digest or checksum that differs, and the actual one; None if all agree."""
        for expected, hasher in self._hashers:
            actual = replace(expected, hex=hasher.hexdigest())
            if actual != expected:
                return expected, str(actual)
        return None


def new_chunk_hasher() -> Hasher:
    """A running XXH3-128. It runs at memory speed: 9.4 GB/s a core, where SHA-256 without SHA-NI does 0.2-0.4."""
    return xxhash.xxh3_128()
