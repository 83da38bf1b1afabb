"""The format of `sha256sum`: one line for each file, `HEX  PATH` or `HEX *PATH`.

A line that begins with a backslash has `\\\\`, `\\n` and `\\r` in its path. Comments and empty lines are not part of
the format.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from fetcher.artifact import Digest
from fetcher.errors import ConfigurationError, DigestMismatch
from fetcher.planning.paths import shown

LARGEST = 64 * 1024 * 1024
"""Bytes of a list that is read: more than 400,000 files."""
_LINE = re.compile(r"(\\?)([0-9a-fA-F]{64}) [ *](.+)")
_ESCAPES = {"\\\\": "\\", "\\n": "\n", "\\r": "\r"}


def parse_checksums(data: bytes, *, where: str) -> dict[str, Digest]:
    """Return path → digest; `where` names the file. Raises ConfigurationError with the line that is malformed."""
    if len(data) > LARGEST:
        raise ConfigurationError(f"{where} has more than {LARGEST:,} bytes; give a list of sha256sum")
    sums: dict[str, Digest] = {}
    for number, line in enumerate(data.decode("utf-8", "surrogateescape").removesuffix("\n").split("\n"), 1):
        match = _LINE.fullmatch(line.removesuffix("\r"))
        path = _unescaped(match[3]) if match and match[1] else match[3] if match else None
        if match is None or path is None:
            raise ConfigurationError(f"{where}, line {number}: not a line of sha256sum; write HEX, two spaces and the path")
        digest = Digest("sha256", match[2].lower())
        if sums.setdefault(path.removeprefix("./"), digest) != digest:
            raise ConfigurationError(f"{where}, line {number}: another digest for {shown(path)} than before; remove one line")
    return sums


def joined(expect: Mapping[str, Digest], sums: Mapping[str, Digest], *, where: str) -> dict[str, Digest]:
    """Return the pins of both. Raises DigestMismatch if they contradict each other."""
    for path, digest in sums.items():
        if expect.get(path, digest) != digest:
            raise DigestMismatch(
                f"{path}: --expect says {expect[path]}, but {where} lists {digest}; correct one of them",
                path=path,
                expected=str(expect[path]),
                actual=str(digest),
            )
    return {**expect, **sums}


def _unescaped(text: str) -> str | None:
    """Return the path in an escaped line; None if it has another escape."""
    parts = re.findall(r"\\.|[^\\]", text)
    if "".join(parts) != text or any(part.startswith("\\") and part not in _ESCAPES for part in parts):
        return None
    return "".join(_ESCAPES.get(part, part) for part in parts)
