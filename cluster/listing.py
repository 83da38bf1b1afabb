"""What a source lists, as one digest: every node compares what it is about to fetch with what the controller resolved."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable

from fetcher.artifact import RemoteFile


def listing_digest(files: Iterable[RemoteFile]) -> str:
    """Return the SHA-256, in hex, of the paths, sizes, digests and checksums of `files`, in whatever order they come."""
    lines = sorted(
        json.dumps([file.path, file.size, sorted(map(str, file.digests)), sorted(map(str, file.checksums))]) for file in files
    )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
