"""`fetcher init`, `pin`, `unpin`, `hold` and `release`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from fetcher.cli.options import FOR, LIMITS, POD_UID, ROOT
from fetcher.cli.roots import root_of
from fetcher.command.common_options import JSON
from fetcher.command.options import values
from fetcher.command.results import print_result
from fetcher.errors import UsageError

if TYPE_CHECKING:
    from fetcher.cache import Standing


def init(arguments: argparse.Namespace, environ: Mapping[str, str]) -> None:
    """Set the limits of a root, and print all of them. Raises UsageError, StoreError."""
    from fetcher.cache import MIN_IDLE, CacheLimits
    from fetcher.cache import init as initialize
    from fetcher.telemetry.wording import duration

    options = values((*LIMITS, JSON), arguments, environ)
    given = CacheLimits(options.get("max_size"), options.get("min_free"), options.get("min_idle"))
    limits = initialize(Path(arguments.root).absolute(), given)
    fields = {
        "max_size": None if limits.max_size is None else str(limits.max_size),
        "min_free": None if limits.min_free is None else str(limits.min_free),
        "min_idle": limits.min_idle,
    }
    if options.get("json"):
        print_result(json.dumps({"root": str(Path(arguments.root).absolute()), **fields}))
        return
    for name, amount in (("max size", limits.max_size), ("min free", limits.min_free)):
        print_result(f"{name:10}{'no limit' if amount is None else amount.shown()}")
    print_result(f"{'min idle':10}{duration(MIN_IDLE if limits.min_idle is None else limits.min_idle)}")


def pin(arguments: argparse.Namespace, environ: Mapping[str, str]) -> None:
    from fetcher.cache import pin as keep

    options = values((*ROOT, FOR), arguments, environ)
    _print(keep(root_of(options, environ), arguments.what, seconds=options.get("for")), as_json=options.get("json", False))


def unpin(arguments: argparse.Namespace, environ: Mapping[str, str]) -> None:
    from fetcher.cache import unpin as give_up

    options = values(ROOT, arguments, environ)
    _print(give_up(root_of(options, environ), arguments.what), as_json=options.get("json", False))


def hold(arguments: argparse.Namespace, environ: Mapping[str, str]) -> None:
    """Hold an artifact for a pod. Raises UsageError if neither the pod nor an end is given."""
    from fetcher.cache import hold as keep

    options = values((*ROOT, FOR, POD_UID), arguments, environ)
    if "pod_uid" not in options:
        raise UsageError("say which pod holds the artifact: --pod-uid UID, or FETCHER_POD_UID from the downward API")
    standing = keep(root_of(options, environ), arguments.what, holder=options["pod_uid"], seconds=options.get("for"))
    _print(standing, as_json=options.get("json", False))


def release(arguments: argparse.Namespace, environ: Mapping[str, str]) -> None:
    from fetcher.cache import release as give_up

    options = values((*ROOT, POD_UID), arguments, environ)
    standing = give_up(root_of(options, environ), arguments.what, holder=options.get("pod_uid"))
    _print(standing, as_json=options.get("json", False))


def _print(standing: Standing, *, as_json: bool) -> None:
    """Print the pins and holds of an artifact that last."""
    key = standing.entry.key
    claims = [{"kind": each.kind, "holder": each.holder, "until": _moment(each.until)} for each in standing.claims]
    if as_json:
        print_result(json.dumps({"cache_key": key, "claims": claims}))
        return
    for each in standing.claims:
        end = f"until {_moment(each.until)}" if each.until is not None else "for good"
        print_result(f"{key}  {'pinned' if each.kind == 'pin' else f'held by {each.holder}'} {end}")
    if not standing.claims:
        print_result(f"{key}  neither pinned nor held")


def _moment(until: float | None) -> str | None:
    return None if until is None else datetime.fromtimestamp(until, UTC).isoformat(timespec="seconds")
