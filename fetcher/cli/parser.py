"""The words of the command line."""

from __future__ import annotations

import argparse
from typing import Any, NoReturn

from fetcher import __version__
from fetcher.cli.options import FETCH, FULL, PLACE, ROOT, SELECTION, Option, add_options
from fetcher.errors import UsageError

COMMANDS: dict[str, tuple[str, tuple[Option, ...]]] = {
    "fetch": ("bring an artifact here, verified and complete", (*ROOT, *SELECTION, *PLACE, *FETCH)),
    "plan": ("show what would be fetched, without fetching", (*ROOT, *SELECTION, *PLACE, *FETCH)),
    "key": ("print the cache key", SELECTION),
    "list": ("list what is in the cache", ROOT),
    "show": ("show one artifact of the cache", ROOT),
    "verify": ("compare what is in the cache with what was verified when it came", (*ROOT, FULL)),
}


class Parser(argparse.ArgumentParser):
    """argparse, with our exit code and last line for a wrong command."""

    def __init__(self, **words: Any) -> None:
        # An abbreviation that works today would break a script on the day a second flag begins like it.
        super().__init__(allow_abbrev=False, **words)

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see `{self.prog} --help`")


def build_parser() -> Parser:
    """The whole command line."""
    parser = Parser(prog="fetcher", description="Brings model weights to a verified, complete directory.")
    parser.add_argument("--version", action="version", version=f"fetcher {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (help_text, options) in COMMANDS.items():
        command = commands.add_parser(name, help=help_text, description=help_text.capitalize() + ".")
        _add_positional(command, name)
        add_options(command, options)
    return parser


def _add_positional(command: argparse.ArgumentParser, name: str) -> None:
    if name in ("fetch", "plan", "key"):
        command.add_argument("uri", metavar="URI", help="hf://owner/name[@rev], https://..., file:///..., pvc://claim/path")
    elif name == "show":
        command.add_argument("what", metavar="KEY|URI", help="a cache key, or the URI as it was fetched")
    elif name == "verify":
        command.add_argument("what", metavar="KEY|URI|DIR", nargs="?", help="one artifact; all of the cache without it")
