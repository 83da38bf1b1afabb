"""What lies in the root. A manifest is read once; each look compares the sizes of the files that it lists."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cluster.agent.root import capacity_of
from cluster.agent.states import HOLDER, Lying, Problem, Proof, Survey
from fetcher import cache
from fetcher.artifact import listing_digest
from fetcher.errors import FetchError, NewerFormat, from_os_error
from fetcher.manifest import Manifest


@dataclass(frozen=True, slots=True)
class _Known:
    """What one manifest says, and by which mark it is recognised as the same."""

    mark: Mapping[str, int]
    files: Sequence[tuple[str, int]]
    listing_digest: str
    proof: Proof


class Surveyor:
    """Surveys one root again and again."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._known: dict[Path, _Known] = {}

    def survey(self, limits: cache.CacheLimits) -> Survey:
        """Return what lies in the root. Blocks for as long as its names and sizes take to read."""
        try:
            occupation = cache.occupation(self._root, on_newer=_skip)
            lying = [
                replace(found, allocated=place.allocated)
                for place in occupation.places
                for each in place.artifacts
                if (found := self._lying(each)) is not None
            ]
            self._known = {path: known for path, known in self._known.items() if path.exists()}
            capacity = capacity_of(self._root, limits, used=occupation.allocated)
        except FetchError as error:
            return Survey(problem=Problem(error.reason, error.message))
        except OSError as error:
            problem = from_os_error(error, doing="survey the root")
            return Survey(problem=Problem(problem.reason, problem.message))
        return Survey({each.key: each for each in lying}, occupation.allocated, capacity)

    def _lying(self, listed: cache.Listed) -> Lying | None:
        """Return the artifact if it is one of a key's own directory and all of its files have their sizes."""
        entry = listed.entry
        summary = entry.summary
        if entry.path != self._root / entry.key or not summary.fingerprint.startswith(entry.key):
            return None
        known = self._known.get(entry.record)
        if known is None or known.mark != summary.manifest:
            manifest = Manifest.read(entry.record)
            if manifest is None:
                return None  # removed or replaced just now
            known = self._known[entry.record] = _known(manifest, summary.manifest)
        if not all(_has_size(entry.path / path, size) for path, size in known.files):
            return None
        others = [each for each in listed.held_by if each != HOLDER]
        return Lying(
            entry.key,
            summary.revision,
            known.listing_digest,
            "None" if summary.unconfirmed else known.proof,
            last_used=listed.last_used or 0.0,
            ours=HOLDER in listed.held_by,
            kept=listed.pinned or bool(others),
        )


def _known(manifest: Manifest, mark: Mapping[str, int]) -> _Known:
    proof: Proof = "Digest" if manifest.verified else "Checksum" if manifest.checked else "None"
    files = [(file.path, file.size) for file in manifest.files]
    return _Known(mark, files, listing_digest(manifest.files), proof)


def _has_size(path: Path, size: int) -> bool:
    try:
        return os.stat(path).st_size == size
    except OSError:
        return False


def _skip(_: NewerFormat) -> None:
    """Skip an artifact that only a later version can read."""
