"""Names under a cache root, in one place.

::

    <root>/<cache-key>/                         one artifact, complete
    <root>/.fetcher/staging/<cache-key>/        the lease
    <root>/.fetcher/old/<key>-<revision>.<time> replaced directories, kept for a grace period
    <root>/.fetcher/ready/<the same name>       sealed, about to be swapped in (only without atomic exchange): its name, which
                                                tells where what it replaces goes, is the record of a swap that has begun
    <root>/.fetcher/usage/<cache-key>           last use
    <root>/.fetcher/manifests/<cache-key>.json  manifests of the hf-cache layout, and of artifacts that share one directory
    <root>/.fetcher/archive/                    an archive on its way, and what is unpacked from it (`dropins.unpacking`)
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from fetcher.filesystem import allow, file_mode, make_directory

PRIVATE = ".fetcher"


@dataclass(frozen=True, slots=True)
class Root:
    """A cache root, or an artifact directory that holds its own staging."""

    path: Path

    @property
    def staging(self) -> Path:
        return self.path / PRIVATE / "staging"

    @property
    def old(self) -> Path:
        return self.path / PRIVATE / "old"

    @property
    def ready(self) -> Path:
        return self.path / PRIVATE / "ready"

    @property
    def archive(self) -> Path:
        return self.path / PRIVATE / "archive"

    @property
    def manifests(self) -> Path:
        return self.path / PRIVATE / "manifests"

    def old_name(self, key: str, revision: str | None) -> Path:
        """Where a replaced version of `key` goes; unique to the nanosecond."""
        label = "".join(character for character in (revision or "unknown")[:40] if character.isalnum()) or "unknown"
        return self.old / f"{key}-{label}.{time.time_ns()}"

    def touch_usage(self, key: str) -> None:
        """Note that `key` is used now. A read-only root is as good as any for a hit, so failing to is no error."""
        path = self.path / PRIVATE / "usage" / key
        with suppress(OSError):
            make_directory(path.parent)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                allow(descriptor, file_mode(path.parent))
                os.utime(descriptor)
            finally:
                os.close(descriptor)
