"""The list of digests that `--expect-file` names, read from this machine: a local file, or a file of a placed artifact."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from fetcher.errors import ConfigurationError
from fetcher.filesystem import storing
from fetcher.integrity.signatures import read_list
from fetcher.manifest import Manifest
from fetcher.planning.digest_lists import LARGEST, DigestList
from fetcher.settings import Signer


def local_list(name: str, signer: Signer | None) -> DigestList | None:
    """Return the list in the local file `name`; None if there is no such file. `signer` must have signed it.

    Raises ConfigurationError, SignatureInvalid, StoreError.
    """
    with storing(f"read {name}"):
        try:
            descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise ConfigurationError(f"{name} is not a regular file; give a list of sha256sum, or a signature")
            with os.fdopen(os.dup(descriptor), "rb") as stream:
                data = stream.read(LARGEST + 1)
        finally:
            os.close(descriptor)
    return read_list(data, where=name, signer=signer)


def known_list(name: str, manifest: Manifest, location: Path, signer: Signer | None) -> DigestList | None:
    """Return the list in the local file `name`, or in the artifact's file of that name; None if there is neither.

    Raises as `local_list`.
    """
    sums = local_list(name, signer)
    return local_list(str(location / name), signer) if sums is None and manifest.file(name) is not None else sums
