"""The options of `loader`."""

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
        raise ConfigurationError(f"{text} is too small; give 16Mi or more")
    return window


_option = partial(Option, program="loader")

JSON = common_options.JSON.of("loader")
TERMINATION_LOG = common_options.TERMINATION_LOG.of("loader")
ENDING = tuple(option.of("loader") for option in common_options.ENDING)
METRICS = tuple(option.of("loader") for option in common_options.METRICS)
THREADS = _option(
    "threads",
    "number of threads (default: one per processor, at most 16; at least 4 for warm and hold; 16 on a network filesystem)",
    partial(parse_number, 1, MOST_THREADS),
    metavar="N",
)
RANKS = (
    _option(
        "rank",
        "index of this process among those on this host, from 0",
        partial(parse_number, 0, MOST_RANKS - 1),
        metavar="R",
    ),
    _option(
        "world_size",
        "number of processes on this host that share the work; each takes one part (default 1)",
        partial(parse_number, 1, MOST_RANKS),
        metavar="W",
    ),
)
READING = (
    _option(
        "strategy",
        "read through the page cache (buffered), bypass it (direct), or map the files (mmap); "
        "auto, the default, chooses by filesystem, residency and memory",
        choices=("auto", "buffered", "direct", "mmap"),
    ),
    _option("window", "memory for reading ahead, at least 16Mi (default 512Mi)", _window, metavar="SIZE"),
)
REMOTE = (
    _option(
        "verify",
        "with an address, deliver the tensors of a file at once and fail at its end if it differs from what is published of it "
        "(end, the default), or only after all of it was compared, which takes memory for a whole file (before)",
        choices=("end", "before"),
    ),
    _option("revision", "with an address, the branch, tag, commit, version or digest to read", metavar="REV"),
)
PARTIAL = _option("partial", "if the weights do not fit in memory, warm the first part that fits", switch=True)
READY_FILE = _option("ready_file", "keep FILE in place while everything is in memory", Path, metavar="FILE")
INTERVAL = _option(
    "interval", "time between checks that everything is in memory (default 10s)", parse_seconds, metavar="SECONDS"
)


def threads_for(path: str, *, busy: bool = False) -> int:
    """Return the default number of threads for the filesystem of `path`; `busy`: each thread keeps a processor busy."""
    return default_threads(network=os.path.exists(path) and filesystem_of(Path(path)).network, busy=busy)
