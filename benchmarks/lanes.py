"""Compare SHA-256 of several parallel streams by lanes and by hashlib, on one pinned processor in alternating slices."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from fetcher.integrity import lanes

SLICE = 256 * 1024
"""Bytes of each stream in one slice: a hashing thread reads this much of one of 8 files."""
SLICES = 16


def compare(streams: int, *, rounds: int) -> list[tuple[float, float]]:
    """Return seconds of processor time of hashlib and of the lanes, for each round. Needs the extension."""
    data = [memoryview(bytes([number]) * SLICE) for number in range(streams)]
    with _pinned():
        return [_round(data) for _ in range(rounds)]


def _round(data: Sequence[memoryview]) -> tuple[float, float]:
    theirs = [hashlib.sha256() for _ in data]
    ours = [lanes.new_sha256(streams=len(data)) for _ in data]

    def one_by_one() -> None:
        for hasher, piece in zip(theirs, data, strict=True):
            hasher.update(piece)

    before = after = 0.0
    for _ in range(SLICES):
        before += _seconds(one_by_one)
        after += _seconds(lambda: lanes.advance(list(zip(ours, data, strict=True))))
    if [hasher.hexdigest() for hasher in ours] != [hasher.hexdigest() for hasher in theirs]:
        raise AssertionError("the digests differ")
    return before, after


def _seconds(call: Callable[[], None]) -> float:
    began = time.thread_time()
    call()
    return time.thread_time() - began


@contextmanager
def _pinned() -> Iterator[None]:
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def main() -> None:
    for streams in (1, 2, 3, 4, 8, 16):
        rounds = compare(streams, rounds=7)
        before, after = (sorted(side)[len(rounds) // 2] for side in zip(*rounds, strict=True))
        size = streams * SLICES * SLICE
        ratios = sorted(one / other for one, other in rounds)
        print(
            f"{streams:2} streams: hashlib {size / before / 1e9:.2f} GB/s, lanes {size / after / 1e9:.2f} GB/s, "
            f"{before / after:.2f} times as fast ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        )


if __name__ == "__main__":
    main()
