"""The words of `loader`'s command line."""

from __future__ import annotations

import argparse

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
    "evict": ("drop weights from the page cache, and say what stayed and why", (JSON,)),
    "pin": ("keep weights in memory until told to stop", (READY_FILE, INTERVAL, THREADS, *METRICS, *ENDING)),
    "copy": ("copy an artifact into RAM or to a local disk, verified, all or nothing", (JSON, THREADS, *METRICS, *ENDING)),
}

POSITIONAL = {"warm": "PATH...", "load": "PATH", "status": "PATH...", "evict": "PATH...", "pin": "PATH...", "copy": "SRC DST"}


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
