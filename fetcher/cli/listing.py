"""`fetcher list` and `fetcher show`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from fetcher.artifact import redact
from fetcher.cli.options import ROOT, SORT, WARM
from fetcher.cli.roots import print_newer, root_of
from fetcher.command.options import values
from fetcher.command.results import print_result
from fetcher.errors import FetchError
from fetcher.quantities import size

if TYPE_CHECKING:
    from fetcher.cache import Listed


def list_(arguments: argparse.Namespace, environ: Mapping[str, str]) -> None:
    from fetcher.cache import in_order, listed

    options = values((*ROOT, SORT, WARM), arguments, environ)
    artifacts = in_order(listed(root_of(options, environ), on_newer=print_newer), options.get("sort", "key"))
    warm = _warm(artifacts) if options.get("warm") else None
    if options.get("json"):
        shares = [{} if warm is None else {"warm": warm[str(each.entry.path)]} for each in artifacts]
        print_result(json.dumps([_fields(each) | share for each, share in zip(artifacts, shares, strict=True)]))
        return
    from fetcher.cli.tables import print_artifacts

    print_artifacts(artifacts, warm=warm)


def show(arguments: argparse.Namespace, environ: Mapping[str, str]) -> None:
    from fetcher.cache import named, occupied

    options = values(ROOT, arguments, environ)
    artifact = named(arguments.what, lambda: root_of(options, environ))
    files = artifact.entry.manifest.files
    allocated, shared = occupied(artifact.entry)
    fields = _fields(artifact) | {"bytes_allocated": allocated, "bytes_shared": shared}
    if options.get("json"):
        listing = [
            {"path": file.path, "size": file.size, "digests": [str(digest) for digest in file.digests]}
            | {"checksums": list(file.checksums), "verified_by": file.verified_by}
            for file in files
        ]
        print_result(json.dumps(fields | {"files": listing}))
        return
    for name, value in fields.items():
        print_result(f"{name:20}{_shown(name, value)}")
    for file in files:
        digest = next(iter((*map(str, file.digests), *file.checksums)), "no digest")
        print_result(f"{size(file.size):>10}  {file.path}  {digest}")


def _shown(name: str, value: Any) -> str:
    if isinstance(value, dict):
        value = [f"{count} by {way}" for way, count in value.items()]
    if name.startswith("bytes"):
        return size(value)
    return ", ".join(value) or "-" if isinstance(value, list) else str("-" if value is None else value)


def _warm(artifacts: Iterable[Listed]) -> dict[str, float | None]:
    """The share of each path that is in memory; None if it is unknown, or if the files cannot be read."""
    from loader.residency.model_files import present, residency

    def share(path: str) -> float | None:
        with suppress(FetchError):
            return residency(present([path]), closely=False).fraction
        return None

    return {path: share(path) for path in (str(each.entry.path) for each in artifacts)}


def _fields(artifact: Listed) -> dict[str, Any]:
    """The fields of an artifact in `--json`. `last_used` is in UTC, `lease` the owner of its lease.

    `bytes_shared` came as clones or links from other artifacts.
    """
    summary, used = artifact.entry.summary, artifact.last_used
    return {
        "cache_key": artifact.entry.key,
        "path": str(artifact.entry.path),
        "uri": redact(summary.uri),
        "requested_revision": summary.requested_revision,
        "revision": summary.revision,
        "bytes": summary.size,
        "bytes_shared": summary.shared,
        "verified": summary.verified,
        "verified_by": dict(summary.verified_by),
        "authenticated": summary.authenticated,
        "unconfirmed": summary.unconfirmed,
        "created": summary.created,
        "version": summary.version,
        "last_used": None if used is None else datetime.fromtimestamp(used, UTC).isoformat(timespec="seconds"),
        "lease": artifact.owner,
        "pinned": artifact.pinned,
        "held_by": list(artifact.held_by),
    }
