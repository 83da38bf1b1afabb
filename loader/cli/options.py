"""Every option of `loader`, once."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

from fetcher.command import common_options
from fetcher.command.options import Option
from fetcher.errors import ConfigurationError
from fetcher.quantities import parse_number, parse_seconds, parse_size
from loader.filesystems import filesystem_of
from loader.workers import MOST_THREADS, default_threads

MOST_RANKS = 4096
LEAST_WINDOW = 16 * 1024 * 1024


def _window(text: str) -> int:
    if (window := parse_size(text)) < LEAST_WINDOW:
        raise ConfigurationError(f"{text} is too little to read ahead; give 16Mi or more")
    return window


_option = partial(Option, program="loader")

JSON = common_options.JSON.of("loader")
TERMINATION_LOG = common_options.TERMINATION_LOG.of("loader")
ENDING = tuple(option.of("loader") for option in common_options.ENDING)
METRICS = tuple(option.of("loader") for option in common_options.METRICS)
THREADS = _option(
    "threads",
    "so many at once (default: one a processor up to 16; at least 4 to warm; 16 over a network)",
    partial(parse_number, 1, MOST_THREADS),
    metavar="N",
)
RANKS = (
    _option(
        "rank",
        "which part is ours, from 0; of the processes on this host",
        partial(parse_number, 0, MOST_RANKS - 1),
        metavar="R",
    ),
    _option(
        "world_size",
        "how many parts there are, each for another process on this host",
        partial(parse_number, 1, MOST_RANKS),
        metavar="W",
    ),
)
READING = (
    _option(
        "strategy",
        "read through the page cache, past it, or map what is there (default: what suits filesystem, residency and memory)",
        choices=("auto", "buffered", "direct", "mmap"),
    ),
    _option("window", "memory that is read ahead (default 512Mi)", _window, metavar="SIZE"),
)
PARTIAL = _option("partial", "where memory can't hold everything, warm what fits, from the beginning", switch=True)
READY_FILE = _option("ready_file", "a file that is there while everything is in memory", Path, metavar="FILE")
INTERVAL = _option("interval", "look so often whether all is there still (default 10s)", parse_seconds, metavar="SECONDS")


def threads_for(path: str, *, busy: bool = False) -> int:
    """How many are worth having where `path` lies."""
    return default_threads(network=os.path.exists(path) and filesystem_of(Path(path)).network, busy=busy)
