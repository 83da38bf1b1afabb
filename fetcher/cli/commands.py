"""What each command does, between parsed options and an exit code. Results go to stdout, everything else to stderr."""

from __future__ import annotations

import argparse
import json
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fetcher.artifact import ArtifactRef, redact
from fetcher.cli.options import FULL, ROOT, SELECTION
from fetcher.cli.parser import COMMANDS
from fetcher.cli.signals import run_interruptibly
from fetcher.command.options import values
from fetcher.command.results import print_result
from fetcher.errors import DigestMismatch, FetchError, NewerFormat, NotFound, UsageError
from fetcher.events import Subscriber, Warmed, Warned
from fetcher.settings import Settings, default_cache_dir

if TYPE_CHECKING:
    from fetcher.engine.preview import Preview
    from fetcher.engine.verification import VerifyReport
    from fetcher.store.catalog import Entry


def options_of(given: argparse.Namespace, environ: Mapping[str, str]) -> dict[str, Any]:
    """Name → value of the command's options. Raises UsageError, ConfigurationError."""
    if getattr(given, "dest", None) is not None and given.cache_dir is not None:
        raise UsageError("--cache-dir and --dest are two places for one artifact; give one of them")
    found = values(COMMANDS[given.command][1], given, environ)
    if found.get("warm"):
        if found.get("page_cache") == "drop":
            raise UsageError("--warm keeps in memory what --page-cache drop takes out of it; give one of them")
        found["page_cache"] = "keep"
    return found


def reference(given: argparse.Namespace, found: Mapping[str, Any]) -> ArtifactRef:
    """What is asked for. Raises UsageError."""
    if not given.uri.strip():
        raise UsageError("the URI is empty; give one such as hf://org/model")
    return ArtifactRef(given.uri, found.get("revision"), found.get("include", ()), found.get("exclude", ()))


def fetch(ref: ArtifactRef, settings: Settings, on_event: Subscriber) -> dict[str, Any]:
    """The result's fields. A cached artifact needs no event loop."""
    from fetcher import engine

    request = engine.recovered(ref, settings)
    artifact = engine.find_cached(request, on_event) or run_interruptibly(engine.bring(request, on_event))
    return asdict(artifact) | {"path": str(artifact.path)}


def warm(path: str, on_event: Subscriber) -> dict[str, Any]:
    """`warm`: what `loader warm --json` tells of the artifact at `path`. Raises no error of warming: the artifact is complete
    whatever memory holds. `warm` is None then, `warm_problem` says why, and so does a warning."""
    from loader.cli.commands import warmed

    try:
        fields = warmed([path], {}, on_event)
    except (FetchError, OSError, ValueError, RuntimeError, MemoryError) as error:  # RuntimeError: no more threads
        reason = error.reason if isinstance(error, FetchError) else type(error).__name__
        on_event(Warned(reason, f"the fetch is complete, and it was not warmed: {error}"))
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
    """What the selection leaves out was not judged: its path may hold what a terminal obeys, or can't show."""
    return "".join(ascii(each)[1:-1] if unicodedata.category(each) in ("Cc", "Cs") else each for each in path)


def key(given: argparse.Namespace, environ: Mapping[str, str]) -> None:
    print_result(reference(given, values(SELECTION, given, environ)).key)


def list_(given: argparse.Namespace, environ: Mapping[str, str]) -> None:
    from fetcher.quantities import size
    from fetcher.store.catalog import entries

    found = values(ROOT, given, environ)
    listed = entries(_root(found, environ), on_newer=_say_newer)
    if found.get("json"):
        print_result(json.dumps([_entry(entry) for entry in listed]))
        return
    for entry in listed:
        manifest = entry.manifest
        revision = (manifest.revision or "-")[:12]
        print_result(f"{entry.key}  {size(manifest.size):>10}  {revision:12}  {manifest.created[:19]}  {manifest.uri}")


def show(given: argparse.Namespace, environ: Mapping[str, str]) -> None:
    from fetcher.quantities import size

    found = values(ROOT, given, environ)
    entry = _named(given.what, found, environ)
    if found.get("json"):
        files = [
            {"path": each.path, "size": each.size, "digests": [str(d) for d in each.digests]} for each in entry.manifest.files
        ]
        print_result(json.dumps(_entry(entry) | {"files": files}))
        return
    for name, value in _entry(entry).items():
        print_result(f"{name:20}{size(value) if name == 'bytes' else value if value is not None else '-'}")
    for file in entry.manifest.files:
        digest = str(file.digests[0]) if file.digests else "no digest"
        print_result(f"{size(file.size):>10}  {file.path}  {digest}")


def verify(given: argparse.Namespace, environ: Mapping[str, str], on_event: Subscriber) -> list[VerifyReport]:
    """What was found, artifact by artifact. Raises NotFound."""
    from fetcher.engine.verification import verify as check

    found = values((*ROOT, FULL), given, environ)
    chosen = [_named(given.what, found, environ)] if given.what else _all(_root(found, environ))
    return [check(entry, full=found.get("full", False), on_event=on_event) for entry in chosen]


def print_reports(reports: Sequence[VerifyReport], *, as_json: bool) -> None:
    """Raises DigestMismatch, naming the first bad file, after all were shown."""
    from fetcher.quantities import size
    from fetcher.telemetry.wording import counted, duration

    if as_json:
        print_result(json.dumps([asdict(report) | {"ok": report.ok} for report in reports]))
    for report in reports:
        if not as_json:
            how = "digests and chunks" if report.full else "chunks"
            state = f"{how} are as verified" if report.ok else counted(len(report.bad), "bad file")
            found = f"{counted(report.files, 'file')}, {size(report.bytes)}, {duration(report.seconds)}"
            print_result(f"{report.path}: {found}: {state}")
        for path, problem in report.bad:
            print(f"{report.path}/{path}: {problem}", file=sys.stderr)
    for report in reports:
        for path, problem in report.bad:
            raise DigestMismatch(f"{path} {problem}; remove {report.path} and fetch it again", path=path)


def _named(what: str, found: Mapping[str, Any], environ: Mapping[str, str]) -> Entry:
    """A directory needs no cache to be found in: a container that has one mounted may have neither a cache nor a HOME."""
    from fetcher.store.catalog import entry_at, find

    return entry_at(Path(what)) or find(_root(found, environ), what)


def _all(root: Path) -> list[Entry]:
    from fetcher.store.catalog import entries

    if not root.is_dir():
        raise NotFound(f"there is no cache {root}, so nothing was verified; name it with --cache-dir")
    return entries(root, on_newer=_say_newer)


def _say_newer(error: NewerFormat) -> None:
    print(error.sentence(), file=sys.stderr)


def _entry(entry: Any) -> dict[str, Any]:
    manifest = entry.manifest
    return {
        "cache_key": entry.key,
        "path": str(entry.path),
        "uri": redact(manifest.uri),
        "requested_revision": manifest.requested_revision,
        "revision": manifest.revision,
        "bytes": manifest.size,
        "verified": manifest.verified,
        "authenticated": manifest.authenticated,
        "created": manifest.created,
        "version": manifest.version,
    }


def _root(found: Mapping[str, Any], environ: Mapping[str, str]) -> Any:
    return found.get("cache_dir") or default_cache_dir(environ)
