"""What is a Git LFS pointer: the few lines that a Git repository holds in the place of a large file.

A server or a directory that hands out a repository's own files hands out pointers, with every sign of success.
"""

from __future__ import annotations

from fetcher.errors import LfsPointer

LONGEST = 1024
"""Bytes: the specification of Git LFS wants every pointer to be shorter."""
_BEGINNING = b"version https://git-lfs"


def refuse_pointer(path: str, content: bytes) -> None:
    """Raises LfsPointer when `content`, the first `LONGEST` bytes of the file at least, is a pointer."""
    if len(content) < LONGEST and content.startswith(_BEGINNING):
        raise LfsPointer(
            f"{path} is a Git LFS pointer of {len(content)} bytes, not the file itself. Run `git lfs pull` at its origin, "
            "or fetch the file from where it is stored (hf://, or an address with /resolve/ instead of /raw/). "
            "A pointer that is wanted needs a pin (--expect)",
            path=path,
        )
