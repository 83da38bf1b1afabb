"""What killed and finished processes leave in a cache root, and what of it may be deleted.

Unfinished fetches stay resumable for a while. Files that are not ours are never touched.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Literal

from fetcher.filesystem import first_names
from fetcher.store.archives import names_in, remove_archives, useless
from fetcher.store.beneath import remove, remove_tree
from fetcher.store.claims import claims
from fetcher.store.keyed import replaced_versions
from fetcher.store.layout import Root
from fetcher.store.lease import default_stale_time, observe, take_over
from fetcher.store.occupancy import ROOM, allocated_bytes
from fetcher.store.plan import SUFFIX as PLAN
from fetcher.store.superseded import superseded
from fetcher.values import dataclass

RESUMABLE = 24 * 3600.0
"""Seconds that an abandoned fetch stays resumable: a Job that is retried, or a person who comes back the next morning."""
_MOST = 1_000_000

Kind = Literal[
    "unfinished fetch", "archives", "draft", "replaced version", "snapshot", "blob", "lapsed pin", "lapsed hold",
    "record of use", "record",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Garbage:
    """One thing to delete. `bytes`: what it allocates. `why`: one clause. `delete` returns False if somebody uses it again."""

    kind: Kind
    path: Path
    bytes: int
    why: str
    delete: Callable[[], bool]


def garbage(root: Path, *, now: float, unused_for: float, gone: Callable[[str], bool]) -> list[Garbage]:
    """Return what may be deleted. Raises OSError.

    `now`: seconds since 1970 by the clock of the volume. `unused_for`: seconds that an abandoned fetch stays resumable. `gone`
    tells whether the pod with a UID is known to be gone from this node.
    """
    return [
        *_staging(root, now, unused_for),
        *_archives(root, now, unused_for),
        *_replaced(root, now),
        *_superseded(root, now),
        *_claims(root, now, gone),
        *_records_of_use(root, now, unused_for),
    ]


def _staging(root: Path, now: float, unused_for: float) -> Iterator[Garbage]:
    staging = Root(root).staging
    names = sorted(_names(staging))
    for name in names:
        path = staging / name
        if name == ROOM or now - _last_change(path) < unused_for or _is_followed(name, names, staging, now - unused_for):
            continue
        if name.startswith("tmp.") or name.endswith(PLAN):
            yield Garbage(
                "draft", path, allocated_bytes(path), "no process has used it for long", partial(_remove_tree, root, path)
            )
            continue
        with suppress(OSError):
            seen = observe(path)
            if seen is not None and (seen.abandoned or _is_silent(path, now)):
                how = "its owner ended" if seen.abandoned else "its owner is silent"
                why = f"{how}, and nothing changed for a day or longer"
                yield Garbage("unfinished fetch", path, allocated_bytes(path), why, partial(_dissolve, path))


def _archives(root: Path, now: float, unused_for: float) -> Iterator[Garbage]:
    """The archives of fetches that nobody works with. Their leases decide: a fetch under way never loses its archives."""
    layout, left = Root(root), {each.lease.name: each for each in useless(root)}
    for name in names_in(layout.archive):
        path, lease = layout.archive / name, layout.staging / name
        if path.is_dir() and not path.is_symlink() and _is_forgotten(path, lease, now, unused_for):
            why = "their fetch ended, and nobody went on with it"
            yield Garbage("archives", path, allocated_bytes(path), why, partial(remove_archives, lease))
        elif (each := left.get(name)) is not None:
            yield Garbage("archives", each.directory, allocated_bytes(each.directory), each.why, each.remove)


def _is_forgotten(archives: Path, lease: Path, now: float, unused_for: float) -> bool:
    """Whether nobody holds `lease`, and neither it nor `archives` changed within `unused_for` seconds."""
    if now - max(_newest(archives), _last_change(lease) if lease.exists() else 0.0) < unused_for:
        return False
    with suppress(OSError):
        seen = observe(lease)
        return seen is None or seen.abandoned or _is_silent(lease, now)
    return False


def _is_silent(lease: Path, now: float) -> bool:
    """Whether the owner of a lease shows no life: it would have renewed its heartbeat meanwhile."""
    return now - _last_change(lease) > default_stale_time(lease)


def _newest(directory: Path) -> float:
    """Return when anything below `directory` last changed."""
    return max((_time(Path(above, name)) for above, _, names in os.walk(directory) for name in (".", *names)), default=0.0)


def _is_followed(name: str, names: Iterable[str], staging: Path, since: float) -> bool:
    """Whether `name` is a plan, and one of its units changed after `since`: its parts may need days."""
    key = name.removesuffix(PLAN)
    return key != name and any(_last_change(staging / each) > since for each in names if each.startswith(f"{key}."))


def _replaced(root: Path, now: float) -> Iterator[Garbage]:
    for path in replaced_versions(root, now=now):
        why = "its grace period is over, and nobody reads it"
        yield Garbage("replaced version", path, allocated_bytes(path), why, partial(_remove_tree, root, path))


def _superseded(root: Path, now: float) -> Iterator[Garbage]:
    """The former versions of a Hub cache: the snapshot first, the blobs a day later, then the record."""
    for each in superseded(root):
        if os.path.lexists(each.snapshot):
            if each.snapshot_may_go(now):
                why = "a newer version replaced it, and nobody reads it"
                yield Garbage(
                    "snapshot", each.snapshot, allocated_bytes(each.snapshot), why, partial(_done, each.remove_snapshot)
                )
        else:
            for blob in each.unlinked_blobs(now):
                why = "no snapshot has linked it for a day"
                yield Garbage("blob", blob, _size(blob), why, partial(each.remove_blob, blob))
        if each.served:
            yield Garbage("record", each.record, _size(each.record), "it has served", partial(_done, each.forget))


def _claims(root: Path, now: float, gone: Callable[[str], bool]) -> Iterator[Garbage]:
    for each in (record for records in claims(root).values() for record in records):
        path = Root(root).usage / each.name
        kind: Kind = "lapsed pin" if each.kind == "pin" else "lapsed hold"
        if not each.lasts(now):
            yield Garbage(kind, path, _size(path), "its time is over", partial(_remove, root, path))
        elif each.kind == "hold" and gone(each.holder):
            yield Garbage(kind, path, _size(path), "the pod is gone", partial(_remove, root, path))


def _records_of_use(root: Path, now: float, unused_for: float) -> Iterator[Garbage]:
    usage = Root(root).usage
    for name in sorted(_names(usage)):
        path = usage / name
        left = os.path.lexists(root / name) or os.path.lexists(Root(root).manifests / f"{name}.json")
        if "." not in name and not left and now - _time(path) >= unused_for:
            yield Garbage("record of use", path, _size(path), "the artifact is gone", partial(_remove, root, path))


def _remove(root: Path, path: Path) -> bool:
    remove(root, path)
    return True


def _remove_tree(root: Path, path: Path) -> bool:
    remove_tree(root, path)
    return not os.path.lexists(path)


def _done(work: Callable[[], None]) -> bool:
    work()
    return True


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
