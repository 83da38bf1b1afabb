"""From a reference to a complete artifact: resolve → plan → transfer → verify → commit.

`fetch` is all that the command line and the Python interface call. A hit is answered here, before anything that speaks to a
network is even imported: a warm start costs tens of milliseconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fetcher.artifact import ArtifactRef
from fetcher.events import Subscriber, silent
from fetcher.settings import Settings


@dataclass(frozen=True, slots=True)
class Artifact:
    """What a fetch returns. Bytes of the whole artifact, of what came from the source, and of what was already here.

    `verified`: every file was compared with a published or pinned digest. `cached`: nothing had to be done. `stale`: the
    source could not be asked whether there is something newer.
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


async def fetch(ref: ArtifactRef, settings: Settings, on_event: Subscriber = silent) -> Artifact:
    """Bring `ref` to where `settings` say. Raises FetchError; on cancellation staging is left resumable."""
    raise NotImplementedError
