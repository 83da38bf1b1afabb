"""The commands of `fetcher` and their arguments."""

from __future__ import annotations

import argparse

from fetcher.cli.options import EXPECT_FILE, FETCH, FULL, MAX_RATE, PLACE, REPAIR, ROOT, SAMPLE, SELECTION, SORT, TRANSFER, WARM
from fetcher.command.common_options import ENDING, METRICS
from fetcher.command.options import Option
from fetcher.command.parser import Parser, parser_of

_REQUEST = (*ROOT, *SELECTION, *PLACE, *FETCH)

COMMANDS: dict[str, tuple[str, tuple[Option, ...]]] = {
    "fetch": ("fetch an artifact, verified and complete", (*_REQUEST, WARM, *METRICS, *ENDING)),
    "plan": ("show the files and bytes that a fetch would download", (*_REQUEST, *ENDING)),
    "key": ("print the cache key of an artifact", SELECTION),
    "list": ("list the artifacts in the cache", (*ROOT, SORT)),
    "show": ("show one artifact of the cache", ROOT),
    "verify": (
        "check cached files against their manifest, and repair them",
        (*ROOT, FULL, EXPECT_FILE, SAMPLE, MAX_RATE, REPAIR, *TRANSFER, *METRICS),
    ),
}


def build_parser() -> Parser:
    """The whole command line."""
    return parser_of("fetcher", "Fetch model weights into a verified, complete directory.", COMMANDS, _add_positional)


def _add_positional(command: argparse.ArgumentParser, name: str) -> None:
    if name in ("fetch", "plan", "key"):
        command.add_argument("uri", metavar="URI", help="hf://owner/name[@rev], https://..., file:///..., pvc://claim/path")
    elif name == "show":
        command.add_argument(
            "what", metavar="KEY|URI|DIR", help="a cache key, the URI that was fetched, or the artifact's directory"
        )
    elif name == "verify":
        command.add_argument(
            "what", metavar="KEY|URI|DIR", nargs="?", help="a cache key, a URI or a directory (default: the whole cache)"
        )
