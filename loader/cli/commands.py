"""What `warm`, `status` and `evict` do, between parsed options and a result on stdout."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fetcher.command.results import print_result
from fetcher.errors import UsageError
from fetcher.events import Subscriber
from fetcher.host.memory import memory_left
from fetcher.quantities import size
from fetcher.telemetry.wording import counted, duration, rate, share
from loader.cli.options import threads_for
from loader.filesystems import filesystem_of, read_ahead_advice, read_ahead_kib
from loader.reading.strategy import choose_strategy
from loader.residency.holders import holders
from loader.residency.model_files import ModelFile, look, model_files, present, total
from loader.residency.page_cache import Residency, evict, together
from loader.residency.warming import bytes_in, warm, what_fits
from loader.residency.windows import share as part_of
from loader.residency.windows import width_for, windows


def warmed(paths: Sequence[str], found: Mapping[str, Any], on_event: Subscriber) -> dict[str, Any]:
    """The result's fields. Raises TooLarge before the first byte, and what `warming.warm` does."""
    rank, ranks = found.get("rank", 0), found.get("world_size", 1)
    if rank >= ranks:
        raise UsageError(f"--rank {rank} is none of --world-size {ranks}: ranks count from 0")
    chosen = model_files(paths)
    plan = tuple(windows([member.size for member in chosen], width=width_for(total(chosen), ranks)))
    fits = plan
    if not together(look(chosen, closely=False)).complete:
        # All ranks' parts are compared, since they share the machine.
        fits = what_fits(plan, memory_left().pages, partial=found.get("partial", False))
    threads = found.get("threads") or threads_for(_main(chosen).path)
    result = warm(chosen, part_of(fits, rank=rank, ranks=ranks), threads=threads, on_event=on_event)
    return {
        "paths": list(paths),
        "files": result.files,
        "bytes": result.bytes,
        "bytes_read": result.read,
        "bytes_left_out": bytes_in(plan) - bytes_in(fits),
        "seconds": round(result.seconds, 3),
        "rate": round(result.read / result.seconds) if result.seconds else 0,
        "read_by": list(result.means),
        "before": _residency(result.before),
        "after": _residency(result.after),
        "rank": rank,
        "world_size": ranks,
    }


def print_warmed(fields: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_result(json.dumps(fields))
        return
    what = f"{counted(fields['files'], 'file')}, {size(fields['bytes'])}"
    if fields["world_size"] > 1:
        what += f" (part {fields['rank']} of {fields['world_size']})"
    how = "nothing had to be read"
    if fields["bytes_read"]:
        speed = f"{duration(fields['seconds'])}{rate(fields['bytes_read'], fields['seconds'])}"
        how = f"{size(fields['bytes_read'])} read in {speed}, by {' and '.join(fields['read_by'])}"
    cold = f"; {size(fields['bytes_left_out'])} left cold, as they do not fit" if fields["bytes_left_out"] else ""
    now = f"{_shown(fields['after'])} in memory (was {_shown(fields['before'])}; told by {fields['after']['method']})"
    print_result(f"{what}: {now}; {how}{cold}")


def status(paths: Sequence[str]) -> dict[str, Any]:
    """Everything that is known, file by file."""
    chosen = model_files(paths)
    seen = look(chosen, closely=True)
    whole = together(seen)
    place = filesystem_of(Path(_main(chosen).path))
    left = memory_left().pages
    strategy, reason = choose_strategy(place.kind, whole, lambda: left, whole.total)
    read_ahead = read_ahead_kib(place.device)
    return {
        "paths": list(paths),
        **_residency(whole),
        "files": [{"path": member.path, **_residency(told)} for member, told in zip(chosen, seen, strict=True)],
        "filesystem": {"kind": place.kind, "mounted_at": place.point, "source": place.source, "network": place.network},
        "strategy": strategy,
        "strategy_reason": reason,
        "read_ahead_kib": read_ahead,
        "read_ahead_advice": read_ahead_advice(place, read_ahead),
        "memory_left": left.bytes,
        "memory_left_reason": left.reason,
    }


def print_status(fields: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_result(json.dumps(fields))
        return
    for entry in fields["files"]:
        print_result(f"{_shown(entry):>7} of {size(entry['bytes']):>10}  {entry['method']:9}  {entry['path']}")
    place = fields["filesystem"]
    print_result(f"total       {_shown(fields)} of {size(fields['bytes'])} in memory, told by {fields['method']}")
    print_result(f"filesystem  {place['kind']} at {place['mounted_at']} ({place['source']})")
    print_result(f"strategy    {fields['strategy']}: {fields['strategy_reason']}")
    if fields["read_ahead_kib"] is not None:
        print_result(f"read-ahead  {fields['read_ahead_advice'] or str(fields['read_ahead_kib']) + ' KiB'}")
    print_result(f"room        {size(fields['memory_left'])} ({fields['memory_left_reason']})")


def dropped(paths: Sequence[str]) -> dict[str, Any]:
    """What went, and of what stayed, why."""
    chosen = present(paths)
    before = look(chosen, closely=False)
    after = [_evict(member) for member in chosen]
    stayed = [
        {"path": member.path, **_residency(told), "why": _why(member, told)}
        for member, told in zip(chosen, after, strict=True)
        if told.resident != 0
    ]
    return {
        "paths": list(paths),
        "files": len(chosen),
        "before": _residency(together(before)),
        "after": _residency(together(after)),
        "stayed": stayed,
    }


def print_dropped(fields: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_result(json.dumps(fields))
        return
    for entry in fields["stayed"]:
        print_result(f"stayed: {_shown(entry)} of {entry['path']}: {entry['why']}")
    now = f"{_shown(fields['after'])} of {size(fields['after']['bytes'])} in memory (was {_shown(fields['before'])})"
    print_result(f"{counted(fields['files'], 'file')}: {now}; told by {fields['after']['method']}")


def _evict(member: ModelFile) -> Residency:
    with member.opened() as descriptor:
        return evict(descriptor)


def _why(member: ModelFile, told: Residency) -> str:
    if told.method == "memory":
        return "its filesystem is memory; remove the file to free it"
    if told.resident is None:
        return "what stayed can't be told here"
    if found := holders(member):
        return ", ".join(map(str, found))
    if told.method == "sampled":
        return "an estimate, and looking brought some of it in"
    return "nobody seen from here maps it; a process of another container may, or it is being read"


def _main(chosen: Sequence[ModelFile]) -> ModelFile:
    return next((member for member in chosen if member.shard), chosen[0])


def _residency(told: Residency) -> dict[str, Any]:
    return {"bytes": told.total, "resident": told.resident, "fraction": told.fraction, "method": told.method}


def _shown(fields: Mapping[str, Any]) -> str:
    return share(fields["resident"], fields["bytes"])
