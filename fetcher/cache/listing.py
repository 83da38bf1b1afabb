"""The artifacts of a cache root with their use: `fetcher list` and `fetcher show`."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

from fetcher.errors import NewerFormat
from fetcher.store.catalog import Entry, entries, entry_at, find
from fetcher.store.claims import Claim, claims
from fetcher.store.layout import Root
from fetcher.store.lease import observe
from fetcher.usage import last_used
from fetcher.values import dataclass

Sorting = Literal["key", "size", "used", "uri"]


@dataclass(frozen=True, slots=True)
class Listed:
    """A complete artifact. `last_used`: seconds since 1970. `owner`: who builds a newer version under the lease of its key.

    `pinned`: whether a pin lasts. `held_by`: the pods whose holds last.
    """

    entry: Entry
    last_used: float | None
    owner: str | None
    pinned: bool = False
    held_by: tuple[str, ...] = ()


def listed(root: Path, *, on_newer: Callable[[NewerFormat], None]) -> list[Listed]:
    """Return all artifacts of a root, by key. Calls `on_newer` for each artifact that a later version wrote."""
    records = _claims(root)
    return [_with_use(root, entry, records) for entry in entries(root, on_newer=on_newer)]


def named(what: str, root: Callable[[], Path]) -> Listed:
    """Return the artifact with the directory, key or URI `what`. Raises NotFound, NewerFormat.

    A directory is tried first, and `root` is called only if it is not one: a container may have neither a cache nor a HOME.
    """
    if (entry := entry_at(Path(what))) is not None:
        directory = Path(os.path.realpath(what))
        return Listed(entry, last_used(directory.parent, directory.name), None)
    place = root()
    return _with_use(place, find(place, what), _claims(place))


def in_order(artifacts: Iterable[Listed], by: Sorting) -> list[Listed]:
    """Sort by key or URI, largest first, or least recently used first. Artifacts that were never used come first of all."""
    match by:
        case "size":
            return sorted(artifacts, key=lambda each: (-each.entry.summary.size, each.entry.key))
        case "used":
            return sorted(artifacts, key=lambda each: (each.last_used or 0.0, each.entry.key))
        case "uri":
            return sorted(artifacts, key=lambda each: (each.entry.summary.uri, each.entry.key))
        case "key":
            return sorted(artifacts, key=lambda each: each.entry.key)


def _claims(root: Path) -> Mapping[str, Sequence[Claim]]:
    with suppress(OSError):  # another user's directory: the list is still useful
        return claims(root)
    return {}


def _with_use(root: Path, entry: Entry, records: Mapping[str, Sequence[Claim]]) -> Listed:
    owner: str | None = None
    with suppress(OSError):
        seen = observe(Root(root).staging / entry.key)
        owner = seen.owner if seen is not None and not seen.abandoned else None
    lasting = [each for each in records.get(entry.key, ()) if each.lasts(time.time())]
    holders = tuple(each.holder for each in lasting if each.kind == "hold")
    return Listed(entry, last_used(root, entry.key), owner, any(each.kind == "pin" for each in lasting), holders)
