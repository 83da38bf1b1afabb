"""What is served: files of random bytes, and the Hub's metadata of them as static JSON."""

from __future__ import annotations

import json
import os
import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha1, sha256
from pathlib import Path

import xxhash

MiB = 1024 * 1024
COMMIT = "5eed" * 10
"""What the branch `main` of every repository here is."""


@dataclass(frozen=True, slots=True)
class Shape:
    """So many files of so many bytes each."""

    files: int
    size: int

    @property
    def total(self) -> int:
        return self.files * self.size

    @property
    def name(self) -> str:
        return f"{self.files}x{self.size}"

    def __str__(self) -> str:
        for unit, length in (("GiB", 1024 * MiB), ("MiB", MiB), ("KiB", 1024)):
            if self.size % length == 0:
                return f"{self.files} x {self.size // length} {unit}"
        return f"{self.files} x {self.size} bytes"


@dataclass(frozen=True, slots=True)
class PublishedFile:
    name: str
    size: int
    sha256: str
    xxh3: str


@dataclass(frozen=True, slots=True)
class Repository:
    """`name` has digests in its listing; `undigested` is the same without, as some mirrors list files."""

    directory: Path
    shape: Shape
    files: tuple[PublishedFile, ...]

    @property
    def name(self) -> str:
        return f"bench/{self.shape.name}"

    @property
    def undigested(self) -> str:
        return f"{self.name}-undigested"

    def paths(self) -> list[str]:
        return [str(self.directory / file.name) for file in self.files]

    def warm(self) -> None:
        """Read everything, so that the server reads from memory whatever the kernel has evicted since."""
        buffer = bytearray(4 * MiB)
        for path in self.paths():
            with open(path, "rb", buffering=0) as file:
                while file.readinto(buffer):
                    pass

    def arrived(self, directory: Path) -> str | None:
        """None when `directory` holds every file, bit for bit; else what is wrong."""
        for file in self.files:
            path = directory / file.name
            if not path.is_file():
                return f"{file.name} is missing"
            if _xxh3(path) != file.xxh3:
                return f"{file.name} is not what was served"
        return None


def publish(directory: Path, shape: Shape) -> Repository:
    """Write files to `directory` and sync them, so that no writeback disturbs what is measured after."""
    directory.mkdir(parents=True)
    names = [f"model-{number:05}-of-{shape.files:05}.safetensors" for number in range(1, shape.files + 1)]
    # hashlib releases the GIL on large pieces.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        files = pool.map(lambda name: _written(directory / name, shape.size), names)
        return Repository(directory, shape, tuple(files))


def _written(path: Path, size: int) -> PublishedFile:
    chance = random.Random(path.name)  # noqa: S311 - must be repeatable, not secret
    published, compared = sha256(), xxhash.xxh3_128()
    with path.open("wb", buffering=0) as file:
        for start in range(0, size, 4 * MiB):
            piece = chance.randbytes(min(4 * MiB, size - start))
            file.write(piece)
            published.update(piece)
            compared.update(piece)
        os.fsync(file.fileno())
    return PublishedFile(path.name, size, published.hexdigest(), compared.hexdigest())


def _xxh3(path: Path) -> str:
    hasher, buffer = xxhash.xxh3_128(), bytearray(4 * MiB)
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            hasher.update(memoryview(buffer)[:count])
    return hasher.hexdigest()


def revision_document(repository: Repository) -> str:
    """What `GET /api/models/{repo}/revision/main` answers."""
    siblings = [{"rfilename": file.name} for file in repository.files]
    return json.dumps({"id": repository.name, "modelId": repository.name, "sha": COMMIT, "siblings": siblings})


def tree_document(repository: Repository, *, digests: bool) -> str:
    """What `GET /api/models/{repo}/tree/{commit}` answers, on one page."""
    return json.dumps([_entry(file, digests=digests) for file in repository.files])


def _entry(file: PublishedFile, *, digests: bool) -> dict[str, object]:
    entry: dict[str, object] = {"type": "file", "path": file.name, "size": file.size}
    if digests:
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{file.sha256}\nsize {file.size}\n"
        blob = sha1(f"blob {len(pointer)}\0{pointer}".encode(), usedforsecurity=False).hexdigest()
        entry |= {"oid": blob, "lfs": {"oid": file.sha256, "size": file.size, "pointerSize": len(pointer)}}
    return entry
