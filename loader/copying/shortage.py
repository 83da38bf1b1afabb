"""Check whether a copy fits, and name abandoned copies that take the missing space."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

from fetcher.errors import OutOfSpace
from fetcher.filesystem import existing_parent, free_bytes, free_inodes, storing
from fetcher.host.memory import memory_left
from fetcher.quantities import ceil_div, size
from fetcher.telemetry.wording import counted
from loader.copying.artifacts import Item
from loader.copying.staging import abandoned
from loader.errors import TooLarge
from loader.residency.windows import room_for

_BLOCK = 4096
_MOST_NAMED = 3
_MOST_COUNTED = 10_000
"""Files of an abandoned copy that count for its size."""


def refuse_lack_of_space(items: Sequence[Item], names: int, data: Path, *, in_memory: bool) -> None:
    """Raise OutOfSpace or TooLarge unless `items` fit into `data`. The copy has `names` names, reused files included."""
    needed = sum(ceil_div(item.size, _BLOCK) * _BLOCK for item in items)
    with storing("read the free space", str(data)):
        free, inodes = free_bytes(existing_parent(data)), free_inodes(existing_parent(data))
    if free is not None and needed > free:
        raise OutOfSpace(f"the copy needs {size(needed)}, but {data.parent.parent} has {size(free)} free; free some space")
    files = names if in_memory else len(items)  # tmpfs counts each name
    if inodes is not None and files >= inodes:
        raise OutOfSpace(
            f"the copy has {counted(files, 'file')}, but {data.parent.parent} has {counted(inodes, 'inode')} free; remove files"
        )
    left = memory_left().anonymous
    if in_memory and room_for(needed) > left.bytes:
        raise TooLarge(f"the copy needs {size(needed)} of memory, but {size(left.bytes)} are left ({left.reason})")


@contextmanager
def listing_abandoned_copies(target: Path) -> Iterator[None]:
    """Add to an OutOfSpace or TooLarge the commands that remove what killed copies left next to `target`."""
    try:
        yield
    except (OutOfSpace, TooLarge) as error:
        remedies = [_remedy(stage) for stage in islice(_printable(target), _MOST_NAMED)]
        raise type(error)("; ".join([error.message, *remedies]), path=error.path) from error


def _printable(target: Path) -> Iterator[Path]:
    """Yield abandoned stages whose names have no control characters: a message goes to a terminal."""
    return (stage for stage in abandoned(target) if str(stage).isprintable())


def _remedy(stage: Path) -> str:
    return f"a killed copy left {size(_disk_usage(stage))} there: rm -r {shlex.quote(str(stage))}"


def _disk_usage(directory: Path) -> int:
    """Return the bytes of all files. A file with several names counts once."""
    files = (Path(parent, name) for parent, _, names in os.walk(directory) for name in names)
    usage: dict[int, int] = {}
    for path in islice(files, _MOST_COUNTED):
        try:
            status = path.lstat()
        except OSError:
            continue
        usage[status.st_ino] = status.st_blocks * 512
    return sum(usage.values())
