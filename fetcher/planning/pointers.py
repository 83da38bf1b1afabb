"""Recognizes a Git LFS pointer: the few lines that a Git repository stores in place of a large file.

A server or a directory that serves the plain files of a repository serves pointers, and reports success.
"""

from __future__ import annotations

from fetcher.errors import LfsPointer

LONGEST = 1024
"""Bytes: a pointer is shorter (specification of Git LFS)."""
_BEGINNING = b"version https://git-lfs"


def refuse_pointer(path: str, content: bytes) -> None:
    """Raise LfsPointer if `content`, at least the first `LONGEST` bytes of the file, is a pointer."""
    if len(content) < LONGEST and content.startswith(_BEGINNING):
        raise LfsPointer(
            f"{path} is a Git LFS pointer of {len(content)} bytes, not the file itself. Run `git lfs pull` at its origin, "
            "or fetch the file from where it is stored (hf://, or an address with /resolve/ instead of /raw/). "
            "To fetch the pointer itself, pin it with --expect",
            path=path,
        )
