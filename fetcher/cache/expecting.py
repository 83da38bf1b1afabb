"""The digests that `fetcher verify --expect-file` requires."""

from __future__ import annotations

from fetcher.artifact import Digest
from fetcher.engine.expecting import refuse_unlisted
from fetcher.errors import NotFound
from fetcher.planning.selection import selects
from fetcher.store.catalog import Entry
from fetcher.store.checksums import known_checksums


def expected(entry: Entry, where: str) -> dict[str, Digest]:
    """Return path → digest of the list `where`: a local file, or a file of the artifact. Skips names outside the selection.

    Raises NotFound for a list or a name that the artifact does not have, ConfigurationError for a malformed line, StoreError.
    """
    manifest = entry.manifest
    sums = known_checksums(where, manifest, entry.path)
    if sums is None:
        raise NotFound(f"--expect-file {where} is neither a local file nor a file of {entry.path}; check its name")
    sums = {path: pin for path, pin in sums.items() if selects(path, include=manifest.include, exclude=manifest.exclude)}
    refuse_unlisted(sums, {file.path for file in manifest.files}, where=where)
    return sums
