"""The words of `fetcher`'s command line."""

from __future__ import annotations

import argparse

from fetcher.cli.options import FETCH, FULL, PLACE, ROOT, SELECTION, WARM
from fetcher.command.common_options import ENDING, METRICS
from fetcher.command.options import Option
from fetcher.command.parser import Parser, parser_of

_ASKED = (*ROOT, *SELECTION, *PLACE, *FETCH)

COMMANDS: dict[str, tuple[str, tuple[Option, ...]]] = {
    "fetch": ("bring an artifact here, verified and complete", (*_ASKED, WARM, *METRICS, *ENDING)),
    "plan": ("show what would be fetched, without fetching", (*_ASKED, *ENDING)),
    "key": ("print the cache key", SELECTION),
    "list": ("list what is in the cache", ROOT),
    "show": ("show one artifact of the cache", ROOT),
    "verify": ("compare what is in the cache with what was verified when it came", (*ROOT, FULL)),
}


def build_parser() -> Parser:
    """The whole command line."""
    return parser_of("fetcher", "Brings model weights to a verified, complete directory.", COMMANDS, _add_positional)


def _add_positional(command: argparse.ArgumentParser, name: str) -> None:
    if name in ("fetch", "plan", "key"):
        command.add_argument("uri", metavar="URI", help="hf://owner/name[@rev], https://..., file:///..., pvc://claim/path")
    elif name == "show":
        command.add_argument("what", metavar="KEY|URI", help="a cache key, or the URI as it was fetched")
    elif name == "verify":
        command.add_argument("what", metavar="KEY|URI|DIR", nargs="?", help="one artifact; all of the cache without it")
