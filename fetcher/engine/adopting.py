"""Files taken from a directory that another tool filled, instead of being fetched.

Each file is read once. While it is copied, its digest is compared with the source's and its chunks are hashed for the manifest.
Links and clones take no space and come first. So the space for copies is checked before the first one.
A file is journalled after its digest was compared, so whatever a killed command left behind is as listed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import field
from pathlib import Path

from fetcher.artifact import ByteRange, RemoteFile, total_size
from fetcher.errors import Differs, UsageError
from fetcher.events import BytesHashed, FileVerified, Planned, Subscriber
from fetcher.filesystem import mark, open_for_writing, storing
from fetcher.integrity.digests import DigestCheck, new_chunk_hasher
from fetcher.integrity.frontier import read_pieces
from fetcher.manifest import ManifestFile
from fetcher.planning.ranges import chunk_count, chunk_range
from fetcher.store.beneath import remove
from fetcher.store.donor import Donor
from fetcher.store.ingest import StagedFile, link_staged
from fetcher.store.journal import Journal, JournalledChunk
from fetcher.store.layout import base_of
from fetcher.store.names import naming
from fetcher.store.pages import drop, finish_writing_back
from fetcher.uncancelled import Stopped
from fetcher.values import dataclass

_NAMED = 3
"""Files named in the message. The error has them all."""


@dataclass(frozen=True, slots=True)
class Adoption:
    """Files come from `donor`, as hard links if `link`. The rest may be fetched if `complete`, otherwise it is an error.

    `taken` receives the state of each file when it was taken (`filesystem.mark`).
    """

    donor: Donor
    link: bool = False
    complete: bool = False
    taken: dict[str, str] = field(default_factory=dict)

    def holds(self, file: RemoteFile) -> bool:
        """Whether the donor has a file with this path and size. Raises UsageError, StoreError."""
        with storing("read the directory", file.path), self.donor.opened(file.path) as descriptor:
            return descriptor is not None and os.fstat(descriptor).st_size == file.size


@dataclass(frozen=True, slots=True)
class Intake:
    """Takes the files of one adoption into the staging directory `data`. Blocks; uses several threads."""

    adoption: Adoption
    data: Path
    journal: Journal
    drop_pages: bool
    threads: int
    stopped: Callable[[], bool]
    on_event: Subscriber

    def shared(self, files: Iterable[RemoteFile]) -> dict[str, StagedFile]:
        """Link or clone files with the listed size, as far as the filesystem can. Raises UsageError, StoreError."""
        staged = {}
        for file in files:
            with storing("adopt the file", file.path), naming(file.path, self.data):
                if (each := self._shared(file)) is not None:
                    staged[file.path] = each
        return staged

    def take(
        self, files: Sequence[RemoteFile], shared: Mapping[str, StagedFile]
    ) -> tuple[dict[str, ManifestFile], dict[str, str]]:
        """Return the entries of the files that equal the listed ones, and the problem of each other file. Copies what is not
        `shared`. Raises UsageError, StoreError, Stopped."""
        self.on_event(Planned(len(files), total_size(files), 0, 0))
        with ThreadPoolExecutor(self.threads, "adopt") as pool:
            results = dict(
                zip(
                    (file.path for file in files),
                    pool.map(lambda file: self._taken(file, shared.get(file.path)), files),
                    strict=True,
                )
            )
        entries = {path: result for path, result in results.items() if isinstance(result, ManifestFile)}
        return entries, {path: result for path, result in results.items() if isinstance(result, str)}

    def _shared(self, file: RemoteFile) -> StagedFile | None:
        path = self.data / file.path
        with self.adoption.donor.opened(file.path) as descriptor:
            if descriptor is None or os.fstat(descriptor).st_size != file.size:
                return None
            return self._linked(file, path, descriptor) or StagedFile.cloned(file, path, self.journal, descriptor)

    def _linked(self, file: RemoteFile, path: Path, descriptor: int) -> StagedFile | None:
        if not self.adoption.link:
            return None
        if open_for_writing(descriptor):
            raise UsageError(
                f"{file.path} is open for writing in another program, which would change the artifact too; end that program, "
                "or adopt a copy: leave out --link and --move",
                path=file.path,
            )
        # By its descriptor: the name may lead elsewhere by now.
        linked = link_staged(Path(f"/proc/self/fd/{descriptor}"), path)
        return StagedFile(file, path, self.journal, borrowed=True) if linked else None

    def _taken(self, file: RemoteFile, staged: StagedFile | None) -> ManifestFile | str:
        with (
            storing("adopt the file", file.path),
            naming(file.path, self.data),
            self.adoption.donor.opened(file.path) as descriptor,
        ):
            if descriptor is None:
                return "is missing"
            status = os.fstat(descriptor)
            if file.size is None or not (file.digests or file.validator == mark(status)):
                return "has no published size or digest to be compared with"
            if status.st_size != file.size:
                return f"has {status.st_size:,} bytes instead of {file.size:,}"
            result = self._compared(file, descriptor, staged)
        if isinstance(result, ManifestFile):
            self.adoption.taken[file.path] = mark(status)
            self.on_event(FileVerified(file.path, result.size, bool(file.digests)))
        return result

    def _compared(self, file: RemoteFile, donor: int, shared: StagedFile | None) -> ManifestFile | str:
        """Read the file once, from the staged inode if it is `shared`, else from the donor into a new inode."""
        staged = shared or StagedFile.create(file, self.data / file.path, self.journal)
        check, size = DigestCheck(file.digests, size=file.size), file.size or 0
        chunks = []
        with staged.opened() if shared else nullcontext(donor) as descriptor:
            for index in range(chunk_count(size)):
                hasher, position = new_chunk_hasher(), chunk_range(index, size).start
                try:
                    for piece in read_pieces(descriptor, chunk_range(index, size)):
                        if not shared:
                            staged.write(position, piece)
                        hasher.update(piece)
                        check.update(piece)
                        position += len(piece)
                except EOFError:
                    self._discard(staged)
                    return "was truncated while it was read"
                if self.stopped():
                    raise Stopped
                chunks.append(hasher.hexdigest())
                self.on_event(BytesHashed(file.path, len(chunk_range(index, size))))
                if self.drop_pages:
                    self._drop(staged, descriptor, chunk_range(index, size))
        if mismatch := check.mismatch():
            self._discard(staged)
            return f"has {mismatch[1]} instead of {mismatch[0]}"
        for index, xxh3 in enumerate(chunks):
            staged.finish_chunk(index, JournalledChunk(xxh3))
        return staged.seal(drop_pages=self.drop_pages)

    def _drop(self, staged: StagedFile, read: int, part: ByteRange) -> None:
        """Keep no page of a chunk in the page cache, neither of the file that was read nor of the copy."""
        with staged.opened() as descriptor:
            finish_writing_back(descriptor, part)
            drop(descriptor, part)
        drop(read, part)

    def _discard(self, staged: StagedFile) -> None:
        staged.close()
        remove(base_of(staged.path), staged.path)


def differs(problems: Mapping[str, str], files: Iterable[RemoteFile], donor: Donor) -> Differs:
    """Return the error for a directory that differs from the listed `files` by `problems`. Raises UsageError, StoreError."""
    listed = {file.path for file in files}
    first = "; ".join(f"{path} {problem}" for path, problem in list(problems.items())[:_NAMED])
    more = f"; {len(problems) - _NAMED} more" if len(problems) > _NAMED else ""
    with storing("read the directory"):
        ignored = tuple(path for path in donor.paths() if path not in listed)
    return Differs(
        f"{len(problems)} of {len(listed)} files differ from the source's: {first}{more}; nothing was published. "
        "Pass --complete to fetch these files, or another --revision",
        differences=tuple(problems.items()),
        ignored=ignored,
    )
