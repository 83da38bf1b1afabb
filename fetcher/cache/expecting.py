"""The digests that `fetcher verify --expect-file` requires, of a list or of a signature."""

from __future__ import annotations

from collections.abc import Mapping

from fetcher.artifact import ArtifactRef, Digest
from fetcher.engine.expecting import refuse_unlisted
from fetcher.errors import NotFound
from fetcher.settings import Signer
from fetcher.store.catalog import Entry
from fetcher.store.digest_lists import known_list


def expected(entry: Entry, where: str, signer: Signer | None = None) -> Mapping[str, Digest]:
    """Return path → digest of the list `where`: a local file, or a file of the artifact. Skips names outside the selection.

    `signer` must have signed it. Raises NotFound for a list or a name that the artifact does not have, ConfigurationError for a
    malformed line, SignatureInvalid, DigestUnavailable for a file that the signature does not cover, StoreError.
    """
    manifest = entry.manifest
    sums = known_list(where, manifest, entry.path, signer)
    if sums is None:
        raise NotFound(f"--expect-file {where} is neither a local file nor a file of {entry.path}; check its name")
    sums = sums.selected(ArtifactRef(manifest.uri, include=manifest.include, exclude=manifest.exclude))
    refuse_unlisted(sums, [file.path for file in manifest.files])
    return sums.digests
