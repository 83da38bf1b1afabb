"""Whether a copy fits, and what takes the space that it lacks."""

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
"""Files of an abandoned copy whose sizes are added up."""


def refuse_lack_of_space(items: Sequence[Item], names: int, data: Path, *, in_memory: bool) -> None:
    """Raises OutOfSpace and TooLarge, unless `items` fit in `data`, where the copy has `names` names."""
    needed = sum(ceil_div(item.size, _BLOCK) * _BLOCK for item in items)
    with storing("look at the free space", str(data)):
        free, inodes = free_bytes(existing_parent(data)), free_inodes(existing_parent(data))
    if free is not None and needed > free:
        raise OutOfSpace(f"the copy takes {size(needed)}, and {size(free)} are free at {data.parent.parent}")
    files = names if in_memory else len(items)  # tmpfs counts each name
    if inodes is not None and files >= inodes:
        raise OutOfSpace(f"the copy takes {counted(files, 'file')}, and {data.parent.parent} has room for {inodes}")
    left = memory_left().anonymous
    if in_memory and room_for(needed) > left.bytes:
        raise TooLarge(f"the copy takes {size(needed)} of memory, and {size(left.bytes)} are left ({left.reason})")


@contextmanager
def naming_what_is_abandoned(target: Path) -> Iterator[None]:
    """Add to a lack of space what killed copies left beside `target`, and how to remove it."""
    try:
        yield
    except (OutOfSpace, TooLarge) as error:
        found = [_remedy(stage) for stage in islice(_nameable(target), _MOST_NAMED)]
        raise type(error)("; ".join([error.message, *found]), path=error.path) from error


def _nameable(target: Path) -> Iterator[Path]:
    """A name that a terminal would obey is in no message."""
    return (stage for stage in abandoned(target) if str(stage).isprintable())


def _remedy(stage: Path) -> str:
    return f"a copy that was killed left {size(_taken(stage))} there: rm -r {shlex.quote(str(stage))}"


def _taken(directory: Path) -> int:
    """Bytes, of a file with several names once."""
    files = (Path(parent, name) for parent, _, names in os.walk(directory) for name in names)
    taken: dict[int, int] = {}
    for path in islice(files, _MOST_COUNTED):
        try:
            status = path.lstat()
        except OSError:
            continue
        taken[status.st_ino] = status.st_blocks * 512
    return sum(taken.values())
