"""`fetcher rm`, `prune`, `evict` and `gc`: what is removed, as a table or as JSON."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from fetcher.cli.options import DRY_RUN, FORCE, GC, PRUNE, ROOT
from fetcher.cli.roots import root_of
from fetcher.cli.tables import ago, print_rows
from fetcher.command.options import values
from fetcher.command.results import print_result
from fetcher.errors import CacheBusy, UsageError
from fetcher.quantities import size

if TYPE_CHECKING:
    from fetcher.cache import Garbage, Pruned, Removed


def rm(arguments: argparse.Namespace, environ: Mapping[str, str]) -> None:
    """Remove the named artifacts. Raises NotFound, PinnedArtifact, InUse."""
    from fetcher.cache import remove

    options = values((*ROOT, FORCE, DRY_RUN), arguments, environ)
    dry_run = options.get("dry_run", False)
    removed = remove(root_of(options, environ), arguments.what, force=options.get("force", False), dry_run=dry_run)
    _print_removed(removed, options, {}, dry_run=dry_run)


def prune(arguments: argparse.Namespace, environ: Mapping[str, str]) -> None:
    """Remove what a rule chooses. Raises UsageError without a rule, CacheBusy if the aim was not reached."""
    from fetcher.cache import Rule
    from fetcher.cache import prune as apply

    options = values((*ROOT, *PRUNE, DRY_RUN), arguments, environ)
    rule, dry_run = Rule(options.get("to"), options.get("unused_for")), options.get("dry_run", False)
    if rule.to is None and rule.unused_for is None:
        raise UsageError("say what to remove: --to SIZE or --unused-for DURATION; `fetcher rm KEY` removes one artifact")
    result = apply(root_of(options, environ), rule, min_idle=options.get("min_idle"), dry_run=dry_run)
    _print_removed(result.removed, options, {"kept": result.kept, "used": result.used}, dry_run=dry_run)
    if result.short:
        raise CacheBusy(_shortfall(result))


def evict(arguments: argparse.Namespace, environ: Mapping[str, str]) -> None:
    """`fetcher rm` for what is named, `fetcher prune` for a rule."""
    options = values(PRUNE, arguments, environ)
    if arguments.what and ("to" in options or "unused_for" in options):
        raise UsageError("an artifact is named, and a rule is given too; give one of them")
    (rm if arguments.what else prune)(arguments, environ)


def gc(arguments: argparse.Namespace, environ: Mapping[str, str]) -> None:
    """Delete what killed and finished processes left; with --every until a signal comes. Raises as `fetcher.cache.gc`."""
    from fetcher.cache import RESUMABLE, KubeletPods
    from fetcher.cache import gc as collect

    options = values((*ROOT, *GC, DRY_RUN), arguments, environ)
    root, dry_run = root_of(options, environ), options.get("dry_run", False)
    pods = None
    if "kubelet_pods" in options:
        if "pod_uid" not in options:
            raise UsageError("--kubelet-pods needs the UID of this pod: --pod-uid, or FETCHER_POD_UID from the downward API")
        pods = KubeletPods(options["kubelet_pods"], options["pod_uid"])
    while True:
        found = collect(root, unused_for=options.get("unused_for", RESUMABLE), pods=pods, dry_run=dry_run)
        _print_garbage(found, as_json=options.get("json", False), dry_run=dry_run)
        if "every" not in options:
            return
        time.sleep(options["every"])


def _print_garbage(found: Sequence[Garbage], *, as_json: bool, dry_run: bool) -> None:
    if as_json:
        fields = [{"kind": each.kind, "path": str(each.path), "bytes": each.bytes, "why": each.why} for each in found]
        print_result(json.dumps({"dry_run": dry_run, "removed": fields}))
        return
    print_rows([{"what": each.kind, "size": size(each.bytes), "why": each.why, "path": str(each.path)} for each in found])
    _print_total(len(found), sum(each.bytes for each in found), dry_run=dry_run)


def _print_removed(removed: Sequence[Removed], options: Mapping[str, Any], more: Mapping[str, Any], *, dry_run: bool) -> None:
    if options.get("json"):
        print_result(json.dumps({"dry_run": dry_run, "removed": [asdict(each) for each in removed], **more}))
        return
    now = time.time()
    print_rows(
        [
            {
                "key": each.key,
                "size": size(each.bytes),
                "last used": ago(each.last_used, now),
                "why": each.why,
                "source": each.uri,
            }
            for each in removed
        ]
    )
    _print_total(len(removed), sum(each.bytes for each in removed), dry_run=dry_run)


def _print_total(count: int, total: int, *, dry_run: bool) -> None:
    verb = "would be removed" if dry_run else "removed"
    print_result(f"{count} {verb}, {size(total)}")


def _shortfall(result: Pruned) -> str:
    kept = ", ".join(f"{key} is {reason}" for key, reason in sorted(result.kept.items()))
    return (
        f"the cache still occupies {size(result.used)}, {size(result.short)} more than asked: the rest is pinned, in use or "
        f"used recently{f' ({kept})' if kept else ''}; `fetcher list --sort used` shows it"
    )
