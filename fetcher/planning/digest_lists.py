"""Lists of digests, and the format of `sha256sum`: one line for each file, `HEX  PATH` or `HEX *PATH`.

A line that begins with a backslash has `\\\\`, `\\n` and `\\r` in its path. Comments and empty lines are not part of
the format.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace

from fetcher.artifact import ArtifactRef, Digest
from fetcher.errors import ConfigurationError, DigestMismatch
from fetcher.planning.paths import shown
from fetcher.planning.selection import selects
from fetcher.values import dataclass

LARGEST = 64 * 1024 * 1024
"""Bytes of a list that is read: more than 400,000 files."""
_LINE = r"(\\?)([0-9a-fA-F]{64}) [ *](.+)"
_ESCAPES = {"\\\\": "\\", "\\n": "\n", "\\r": "\r"}


@dataclass(frozen=True, slots=True)
class DigestList:
    """A list of digests by path; `where` names it.

    `exempt`: the only other paths that an artifact may have, directories included; None if the list says nothing of others.
    """

    where: str
    digests: Mapping[str, Digest]
    exempt: tuple[str, ...] | None = None

    def selected(self, ref: ArtifactRef) -> DigestList:
        """Return the list of those files that `ref` selects."""
        chosen = {path: pin for path, pin in self.digests.items() if selects(path, include=ref.include, exclude=ref.exclude)}
        return replace(self, digests=chosen)

    def leaves_open(self, paths: Iterable[str]) -> str | None:
        """Return the first of `paths` that has no digest and may not be without one; None if there is none."""
        exempt = self.exempt
        if exempt is None:
            return None
        return next(
            (path for path in paths if path not in self.digests and not any(_is_at_or_below(path, each) for each in exempt)),
            None,
        )


def parse_list(data: bytes, *, where: str) -> DigestList:
    """Return the list in `data`; `where` names the file. Raises ConfigurationError with the line that is malformed."""
    if len(data) > LARGEST:
        raise ConfigurationError(f"{where} has more than {LARGEST:,} bytes; give a list of sha256sum")
    sums: dict[str, Digest] = {}
    for number, line in enumerate(data.decode("utf-8", "surrogateescape").removesuffix("\n").split("\n"), 1):
        match = re.fullmatch(_LINE, line.removesuffix("\r"))
        path = _unescaped(match[3]) if match and match[1] else match[3] if match else None
        if match is None or path is None:
            raise ConfigurationError(f"{where}, line {number}: not a line of sha256sum; write HEX, two spaces and the path")
        digest = Digest("sha256", match[2].lower())
        if sums.setdefault(path.removeprefix("./"), digest) != digest:
            raise ConfigurationError(f"{where}, line {number}: another digest for {shown(path)} than before; remove one line")
    return DigestList(where, sums)


def joined(expect: Mapping[str, Digest], sums: DigestList) -> dict[str, Digest]:
    """Return the pins of both. Raises DigestMismatch if they contradict each other."""
    for path, digest in sums.digests.items():
        if expect.get(path, digest) != digest:
            raise DigestMismatch(
                f"{path}: --expect says {expect[path]}, but {sums.where} lists {digest}; correct one of them",
                path=path,
                expected=str(expect[path]),
                actual=str(digest),
            )
    return {**expect, **sums.digests}


def _is_at_or_below(path: str, place: str) -> bool:
    place = place.strip("/")
    return path == place or path.startswith(f"{place}/")


def _unescaped(text: str) -> str | None:
    """Return the path in an escaped line; None if it has another escape."""
    parts = re.findall(r"\\.|[^\\]", text)
    if "".join(parts) != text or any(part.startswith("\\") and part not in _ESCAPES for part in parts):
        return None
    return "".join(_ESCAPES.get(part, part) for part in parts)
