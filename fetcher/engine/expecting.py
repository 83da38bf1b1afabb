"""`--expect-file`: the digests of a list in the format of `sha256sum`, or of a signature, become pins of the user.

The list is a local file or, if there is none of that name, a file of the source, which is fetched before the files are chosen.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from functools import partial

from fetcher.artifact import ArtifactRef, Listing, RemoteFile
from fetcher.errors import ConfigurationError, DigestMismatch, DigestUnavailable, NotFound
from fetcher.integrity.digests import DigestCheck
from fetcher.integrity.signatures import read_list
from fetcher.planning.digest_lists import LARGEST, DigestList, joined
from fetcher.planning.paths import shown
from fetcher.planning.selection import selects
from fetcher.settings import Settings, Signer
from fetcher.sources.base import Asking, Source
from fetcher.store.digest_lists import local_list
from fetcher.uncancelled import run_uncancelled

PIECE = 256 * 1024
"""Bytes that are received at a time."""


async def with_listed_pins(settings: Settings, ref: ArtifactRef, listing: Listing, *, source: Source, ask: Asking) -> Settings:
    """Return `settings` with the digests of `expect_file` in `expect`. Names outside the selection are skipped.

    Raises NotFound for a list or a name that the source does not have, DigestMismatch for a contradiction, ConfigurationError
    for a malformed line, SignatureInvalid, and DigestUnavailable for a selected file that a signature does not cover.
    """
    where = settings.expect_file
    if where is None:
        return settings
    sums = await run_uncancelled(local_list, where, settings.signer)
    if sums is None:
        sums = await _from_source(where, settings.signer, listing, source, ask)
    sums = sums.selected(ref)
    refuse_unlisted(sums, [file.path for file in listing.files if selects(file.path, include=ref.include, exclude=ref.exclude)])
    return replace(settings, expect=joined(settings.expect, sums))


def refuse_unlisted(sums: DigestList, paths: Collection[str]) -> None:
    """Raise NotFound if `sums` names a file that is not one of `paths`, DigestUnavailable if it must cover one and does not."""
    for path in sums.digests:
        if path not in paths:
            raise NotFound(f"{sums.where} names {shown(path)}, which is not a file of the artifact", path=path)
    if (uncovered := sums.leaves_open(paths)) is not None:
        raise DigestUnavailable(
            f"{shown(uncovered)} is not covered by the signature {sums.where}; leave the file out with --exclude, or ask its "
            "publisher to sign it",
            path=uncovered,
        )


async def _from_source(where: str, signer: Signer | None, listing: Listing, source: Source, ask: Asking) -> DigestList:
    file = next((file for file in listing.files if file.path == where), None)
    if file is None:
        raise NotFound(f"{where} is neither a local file nor a file of the source; check the name that --expect-file gives")
    if (file.size or 0) > LARGEST:
        raise ConfigurationError(f"{where} has {file.size:,} bytes; give a list of sha256sum, or a signature")
    received = await ask(partial(_received, file, source))
    return await run_uncancelled(partial(read_list, received, where=where, signer=signer))


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
