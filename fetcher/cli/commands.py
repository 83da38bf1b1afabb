"""`fetcher fetch`, `plan` and `key`, between parsed options and an exit code. Results go to stdout, the rest to stderr."""

from __future__ import annotations

import argparse
import json
import unicodedata
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from fetcher.artifact import ArtifactRef
from fetcher.cli.options import HOLD, LIMITS, SELECTION
from fetcher.cli.parser import COMMANDS
from fetcher.cli.signals import run_interruptibly
from fetcher.command.options import values
from fetcher.command.results import print_result
from fetcher.errors import FetchError, UsageError
from fetcher.events import Subscriber, Warmed, Warned
from fetcher.settings import Settings

if TYPE_CHECKING:
    from fetcher.engine.preview import Preview


def options_of(arguments: argparse.Namespace, environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the command's options, name → value. Raises UsageError, ConfigurationError."""
    if getattr(arguments, "dest", None) is not None and arguments.cache_dir is not None:
        raise UsageError("--cache-dir and --dest both say where the artifact goes; give one of them")
    options = values(COMMANDS[arguments.command][1], arguments, environ)
    if "dest" in options:
        _refuse_limits(arguments)
    if options.get("warm"):
        if options.get("page_cache") == "drop":
            raise UsageError("--warm keeps the files in memory, --page-cache drop removes them; give one of them")
        options["page_cache"] = "keep"
    return options


def _refuse_limits(arguments: argparse.Namespace) -> None:
    """Raise UsageError for a flag that belongs to a cache. Its variable may be set for all commands."""
    for option in (*LIMITS, *HOLD):
        if getattr(arguments, option.name, None) is not None:
            raise UsageError(f"{option.flag} is for a cache; give --cache-dir instead of --dest, or leave it out")


def reference(arguments: argparse.Namespace, options: Mapping[str, Any]) -> ArtifactRef:
    """Return the artifact that the command line names. Raises UsageError."""
    if not arguments.uri.strip():
        raise UsageError("the URI is empty; give one such as hf://org/model")
    return ArtifactRef(arguments.uri, options.get("revision"), options.get("include", ()), options.get("exclude", ()))


def fetch(ref: ArtifactRef, settings: Settings, on_event: Subscriber) -> dict[str, Any]:
    """Fetch `ref` and return the fields of the result. A cached artifact needs no event loop."""
    from fetcher import engine

    request = engine.recover_and_request(ref, settings)
    artifact = engine.find_cached(request, on_event) or run_interruptibly(engine.fetch_uncached(request, on_event))
    return asdict(artifact) | {"path": str(artifact.path)}


def warm(path: str, on_event: Subscriber) -> dict[str, Any]:
    """Read the artifact at `path` into memory; `warm` in the result is the output of `loader warm --json`.

    A failure is a warning, not an error, since the artifact is complete: `warm` is None and `warm_problem` says why.
    """
    from loader.cli.commands import warmed

    try:
        fields = warmed([path], {}, on_event)
    except (FetchError, OSError, ValueError, RuntimeError, MemoryError) as error:  # RuntimeError: no more threads
        reason = error.reason if isinstance(error, FetchError) else type(error).__name__
        on_event(Warned(reason, f"the fetch is complete, but the artifact was not warmed: {error}"))
        return {"warm": None, "warm_problem": f"{reason}: {error}"}
    on_event(Warmed(path, fields["bytes"], fields["bytes_read"], fields["after"]["resident"], fields["seconds"]))
    return {"warm": fields}


def print_fetched(fields: Mapping[str, Any], *, as_json: bool) -> None:
    print_result(json.dumps(fields) if as_json else fields["path"])


def plan(ref: ArtifactRef, settings: Settings, on_event: Subscriber) -> Preview:
    from fetcher.engine.preview import preview

    shown: Preview = run_interruptibly(preview(ref, settings, on_event))
    return shown


def print_plan(shown: Preview, *, as_json: bool) -> None:
    from fetcher.quantities import size

    if as_json:
        print_result(json.dumps(asdict(shown) | {"path": str(shown.path)}))
        return
    for file in shown.files:
        published = next(iter((*file.digests, *file.checksums)), "no digest")
        digest = published if len(published) <= 22 else published[:19] + "..."
        known = size(file.size) if file.size is not None else "unknown"
        print_result(f"{file.state:8} {known:>10}  {digest:22}  {on_one_line(file.path)}")
    print_result(
        f"uri       {shown.uri}\nrevision  {shown.revision or '-'}\nkey       {shown.cache_key}\npath      {shown.path}"
    )
    free = f", {size(shown.free_bytes)} free" if shown.free_bytes is not None else ""
    state = "already complete" if shown.cached else f"{size(shown.bytes_to_fetch)} to fetch"
    print_result(f"total     {size(shown.bytes_total)}, {state}{free}")
    if mirrors := sorted({mirror for file in shown.files for mirror in file.mirrors}):
        print_result(f"mirrors   {size(shown.bytes_mirrored)} may come from {', '.join(mirrors)}; the rest from the origin")
    if archives := sum(file.state == "unpack" for file in shown.files):
        print_result(f"archives  {archives} to unpack after the fetch; the sizes of their files are not known yet")


def on_one_line(path: str) -> str:
    """Escape control characters: paths outside the selection were not checked, and a terminal would obey them."""
    return "".join(ascii(each)[1:-1] if unicodedata.category(each) in ("Cc", "Cs") else each for each in path)


def key(arguments: argparse.Namespace, environ: Mapping[str, str]) -> None:
    print_result(reference(arguments, values(SELECTION, arguments, environ)).key)
