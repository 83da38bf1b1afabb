"""The ratios that the fetcher must reach."""

from __future__ import annotations

from benchmarks.fetching.peers import (
    ARIA2C,
    BARE_LOOP,
    CURL,
    FETCHER,
    HASHLIB,
    HF_TRANSFER,
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
from benchmarks.fetching.streams import hashlibs, ours
from benchmarks.measuring import Cost, MiB
from benchmarks.ratios import Row, anonymous, cpu, fastest_of, followed, longer, of
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
            sha256=True,
        )
        for check, floor in checks
    ]


def _streams(count: int, *, floor: float) -> Row:
    name = f"SHA-256 of {count} stream{'s' if count > 1 else ''}, one processor"
    return Row(name, "hashlib", of(STREAMS, hashlibs(count)), of(STREAMS, ours(count)), floor=floor, sha256=True)


MANY_STREAMS = 4.0 if "avx512f" in processor_flags() else 2.5
NOT_SLOWER = 0.97
"""The ratio of hashlib to itself on a noisy machine."""

ROWS = (
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
        of("verify", SHA256SUM), of("verify", VERIFY), floor=20, sha256=True),
    Row("`fetcher verify`, warm files", "parallel `openssl dgst`",
        of("verify", OPENSSL), of("verify", VERIFY), floor=10, sha256=True),
    Row("peak anonymous memory, 1 GiB", "`--memory-limit` + 64 MiB",
        of("growth-1", FETCHER, anonymous), of("growth-1", FETCHER, allowed), ceiling=1),
    Row("peak anonymous memory, 8 GiB", "`--memory-limit` + 64 MiB",
        of("growth-8", FETCHER, anonymous), of("growth-8", FETCHER, allowed), ceiling=1),
    Row("peak anonymous memory, 8 GiB", "the same at 1 GiB",
        of("growth-8", FETCHER, anonymous), of("growth-1", FETCHER, anonymous), ceiling=1.1),
)  # fmt: skip
