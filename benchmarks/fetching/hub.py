"""The Hub's metadata of the served files, as static JSON."""

from __future__ import annotations

import json
from hashlib import sha1

from benchmarks.publishing import PublishedFile, Repository

COMMIT = "5eed" * 10
"""The commit of the branch `main` in every repository."""


def revision_document(repository: Repository) -> str:
    """Return the response to `GET /api/models/{repo}/revision/main`."""
    siblings = [{"rfilename": file.name} for file in repository.files]
    return json.dumps({"id": repository.name, "modelId": repository.name, "sha": COMMIT, "siblings": siblings})


def tree_document(repository: Repository, *, digests: bool) -> str:
    """Return the response to `GET /api/models/{repo}/tree/{commit}`, on one page."""
    return json.dumps([_entry(file, digests=digests) for file in repository.files])


def _entry(file: PublishedFile, *, digests: bool) -> dict[str, object]:
    entry: dict[str, object] = {"type": "file", "path": file.name, "size": file.size}
    if digests:
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{file.sha256}\nsize {file.size}\n"
        blob = sha1(f"blob {len(pointer)}\0{pointer}".encode(), usedforsecurity=False).hexdigest()
        entry |= {"oid": blob, "lfs": {"oid": file.sha256, "size": file.size, "pointerSize": len(pointer)}}
    return entry
