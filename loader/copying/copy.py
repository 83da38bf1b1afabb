"""Copy an artifact to RAM or a local disk. The copy becomes visible only when it is complete and checked."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

from fetcher.errors import CannotWrite, UsageError
from fetcher.events import LoadPlanned, Subscriber, Warned
from fetcher.filesystem import file_mode, make_directory, storing, sync_directory, write_durably
from fetcher.host.mounts import mount_of
from fetcher.manifest import RELATIVE_PATH, Manifest
from fetcher.values import dataclass
from loader.copying.artifacts import Artifact, Item, read_artifact
from loader.copying.chunks import ChunkCopier, round_robin
from loader.copying.record import RECORD, CopyRecord
from loader.copying.reuse import reuse
from loader.copying.shortage import listing_abandoned_copies, refuse_lack_of_space
from loader.copying.staging import put_in_place, staged, sweep
from loader.filesystems import filesystem_of
from loader.workers import run_on_threads

_FILES_A_THREAD = 2
"""The kernel lets only one thread at a time write to a file. Two threads copied a warm checkpoint to tmpfs at 2.1 GiB/s shard
by shard, and at 3.7 GiB/s in turns (one thread: 1.6, `cp -r`: 1.8)."""


@dataclass(frozen=True, slots=True)
class Copy:
    """The result of a copy. `cached`: the copy already existed. `verified`: every chunk was checked against a manifest."""

    path: Path
    files: int
    bytes: int
    revision: str | None
    cached: bool
    verified: bool
    seconds: float


def copy(source: Path, target: Path, *, threads: int, on_event: Subscriber) -> Copy:
    """Copy the artifact `source` to `target`. An error leaves `target` as it was.

    Raises UsageError, NotFound, NotReadable, DigestMismatch, MalformedCheckpoint, OutOfSpace, TooLarge, CannotWrite,
    LocalIOError, FileReplaced.
    """
    began = time.monotonic()
    target = target.absolute()
    _check_paths(source, target)
    artifact = read_artifact(source)
    cached = _is_complete(artifact, target)
    if cached:
        sweep(target)
    else:
        with storing("create the directory", str(target.parent)):
            make_directory(target.parent)
        with staged(target, on_wait=lambda: on_event(_waiting(target))) as data:
            cached = _is_complete(artifact, target)  # another process may have finished it during the wait
            if not cached:
                _copy_all(artifact, data, target, threads=threads, on_event=on_event)
    manifest = artifact.manifest
    return Copy(
        path=target,
        files=len(artifact.items),
        bytes=artifact.size,
        revision=manifest.revision if manifest else None,
        cached=cached,
        verified=manifest is not None,
        seconds=time.monotonic() - began,
    )


def _waiting(target: Path) -> Warned:
    return Warned("Waiting", f"another process is copying to {target}; waiting for it")


def _check_paths(source: Path, target: Path) -> None:
    real_source, real_target = Path(os.path.realpath(source)), Path(os.path.realpath(target))
    if real_source == real_target or real_source in real_target.parents or real_target in real_source.parents:
        raise UsageError(f"{source} and {target} overlap; give another directory for the copy")
    if target.is_symlink():
        raise UsageError(f"{target} is a link; give the directory itself")
    if target.exists() and (mount := mount_of(target)) is not None and Path(mount.point) == real_target:
        raise UsageError(f"{target} is a mount point, which cannot be replaced; give a directory in it: {target / 'model'}")


def _is_complete(artifact: Artifact, target: Path) -> bool:
    """Return whether `target` is a copy of the artifact.

    With a manifest: the manifests agree, and all sizes. Without: all names, sizes and modification times agree.
    """
    manifest = artifact.manifest
    if manifest is not None:
        present = Manifest.read(target / RELATIVE_PATH)
        if present is None or (present.files, present.fingerprint) != (manifest.files, manifest.fingerprint):
            return False
    elif (record := CopyRecord.read(target)) is None or record.files.keys() != {item.path for item in artifact.items}:
        return False
    for item in artifact.items:
        try:
            status = os.stat(target / item.path)
        except OSError:
            return False
        if status.st_size != item.size or (manifest is None and status.st_mtime_ns != item.identity.mtime_ns):
            return False
    return True


def _copy_all(artifact: Artifact, data: Path, target: Path, *, threads: int, on_event: Subscriber) -> None:
    in_memory = filesystem_of(data).memory
    _refuse_foreign(target)
    reused = reuse(artifact, target, data, threads=threads)
    new = [names[0] for names in artifact.contents if names[0].path not in reused]
    with listing_abandoned_copies(target):
        refuse_lack_of_space(new, len(artifact.items), data, in_memory=in_memory)
        total = artifact.size
        on_event(LoadPlanned("copying", len(artifact.items), total, total - sum(item.size for item in new)))
        _copy_new(artifact, new, ChunkCopier(artifact, data, on_event, durable=not in_memory), threads)
    with storing("publish the copy", str(target)):
        _seal(artifact, data, durable=not in_memory)
        put_in_place(data, target, durable=not in_memory)


def _copy_new(artifact: Artifact, new: Sequence[Item], work: ChunkCopier, threads: int) -> None:
    """Copy the items of `new`. All other items are reused files, or further names of these."""
    for item in new:
        work.begin(item)
    run_on_threads(round_robin(new, files=_FILES_A_THREAD * threads), work.copy_chunk, threads=threads)
    unlinked = [name for first, *others in artifact.contents for name in others if not work.link(first, name)]
    for item in unlinked:
        work.begin(item)
    run_on_threads(round_robin(unlinked, files=_FILES_A_THREAD * threads), work.copy_chunk, threads=threads)


def _refuse_foreign(target: Path) -> None:
    """Raise CannotWrite if `target` has content but neither the manifest nor the record of a copy."""
    with storing("check the target", str(target)):
        occupied = target.exists() and (not target.is_dir() or any(target.iterdir()))
    if occupied and Manifest.read(target / RELATIVE_PATH) is None and CopyRecord.read(target) is None:
        raise CannotWrite(f"{target} is not a copy of an artifact, so it is not replaced; remove it, or give another directory")


def _seal(artifact: Artifact, data: Path, *, durable: bool) -> None:
    """Write the record, then the manifest. The manifest comes last because it proves that all files are complete."""
    if durable:
        for directory, _, _ in os.walk(data, topdown=False):
            sync_directory(Path(directory))
    record, manifest = data / RECORD, data / RELATIVE_PATH
    make_directory(record.parent)
    write_durably(record, CopyRecord.of(artifact.items).to_bytes(), mode=file_mode(record.parent))
    if artifact.manifest is not None:
        write_durably(manifest, artifact.manifest.to_bytes(), mode=file_mode(manifest.parent))
    if durable:
        sync_directory(data)
