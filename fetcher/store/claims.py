"""Pins and holds: records that keep an artifact in its cache, in `<root>/.fetcher/usage/`.

::

    <key>                  its time is the last use (`fetcher.usage`)
    <key>.pin              a person keeps the artifact, until a time or for good
    <key>.hold.<holder>    a pod keeps it: engines read weights into a GPU and close the files, so open files tell too little

Each record is a file of its own, so that writers on several nodes never overwrite each other.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from fetcher.errors import NewerFormat, UsageError
from fetcher.filesystem import file_mode, first_names
from fetcher.records import check_format
from fetcher.store.beneath import make_directories, read_beneath, remove, replace_file
from fetcher.store.layout import Root
from fetcher.values import dataclass
from fetcher.version import VERSION

FORMAT_VERSION = 1
_LARGEST = 4096
_HOLDER = r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}"
"""The UID of a pod is a UUID. A dot would be read as a part of the record's name."""


@dataclass(frozen=True, slots=True)
class Claim:
    """One record. `until`: seconds since 1970, None for no end. `holder` is empty for a pin."""

    key: str
    kind: Literal["pin", "hold"]
    until: float | None
    holder: str = ""

    def lasts(self, now: float) -> bool:
        return self.until is None or now < self.until

    @property
    def name(self) -> str:
        return f"{self.key}.pin" if self.kind == "pin" else f"{self.key}.hold.{self.holder}"


def claim(root: Path, record: Claim) -> None:
    """Write `record`, or replace the earlier one. Raises UsageError for a holder that is no name, OSError."""
    if record.kind == "hold" and not re.fullmatch(_HOLDER, record.holder):
        raise UsageError(f"{record.holder!r} cannot name a holder; use letters, digits and '-', such as the UID of a pod")
    usage = Root(root).usage
    make_directories(root, usage)
    until = None if record.until is None else datetime.fromtimestamp(record.until, UTC).isoformat(timespec="seconds")
    document = {"format_version": FORMAT_VERSION, "version": VERSION, "until": until}
    replace_file(root, usage / record.name, json.dumps(document).encode() + b"\n", mode=file_mode(usage))


def unclaim(root: Path, record: Claim) -> None:
    """Remove `record` if it exists. Raises OSError."""
    with suppress(FileNotFoundError, NotADirectoryError):
        remove(root, Root(root).usage / record.name)


def claims(root: Path, key: str = "") -> dict[str, list[Claim]]:
    """Return the pins and holds of a root, or of one `key`: key → records, lapsed ones included. Raises OSError.

    A record that cannot be read, or of a later version, lasts for good: it is safer to keep an artifact. So it is an error if
    the records are not to be found although their place exists.
    """
    found: dict[str, list[Claim]] = {}
    for record in _records(root, f"{key}." if key else ""):
        found.setdefault(record.key, []).append(record)
    return found


def _records(root: Path, beginning: str) -> Iterator[Claim]:
    try:
        names = first_names(Root(root).usage, beginning, limit=_MOST)
    except FileNotFoundError:
        return
    for name in sorted(names):
        key, _, rest = name.partition(".")
        kind, _, holder = rest.partition(".")
        if (kind == "pin" and not holder) or (kind == "hold" and re.fullmatch(_HOLDER, holder)):
            yield Claim(key, "pin" if kind == "pin" else "hold", _until(root, Root(root).usage / name), holder)


_MOST = 1_000_000
"""Names that are read at most: a record for each artifact, and one for each pod that holds it."""


def _until(root: Path, path: Path) -> float | None:
    with suppress(OSError, ValueError, TypeError, AttributeError, KeyError, RecursionError, NewerFormat):
        document = json.loads(read_beneath(root, path, limit=_LARGEST))
        check_format(document, newest=FORMAT_VERSION, what=str(path))
        return None if document["until"] is None else datetime.fromisoformat(document["until"]).timestamp()
    return None
