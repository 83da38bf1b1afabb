"""Space in a root that eviction gives up first. On a full ext4 or xfs even mkdir fails, but unlink works.

Eviction takes a lease, which needs three inodes and a few blocks. The ballast is a few files of 128 KiB: removing them frees
inodes as well as blocks (tmpfs can be out of inodes alone), and xfs finds room for a whole chunk of inodes in one of them.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from fetcher.filesystem import file_mode, first_names, reserve, write_all
from fetcher.store.beneath import make_directories, open_beneath, remove
from fetcher.store.layout import Root

_FILES = 8
_SIZE = 128 * 1024


def load(root: Path) -> None:
    """Create what is missing of the ballast. Does nothing where there is no space for it."""
    ballast = Root(root).ballast
    with suppress(OSError):
        make_directories(root, ballast)
        for number in range(_FILES):
            with suppress(FileExistsError):
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
                descriptor = open_beneath(root, ballast / str(number), flags, file_mode(ballast))
                try:
                    if not reserve(descriptor, _SIZE):
                        write_all(descriptor, bytes(_SIZE))
                except OSError:
                    remove(root, ballast / str(number))
                    raise
                finally:
                    os.close(descriptor)


def give_up(root: Path) -> bool:
    """Remove the ballast. Return whether there was any."""
    removed = False
    with suppress(OSError):
        for name in first_names(Root(root).ballast, limit=_FILES):
            with suppress(OSError):
                remove(root, Root(root).ballast / name)
                removed = True
    return removed
