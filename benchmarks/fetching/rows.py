"""The ratios that the fetcher must reach."""

from __future__ import annotations

import os

from benchmarks.fetching.peers import (
    ARIA2C,
    ASKING_HF_TRANSFER,
    ASKING_LOOP,
    BARE_LOOP,
    CURL,
    FETCHER,
    HASHLIB,
    HF_TRANSFER,
    IMPORT,
    LEAN,
    LIMITS,
    OPENSSL,
    PEERS,
    SAME_RANGES,
    SHA256SUM,
    SNAPSHOT,
    UNDIGESTED,
    VERIFY,
)
from benchmarks.fetching.streams import SCENARIO as STREAMS
from benchmarks.fetching.streams import SPEED, hashlibs, ours
from benchmarks.measuring import Cost, MiB
from benchmarks.ratios import (
    Row,
    anonymous,
    beyond,
    cpu,
    cpu_of_a_gigabyte,
    fastest_of,
    followed,
    gigabytes,
    longer,
    of,
    scaled,
    server,
    times,
)
from benchmarks.surroundings import processor_flags

UNVERIFIED_PEERS = (HF_TRANSFER, ARIA2C, CURL, SNAPSHOT)


def allowed(_: Cost) -> float:
    """Return the memory limit in bytes: the default `--memory-limit`, and 64 MiB for interpreter and TLS."""
    return float((256 + 64) * MiB)


def _verified(name: str, scenario: str, *, sha256sum: float, openssl: float) -> list[Row]:
    checks = ((SHA256SUM, sha256sum), (OPENSSL, openssl))
    return [
        Row(
            name,
            f"the fastest peer, then parallel `{check}`",
            followed(fastest_of(scenario, PEERS), of(scenario, check)),
            of(scenario, FETCHER),
            floor=floor,
            hashing="software",
        )
        for check, floor in checks
    ]


def _with_extensions(name: str, scenario: str) -> list[Row]:
    """Return the rows for processors with SHA extensions: what verification adds, and whether all processors were used."""
    hashing = beyond(of(scenario, FETCHER, cpu_of_a_gigabyte), of(scenario, UNDIGESTED, cpu_of_a_gigabyte))
    moving = followed(of(scenario, UNDIGESTED, server), of(scenario, UNDIGESTED, cpu))
    all_of_it = followed(moving, times(of(scenario, UNDIGESTED, gigabytes), of(STREAMS, SPEED)))
    return [
        Row(f"verified minus unverified, CPU s/GB, {name}", "one core's `openssl speed`",
            hashing, of(STREAMS, SPEED), ceiling=1.1, hashing="extensions"),
        Row(f"verified minus unverified, CPU s/GB, {name}", "`openssl dgst` over the files",
            hashing, times(of(scenario, OPENSSL, cpu), of(scenario, UNDIGESTED, lambda cost: 1 / gigabytes(cost)))),
        Row(f"verified wall time, {name}", "(server's CPU + own unverified CPU + bytes / `openssl speed`) / processors",
            of(scenario, FETCHER), scaled(all_of_it, 1 / (os.cpu_count() or 1)), ceiling=1.15, hashing="extensions"),
        Row(f"unverified wall time, {name}", "the bare loop",
            of(scenario, BARE_LOOP), of(scenario, UNDIGESTED), floor=0.85),
        Row(f"unverified wall time, {name}", "the fastest peer",
            fastest_of(scenario, PEERS), of(scenario, UNDIGESTED), floor=1),
    ]  # fmt: skip


def _streams(count: int, *, floor: float) -> Row:
    name = f"SHA-256 of {count} stream{'s' if count > 1 else ''}, one processor"
    return Row(name, "hashlib", of(STREAMS, hashlibs(count)), of(STREAMS, ours(count)), floor=floor, hashing="software")


MANY_STREAMS = 4.0 if "avx512f" in processor_flags() else 2.5
NOT_SLOWER = 0.97
"""The ratio of hashlib to itself on a noisy machine."""

