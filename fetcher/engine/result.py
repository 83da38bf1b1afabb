"""The result of a fetch, and its last event."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from fetcher.artifact import ArtifactRef, redact
from fetcher.events import Finished
from fetcher.manifest import Manifest
from fetcher.values import dataclass


@dataclass(frozen=True, slots=True)
class Artifact:
    """A complete artifact at `path`. `bytes` counts all files: `bytes_fetched` were received, `bytes_reused` were not;
    `bytes_from` tells from whom: the `origin`, or a mirror by its address.

    `verified`: every file was compared with a published or pinned digest. `verified_by`: the number of files by what each was
    compared with: `sha256`, `git-sha1`, a checksum of the store such as `crc64nvme`, or only its `size`. `cached`: nothing was
    fetched. `stale`: the source could not be asked for a newer version. `use_recorded`: the cache recorded this use, so
    eviction knows of it; it cannot on a read-only mount, and outside a cache root it need not.
    """

    path: Path
    cache_key: str
    uri: str
    revision: str | None
    files: int
    bytes: int
    bytes_fetched: int
    bytes_reused: int
    seconds: float
    verified: bool
    cached: bool
    stale: bool
    use_recorded: bool
    verified_by: Mapping[str, int]
    bytes_from: Mapping[str, int]


def described(
    ref: ArtifactRef,
    manifest: Manifest,
    *,
    path: Path,
    fetched: Mapping[str, int],
    seconds: float,
    cached: bool = False,
    stale: bool = False,
    use_recorded: bool = False,
) -> Artifact:
    """Return the artifact of `manifest` at `path`, requested as `ref`. `fetched`: the received bytes by supplier."""
    received = sum(fetched.values())
    return Artifact(
        path=path,
        cache_key=ref.key,
        uri=redact(ref.uri),
        revision=manifest.revision,
        files=len(manifest.files),
        bytes=manifest.size,
        bytes_fetched=received,
        bytes_reused=max(0, manifest.size - received),
        seconds=round(seconds, 3),
        verified=manifest.verified,
        cached=cached,
        stale=stale,
        use_recorded=use_recorded,
        verified_by=manifest.verified_by,
        bytes_from=dict(fetched),
    )


def finished(artifact: Artifact) -> Finished:
    """Return the last event of a fetch that returned `artifact`."""
    return Finished(
        path=str(artifact.path),
        revision=artifact.revision,
        files=artifact.files,
        bytes=artifact.bytes,
        bytes_fetched=artifact.bytes_fetched,
        bytes_reused=artifact.bytes_reused,
        seconds=artifact.seconds,
        cached=artifact.cached,
        verified=artifact.verified,
        stale=artifact.stale,
        verified_by=artifact.verified_by,
        bytes_from=artifact.bytes_from,
    )
