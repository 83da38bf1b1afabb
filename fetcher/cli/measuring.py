"""`fetcher du`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fetcher.artifact import redact
from fetcher.cli.options import ROOT, SORT
from fetcher.cli.roots import print_newer, root_of
from fetcher.command.options import values
from fetcher.command.results import print_result

if TYPE_CHECKING:
    from fetcher.cache import Place


def du(arguments: argparse.Namespace, environ: Mapping[str, str]) -> None:
    from fetcher.cache import occupation, places_in_order

    options = values((*ROOT, SORT), arguments, environ)
    occupied = occupation(root_of(options, environ), on_newer=print_newer)
    occupied = replace(occupied, places=places_in_order(occupied.places, options.get("sort", "key")))
    for path in occupied.unread:
        print(f"{path} cannot be read and is not counted", file=sys.stderr)
    if options.get("json"):
        places = [_fields(place) for place in occupied.places]
        print_result(json.dumps({"root": str(occupied.root), "bytes_allocated": occupied.allocated, "places": places}))
        return
    from fetcher.cli.tables import print_occupation

    print_occupation(occupied)


def _fields(place: Place) -> dict[str, Any]:
    """The fields of a place in `--json`. `bytes_shared`: those of `bytes_allocated` that another file has too."""
    return {
        "kind": place.kind,
        "name": place.name,
        "cache_keys": [each.entry.key for each in place.artifacts],
        "uris": [redact(each.entry.summary.uri) for each in place.artifacts],
        "files": place.files,
        "bytes_allocated": place.allocated,
        "bytes_shared": place.shared,
    }
