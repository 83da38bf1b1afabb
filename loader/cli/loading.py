"""`loader load`: read and release every tensor, as an engine would, from files or from their source.

Shows how long an engine's start takes, and whether it succeeds.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

from fetcher.artifact import redact
from fetcher.command.results import print_result
from fetcher.events import BytesLoaded, LoadEnded, LoadPlanned, Subscriber, Warned
from fetcher.quantities import size
from fetcher.telemetry.wording import counted, duration, rate
from loader.addresses import is_remote
from loader.tensors.weights import open_weights

_SETTINGS = ("strategy", "threads", "window", "rank", "world_size", "verify", "revision")


def loaded(path: str, settings: Mapping[str, Any], on_event: Subscriber) -> dict[str, Any]:
    """Read the tensors and return the fields of the result. Raises the errors of `loader.open` and `Weights.stream`."""
    began = time.monotonic()
    weights = open_weights(
        path,
        on_warning=lambda message: on_event(Warned("Ambiguous", message)),
        **{name: settings[name] for name in _SETTINGS if name in settings},
    )
    tensors = weights.checkpoint.tensors
    total = sum(tensors[name].size for name in weights.part)
    on_event(LoadPlanned("loading", len({tensors[name].file for name in weights.part}), total, 0))
    first = None
    for info, _ in weights.stream(weights.part):
        first = first or time.monotonic() - began
        on_event(BytesLoaded(info.file, info.size))
    on_event(LoadEnded())
    seconds = time.monotonic() - began
    return {
        "path": redact(path) if is_remote(path) else path,
        "files": len(weights.checkpoint.shards),
        "tensors": len(weights.part),
        "bytes": total,
        "seconds": round(seconds, 3),
        "first_tensor_seconds": round(first or 0.0, 3),
        "rate": round(total / seconds),
        "strategy": weights.way.strategy,
        "strategy_reason": weights.way.reason,
        "fallbacks": dict(weights.fallbacks),
        "verified_by": dict(Counter(weights.verified_by.values())),
        "unverified": dict(weights.unverified),
        "threads": weights.way.threads,
        "window": weights.way.window,
        "rank": settings.get("rank", 0),
        "world_size": settings.get("world_size", 1),
    }


def print_loaded(fields: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_result(json.dumps(fields))
        return
    part = f" (part {fields['rank']} of {fields['world_size']})" if fields["world_size"] > 1 else ""
    what = f"{counted(fields['tensors'], 'tensor')}, {size(fields['bytes'])}{part}"
    took = f"{duration(fields['seconds'])}{rate(fields['bytes'], fields['seconds'])}"
    first = duration(fields["first_tensor_seconds"])
    print_result(f"{what} in {took}, first tensor after {first}; {fields['strategy']}: {fields['strategy_reason']}")
    for path, reason in fields["fallbacks"].items():
        print_result(f"{path}: {reason}; read through the page cache instead")
    for algorithm, files in fields["verified_by"].items():
        print_result(f"{counted(files, 'file')} verified by {algorithm}")
    for path, reason in fields["unverified"].items():
        print_result(f"{path}: not verified: {reason}")
