"""Finds existing copies of each file, and checks the free space for the rest.

Each file comes from the first of these that works: the previous version, if its manifest lists the same content; the file at
the final place, after comparing its digest; a file of another artifact with the same digest (`sharing`) or the staged file of
an earlier attempt, after comparing each chunk; the file of an adopted directory, after comparing its digest (`adopting`); a
link or clone of a local source. Otherwise a new empty file is filled.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import field
from pathlib import Path

from fetcher.artifact import CHUNK_SIZE, ORIGIN, ByteRange, RemoteFile
from fetcher.engine.adopting import Adoption, Intake, differs
from fetcher.engine.choosing import proves_no_less
from fetcher.errors import OutOfSpace
from fetcher.events import Rechecked, Shared, Subscriber
from fetcher.filesystem import clone, free_bytes, free_inodes, mark, storing
from fetcher.integrity.checksums import CrcCheck, checkable, in_order
from fetcher.integrity.digests import DigestCheck
from fetcher.integrity.frontier import chunk_digest, read_pieces
from fetcher.manifest import Manifest, ManifestFile
from fetcher.planning.ranges import chunk_count, chunk_range
from fetcher.store.beneath import remove
from fetcher.store.ingest import StagedFile, link_staged
from fetcher.store.journal import Journal, JournalledChunk, JournalledFile
from fetcher.store.layout import base_of
from fetcher.store.lease import Lease
from fetcher.store.names import naming
from fetcher.store.placement import Placement
from fetcher.store.salvage import continue_file, forget_what_was_left, left_behind, remove_unlisted_files
from fetcher.store.sharing import Sharing
from fetcher.uncancelled import Stopped
from fetcher.values import dataclass


@dataclass(slots=True)
class Prepared:
    """The result: `settled` files are complete, `staged` files must be completed. Sizes in bytes."""

    settled: dict[str, ManifestFile] = field(default_factory=dict)
    staged: list[StagedFile] = field(default_factory=list)
    authenticated: bool = False
    """Whether a credential was used for any file."""

    def add(self, file: RemoteFile, found: ManifestFile | StagedFile | None) -> RemoteFile | None:
        """Add what was found for `file`. Return `file` if nothing was found."""
        match found:
            case ManifestFile() as settled:
                self.settled[file.path] = settled
            case StagedFile() as staged:
                self.staged.append(staged)
            case None:
                return file
        return None

    @property
    def held(self) -> int:
        """Bytes of all files that need not be fetched."""
        return sum(entry.size for entry in self.settled.values()) + sum(each.held for each in self.staged)


@dataclass(frozen=True, slots=True)
class Preparation:
    """The inputs that are the same for every file. `sharing` takes files from other artifacts, `adoption` from a directory."""

    placement: Placement
    lease: Lease
    journal: Journal
    previous: Manifest | None
    local_path: Callable[[RemoteFile], Path | None]
    hard_link: bool
    sharing: Sharing | None
    adoption: Adoption | None
    drop_pages: bool
    threads: int
    stopped: Callable[[], bool]
    make_room: Callable[[int], None]
    """Makes room for so many bytes in a bounded cache."""
    on_event: Subscriber


def prepare(files: Iterable[RemoteFile], preparation: Preparation) -> Prepared:
    """Prepare all files. Blocks; uses several threads. Raises StoreError (OutOfSpace before any byte is fetched), Stopped."""
    files = tuple(files)
    lease = preparation.lease
    with storing("resume the staged files"):
        leftovers = left_behind(lease)
        if leftovers.authenticated:
            preparation.journal.authenticated()  # before any of it is recorded again
        remove_unlisted_files(lease, files)
    prepared = Prepared(authenticated=leftovers.authenticated)
    try:
        fresh = _gathered(files, leftovers.files, preparation, prepared)
        if preparation.stopped():
            raise Stopped
        fresh = _shared(fresh, leftovers.files, preparation, prepared)
        fresh = _adopted(fresh, files, preparation, prepared)
        with storing("write the journal"), preparation.journal.together():
            for file in fresh:
                with storing("create the staged file", file.path), naming(file.path, lease.data):
                    prepared.staged.append(_create(file, preparation))
        if preparation.stopped():
            raise Stopped
        with storing("resume the staged files"):
            forget_what_was_left(lease, preparation.journal)
    except BaseException:
        for each in prepared.staged:
            each.close()
        raise
    return prepared


def _shared(
    fresh: list[RemoteFile], known: Mapping[str, JournalledFile], preparation: Preparation, prepared: Prepared
) -> list[RemoteFile]:
    """Take the files that other artifacts have. Returns the others. Copies take space, so there is room for them before."""
    sharing = preparation.sharing
    offered = [file for file in fresh if sharing is not None and sharing.offers(file)]
    if sharing is None or not offered:
        return fresh
    copying = not sharing.takes_no_space(preparation.lease.data)
    if copying:  # a link to a local file is better than a copy
        offered = [file for file in offered if not _linkable(file, preparation)]
    others = [file for file in fresh if file not in offered]
    to_fill = [file for file in others if not _linkable(file, preparation)]
    _make_room([*to_fill, *(offered if copying else [])], prepared, preparation)

    def take(file: RemoteFile) -> RemoteFile | None:
        with storing("look for an existing copy", file.path), naming(file.path, preparation.lease.data):
            return prepared.add(file, _staged_from(sharing, file, preparation) or _continued(file, known, preparation))

    with ThreadPoolExecutor(preparation.threads) as pool:
        return [*others, *(file for file in pool.map(take, offered) if file is not None)]


def _staged_from(sharing: Sharing, file: RemoteFile, preparation: Preparation) -> ManifestFile | None:
    """Return the entry of a file that another artifact already had; None if none has it undamaged."""
    staged = sharing.stage(file, preparation.lease.data / file.path, stopped=preparation.stopped)
    if staged is None:
        return None
    donor, how = staged
    # What an earlier attempt recorded is of the file that this one replaced. A linked inode must never be continued.
    preparation.journal.drop(file.path)
    preparation.on_event(Shared(file.path, donor.file.size, how, donor.key))
    return ManifestFile(file.path, donor.file.size, file.digests, donor.file.chunks, file.validator, shared=how)


def _adopted(
    fresh: list[RemoteFile], files: tuple[RemoteFile, ...], preparation: Preparation, prepared: Prepared
) -> list[RemoteFile]:
    """Make room for the files that are left, and take those that the adopted directory has. Returns the others."""
    intake = _intake(preparation)
    if intake:
        fresh = fresh + _without_unfinished(prepared, intake.adoption)
    linked = intake.shared(fresh) if intake else {}
    _make_room([file for file in fresh if file.path not in linked and not _linkable(file, preparation)], prepared, preparation)
    if intake is None:
        return fresh
    entries, problems = intake.take(fresh, linked)
    if problems and not intake.adoption.complete:
        raise differs(problems, files, intake.adoption.donor)
    prepared.settled |= entries
    return [file for file in fresh if file.path in problems]


def _make_room(fresh: Sequence[RemoteFile], prepared: Prepared, preparation: Preparation) -> None:
    """Make room for files that are to be created and for the rest of those that are staged. Raises OutOfSpace, CacheBusy."""
    with storing("make room in the cache"):
        needed = _space_of(fresh, prepared.staged)
        preparation.make_room(needed)
    _refuse_without_space(len(fresh), needed, preparation.placement.anchor)


def _intake(preparation: Preparation) -> Intake | None:
    if preparation.adoption is None:
        return None
    return Intake(
        adoption=preparation.adoption,
        data=preparation.lease.data,
        journal=preparation.journal,
        drop_pages=preparation.drop_pages,
        threads=preparation.threads,
        stopped=preparation.stopped,
        on_event=preparation.on_event,
    )


def _without_unfinished(prepared: Prepared, adoption: Adoption) -> list[RemoteFile]:
    """Remove unfinished files from `prepared` if the adopted directory has them, or if nothing may be fetched. Returns them."""
    unfinished = [
        each for each in prepared.staged if not each.complete and (not adoption.complete or adoption.holds(each.file))
    ]
    for each in unfinished:
        each.close()
        prepared.staged.remove(each)
    return [each.file for each in unfinished]


def _gathered(
    files: tuple[RemoteFile, ...], known: Mapping[str, JournalledFile], preparation: Preparation, prepared: Prepared
) -> list[RemoteFile]:
    """Add existing copies of `files` to `prepared`, also if one file fails. Returns the files without a copy."""

    def find(file: RemoteFile) -> RemoteFile | None:
        found = _find(file, known, preparation)
        if isinstance(found, ManifestFile):
            prepared.authenticated |= preparation.previous is not None and preparation.previous.authenticated
        return prepared.add(file, found)

    with ThreadPoolExecutor(preparation.threads) as pool:
        return [file for file in pool.map(find, files) if file is not None]


def _find(file: RemoteFile, known: Mapping[str, JournalledFile], preparation: Preparation) -> ManifestFile | StagedFile | None:
    if preparation.stopped():
        return None
    placement, lease = preparation.placement, preparation.lease
    with storing("look for an existing copy", file.path), naming(file.path, lease.data):
        previous = preparation.previous.file(file.path) if preparation.previous else None
        if previous and _is_content(previous, file) and placement.reuse(file, previous, lease):
            return previous
        if (existing := placement.existing(file)) and (entry := _compared(file, existing, known.get(file.path))):
            preparation.on_event(Rechecked(file.path, entry.size, entry.size))
            return entry
        if preparation.sharing is not None and preparation.sharing.offers(file):
            return None
        return _continued(file, known, preparation)


def _is_content(previous: ManifestFile, file: RemoteFile) -> bool:
    """Whether the file of the previous version is the listed one, compared with no less than is published now."""
    return file.identity is not None and previous.identity == file.identity and proves_no_less(previous, file)


def _continued(file: RemoteFile, known: Mapping[str, JournalledFile], preparation: Preparation) -> StagedFile | None:
    """Return the staged file of an earlier attempt; None if there is none, or nothing of it can be used."""
    if file.path not in known or _to_be_linked(file, preparation.adoption):
        return None
    staged = continue_file(
        file,
        preparation.lease.data / file.path,
        preparation.journal,
        known[file.path],
        inodes_reusable=preparation.lease.inodes_reusable,
        stopped=preparation.stopped,
    )
    if staged is not None:
        journalled = len(known[file.path].chunks)
        preparation.on_event(Rechecked(file.path, min(journalled * CHUNK_SIZE, file.size or 0), staged.held))
    return staged


def _to_be_linked(file: RemoteFile, adoption: Adoption | None) -> bool:
    """Whether `file` becomes a hard link to the adopted one. A link of an earlier attempt could only be copied."""
    return adoption is not None and adoption.link and adoption.holds(file)


def _compared(file: RemoteFile, path: Path, known: JournalledFile | None) -> ManifestFile | None:
    """Return the entry of the file at its final place if it has the listed content; None if that cannot be proven."""
    size = path.stat().st_size
    if file.size != size:
        return None
    crcs, chunks = CrcCheck(file), {}
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        for index, part in ((index, chunk_range(index, size)) for index in range(chunk_count(size))):
            hasher = crcs.new_hasher(part.start)
            chunks[index] = chunk_digest(descriptor, part, hasher) or ""
            crcs.add(index, hasher)
        journalled = {index: chunk.xxh3 for index, chunk in known.chunks.items()} if known is not None else {}
        sealed = known is not None and known.identity == file.identity and journalled == chunks
        if not (sealed or file.digests) or crcs.mismatch():
            return None
        check = DigestCheck(() if sealed else file.digests, size=size, checksums=in_order(file))
        for piece in read_pieces(descriptor, ByteRange(0, size)) if check.hashers else ():
            check.update(piece)
        if check.mismatch():
            return None
    except EOFError:
        return None
    finally:
        os.close(descriptor)
    compared = tuple(str(each) for each in checkable(file))
    return ManifestFile(file.path, size, file.digests, tuple(chunks.values()), file.validator, checksums=compared)


def _create(file: RemoteFile, preparation: Preparation) -> StagedFile:
    """Return a new file to fill. For a local source it is a link (if requested) or a clone, which is only read."""
    path = preparation.lease.data / file.path
    local = preparation.local_path(file)
    if local is not None and preparation.hard_link and (linked := _linked(file, local, path, preparation.journal)):
        return linked
    staged = StagedFile.create(file, path, preparation.journal)
    if local is not None:
        with suppress(FileNotFoundError), local.open("rb") as source, staged.opened() as descriptor:
            if _is_listed(file, source.fileno()) and clone(source.fileno(), descriptor):
                _record_all_chunks(staged)
    return staged


def _linkable(file: RemoteFile, preparation: Preparation) -> bool:
    """Whether `file` becomes a hard link, which takes no space."""
    local = preparation.local_path(file) if preparation.hard_link else None
    if local is None:
        return False
    with storing("examine the source", file.path):
        return os.stat(local).st_dev == os.stat(preparation.placement.anchor).st_dev


def _linked(file: RemoteFile, local: Path, path: Path, journal: Journal) -> StagedFile | None:
    try:
        if not link_staged(local.resolve(), path):
            return None
    except OSError:
        return None
    staged = StagedFile(file, path, journal, borrowed=True)
    with staged.opened() as descriptor:
        listed = _is_listed(file, descriptor)
    if not listed:
        staged.close()
        remove(base_of(path), path)
        return None
    _record_all_chunks(staged)
    return staged


def _is_listed(file: RemoteFile, descriptor: int) -> bool:
    """Whether the open file of the local source is the listed one. Its path may lead to another file by now.

    A file without a validator is compared with its digest later.
    """
    return bool(file.digests) if file.validator is None else file.validator == mark(os.fstat(descriptor))


def _record_all_chunks(staged: StagedFile) -> None:
    """Record all chunks of a complete file: read it for their XXH3 (and later, from the page cache, for the digests)."""
    size = staged.size or 0
    with staged.opened() as descriptor:
        if os.fstat(descriptor).st_size != size:
            return
        for index in range(chunk_count(size)):
            if digest := chunk_digest(descriptor, chunk_range(index, size)):
                staged.finish_chunk(index, JournalledChunk(digest, supplier=ORIGIN))


def _space_of(fresh: Iterable[RemoteFile], staged: Iterable[StagedFile]) -> int:
    """Return the bytes that the files will still allocate. Staged files already occupy a part. A file of unknown size counts
    as nothing. Raises OSError."""
    needed = sum(file.size or 0 for file in fresh)
    return needed + sum(max(0, (each.size or 0) - os.lstat(each.path).st_blocks * 512) for each in staged)


def _refuse_without_space(files: int, needed: int, anchor: Path) -> None:
    """Raise OutOfSpace if so many new files, with `needed` bytes, do not fit."""
    with storing("read the free space"):
        free, inodes = free_bytes(anchor), free_inodes(anchor)
    if free is not None and needed > free:
        raise OutOfSpace(
            f"no space left on device: {anchor} has {free:,} bytes free, the artifact needs {needed:,} more; "
            "free space, use a larger volume, or select fewer files with --include"
        )
    if inodes is not None and files + 8 > inodes:
        raise OutOfSpace(
            f"no space left on device: {anchor} has {inodes} inodes free, the artifact needs {files + 8}; "
            "delete files, use another volume, or select fewer files with --include"
        )
