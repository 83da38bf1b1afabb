"""The plan of a cooperative fetch: what the first part decided, and all others follow.

It is a directory, `staging/<key>.plan/`, that appears by one rename. Like that of a lease, this rename succeeds for one
process only, on every filesystem. Each unit has an ordinary lease of its own, `staging/<key>.<plan>.u<number>`: units of an
earlier plan have other names.
"""

from __future__ import annotations

import errno
import json
import re
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fetcher.artifact import CHUNK_SIZE, ByteRange
from fetcher.errors import ConfigurationError, NewerFormat
from fetcher.filesystem import file_mode, sync_directory
from fetcher.planning.units import Unit
from fetcher.records import check_format
from fetcher.store.beneath import make_directories, read_beneath, remove_tree, rename, write_new
from fetcher.store.layout import Root
from fetcher.values import dataclass
from fetcher.version import VERSION

FORMAT_VERSION = 1
SUFFIX = ".plan"
_NAME = "plan.json"
_PLAN_NAME = re.compile(r"[0-9a-f]{12}")
_LARGEST = 256 * 1024 * 1024
"""Bytes of the largest plan that is read, as for a manifest."""


@dataclass(frozen=True, slots=True)
class Plan:
    """`name` is random. `revision` of the source, the identity of each file by its path, and the units."""

    name: str
    revision: str | None
    files: Mapping[str, str | None]
    units: tuple[Unit, ...]


def publish_plan(root: Path, key: str, plan: Plan) -> Plan:
    """Publish `plan`, and return it; or return the plan of the part that was faster. Raises OSError, ConfigurationError."""
    staging = Root(root).staging
    draft, final = staging / f"tmp.{uuid.uuid4().hex}", _directory(root, key)
    make_directories(root, draft)
    document = {
        "format_version": FORMAT_VERSION,
        "version": VERSION,
        "name": plan.name,
        "revision": plan.revision,
        "files": dict(plan.files),
        "units": [_written(unit) for unit in plan.units],
    }
    try:
        data = json.dumps(document, ensure_ascii=False).encode("utf-8", "surrogateescape")
        write_new(root, draft / _NAME, data, mode=file_mode(draft))
        rename(root, draft, root, final)
    except OSError as error:
        remove_tree(root, draft)
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        return read_plan(root, key) or publish_plan(root, key, plan)
    sync_directory(staging)
    return plan


def read_plan(root: Path, key: str) -> Plan | None:
    """Return the plan of the artifact `key`; None if there is none. Raises ConfigurationError, NewerFormat, OSError."""
    path = _directory(root, key) / _NAME
    try:
        data = read_beneath(root, path, limit=_LARGEST)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        document = json.loads(data.decode("utf-8", "surrogateescape"))
        check_format(document, newest=FORMAT_VERSION, what=str(path))
        return _checked(document)
    except NewerFormat:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ConfigurationError(f"{path} is damaged; remove {path.parent} and run all parts again", path=str(path)) from error


def remove_plan(root: Path, key: str) -> None:
    """Remove the plan of the artifact `key`, if there is one."""
    remove_tree(root, _directory(root, key))


def new_name() -> str:
    """Return the name of a new plan."""
    return uuid.uuid4().hex[:12]


def unit_name(key: str, plan: Plan, number: int) -> str:
    """Return the name of the lease of a unit."""
    return f"{key}.{plan.name}.u{number}"


def _directory(root: Path, key: str) -> Path:
    return Root(root).staging / f"{key}{SUFFIX}"


def _written(unit: Unit) -> dict[str, Any]:
    segment = {} if unit.segment is None else {"segment": [unit.segment.start, unit.segment.stop]}
    return {"paths": list(unit.paths), **segment}


def _read(unit: Mapping[str, Any]) -> Unit:
    paths = tuple(str(path) for path in unit["paths"])
    if "segment" not in unit:
        return Unit(paths)
    (_,), (start, stop) = paths, unit["segment"]
    return Unit(paths, ByteRange(int(start), int(stop)))


def _cut(units: Iterable[Unit]) -> list[str]:
    """The paths of the files that are cut. Raises ValueError unless the segments of each follow one another from its start."""
    ends: dict[str, int] = {}
    for unit in units:
        if unit.segment is not None:
            if unit.segment.start != ends.get(unit.paths[0], 0) or unit.segment.start % CHUNK_SIZE or not len(unit.segment):
                raise ValueError("the segments of a file do not follow one another")
            ends[unit.paths[0]] = unit.segment.stop
    return list(ends)


def _checked(document: Mapping[str, Any]) -> Plan:
    files = {str(path): None if identity is None else str(identity) for path, identity in document["files"].items()}
    units = tuple(_read(unit) for unit in document["units"])
    whole = [path for unit in units if unit.segment is None for path in unit.paths]
    if sorted([*whole, *_cut(units)]) != sorted(files):
        raise ValueError("the units do not have every file once")
    revision = document["revision"]
    if not _PLAN_NAME.fullmatch(document["name"]):
        raise ValueError(f"{document['name']!r} cannot name leases")
    return Plan(document["name"], None if revision is None else str(revision), files, units)
