"""A Hub repository: immutable commits, and references that point to them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from fetcher.testing.content import Content, content_of

RepositoryKind = Literal["model", "dataset"]
Files = Mapping[str, bytes | Path | Content]

LFS_SUFFIXES = (".safetensors", ".bin", ".gguf", ".pt", ".parquet")
"""Suffixes that the Hub's default `.gitattributes` puts into large file storage, regardless of size."""


@dataclass(frozen=True, slots=True)
class Commit:
    """`files` by path. Files in `lfs` are served by the CDN and published with their SHA-256."""

    id: str
    files: Mapping[str, Content]
    lfs: frozenset[str]

    def entries(self, *, under: str = "", recursive: bool = True) -> Iterator[dict[str, object]]:
        """Yield the directories and files below `under` as the Hub's JSON, sorted by path."""
        prefix = f"{under}/" if under else ""
        below = {path for path in self.files if path.startswith(prefix)}
        folders = {path[: match.start()] for path in below for match in re.finditer("/", path)}
        folders = {folder for folder in folders if folder.startswith(prefix) and folder != under}
        for path in sorted(below | folders):
            if recursive or "/" not in path.removeprefix(prefix):
                yield self.entry(path) if path in below else _folder(path)

    def entry(self, path: str) -> dict[str, object]:
        content = self.files[path]
        if path not in self.lfs:
            return {"type": "file", "path": path, "size": content.size, "oid": content.git_sha1}
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{content.sha256}\nsize {content.size}\n"
        blob = git_id(b"blob %d\0" % len(pointer) + pointer.encode())
        lfs = {"oid": content.sha256, "size": content.size, "pointerSize": len(pointer)}
        return {"type": "file", "path": path, "size": content.size, "oid": blob, "lfs": lfs}


def git_id(data: bytes) -> str:
    """Return the SHA-1 of `data` in hex, as in git ids."""
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()


def _folder(path: str) -> dict[str, object]:
    return {"type": "directory", "path": path, "size": 0, "oid": git_id(path.encode())}


def make_commit(files: Files, *, lfs_threshold: int) -> Commit:
    """Return a commit of `files`. Its id, 40 hex digits, is determined by the content."""
    contents = {path: content_of(what) for path, what in files.items()}
    lfs = frozenset(path for path, content in contents.items() if content.size >= lfs_threshold or path.endswith(LFS_SUFFIXES))
    text = "".join(
        f"{path}\0{content.sha256 if path in lfs else content.git_sha1}\n" for path, content in sorted(contents.items())
    )
    return Commit(git_id(text.encode()), contents, lfs)


@dataclass(slots=True)
class Repository:
    """A repository. `refs` maps branches, tags and `refs/pr/N` to commit ids; old commits stay reachable by their id.

    Only `readers` (tokens) see a private repository. Everyone can list a gated one, but only `readers` get its files.
    """

    name: str
    kind: RepositoryKind
    private: bool
    gated: bool
    readers: frozenset[str]
    commits: dict[str, Commit] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    @property
    def commit(self) -> str:
        """The commit that `main` points to."""
        return self.refs["main"]

    @property
    def prefix(self) -> str:
        """Where its resolve addresses begin: `/org/name` or `/datasets/org/name`."""
        return f"/datasets/{self.name}" if self.kind == "dataset" else f"/{self.name}"

    def find(self, revision: str) -> Commit | None:
        names = (revision, revision.removeprefix("refs/heads/"), revision.removeprefix("refs/tags/"))
        commit = next((self.refs[name] for name in names if name in self.refs), revision)
        return self.commits.get(commit)

    def split(self, segments: list[str]) -> tuple[str, str]:
        """Split decoded path segments after `resolve` or `tree` into revision and path. A reference can contain slashes."""
        joined = "/".join(segments)
        for ref in self.refs:
            if joined == ref or joined.startswith(ref + "/"):
                return ref, joined[len(ref) + 1 :]
        return segments[0], "/".join(segments[1:])

    def move(self, ref: str, commit: Commit) -> None:
        self.commits[commit.id] = commit
        self.refs[ref] = commit.id
