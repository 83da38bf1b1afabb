"""`loader warm`, `status` and `drop`: from parsed options to a result on stdout."""

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
from fetcher.usage import note_use
from loader.cli.options import threads_for
from loader.filesystems import filesystem_of, read_ahead_advice, read_ahead_kib
from loader.reading.strategy import choose_strategy
from loader.residency.holders import holders
from loader.residency.model_files import ModelFile, look, model_files, present, total
from loader.residency.page_cache import Residency, drop, together
from loader.residency.warming import bytes_in, warm, what_fits
from loader.residency.windows import share as part_of
from loader.residency.windows import width_for, windows


def warmed(paths: Sequence[str], settings: Mapping[str, Any], on_event: Subscriber) -> dict[str, Any]:
    """Warm the files and return the fields of the result.

    Raises UsageError, TooLarge before the first read, and the errors of `warming.warm`.
    """
    rank, ranks = settings.get("rank", 0), settings.get("world_size", 1)
    if rank >= ranks:
        raise UsageError(f"--rank {rank} must be less than --world-size {ranks}: ranks count from 0")
    files = model_files(paths)
    note_use(*paths)
    plan = tuple(windows([file.size for file in files], width=width_for(total(files), ranks)))
    fits = plan
    if not together(look(files, closely=False)).complete:
        # The parts of all ranks must fit, since the ranks share the memory of the machine.
        fits = what_fits(plan, memory_left().pages, partial=settings.get("partial", False))
    threads = settings.get("threads") or threads_for(_main(files).path)
    result = warm(files, part_of(fits, rank=rank, ranks=ranks), threads=threads, on_event=on_event)
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
        what += f" (rank {fields['rank']} of {fields['world_size']})"
    how = "no reads needed"
    if fields["bytes_read"]:
        speed = f"{duration(fields['seconds'])}{rate(fields['bytes_read'], fields['seconds'])}"
        how = f"{size(fields['bytes_read'])} read in {speed}, by {' and '.join(fields['read_by'])}"
    cold = f"; {size(fields['bytes_left_out'])} not warmed: memory has no room" if fields["bytes_left_out"] else ""
    now = f"{_shown(fields['after'])} in memory (was {_shown(fields['before'])}; method: {fields['after']['method']})"
    print_result(f"{what}: {now}; {how}{cold}")


def status(paths: Sequence[str]) -> dict[str, Any]:
    """Return the fields of the result: residency of each file, filesystem, best strategy, memory left."""
    files = model_files(paths)
    residencies = look(files, closely=True)
    whole = together(residencies)
    filesystem = filesystem_of(Path(_main(files).path))
    left = memory_left().pages
    strategy, reason = choose_strategy(filesystem.kind, whole, lambda: left, whole.total)
    read_ahead = read_ahead_kib(filesystem.device)
    return {
        "paths": list(paths),
        **_residency(whole),
        "files": [{"path": file.path, **_residency(residency)} for file, residency in zip(files, residencies, strict=True)],
        "filesystem": {
            "kind": filesystem.kind,
            "mounted_at": filesystem.point,
            "source": filesystem.source,
            "network": filesystem.network,
        },
        "strategy": strategy,
        "strategy_reason": reason,
        "read_ahead_kib": read_ahead,
        "read_ahead_advice": read_ahead_advice(filesystem, read_ahead),
        "memory_left": left.bytes,
        "memory_left_reason": left.reason,
    }


def print_status(fields: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_result(json.dumps(fields))
        return
    for entry in fields["files"]:
        print_result(f"{_shown(entry):>7} of {size(entry['bytes']):>10}  {entry['method']:9}  {entry['path']}")
    mount = fields["filesystem"]
    print_result(f"total       {_shown(fields)} of {size(fields['bytes'])} in memory; method: {fields['method']}")
    print_result(f"filesystem  {mount['kind']} at {mount['mounted_at']} ({mount['source']})")
    print_result(f"strategy    {fields['strategy']}: {fields['strategy_reason']}")
    if fields["read_ahead_kib"] is not None:
        print_result(f"read-ahead  {fields['read_ahead_advice'] or str(fields['read_ahead_kib']) + ' KiB'}")
    print_result(f"memory      {size(fields['memory_left'])} free ({fields['memory_left_reason']})")


def dropped(paths: Sequence[str]) -> dict[str, Any]:
    """Drop the files and return the fields of the result: residency before and after, and why files stayed."""
    files = present(paths)
    before = look(files, closely=False)
    after = [_drop(file) for file in files]
    stayed = [
        {"path": file.path, **_residency(residency), "why": _why(file, residency)}
        for file, residency in zip(files, after, strict=True)
        if residency.resident != 0
    ]
    return {
        "paths": list(paths),
        "files": len(files),
        "before": _residency(together(before)),
        "after": _residency(together(after)),
        "stayed": stayed,
    }


def print_dropped(fields: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_result(json.dumps(fields))
        return
    for entry in fields["stayed"]:
        print_result(f"{entry['path']}: {_shown(entry)} stayed: {entry['why']}")
    now = f"{_shown(fields['after'])} of {size(fields['after']['bytes'])} in memory (was {_shown(fields['before'])})"
    print_result(f"{counted(fields['files'], 'file')}: {now}; method: {fields['after']['method']}")


def _drop(file: ModelFile) -> Residency:
    with file.opened() as descriptor:
        return drop(descriptor)


def _why(file: ModelFile, residency: Residency) -> str:
    if residency.method == "memory":
        return "its filesystem is memory; remove the file to free it"
    if residency.resident is None:
        return "residency cannot be measured on this system"
    if processes := holders(file):
        return ", ".join(map(str, processes))
    if residency.method == "sampled":
        return "this is an estimate, and sampling read some pages"
    return "no process visible here maps it; a process in another container may map or read it"


def _main(files: Sequence[ModelFile]) -> ModelFile:
    """The first shard, or the first file if no file is a shard."""
    return next((file for file in files if file.shard), files[0])


def _residency(residency: Residency) -> dict[str, Any]:
    return {
        "bytes": residency.total,
        "resident": residency.resident,
        "fraction": residency.fraction,
        "method": residency.method,
    }


def _shown(fields: Mapping[str, Any]) -> str:
    return share(fields["resident"], fields["bytes"])
