"""The words of `loader`'s command line."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from fetcher.command.options import Option
from fetcher.command.parser import Parser, parser_of
from loader.cli.options import ENDING, INTERVAL, JSON, METRICS, PARTIAL, RANKS, READING, READY_FILE, THREADS

COMMANDS: dict[str, tuple[str, tuple[Option, ...]]] = {
    "warm": (
        "bring weights into the page cache and wait until they are there",
        (JSON, PARTIAL, THREADS, *RANKS, *METRICS, *ENDING),
    ),
    "load": ("read every tensor as an engine would, and say how fast", (JSON, *READING, THREADS, *RANKS, *METRICS, *ENDING)),
    "status": ("show how much is in memory, and how it is best read", (JSON,)),
    "drop": ("drop weights from the page cache, and say what stayed and why", (JSON,)),
    "hold": ("keep weights in memory until told to stop", (READY_FILE, INTERVAL, THREADS, *METRICS, *ENDING)),
    "copy": ("copy an artifact into RAM or to a local disk, verified, all or nothing", (JSON, THREADS, *METRICS, *ENDING)),
}

POSITIONAL = {"warm": "PATH...", "load": "PATH", "status": "PATH...", "drop": "PATH...", "hold": "PATH...", "copy": "SRC DST"}


RENAMED = {"evict": "drop", "pin": "hold"}
"""Old word → command. The old words work until the first release, and no help shows them."""


def with_new_words(words: Sequence[str]) -> list[str]:
    """`words` with the command's present name."""
    place = next((index for index, word in enumerate(words) if not word.startswith("-")), None)
    return [RENAMED.get(word, word) if index == place else word for index, word in enumerate(words)]


def build_parser() -> Parser:
    """The whole command line."""
    return parser_of("loader", "Has model weights in memory when an engine asks for them.", COMMANDS, _add_positional)


def _add_positional(command: argparse.ArgumentParser, name: str) -> None:
    if name == "load":
        command.add_argument("paths", metavar="PATH", nargs=1, help="a directory with a checkpoint, or a file")
        return
    if name == "copy":
        command.add_argument("source", metavar="SRC", help="an artifact's directory")
        command.add_argument("target", metavar="DST", help="the directory that becomes its copy, such as /dev/shm/model")
        return
    command.add_argument("paths", metavar="PATH", nargs="+", help="a directory with a checkpoint, or files")
