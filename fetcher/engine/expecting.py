"""`--expect-file`: the digests of a list in the format of `sha256sum` become pins of the user.

The list is a local file or, if there is none of that name, a file of the source, which is fetched before the files are chosen.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from fetcher.artifact import ArtifactRef, Digest, Listing, RemoteFile
from fetcher.errors import ConfigurationError, DigestMismatch, NotFound
from fetcher.integrity.digests import DigestCheck
from fetcher.planning.checksums import LARGEST, joined, parse_checksums
from fetcher.planning.paths import shown
from fetcher.planning.selection import selects
from fetcher.settings import Settings
from fetcher.sources.base import Asking, Source
from fetcher.store.checksums import local_checksums
from fetcher.uncancelled import run_uncancelled

PIECE = 256 * 1024
"""Bytes that are received at a time."""


async def with_listed_pins(settings: Settings, ref: ArtifactRef, listing: Listing, *, source: Source, ask: Asking) -> Settings:
    """Return `settings` with the digests of `expect_file` in `expect`. Names outside the selection are skipped.

    Raises NotFound for a list or a name that the source does not have, DigestMismatch for a contradiction, and
    ConfigurationError for a malformed line.
    """
    where = settings.expect_file
    if where is None:
        return settings
    sums = await run_uncancelled(local_checksums, where)
    if sums is None:
        sums = await _from_source(where, listing, source, ask)
    sums = {path: digest for path, digest in sums.items() if selects(path, include=ref.include, exclude=ref.exclude)}
    refuse_unlisted(sums, {file.path for file in listing.files}, where=where)
    return replace(settings, expect=joined(settings.expect, sums, where=where))


def refuse_unlisted(sums: dict[str, Digest], paths: set[str], *, where: str) -> None:
    """Raise NotFound if `sums` name a file that is not one of `paths`."""
    for path in sums:
        if path not in paths:
            raise NotFound(f"{where} names {shown(path)}, which is not a file of the artifact", path=path)


async def _from_source(where: str, listing: Listing, source: Source, ask: Asking) -> dict[str, Digest]:
    file = next((file for file in listing.files if file.path == where), None)
    if file is None:
        raise NotFound(f"--expect-file {where} is neither a local file nor a file of the source; check its name")
    if (file.size or 0) > LARGEST:
        raise ConfigurationError(f"{where} has {file.size:,} bytes; give a list of sha256sum")
    return parse_checksums(await ask(partial(_received, file, source)), where=where)


async def _received(file: RemoteFile, source: Source) -> bytes:
    """Return the content of `file`, at most one byte more than LARGEST. Raises SourceError, DigestMismatch."""
    received, buffer = bytearray(), memoryview(bytearray(PIECE))
    async with source.open(file, None) as body:
        while len(received) <= LARGEST and (count := await body.readinto(buffer)):
            received += buffer[:count]
    check = DigestCheck(file.digests, size=len(received))
    check.update(received)
    if mismatch := check.mismatch():
        raise DigestMismatch(
            f"{file.path}: expected {mismatch[0]}, but the source sends {mismatch[1]}", path=file.path, actual=mismatch[1]
        )
    return bytes(received)
