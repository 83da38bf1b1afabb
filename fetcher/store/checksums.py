"""The list of digests that `--expect-file` names, read from this machine: a local file, or a file of a placed artifact."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from fetcher.artifact import Digest
from fetcher.errors import ConfigurationError
from fetcher.filesystem import storing
from fetcher.manifest import Manifest
from fetcher.planning.checksums import LARGEST, parse_checksums


def local_checksums(name: str) -> dict[str, Digest] | None:
    """Return path → digest of the local file `name`; None if there is no such file. Raises ConfigurationError, StoreError."""
    with storing(f"read {name}"):
        try:
            descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise ConfigurationError(f"{name} is not a regular file; give a list of sha256sum")
            with os.fdopen(os.dup(descriptor), "rb") as stream:
                data = stream.read(LARGEST + 1)
        finally:
            os.close(descriptor)
    return parse_checksums(data, where=name)


def known_checksums(name: str, manifest: Manifest, location: Path) -> dict[str, Digest] | None:
    """Return path → digest of the local file `name`, or of the artifact's file of that name; None if there is neither."""
    sums = local_checksums(name)
    return local_checksums(str(location / name)) if sums is None and manifest.file(name) is not None else sums
