"""The commands of `loader` and their options."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from fetcher.command.options import Option
from fetcher.command.parser import Parser, parser_of
from loader.cli.options import ENDING, INTERVAL, JSON, METRICS, PARTIAL, RANKS, READING, READY_FILE, REMOTE, THREADS

COMMANDS: dict[str, tuple[str, tuple[Option, ...]]] = {
    "warm": (
        "read weights into the page cache, and return when they are in memory",
        (JSON, PARTIAL, THREADS, *RANKS, *METRICS, *ENDING),
    ),
    "load": (
        "read every tensor as an engine would, from files or from their source, and report the rate",
        (JSON, *READING, *REMOTE, THREADS, *RANKS, *METRICS, *ENDING),
    ),
    "status": ("show how much of the weights is in memory, and the best way to read the rest", (JSON,)),
    "drop": ("drop weights from the page cache, and report what stayed and why", (JSON,)),
    "hold": ("read weights into memory and keep them there until a signal", (READY_FILE, INTERVAL, THREADS, *METRICS, *ENDING)),
    "copy": (
        "copy an artifact to RAM or a local disk: verified, and visible only when complete",
        (JSON, THREADS, *METRICS, *ENDING),
    ),
}

POSITIONAL = {
    "warm": "PATH...",
    "load": "PATH|URI",
    "status": "PATH...",
    "drop": "PATH...",
    "hold": "PATH...",
    "copy": "SRC DST",
}


RENAMED = {"evict": "drop", "pin": "hold"}
"""Old name → command. The old names work until the first release. No help shows them."""


def with_new_words(words: Sequence[str]) -> list[str]:
    """Return `words` with an old command name replaced by the new one."""
    command = next((index for index, word in enumerate(words) if not word.startswith("-")), None)
    return [RENAMED.get(word, word) if index == command else word for index, word in enumerate(words)]


def build_parser() -> Parser:
    """Return the parser of the whole command line."""
    return parser_of("loader", "Brings model weights into memory before an engine needs them.", COMMANDS, _add_positional)


def _add_positional(command: argparse.ArgumentParser, name: str) -> None:
    if name == "load":
        where = "directory of a checkpoint, or a file; or the address of an artifact, which is read without a disk"
        command.add_argument("paths", metavar="PATH", nargs=1, help=where)
        return
    if name == "copy":
        command.add_argument("source", metavar="SRC", help="directory of the artifact")
        command.add_argument("target", metavar="DST", help="directory of the copy, such as /dev/shm/model")
        return
    command.add_argument("paths", metavar="PATH", nargs="+", help="directory of a checkpoint, or files")
