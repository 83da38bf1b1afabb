"""Removes an artifact from the Hub's cache layout: what we placed there, and nothing that another tool or artifact needs.

::

    1  our ref                      unless another artifact of ours is fetched by it
    2  the manifest                 renamed to the record of a replaced version, so that `fetcher gc` completes a killed removal
    3  the snapshot                 unless another artifact of ours is in it: then only the links that this one alone lists
    4  blobs that nothing links     each under the Hub's own lock; one that is locked is left to `fetcher gc`
    5  directories that are empty   of a repository that holds nothing any more

A snapshot belongs to others too if a ref of theirs names it, or if it holds files that no manifest of ours lists.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import field
from pathlib import Path

from fetcher.manifest import Manifest
from fetcher.store.beneath import make_directories, remove, remove_directory, rename
from fetcher.store.layout import Root
from fetcher.store.summary import summary_path
from fetcher.store.superseded import Superseded, record_of, refs_of
from fetcher.values import dataclass

RefOf = Callable[[Manifest], str]
"""Returns the name of the ref that a fetch of this manifest writes. Only the sources can read it from a URI."""
_OF_THE_HUB = frozenset({"blobs", "refs", "snapshots", "trees"})


@dataclass(frozen=True, slots=True)
class Published:
    """The artifact `key` in the Hub's layout. `record`: the path of its manifest."""

    root: Path
    key: str
    record: Path
    manifest: Manifest
    ref_of: RefOf
    _others: list[Manifest] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        paths = (path for path in Root(self.root).keyed_manifests() if path != self.record)
        present = (Manifest.read(path) for path in paths)
        self._others.extend(each for each in present if each is not None and each.snapshot == self.manifest.snapshot)

    @property
    def blobs(self) -> list[Path]:
        return self._version.blobs()

    @property
    def of_others_too(self) -> bool:
        """Whether another tool uses the snapshot. Raises OSError."""
        ours = {self.ref_of(each) for each in (self.manifest, *self._others)}
        listed = {file.path for each in (self.manifest, *self._others) for file in each.files}
        return not ours.issuperset(refs_of(self._version)) or not listed.issuperset(_files(self._version.snapshot))

    def remove(self) -> None:
        """Remove the artifact. The caller has its lease. Blocks. Raises OSError; the same command or `fetcher gc` continues."""
        version, ref = self._version, self.ref_of(self.manifest)
        if ref in refs_of(version) and ref not in map(self.ref_of, self._others):
            remove(self.root, version.repository / "refs" / ref)
        make_directories(self.root, version.record.parent)
        rename(self.root, self.record, self.root, version.record)
        remove(self.root, summary_path(self.record))
        if self._others:
            self._remove_links(version)
        elif os.path.lexists(version.snapshot):
            version.remove_snapshot()
        for blob in version.blobs():
            version.remove_blob(blob)
        if version.served:
            version.forget()
        self._remove_empty_directories(version.repository)

    @property
    def _version(self) -> Superseded:
        """The artifact as a version that nothing replaced: `superseded` knows how its parts are removed."""
        return Superseded(self.root, record_of(self.root, self.key, self.manifest), self.manifest, 0.0)

    def _remove_links(self, version: Superseded) -> None:
        kept = {file.path for each in self._others for file in each.files}
        for file in self.manifest.files:
            if file.path not in kept:
                remove(self.root, version.snapshot / file.path)

    def _remove_empty_directories(self, repository: Path) -> None:
        """A repository without snapshots is a damaged one for the Hub's client, so all of it goes or nothing."""
        if set(os.listdir(repository)) <= _OF_THE_HUB and not any(_files(repository)):
            directories = [Path(above) for above, _, _ in os.walk(repository, topdown=False)]
            with suppress(OSError):  # somebody fetches into it again
                for each in directories:
                    remove_directory(self.root, each)


def _files(directory: Path) -> Iterator[str]:
    """Yield the relative path of everything below `directory` that is no directory."""
    for above, directories, names in os.walk(directory):
        links = [name for name in directories if os.path.islink(os.path.join(above, name))]
        for name in (*names, *links):
            yield os.path.relpath(os.path.join(above, name), directory)
