"""What killed and finished processes leave in a cache root, and what of it may be deleted.

Unfinished fetches stay resumable for a while. Files that are not ours are never touched.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fetcher.filesystem import first_names
from fetcher.store.beneath import remove, remove_tree
from fetcher.store.claims import claims
from fetcher.store.keyed import replaced_versions
from fetcher.store.layout import Root
from fetcher.store.lease import default_stale_time, observe, take_over
from fetcher.store.occupancy import ROOM, allocated

RESUMABLE = 24 * 3600.0
"""Seconds that an abandoned fetch stays resumable: a Job that is retried, or a person who comes back the next morning."""
_MOST = 1_000_000

Kind = Literal["unfinished fetch", "draft", "replaced version", "lapsed pin", "lapsed hold", "record of use"]


@dataclass(frozen=True, slots=True)
class Garbage:
    """One thing to delete. `bytes`: what it allocates. `why`: one clause."""

    kind: Kind
    path: Path
    bytes: int
    why: str


def garbage(root: Path, *, now: float, unused_for: float, gone: Callable[[str], bool]) -> list[Garbage]:
    """Return what may be deleted. Raises OSError.

    `now`: seconds since 1970 by the clock of the volume. `unused_for`: seconds that an abandoned fetch stays resumable. `gone`
    tells whether the pod with a UID is known to be gone from this node.
    """
    found = [*_staging(root, now, unused_for)]
    found += [
        Garbage("replaced version", path, _bytes(path), "its grace period is over, and nobody reads it")
        for path in replaced_versions(root, now=now)
    ]
    return [*found, *_records(root, now, unused_for, gone)]


def collect(root: Path, item: Garbage) -> bool:
    """Delete `item`; False if somebody uses it again. Raises OSError, NewerFormat."""
    if item.kind == "unfinished fetch":
        return _dissolve(item.path)
    if item.kind in ("draft", "replaced version"):
        remove_tree(root, item.path)
    else:
        remove(root, item.path)
    return True


def _staging(root: Path, now: float, unused_for: float) -> Iterator[Garbage]:
    staging = Root(root).staging
    for name in sorted(_names(staging)):
        path = staging / name
        idle = now - _last_change(path)
        if name.startswith("tmp."):
            if idle >= unused_for:
                yield Garbage("draft", path, _bytes(path), "no process made a lease of it")
            continue
        with suppress(OSError):
            seen = observe(path)
            if seen is not None and name != ROOM and idle >= unused_for:
                how = "its owner ended" if seen.abandoned else "its owner is silent"
                yield Garbage("unfinished fetch", path, _bytes(path), f"{how}, and nothing changed for a day or longer")


def _records(root: Path, now: float, unused_for: float, gone: Callable[[str], bool]) -> Iterator[Garbage]:
    usage = Root(root).usage
    for each in (record for records in claims(root).values() for record in records):
        kind: Kind = "lapsed pin" if each.kind == "pin" else "lapsed hold"
        if not each.lasts(now):
            yield Garbage(kind, usage / each.name, _size(usage / each.name), "its time is over")
        elif each.kind == "hold" and gone(each.holder):
            yield Garbage(kind, usage / each.name, _size(usage / each.name), "the pod is gone")
    for name in sorted(_names(usage)):
        left = os.path.lexists(root / name) or os.path.lexists(Root(root).manifests / f"{name}.json")
        if "." not in name and not left and now - _time(usage / name) >= unused_for:
            yield Garbage("record of use", usage / name, _size(usage / name), "the artifact is gone")


def _dissolve(directory: Path) -> bool:
    seen = observe(directory)
    if seen is None:
        return True
    lease = take_over(directory, seen, stale=default_stale_time(directory))
    if lease is None:
        return observe(directory) is None
    lease.dissolve()
    return True


def _last_change(directory: Path) -> float:
    """Return when the lease, its journal or its data last changed."""
    return max((_time(directory / name) for name in _names(directory)), default=_time(directory))


def _names(directory: Path) -> list[str]:
    try:
        return first_names(directory, limit=_MOST)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _time(path: Path) -> float:
    with suppress(OSError):
        return os.stat(path, follow_symlinks=False).st_mtime
    return float("inf")  # gone, so somebody works here


def _size(path: Path) -> int:
    with suppress(OSError):
        return os.stat(path, follow_symlinks=False).st_blocks * 512
    return 0


def _bytes(directory: Path) -> int:
    return sum(allocated(directory).values())
