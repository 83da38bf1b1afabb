"""Reads a repository from the Hub's own cache without a network, for `HF_HUB_OFFLINE`.

With each snapshot the client writes the listing of its whole commit (`trees/<commit>.json`, huggingface_hub 2). Only this
listing distinguishes a complete snapshot from a partial one, so it is required. Every file is compared with its digest, as
after a download.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from fetcher.artifact import Digest, Listing, RemoteFile
from fetcher.errors import NotFound, Offline, UsageError
from fetcher.sources.addresses import HubAddress, is_commit
from fetcher.values import dataclass

LARGEST = 64 * 1024 * 1024
"""Bytes of a listing that are read at most: 200 for each of 300,000 files."""
_TREE_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The directory of a commit's files, and the listing of all files that it should hold."""

    directory: Path
    listing: Listing


def find_snapshot(address: HubAddress, cache: Path | None) -> Snapshot:
    """The snapshot that `address` names in the Hub cache `cache`. Raises Offline, NotFound."""
    if cache is None:
        raise Offline("HF_HUB_OFFLINE is set, and the Hub's cache is unknown; set HF_HUB_CACHE or HOME")
    repository = cache / address.folder
    commit = _commit(repository, address.revision)
    files = _files(repository / "trees" / f"{commit}.json")
    if address.path is not None:
        files = tuple(_with_pins(file, address.pins) for file in files if file.path == address.path)
        if not files:
            raise NotFound(f"{address.repository} has no file {address.path} at {commit}", path=address.path)
    return Snapshot(repository / "snapshots" / commit, Listing(commit, files))


def _commit(repository: Path, revision: str) -> str:
    if is_commit(revision):
        return revision
    text = _read(repository / "refs" / revision).decode(errors="replace").strip()
    if not is_commit(text):
        raise Offline(f"{repository}/refs/{revision} does not contain a commit; unset HF_HUB_OFFLINE to fetch")
    return text


def _files(tree: Path) -> tuple[RemoteFile, ...]:
    try:
        document = json.loads(_read(tree))
        if document["format_version"] != _TREE_FORMAT:
            raise ValueError("another format")
        return tuple(_file(path, entry) for path, entry in document["files"].items())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, UsageError):
        raise Offline(f"{tree} is not a listing that this version can read; unset HF_HUB_OFFLINE to fetch") from None


def _file(path: str, entry: Mapping[str, Any]) -> RemoteFile:
    facts = {"blob_id": str(entry["blob_id"])}
    digest = Digest("git-sha1", entry["blob_id"])
    if "lfs_sha256" in entry:
        facts["lfs_size"] = str(int(entry["lfs_size"]))
        digest = Digest("sha256", entry["lfs_sha256"])
    if "xet_hash" in entry:
        facts["xet_hash"] = str(entry["xet_hash"])
    return RemoteFile(path, int(entry["size"]), (digest,), facts=facts)


def _read(path: Path) -> bytes:
    try:
        with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as stream:  # never blocks on a FIFO
            return stream.read(min(LARGEST, os.fstat(stream.fileno()).st_size))
    except OSError:
        raise Offline(
            f"HF_HUB_OFFLINE is set and the Hub's cache has no {path}, without which a complete model cannot be recognised; "
            "fetch it once with huggingface_hub 2, or unset HF_HUB_OFFLINE"
        ) from None


def _with_pins(file: RemoteFile, pins: tuple[Digest, ...]) -> RemoteFile:
    return replace(file, digests=(*file.digests, *(pin for pin in pins if pin not in file.digests)))
