"""`fetcher list` and `fetcher show`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from fetcher.artifact import redact
from fetcher.cli.options import ROOT, SORT
from fetcher.cli.roots import print_newer, root_of
from fetcher.command.options import values
from fetcher.command.results import print_result

if TYPE_CHECKING:
    from fetcher.cache import Listed


def list_(arguments: argparse.Namespace, environ: Mapping[str, str]) -> None:
    from fetcher.cache import in_order, listed

    options = values((*ROOT, SORT), arguments, environ)
    artifacts = in_order(listed(root_of(options, environ), on_newer=print_newer), options.get("sort", "key"))
    if options.get("json"):
        print_result(json.dumps([_fields(each) for each in artifacts]))
        return
    from fetcher.cli.tables import print_artifacts

    print_artifacts(artifacts)


def show(arguments: argparse.Namespace, environ: Mapping[str, str]) -> None:
    from fetcher.cache import named
    from fetcher.quantities import size

    options = values(ROOT, arguments, environ)
    artifact = named(arguments.what, lambda: root_of(options, environ))
    files = artifact.entry.manifest.files
    if options.get("json"):
        listing = [{"path": each.path, "size": each.size, "digests": [str(d) for d in each.digests]} for each in files]
        print_result(json.dumps(_fields(artifact) | {"files": listing}))
        return
    for name, value in _fields(artifact).items():
        print_result(f"{name:20}{size(value) if name == 'bytes' else value if value is not None else '-'}")
    for file in files:
        digest = str(file.digests[0]) if file.digests else "no digest"
        print_result(f"{size(file.size):>10}  {file.path}  {digest}")


def _fields(artifact: Listed) -> dict[str, Any]:
    """The fields of an artifact in `--json`. `last_used` is in UTC, `lease` the owner of its lease."""
    manifest, used = artifact.entry.manifest, artifact.last_used
    return {
        "cache_key": artifact.entry.key,
        "path": str(artifact.entry.path),
        "uri": redact(manifest.uri),
        "requested_revision": manifest.requested_revision,
        "revision": manifest.revision,
        "bytes": manifest.size,
        "verified": manifest.verified,
        "authenticated": manifest.authenticated,
        "unconfirmed": manifest.unconfirmed,
        "created": manifest.created,
        "version": manifest.version,
        "last_used": None if used is None else datetime.fromtimestamp(used, UTC).isoformat(timespec="seconds"),
        "lease": artifact.owner,
    }
