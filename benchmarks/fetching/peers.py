"""The contenders: name, whether they verify, and the ways to call them.

A peer with several ways runs once in each before the rounds of a scenario, and continues with the fastest, so that no peer is
measured with settings for another shape.
"""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.fetching.commands import (
    Command,
    aria2,
    bare_loop,
    curl,
    curl_ranges,
    fetch,
    hashlib,
    hf_transfer,
    importing,
    in_parallel,
    kserve,
    snapshot,
    verify,
)
from benchmarks.installation import missing
from benchmarks.publishing import MiB


@dataclass(frozen=True, slots=True)
class Contender:
    """A contender. `ways` is never empty. `needs`: a program that must be on the PATH, and its Debian package.

    `hashes`: it prints the SHA-256 of every served file.
    """

    name: str
    ways: tuple[Command, ...]
    verified: bool = False
    fetches: bool = True
    hashes: bool = False
    needs: tuple[str, str] | None = None

    def missing(self) -> str | None:
        """Return the remedy if the program of `needs` is missing, or None."""
        return missing(*self.needs) if self.needs else None


FETCHER, UNDIGESTED, LEAN = "fetcher", "fetcher, no digests listed", "fetcher, lean"
VERIFY, VERIFY_FULL = "fetcher verify", "fetcher verify --full"
HF_TRANSFER, SNAPSHOT, ARIA2C, CURL, KSERVE = "hf_transfer", "snapshot_download", "aria2c", "curl", "kserve-storage"
CURL_RANGES = "curl processes, a range each"
SAME_RANGES, BARE_LOOP = "hf_transfer, same ranges", "bare loop"
ASKING_HF_TRANSFER, ASKING_LOOP = "hf_transfer, asking the Hub", "bare loop, asking the Hub"
IMPORT = "python -c 'import aiohttp'"
SHA256SUM, OPENSSL, HASHLIB = "sha256sum", "openssl dgst", "hashlib"

LIMITS = (BARE_LOOP, CURL_RANGES)
"""Written for this benchmark to show the limit of the machine. Nobody fetches a model this way, so they are not peers."""
PEERS = (HF_TRANSFER, SNAPSHOT, ARIA2C, CURL, KSERVE)
CHECKS = (SHA256SUM, OPENSSL)

CONTENDERS = {
    each.name: each
    for each in (
        Contender(FETCHER, (fetch("--require-digests"),), verified=True),
        Contender(UNDIGESTED, (fetch(undigested=True),)),
        Contender(LEAN, (fetch(undigested=True, lean=True),)),
        Contender(
            HF_TRANSFER,
            (
                hf_transfer(chunk=10 * MiB),
                hf_transfer(chunk=16 * MiB, share=4),
                hf_transfer(chunk=10 * MiB, share=2, processes=2),
            ),
        ),
        Contender(SNAPSHOT, (snapshot(4), snapshot(8), snapshot(64))),
        Contender(ARIA2C, (aria2(), aria2(4), aria2(16)), needs=("aria2c", "aria2")),
        Contender(CURL, (curl(4), curl(64)), needs=("curl", "curl")),
        Contender(CURL_RANGES, (curl_ranges,), needs=("curl", "curl")),
        Contender(KSERVE, (kserve,)),
        Contender(SAME_RANGES, (hf_transfer(),)),
        Contender(BARE_LOOP, (bare_loop(),)),
        Contender(ASKING_LOOP, (bare_loop(asked=True),)),
        Contender(
            ASKING_HF_TRANSFER,
            (
                hf_transfer(chunk=10 * MiB, asked=True),
                hf_transfer(chunk=10 * MiB, share=2, processes=2, asked=True),
            ),
        ),
        Contender(IMPORT, (importing,), fetches=False),
        Contender(VERIFY, (verify(),), verified=True, fetches=False),
        Contender(VERIFY_FULL, (verify("--full"),), verified=True, fetches=False),
        Contender(SHA256SUM, (in_parallel("sha256sum"),), fetches=False, hashes=True),
        Contender(OPENSSL, (in_parallel("openssl dgst -sha256"),), fetches=False, hashes=True, needs=("openssl", "openssl")),
        Contender(HASHLIB, (hashlib,), fetches=False, hashes=True),
    )
}
