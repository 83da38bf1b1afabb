"""The scenarios: shapes, contenders and conditions. `running` runs them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from benchmarks.fetching.peers import (
    ARIA2C,
    ASKING_HF_TRANSFER,
    ASKING_LOOP,
    BARE_LOOP,
    CHECKS,
    CURL,
    FETCHER,
    HASHLIB,
    HF_TRANSFER,
    IMPORT,
    KSERVE,
    LEAN,
    LIMITS,
    PEERS,
    SAME_RANGES,
    SNAPSHOT,
    UNDIGESTED,
    VERIFY,
    VERIFY_FULL,
)
from benchmarks.publishing import MiB, Shape

GiB = 1024 * MiB
MANY = 64
"""A scenario with more files is scaled by their number, otherwise by their size."""

Kind = Literal["fetch", "resume", "hit", "verify", "disk"]

EVERYBODY = (FETCHER, UNDIGESTED, *PEERS, *LIMITS, *CHECKS)


@dataclass(frozen=True, slots=True)
class Scenario:
    """A scenario. `connections`: maximum for each contender. `on_disk`: the copy goes to a disk instead of memory."""

    name: str
    title: str
    shape: Shape
    contenders: tuple[str, ...] = EVERYBODY
    kind: Kind = "fetch"
    connections: int = 16
    tls: bool = False
    link: bool = False
    on_disk: bool = False

    def scaled(self, scale: float) -> Scenario:
        files, size = self.shape.files, self.shape.size
        if scale == 1 or (size < MiB and files == 1):
            return self
        shape = Shape(max(1, int(files * scale)), size) if files > MANY else Shape(files, max(1, int(size * scale)))
        return replace(self, shape=shape)


SHARDS = Shape(16, 256 * MiB)
FOUR = Shape(4, GiB)
SINGLE = Shape(1, 4 * GiB)
SMALL = Shape(2000, 128 * 1024)

SCENARIOS = (
    Scenario("start", "start and end: one file of 1 KiB", Shape(1, 1024), (*EVERYBODY, IMPORT)),
    Scenario("small", "many small files", SMALL,
             (FETCHER, UNDIGESTED, HF_TRANSFER, ASKING_HF_TRANSFER, SNAPSHOT, CURL, BARE_LOOP, ASKING_LOOP, *CHECKS)),
    Scenario("tiny-2000", "2,000 files of 1 KiB", Shape(2000, 1024), (FETCHER, ASKING_LOOP)),
    Scenario("tiny-20000", "20,000 files of 1 KiB", Shape(20_000, 1024), (FETCHER, ASKING_LOOP)),
    Scenario("hit-20000", "20,000 files of 1 KiB, already complete", Shape(20_000, 1024), (FETCHER,), kind="hit"),
    Scenario("hit-10", "10 files of 1 KiB, already complete", Shape(10, 1024), (FETCHER,), kind="hit"),
    Scenario("four", "4 shards", FOUR),
    Scenario("lean", "4 shards, 4 connections, equal ranges, nothing verified", FOUR,
             (LEAN, SAME_RANGES, BARE_LOOP), connections=4),
    Scenario("link", "4 shards over a link of 20 ms and 2 Gbit/s, at most a third of it for a connection", FOUR, link=True),
    Scenario("single", "1 file", SINGLE, (*EVERYBODY, HASHLIB)),
    Scenario("shards", "16 shards", SHARDS),
    Scenario("tls", "16 shards over TLS", SHARDS, tls=True),
    Scenario("resume", "16 shards, the second run after a kill at half", SHARDS,
             (FETCHER, HF_TRANSFER, SNAPSHOT, ARIA2C, KSERVE), kind="resume"),
    Scenario("hit", "16 shards, already complete", SHARDS, (FETCHER, SNAPSHOT, KSERVE, ARIA2C), kind="hit"),
    Scenario("verify", "16 shards, warm: verified again", SHARDS, (VERIFY, VERIFY_FULL, *CHECKS), kind="verify"),
    Scenario("disk", "16 shards to disk, synced", SHARDS, (FETCHER, UNDIGESTED, *PEERS, BARE_LOOP), kind="disk", on_disk=True),
    *(
        Scenario(f"connections-{count}", f"{count} connections", Shape(4, 256 * MiB),
                 (FETCHER, UNDIGESTED, HF_TRANSFER, ARIA2C, CURL, BARE_LOOP), connections=count)
        for count in (4, 8, 16, 32, 64)
    ),
    *(
        Scenario(f"growth-{size}", f"{size} GiB, to disk, not synced", Shape(4, size * GiB // 4),
                 (FETCHER, UNDIGESTED, HF_TRANSFER, ARIA2C, BARE_LOOP), on_disk=True)
        for size in (1, 2, 4, 8)
    ),
)  # fmt: skip
"""Scenarios of one shape are adjacent, so that the served files are written once."""
