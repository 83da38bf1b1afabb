"""Every option, once: its flag, its variable, how its text is read. Parser, environment and reference are made from this."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fetcher.errors import ConfigurationError, FetchError, UsageError
from fetcher.settings import (
    LEAST_MEMORY,
    MOST_CONNECTIONS,
    Settings,
    default_cache_dir,
    hub_cache_dir,
    parse_duration,
    parse_expect,
    parse_mount,
    parse_rate,
    parse_size,
)


@dataclass(frozen=True, slots=True)
class Option:
    """`name` is the setting's; the flag is `--name-with-dashes`, the variable `FETCHER_NAME`. A `repeated` one's variable
    holds several values on lines of their own, or separated by commas."""

    name: str
    help: str
    read: Callable[[str], Any] = str
    metavar: str | None = None
    choices: tuple[str, ...] | None = None
    repeated: bool = False
    switch: bool = False

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        return "FETCHER_" + self.name.upper()


def _count(text: str) -> int:
    if not re.fullmatch("[0-9]{1,9}", text.strip()) or not 1 <= int(text) <= MOST_CONNECTIONS:
        raise ConfigurationError(f"not a number of connections from 1 to {MOST_CONNECTIONS}: {text!r}")
    return int(text)


def _memory(text: str) -> int:
    if (limit := parse_size(text)) < LEAST_MEMORY:
        raise ConfigurationError(f"{text} is too little memory for buffers; give 16Mi or more")
    return limit


def _seconds(text: str) -> float:
    if (seconds := parse_duration(text)) <= 0:
        raise ConfigurationError(f"not a time above zero: {text!r}")
    return seconds


SELECTION = (
    Option("revision", "branch, tag, commit or refs/pr/N of a Hub repository", metavar="REV"),
    Option("include", "fetch only files that match this pattern; may be repeated", metavar="GLOB", repeated=True),
    Option("exclude", "leave out files that match this pattern; may be repeated", metavar="GLOB", repeated=True),
)
ROOT = (
    Option("cache_dir", "root of the cache; the artifact goes to DIR/<cache-key>", read=Path, metavar="DIR"),
    Option("json", "print one JSON object on stdout", switch=True),
)
FULL = Option("full", "recompute the published digests too", switch=True)
TERMINATION_LOG = Option(
    "termination_log", "write the result as one line of JSON to FILE (default /dev/termination-log, if there)", Path, "FILE"
)
PLACE = (
    Option("dest", "put the artifact into DIR itself, which may be a mount point", read=Path, metavar="DIR"),
    Option("layout", "flat files, or the Hub's cache layout under --cache-dir", choices=("flat", "hf-cache")),
    Option(
        "expect",
        "the digest a file must have; may be repeated",
        read=parse_expect,
        metavar="PATH=sha256:HEX",
        repeated=True,
    ),
    Option("require_digests", "refuse files for which neither source nor --expect gives a digest", switch=True),
    Option("pvc_mount", "where the claim of pvc:// is mounted; may be repeated", parse_mount, "CLAIM=DIR", repeated=True),
)
FETCH = (
    Option(
        "refresh",
        "take what is here, or ask the source whether there is something newer",
        choices=("if-not-present", "on-change"),
    ),
    Option("hard_link", "link files of a local source instead of copying: a later edit changes both", switch=True),
    Option("max_concurrency", "connections at most; how many are worth it is found out (default 32)", _count, "N"),
    Option("limit_rate", "bytes a second over all connections, such as 200M; 0 for no limit", parse_rate, "RATE"),
    Option("memory_limit", "memory for all buffers together (default 256Mi)", _memory, "SIZE"),
    Option(
        "page_cache",
        "keep what was written in the page cache, or drop it as it is synced",
        choices=("auto", "keep", "drop"),
    ),
    Option("timeout_stall", "give up a connection on which nothing came for so long (default 30s)", _seconds, "SECONDS"),
    Option("retry_for", "give up after so long without any progress (default 5m)", parse_duration, "DURATION"),
    Option("lease_wait", "wait at most so long for another process that fetches the same", parse_duration, "DURATION"),
    Option(
        "lease_stale",
        "replace an owner that gave no sign of life for so long (default 60s, 180s on a network filesystem)",
        _seconds,
        "DURATION",
    ),
    Option("progress", "how to show progress on stderr", choices=("auto", "bar", "log", "json", "none")),
    TERMINATION_LOG,
)


def add_options(parser: argparse.ArgumentParser, options: Sequence[Option]) -> None:
    """Flags without defaults: what is absent is looked up in the environment by `values`."""
    for option in options:
        described = f"{option.help} [{option.variable}]"
        if option.switch:
            parser.add_argument(option.flag, action="store_true", default=None, dest=option.name, help=described)
            continue
        parser.add_argument(
            option.flag,
            dest=option.name,
            action="append" if option.repeated else "store",
            choices=option.choices,
            metavar=option.metavar,
            help=described,
        )


def values(options: Sequence[Option], given: argparse.Namespace, environ: Mapping[str, str]) -> dict[str, Any]:
    """Name → value of every option that is given, by flag else by variable.

    Raises UsageError for a bad flag, ConfigurationError for a bad variable.
    """
    found: dict[str, Any] = {}
    for option in options:
        flag = getattr(given, option.name)
        text = environ.get(option.variable, "").strip()
        if flag is not None:
            found[option.name] = _read(option, flag, option.flag, UsageError)
        elif text:
            found[option.name] = _read(option, _from_variable(option, text), option.variable, ConfigurationError)
    return found


def _from_variable(option: Option, text: str) -> Any:
    if option.switch:
        if text.lower() not in ("0", "1", "true", "false", "yes", "no", "on", "off"):
            raise ConfigurationError(f"{option.variable} is neither true nor false: {text!r}")
        return text.lower() in ("1", "true", "yes", "on")
    if option.choices and text not in option.choices:
        raise ConfigurationError(f"{option.variable} is {text!r}; it can be {', '.join(option.choices)}")
    if option.repeated:
        return [part.strip() for part in text.replace("\n", ",").split(",") if part.strip()]
    return text


def _read(option: Option, raw: Any, name: str, error: type[FetchError]) -> Any:
    if option.switch:
        return bool(raw)
    # `--dest "$DIR"` with DIR unset would otherwise mean the current directory.
    if not all(each.strip() for each in (raw if option.repeated else [raw])):
        raise error(f"{name} is empty; give it a value or leave it out")
    try:
        return tuple(option.read(each) for each in raw) if option.repeated else option.read(raw)
    except FetchError as caught:
        raise error(f"{name}: {caught.message}") from caught


def settings_from(found: Mapping[str, Any], environ: Mapping[str, str]) -> Settings:
    """The settings that options and environment make. Raises ConfigurationError."""
    known = {
        name: found[name]
        for name in (*(option.name for option in (*PLACE, *FETCH)),)
        if name in found and name not in ("expect", "pvc_mount", "progress", "termination_log")
    }
    layout = found.get("layout", "flat")
    cache_dir = found.get("cache_dir") or (hub_cache_dir(environ) if layout == "hf-cache" else None)
    if cache_dir is None:
        # --dest stages inside itself: no cache root is needed, nor a HOME.
        cache_dir = found["dest"] if "dest" in found else default_cache_dir(environ)
    if "dest" in known:
        known["dest"] = known["dest"].absolute()
    return Settings(
        cache_dir=cache_dir.absolute(),
        expect=dict(found.get("expect", ())),
        pvc_mounts=dict(found.get("pvc_mount", ())),
        **known,
    )
