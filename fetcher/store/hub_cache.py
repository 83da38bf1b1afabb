"""Placement in the Hub's own cache layout, which engines and the `huggingface_hub` client read offline.

::

    ROOT/models--org--name/blobs/<digest>                 the content, named by the digest that the Hub publishes
    ROOT/models--org--name/snapshots/<commit>/<path>      a relative link to the blob
    ROOT/models--org--name/trees/<commit>.json            the whole listing; the client recognises a partial snapshot by it
    ROOT/models--org--name/refs/<revision>                the commit, written last
    ROOT/.fetcher/manifests/<key>.json                    our manifest

Blobs are placed first, then the snapshot by one rename, then `trees/`, `refs/` and the manifest. Snapshots, refs and blobs of
other tools are kept.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath

from fetcher.artifact import Listing, RemoteFile
from fetcher.errors import LocalIOError
from fetcher.filesystem import file_mode
from fetcher.manifest import Manifest, ManifestFile
from fetcher.steps import Step
from fetcher.store.beneath import Fence, make_directories, open_beneath, remove_tree, sync
from fetcher.store.lease import Lease
from fetcher.store.placement import KeyInRoot, swap_staged, write_manifest
from fetcher.store.superseded import record_of

_TREE_FORMAT = 1
"""huggingface_hub 2.4's `_tree_cache.TREE_CACHE_FORMAT_VERSION`. The client ignores other formats."""


