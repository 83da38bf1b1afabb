"""What an object store publishes of an object."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import accumulate, pairwise

from fetcher.artifact import Checksum, ChecksumAlgorithm
from fetcher.integrity import crc
from tests.lab.availability import missing


def require_crcs() -> None:
    """Require the extension, which alone computes CRCs. `tests/integrity/test_crc.py` compares it with other code."""
    if not crc.available():
        missing("CRC extension", "install gcc and python3-dev, remove .venv and run make setup")


def published(algorithm: ChecksumAlgorithm, data: bytes, parts: Sequence[int] = ()) -> Checksum:
    """The checksum of `data`, uploaded at once or in `parts`, whose sizes are in bytes."""
    whole = data
    if parts:
        whole = b"".join(_value(algorithm, data[start:stop]) for start, stop in pairwise([0, *accumulate(parts)]))
    return Checksum(algorithm, _value(algorithm, whole).hex(), tuple(parts))


def _value(algorithm: ChecksumAlgorithm, data: bytes) -> bytes:
    if algorithm == "md5":
        return hashlib.md5(data, usedforsecurity=False).digest()
    return crc.updated(algorithm, 0, data).to_bytes(crc.WIDTHS[algorithm])
