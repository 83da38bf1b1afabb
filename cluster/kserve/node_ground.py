"""What lies in the directory of a node's models, and what is removed from it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cluster.agent.states import HOLDER
from cluster.agent.surveying import Surveyor
from cluster.kserve.agent import Lying
from cluster.kserve.translating import Pin
from fetcher import cache
from fetcher.errors import NewerFormat
from fetcher.manifest import RELATIVE_PATH, Manifest


@dataclass(frozen=True, slots=True)
class Ground:
    """`names`: all directories. `pins` and `lying`: the complete artifacts among them, by key."""

    names: tuple[str, ...] = ()
    pins: Mapping[str, Pin] | None = None
    lying: Mapping[str, Lying] | None = None


class GroundSurveyor:
    """Looks at one root again and again. A manifest is read once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._surveyor = Surveyor(root)
        self._private: dict[tuple[str, Pin], bool] = {}

    def look(self) -> Ground | None:
        """Return what is there; None if that cannot be known. Blocks."""
        try:
            with os.scandir(self._root) as found:
                names = tuple(sorted(each.name for each in found if each.is_dir(follow_symlinks=False)))
        except OSError:
            return None
        survey = self._surveyor.survey(cache.CacheLimits())
        if survey.problem is not None:
            return None
        pins = {key: Pin(each.revision, each.listing_digest, each.allocated) for key, each in survey.lying.items()}
        self._private = {place: self._private.get(place, self._is_private(place[0])) for place in pins.items()}
        return Ground(names, pins, {key: Lying(key, self._private[key, pin]) for key, pin in pins.items()})

    def remove(self, name: str) -> None:
        """Remove a directory: an artifact as the cache removes it, anything else to where replaced versions wait.

        A hold of ours, or of an earlier process, does not keep it. Blocks. Raises InUse and other StoreErrors: it stays.
        """
        if os.path.lexists(self._root / name / RELATIVE_PATH):
            cache.release(self._root, name, holder=HOLDER)
            cache.remove(self._root, [name], force=False, dry_run=False)
        else:
            cache.discard(self._root, name)

    def _is_private(self, key: str) -> bool:
        """Whether a credential was used to get the artifact. What cannot be read is."""
        try:
            manifest = Manifest.read(self._root / key / RELATIVE_PATH)
        except NewerFormat:
            return True
        return manifest is None or manifest.authenticated