class HubCache(KeyInRoot):
    """Placement under `root/repository`, such as `models--org--name`. `revision` names the ref."""

    def __init__(self, root: Path, key: str, *, repository: str, revision: str) -> None:
        super().__init__(root, key)
        self._repository = root / repository
        self._revision = revision

    @property
    def _manifest(self) -> Path:
        return self._root.manifests / f"{self._key}.json"

    def present(self) -> Manifest | None:
        return Manifest.read(self._manifest)

    def location(self, manifest: Manifest) -> Path:
        return self._repository / "snapshots" / PurePosixPath(manifest.revision or "").name

    def existing(self, file: RemoteFile) -> Path | None:
        blob = self._blob(file)
        return blob if blob is not None and blob.is_file() and not blob.is_symlink() else None

    def reuse(self, file: RemoteFile, previous: ManifestFile, lease: Lease) -> bool:
        existing = self.existing(file)
        return existing is not None and existing.stat().st_size == previous.size

    def place(self, lease: Lease, manifest: Manifest, listing: Listing, step: Step) -> Path:
        with lease.fenced():
            return self._place_fenced(lease, manifest, listing, step)

    def _place_fenced(self, lease: Lease, manifest: Manifest, listing: Listing, step: Step) -> Path:
        lease.check()
        step("sealed")
        fence = Fence(self._root.path, lease.data)
        manifest = replace(manifest, snapshot=str(self.location(manifest).relative_to(self._root.path)))
        files = {file.path: file for file in listing.files}
        self._place_blobs(lease, fence, [files[file.path] for file in manifest.files], step)
        location = self._place_snapshot(fence, lease.data, [files[file.path] for file in manifest.files], manifest)
        self._refuse_removed(files[file.path] for file in manifest.files)
        step("snapshot placed")
        self._write_tree(fence, listing)
        step("tree placed")
        self._write_ref(fence, listing.revision or "")
        step("ref placed")
        if (previous := self.present()) is not None and previous.snapshot != manifest.snapshot:
            self._write(fence, record_of(self._root.path, self._key, previous), previous.to_bytes())
        lease.prepare_to_place()
        make_directories(self._root.path, self._root.manifests)
        mode = file_mode(self._root.manifests)
        write_manifest(fence, self._root.path, self._manifest, manifest, mode=mode)
        step("manifest placed")
        lease.dissolve()
        return location

    def open_published(self, file: RemoteFile, manifest: Manifest) -> int:
        """Open the blob. Without its link in the snapshot the file is not published."""
        blob, link = self._blob(file), self.location(manifest) / file.path
        if blob is None or os.readlink(link) != _link_text(file, blob):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(link))
        return open_beneath(self._root.path, blob, os.O_RDONLY)

    def swap(self, lease: Lease, file: RemoteFile, manifest: Manifest) -> None:
        blob, link, root = self._blob(file), self.location(manifest) / file.path, self._root.path
        if blob is None:
            raise FileNotFoundError(errno.ENOENT, "a file without a digest has no blob", str(link))
        swap_staged(lease, file.path, root, blob)
        with lease.fenced():
            make_directories(root, link.parent)
            self._link(Fence(root, lease.data), root, link, file)
        sync(root, link.parent)

    def _blob(self, file: RemoteFile) -> Path | None:
        # The first digest is the Hub's; the user's pins follow it.
        return self._repository / "blobs" / file.digests[0].hex if file.digests else None

    def _place_blobs(self, lease: Lease, fence: Fence, files: list[RemoteFile], step: Step) -> None:
        blobs = self._repository / "blobs"
        make_directories(self._root.path, blobs)
        for file in files:
            lease.keep()
            staged, blob = lease.data / file.path, self._blob(file)
            if blob is not None and staged.exists():
                # Two paths with equal content share a blob.
                fence.place(staged, self._root.path, blob)
                step(f"placed {file.path}")
        sync(self._root.path, blobs)

    def _place_snapshot(self, fence: Fence, data: Path, files: list[RemoteFile], manifest: Manifest) -> Path:
        final, draft, root = self.location(manifest), data / ".snapshot", self._root.path
        remove_tree(root, draft)
        fence.make_directories(draft)
        for file in files:
            fence.make_directories((draft / file.path).parent)
            self._link(fence, root, draft / file.path, file)
        for directory, _, _ in os.walk(draft, topdown=False):
            sync(root, Path(directory))
        make_directories(root, final.parent)
        try:
            fence.place(draft, root, final)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise
            # Another tool, or another selection of ours, placed this snapshot already: add the missing links.
            for file in files:
                make_directories(root, (final / file.path).parent)
                self._link(fence, root, final / file.path, file)
            sync(root, final)
        sync(root, final.parent)
        return final

    def _refuse_removed(self, files: Iterable[RemoteFile]) -> None:
        """Raise LocalIOError if a blob was removed since it was reused.

        A removal looks for links after it renamed the blob away, and this looks for the blob after it was linked. Whoever comes
        second sees the other.
        """
        for file in files:
            blob = self._blob(file)
            if blob is not None and not blob.exists():
                raise LocalIOError(f"{blob} was removed during the fetch of {file.path}; run the same command again")

    def _link(self, fence: Fence, base: Path, path: Path, file: RemoteFile) -> None:
        blob = self._blob(file)
        if blob is None:
            return
        target = _link_text(file, blob)
        with suppress(OSError):
            if os.readlink(path) == target:
                return
        fence.link(target, base, path)

    def _write_tree(self, fence: Fence, listing: Listing) -> None:
        entries = {file.path: _tree_entry(file) for file in sorted(listing.files, key=lambda each: each.path)}
        target = self._repository / "trees" / f"{PurePosixPath(listing.revision or '').name}.json"
        document = {"format_version": _TREE_FORMAT, "files": entries}
        self._write(fence, target, json.dumps(document, indent=2).encode())

    def _write_ref(self, fence: Fence, commit: str) -> None:
        if self._revision == commit:
            return
        self._write(fence, self._repository / "refs" / self._revision, commit.encode())

    def _write(self, fence: Fence, target: Path, data: bytes) -> None:
        """Replace a small file of the cache in one step, which fails if the lease is lost."""
        make_directories(self._root.path, target.parent)
        fence.replace_file(self._root.path, target, data, mode=file_mode(target.parent))


def _link_text(file: RemoteFile, blob: Path) -> str:
    """The text of the link of `file` in a snapshot."""
    up = "../" * (len(PurePosixPath(file.path).parts) + 1)
    return f"{up}blobs/{blob.name}"


def _tree_entry(file: RemoteFile) -> dict[str, object]:
    entry: dict[str, object] = {"size": file.size, "blob_id": file.facts.get("blob_id", "")}
    sha256 = next((digest.hex for digest in file.digests if digest.algorithm == "sha256"), None)
    if "lfs_size" in file.facts and sha256:
        entry |= {"lfs_sha256": sha256, "lfs_size": int(file.facts["lfs_size"])}
    if xet_hash := file.facts.get("xet_hash"):
        entry["xet_hash"] = xet_hash
    return entry
