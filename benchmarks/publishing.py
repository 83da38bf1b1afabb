"""The served files of random bytes."""

from __future__ import annotations

import os
import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import xxhash

MiB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Shape:
    """A number of files with an equal size in bytes."""

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
    """Published files. The listing of `name` has digests; `undigested` has none, like some mirrors."""

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
        """Read all files, so that the server reads from memory even after an eviction."""
        buffer = bytearray(4 * MiB)
        for path in self.paths():
            with open(path, "rb", buffering=0) as file:
                while file.readinto(buffer):
                    pass

    def arrived(self, directory: Path) -> str | None:
        """Return None if `directory` has every file, bit for bit, else the first difference."""
        for file in self.files:
            path = directory / file.name
            if not path.is_file():
                return f"{file.name} is missing"
            if _xxh3(path) != file.xxh3:
                return f"{file.name} differs from the served file"
        return None


def publish(directory: Path, shape: Shape) -> Repository:
    """Write files to `directory` and sync them, so that no writeback disturbs later measurements."""
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