ROWS = (
    *_with_extensions("4 shards", "four"),
    *_with_extensions("16 shards", "shards"),
    *_with_extensions("16 shards over TLS", "tls"),
    Row("verified wall time, 16 shards", "the fastest peer, then parallel `openssl dgst`",
        followed(fastest_of("shards", PEERS), of("shards", OPENSSL)), of("shards", FETCHER), floor=1.4, hashing="extensions"),
    Row("one file of 1 KiB, whole process, s", "more than `import aiohttp`",
        beyond(of("start", FETCHER), of("start", IMPORT)), of("start", IMPORT, lambda _: 1.0), ceiling=0.08),
    Row("one file of 1 KiB, whole process", "snapshot_download", of("start", SNAPSHOT), of("start", FETCHER), floor=2),
    Row("2,000 files of 128 KiB, verified", "a bare loop that makes the same requests",
        of("small", FETCHER), of("small", ASKING_LOOP), ceiling=2),
    Row("2,000 files of 128 KiB, verified", "hf_transfer with the same requests",
        of("small", ASKING_HF_TRANSFER), of("small", FETCHER), floor=4),
    Row("2,000 files of 128 KiB, verified", "hf_transfer, which asks no Hub", of("small", HF_TRANSFER), of("small", FETCHER)),
    Row("20,000 files of 1 KiB", "2,000 of them", of("tiny-20000", FETCHER), of("tiny-2000", FETCHER), ceiling=11),
    Row("hit of 20,000 files", "hit of 10", of("hit-20000", FETCHER), of("hit-10", FETCHER), ceiling=3),
    Row("unverified wall time, 4 shards", "the fastest of hf_transfer, aria2c, curl, snapshot_download",
        fastest_of("four", UNVERIFIED_PEERS), of("four", UNDIGESTED), floor=1.2),
    Row("processor time, 4 shards", "hf_transfer, same ranges", of("lean", SAME_RANGES, cpu), of("lean", LEAN, cpu), floor=1.7),
    Row("processor time, 4 shards", "the bare loop", of("lean", LEAN, cpu), of("lean", BARE_LOOP, cpu), ceiling=1.5),
    _streams(16, floor=MANY_STREAMS),
    _streams(4, floor=1.3),
    *(_streams(count, floor=NOT_SLOWER) for count in (1, 2, 8)),
    *_verified("verified wall time, 16 shards", "shards", sha256sum=3.0, openssl=2.2),
    *_verified("verified wall time, 4 shards", "four", sha256sum=1.8, openssl=1.2),
    Row("verified wall time, 1 file", "the longer of its unverified transfer and hashlib over the file",
        of("single", FETCHER), longer(of("single", UNDIGESTED), of("single", HASHLIB)), ceiling=1.1),
    *_verified("TLS, verified wall time, 16 shards", "tls", sha256sum=2.0, openssl=2.0),
    Row("link of 20 ms, 2 Gbit/s, a third for one flow, verified", "the fastest of all others, which fills the link",
        fastest_of("link", (*PEERS, *LIMITS)), of("link", FETCHER), floor=0.95),
    Row("`fetcher verify`, warm files", "parallel `sha256sum`",
        of("verify", SHA256SUM), of("verify", VERIFY), floor=20, hashing="software"),
    Row("`fetcher verify`, warm files", "parallel `openssl dgst`",
        of("verify", OPENSSL), of("verify", VERIFY), floor=10, hashing="software"),
    Row("peak anonymous memory, 1 GiB", "`--memory-limit` + 64 MiB",
        of("growth-1", FETCHER, anonymous), of("growth-1", FETCHER, allowed), ceiling=1),
    Row("peak anonymous memory, 8 GiB", "`--memory-limit` + 64 MiB",
        of("growth-8", FETCHER, anonymous), of("growth-8", FETCHER, allowed), ceiling=1),
    Row("peak anonymous memory, 8 GiB", "the same at 1 GiB",
        of("growth-8", FETCHER, anonymous), of("growth-1", FETCHER, anonymous), ceiling=1.1),
)  # fmt: skip
