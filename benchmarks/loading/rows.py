"""The ratios that the loader must reach."""

from __future__ import annotations

from benchmarks.loading.contenders import (
    BUFFERED,
    CAT,
    COPY,
    COPYING,
    CP,
    FIO,
    FIRST,
    LOADER,
    ONE_FILE,
    PEERS,
    SAFE_OPEN,
    SAFE_OPEN_FIRST,
    STREAMED,
    WARM,
)
from benchmarks.measuring import Cost
from benchmarks.ratios import Row, fastest_of, longer, of, scaled
from loader.reading.reader import WINDOW


def first(cost: Cost) -> float:
    return cost.first or 0.0


def beyond(cost: Cost) -> float:
    return float(cost.beyond or 0)


def window(_: Cost) -> float:
    """Return the maximum bytes of read-ahead."""
    return float(WINDOW)


def residency(cost: Cost) -> float:
    return cost.residency or 0.0


def all_of_it(_: Cost) -> float:
    return 1.0


ROWS = (
    Row("cold, to tensors, 4 shards: rate", "fio, direct, the best queue depth",
        of("limit", FIO), of("limit", LOADER), floor=0.9),
    Row("cold, to tensors, 4 shards", "the fastest peer", fastest_of("cold", PEERS), of("cold", LOADER), floor=1),
    Row("cold, to tensors, 4 shards", "`safe_open`", of("cold", SAFE_OPEN), of("cold", LOADER), floor=2),
    Row("cold, one file instead of 4 shards", "the 4 shards", of("cold", ONE_FILE), of("cold", LOADER), ceiling=1.1),
    Row("cold, time to the first tensor", "own full load", of("cold", STREAMED, first), of("cold", LOADER), ceiling=0.1),
    Row("warm, into own memory, 4 shards", "the fastest peer that copies",
        fastest_of("warm", COPYING), of("warm", BUFFERED), floor=1.5),
    Row("warm, time to the first tensor", "`safe_open`",
        of("first", SAFE_OPEN_FIRST, first), of("first", FIRST, first), floor=1),
    Row("`loader warm`, cold", "the lesser of 1.3 times `cat` and 0.95 times fio",
        longer(scaled(of("pages", CAT), 1 / 1.3), scaled(of("pages", FIO), 1 / 0.95)), of("pages", WARM), floor=1),
    Row("`loader warm`, cold", "`cat > /dev/null`", of("pages", CAT), of("pages", WARM), floor=1),
    Row("`loader warm`, residency afterwards", "all of it",
        of("pages", WARM, residency), of("pages", WARM, all_of_it), floor=1),
    Row("`loader copy` to tmpfs, verified, warm source", "`cp -r`", of("copy", CP), of("copy", COPY), floor=1.5),
    Row("memory beyond the tensors, cold, everything kept", "the window, 512 MiB",
        of("cold", LOADER, beyond), of("cold", LOADER, window), ceiling=1),
    Row("memory beyond the tensors, warm, everything kept", "the window, 512 MiB",
        of("warm", BUFFERED, beyond), of("warm", BUFFERED, window), ceiling=1),
    Row("memory, streamed, nothing kept", "the window, 512 MiB",
        of("cold", STREAMED, beyond), of("cold", STREAMED, window), ceiling=1),
)  # fmt: skip
