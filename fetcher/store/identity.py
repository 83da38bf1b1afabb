"""The identity of a cache root: a random text in it, which its server tells, so that a fetch knows who passes its chunks on."""

from __future__ import annotations

import os
import re
import secrets
from contextlib import suppress
from pathlib import Path

from fetcher.filesystem import file_mode, write_all
from fetcher.store.beneath import link, make_directories, open_beneath, read_beneath, remove, rename
from fetcher.store.layout import PRIVATE

_NAME = "node"
_IDENTITY = re.compile("[0-9a-f]{32}")


def identity_of(root: Path) -> str | None:
    """Return the identity of a root; None if nothing has served it yet, or it cannot be read."""
    with suppress(OSError, ValueError):
        text = read_beneath(root, root / PRIVATE / _NAME, limit=64).decode().strip()
        return text if _IDENTITY.fullmatch(text) else None
    return None


def made_identity(root: Path) -> str:
    """Return the identity of a root, and give it one if it has none. Raises OSError."""
    if (known := identity_of(root)) is not None:
        return known
    place, made = root / PRIVATE / _NAME, secrets.token_hex(16)
    make_directories(root, place.parent)
    draft = place.with_name(f"{_NAME}.{made}")
    descriptor = open_beneath(root, draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, file_mode(place.parent))
    try:
        write_all(descriptor, f"{made}\n".encode())
    finally:
        os.close(descriptor)
    try:
        link(root, draft, place)  # of two servers that begin together, the first one's counts, for both
    except FileExistsError:
        if identity_of(root) is None:
            rename(root, draft, root, place)
    remove(root, draft)
    return identity_of(root) or made
