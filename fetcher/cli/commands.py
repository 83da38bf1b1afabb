"""The work of each command, between parsed options and an exit code. Results go to stdout, everything else to stderr."""

from __future__ import annotations

import argparse
import json
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fetcher.artifact import ArtifactRef, redact
from fetcher.cli.options import FULL, ROOT, SELECTION, SORT
from fetcher.cli.parser import COMMANDS
from fetcher.cli.signals import run_interruptibly
from fetcher.command.options import values
from fetcher.command.results import print_result
from fetcher.errors import DigestMismatch, FetchError, NewerFormat, NotFound, UsageError
from fetcher.events import Subscriber, Warmed, Warned
from fetcher.settings import Settings, default_cache_dir

if TYPE_CHECKING:
    from fetcher.cache import Entry, Listed, VerifyReport
    from fetcher.engine.preview import Preview


def options_of(arguments: argparse.Namespace, environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the command's options, name → value. Raises UsageError, ConfigurationError."""
    if getattr(arguments, "dest", None) is not None and arguments.cache_dir is not None:
        raise UsageError("--cache-dir and --dest both say where the artifact goes; give one of them")
    options = values(COMMANDS[arguments.command][1], arguments, environ)
    if options.get("warm"):
        if options.get("page_cache") == "drop":
            raise UsageError("--warm keeps the files in memory, --page-cache drop removes them; give one of them")
        options["page_cache"] = "keep"
    return options


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
        digest = file.digests[0][:19] + "..." if file.digests else "no digest"
        known = size(file.size) if file.size is not None else "unknown"
        print_result(f"{file.state:8} {known:>10}  {digest:22}  {_on_one_line(file.path)}")
    print_result(
        f"uri       {shown.uri}\nrevision  {shown.revision or '-'}\nkey       {shown.cache_key}\npath      {shown.path}"
    )
    free = f", {size(shown.free_bytes)} free" if shown.free_bytes is not None else ""
    state = "already complete" if shown.cached else f"{size(shown.bytes_to_fetch)} to fetch"
    print_result(f"total     {size(shown.bytes_total)}, {state}{free}")


def _on_one_line(path: str) -> str:
    """Escape control characters: paths outside the selection were not checked, and a terminal would obey them."""
    return "".join(ascii(each)[1:-1] if unicodedata.category(each) in ("Cc", "Cs") else each for each in path)


def key(arguments: argparse.Namespace, environ: Mapping[str, str]) -> None:
    print_result(reference(arguments, values(SELECTION, arguments, environ)).key)


def list_(arguments: argparse.Namespace, environ: Mapping[str, str]) -> None:
    from fetcher.cache import in_order, listed

    options = values((*ROOT, SORT), arguments, environ)
    artifacts = in_order(listed(_root(options, environ), on_newer=_print_newer), options.get("sort", "key"))
    if options.get("json"):
        print_result(json.dumps([_fields(each) for each in artifacts]))
        return
    from fetcher.cli.tables import print_artifacts

    print_artifacts(artifacts)


def show(arguments: argparse.Namespace, environ: Mapping[str, str]) -> None:
    from fetcher.cache import named
    from fetcher.quantities import size

    options = values(ROOT, arguments, environ)
    artifact = named(arguments.what, lambda: _root(options, environ))
    files = artifact.entry.manifest.files
    if options.get("json"):
        listing = [{"path": each.path, "size": each.size, "digests": [str(d) for d in each.digests]} for each in files]
        print_result(json.dumps(_fields(artifact) | {"files": listing}))
        return
    for name, value in _fields(artifact).items():
        print_result(f"{name:20}{size(value) if name == 'bytes' else value if value is not None else '-'}")
    for file in files:
        digest = str(file.digests[0]) if file.digests else "no digest"
        print_result(f"{size(file.size):>10}  {file.path}  {digest}")


def verify(arguments: argparse.Namespace, environ: Mapping[str, str], on_event: Subscriber) -> list[VerifyReport]:
    """Verify one artifact, or all of the cache; one report for each. Raises NotFound."""
    from fetcher.cache import named
    from fetcher.cache import verify as check

    options = values((*ROOT, FULL), arguments, environ)
    what = arguments.what
    chosen = [named(what, lambda: _root(options, environ)).entry] if what else _all(_root(options, environ))
    return [check(entry, full=options.get("full", False), on_event=on_event) for entry in chosen]


def print_reports(reports: Sequence[VerifyReport], *, as_json: bool) -> None:
    """Print all reports. Raises DigestMismatch for the first bad file afterwards."""
    from fetcher.quantities import size
    from fetcher.telemetry.wording import counted, duration

    if as_json:
        print_result(json.dumps([asdict(report) | {"ok": report.ok} for report in reports]))
    for report in reports:
        if not as_json:
            how = "digests and chunks" if report.full else "chunks"
            state = f"{how} match" if report.ok else counted(len(report.bad), "bad file")
            extent = f"{counted(report.files, 'file')}, {size(report.bytes)}, {duration(report.seconds)}"
            print_result(f"{report.path}: {extent}: {state}")
        for path, problem in report.bad:
            print(f"{report.path}/{path}: {problem}", file=sys.stderr)
    for report in reports:
        for path, problem in report.bad:
            raise DigestMismatch(f"{path} {problem}; remove {report.path} and fetch it again", path=path)


def _all(root: Path) -> list[Entry]:
    from fetcher.cache import entries

    if not root.is_dir():
        raise NotFound(f"cannot verify {root}: the directory does not exist; pass the cache root with --cache-dir")
    return entries(root, on_newer=_print_newer)


def _print_newer(error: NewerFormat) -> None:
    print(error.sentence(), file=sys.stderr)


def _fields(artifact: Listed) -> dict[str, Any]:
    """The fields of an artifact in `--json`. `last_used` is in UTC, `lease` the owner of its lease."""
    manifest, used = artifact.entry.manifest, artifact.last_used
    return {
        "cache_key": artifact.entry.key,
        "path": str(artifact.entry.path),
        "uri": redact(manifest.uri),
        "requested_revision": manifest.requested_revision,
        "revision": manifest.revision,
        "bytes": manifest.size,
        "verified": manifest.verified,
        "authenticated": manifest.authenticated,
        "created": manifest.created,
        "version": manifest.version,
        "last_used": None if used is None else datetime.fromtimestamp(used, UTC).isoformat(timespec="seconds"),
        "lease": artifact.owner,
    }


def _root(options: Mapping[str, Any], environ: Mapping[str, str]) -> Any:
    return options.get("cache_dir") or default_cache_dir(environ)
