"""SHA-256 at the rate of the wire: several files share the lanes of a vector unit.

One file's SHA-256 is sequential, 0.2-0.4 GB/s a core where the CPU has no SHA extensions. Different files' are independent, and
a vector instruction works on 4 to 16 of them at once: 1.0 GB/s for 4 files, 2.6 for 16 (AVX-512, one core at 2.5 GHz). Which
way is faster for how many files is measured once, in about two milliseconds, and a digest may change its way at any call.

Without the extension (no compiler when it was installed) hashlib does the work, with the same results.
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

MOST = 16
"""Streams that one call works on at once."""
_TRIAL = 16 * 1024
"""Bytes a stream for each measurement: 256 blocks, long enough that the call itself does not count."""


def available() -> bool:
    """Whether the _sha256 is there."""
    return _sha256 is not None


def new_sha256(*, streams: int) -> Hasher:
    """A running SHA-256, one of `streams` that will be advanced together."""
    if _sha256 is None or not _worth_it(streams):
        return hashlib.sha256()
    return _sha256.Sha256()


def saved(hasher: Hasher) -> bytes | None:
    """The state of `hasher`, to go on from later; None when it can't be had (hashlib's, git's)."""
    return hasher.save() if _sha256 is not None and isinstance(hasher, _sha256.Sha256) else None


def restored(state: bytes, *, length: int) -> Hasher:
    """A hasher that goes on from `saved` after `length` bytes. Raises DigestUnavailable where that is not possible."""
    if _sha256 is None:
        raise DigestUnavailable("a saved SHA-256 can't be continued without the extension")
    try:
        hasher = _sha256.Sha256.restore(state)
    except ValueError as error:
        raise DigestUnavailable(str(error)) from error
    if hasher.length != length:
        raise DigestUnavailable(f"the saved SHA-256 is that of {hasher.length:,} bytes, not of {length:,}")
    return hasher


def advance(pairs: Sequence[tuple[Hasher, memoryview]]) -> None:
    """Feed each hasher its bytes, together where that is faster. Releases the GIL.

    No hasher may occur twice, or be advanced by another thread at the same time (RuntimeError).
    """
    ours, theirs = [], []
    for hasher, data in pairs:
        if _sha256 is not None and isinstance(hasher, _sha256.Sha256):
            ours.append((hasher, data))
        else:
            theirs.append((hasher, data))
    if ours:
        _sha256.advance(tuple(hasher for hasher, _ in ours), tuple(data for _, data in ours), _costs().widths)
    for hasher, data in theirs:
        hasher.update(data)


class Costs:
    """What was measured: seconds for `_TRIAL` bytes of n streams, and with how many lanes to begin."""

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
        """Whether the _sha256 is not slower than hashlib for so many streams. (A twentieth is noise.)"""
        count = min(max(streams, 1), MOST)
        return self._best[count] <= 1.05 * count * self._hashlib_one


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
    alone, theirs = _sha256.Sha256(), hashlib.sha256()
    return Costs(one=_seconds(lambda: alone.update(data)), by_width=by_width, hashlib_one=_seconds(lambda: theirs.update(data)))


def _seconds(call: Callable[[], object]) -> float:
    """The least of a few: what disturbs only ever adds."""
    least = float("inf")
    for _ in range(5):
        began = time.perf_counter()
        call()
        least = min(least, time.perf_counter() - began)
    return least


def address_of_openssl() -> int:
    """Of SHA256_Update in the libcrypto that Python's own hashlib runs on; 0 when it can't be seen."""
    import ctypes

    try:
        import _hashlib

        return ctypes.cast(ctypes.CDLL(_hashlib.__file__).SHA256_Update, ctypes.c_void_p).value or 0
    except (ImportError, OSError, AttributeError):
        return 0
