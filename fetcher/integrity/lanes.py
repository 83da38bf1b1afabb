"""SHA-256 at the rate of the wire: several files share the lanes of a vector unit.

The SHA-256 of one file is sequential: 0.2-0.4 GB/s a core without SHA extensions of the CPU. Digests of different files are
independent, and a vector instruction works on 4 to 16 of them: 1.0 GB/s for 4 files, 2.6 for 16 (AVX-512, one core at
2.5 GHz). The fastest method for each number of files is measured once, in about two milliseconds. A digest can switch between
methods at any call.

Without the extension (no compiler at installation) hashlib does the work, with the same results.
"""

from __future__ import annotations

import functools
import hashlib
import time
from collections.abc import Callable, Sequence

from fetcher.errors import DigestUnavailable
from fetcher.integrity.hasher import Hasher

try:
    from fetcher.integrity import _sha256
except ImportError:
    _sha256 = None  # type: ignore[assignment]  # it is optional

RATE = 0.7e9
"""Bytes a second of one stream, above which the processor has SHA extensions: 1.2 to 2 GB/s with them, 0.2 to 0.45 without."""
SECOND_PASS = 2.0
"""Cost of hashing in lanes from the page cache, which is mapped and comes from memory, as a multiple of the measured cost in a
CPU's cache. Sixteen files of 64 MiB took 0.64 CPU seconds a GB more than without digests, the lanes alone 0.31 (2 x EPYC,
AVX-512). Hashed by the threads that wrote them they took 0.62, and 1.27 s instead of 1.34."""
MOST = 16
"""Maximum number of streams that one vector instruction advances."""
_TRIAL = 16 * 1024
"""Bytes per stream and measurement: 256 blocks, enough to make the cost of the call negligible."""


def available() -> bool:
    """Whether the extension is installed."""
    return _sha256 is not None


def new_sha256(*, streams: int) -> Hasher:
    """Return a running SHA-256, one of `streams` that will be advanced together."""
    if _sha256 is None or not _worth_it(streams):
        return hashlib.sha256()
    return _sha256.Sha256()


def saved(hasher: Hasher) -> bytes | None:
    """Return the state of `hasher`, to resume from later; None if it cannot be saved (hashlib, git)."""
    return hasher.save() if _sha256 is not None and isinstance(hasher, _sha256.Sha256) else None


def restored(state: bytes, *, length: int) -> Hasher:
    """Return a hasher that resumes from `state` after `length` bytes. Raises DigestUnavailable if that is impossible."""
    if _sha256 is None:
        raise DigestUnavailable("cannot resume a saved SHA-256 without the extension")
    try:
        hasher = _sha256.Sha256.restore(state)
    except ValueError as error:
        raise DigestUnavailable(str(error)) from error
    if hasher.length != length:
        raise DigestUnavailable(f"the saved SHA-256 covers {hasher.length:,} bytes, not {length:,}")
    return hasher


def advance(pairs: Sequence[tuple[Hasher, memoryview]]) -> None:
    """Feed each hasher its bytes, together where that is faster. Releases the GIL.

    Raises RuntimeError if a hasher occurs twice or another thread advances it at the same time.
    """
    vectored, sequential = [], []
    for hasher, data in pairs:
        if _sha256 is not None and isinstance(hasher, _sha256.Sha256):
            vectored.append((hasher, data))
        else:
            sequential.append((hasher, data))
    if vectored:
        _sha256.advance(tuple(hasher for hasher, _ in vectored), tuple(data for _, data in vectored), _costs().widths)
    for hasher, data in sequential:
        hasher.update(data)


def in_line(streams: int) -> bool:
    """Whether the thread that writes a file should hash it: one stream at a time, while the bytes are in cache, is cheaper than
    `streams` files in lanes from the page cache. Only with SHA extensions: slow hashing would hold up a connection."""
    return _sha256 is not None and _costs().in_line(streams)


class Costs:
    """The measured seconds for `_TRIAL` bytes of n streams, and the number of lanes to begin with."""

    def __init__(self, *, one: float, by_width: dict[int, float], hashlib_one: float) -> None:
        best, widths = [0.0], [0]
        for streams in range(1, MOST + 1):
            ways = [(one + best[streams - 1], 1)]
            ways += [(cost + best[max(0, streams - width)], width) for width, cost in by_width.items()]
            cost, width = min(ways)
            best.append(cost)
            widths.append(width)
        self.widths = bytes(widths)
        self._best = best
        self._hashlib_one = hashlib_one

    def worth_it(self, streams: int) -> bool:
        """Whether the extension is at least as fast as hashlib for this number of streams. A difference of 5 % is noise."""
        count = min(max(streams, 1), MOST)
        return self._best[count] <= 1.05 * count * self._hashlib_one

    def in_line(self, streams: int) -> bool:
        """Whether single streams have SHA extensions, and cost less than this number of streams from the page cache."""
        count = min(max(streams, 1), MOST)
        one = self._best[1]
        return one < _TRIAL / RATE and count * one <= SECOND_PASS * self._best[count]


def _worth_it(streams: int) -> bool:
    return _costs().worth_it(streams)


@functools.cache
def _costs() -> Costs:
    _sha256.use_openssl(address_of_openssl())
    data = memoryview(bytes(_TRIAL))
    by_width = {}
    for width in _sha256.use_level(2):
        digests = tuple(_sha256.Sha256() for _ in range(width))
        buffers, widths = (data,) * width, bytes([width] * (MOST + 1))
        by_width[width] = _seconds(lambda d=digests, b=buffers, w=widths: _sha256.advance(d, b, w))  # type: ignore[misc]
    single, openssl = _sha256.Sha256(), hashlib.sha256()
    return Costs(
        one=_seconds(lambda: single.update(data)), by_width=by_width, hashlib_one=_seconds(lambda: openssl.update(data))
    )


def _seconds(call: Callable[[], object]) -> float:
    """The least of several measurements: disturbances only add time."""
    least = float("inf")
    for _ in range(5):
        began = time.perf_counter()
        call()
        least = min(least, time.perf_counter() - began)
    return least


def address_of_openssl() -> int:
    """Return the address of SHA256_Update in the libcrypto that hashlib uses; 0 if it is not visible."""
    import ctypes

    try:
        import _hashlib

        return ctypes.cast(ctypes.CDLL(_hashlib.__file__).SHA256_Update, ctypes.c_void_p).value or 0
    except (ImportError, OSError, AttributeError):
        return 0
