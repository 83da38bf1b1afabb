"""Files for the reader, in place of `loader.checkpoint.index.Shard`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from loader.checkpoint.files import FileIdentity, open_file
from loader.reading.blocks import Job


@dataclass(slots=True, eq=False)
class Plain:
    """A file as it is now. `descriptors` lists the descriptors of all openings."""

    path: str
    identity: FileIdentity
    descriptors: list[int] = field(default_factory=list)

    @classmethod
    def at(cls, path: Path) -> Plain:
        descriptor = open_file(str(path))
        try:
            return cls(str(path), FileIdentity.of(descriptor))
        finally:
            os.close(descriptor)

    @property
    def size(self) -> int:
        return self.identity.size

    def open(self) -> int:
        descriptor = open_file(self.path)
        self.descriptors.append(descriptor)
        try:
            self.check(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def check(self, descriptor: int) -> None:
        self.identity.check(descriptor, path=self.path)

    def job(self, offset: int, stop: int | None = None) -> Job:
        stop = self.size if stop is None else stop
        return Job(self, offset, stop - offset)

    def cut(self, length: int) -> list[Job]:
        """Jobs of `length` bytes that cover the whole file; the last one may be shorter."""
        return [self.job(offset, min(offset + length, self.size)) for offset in range(0, self.size, length)]


def expected(jobs: Iterable[Job]) -> list[bytes]:
    """Return the bytes of the jobs, read with plain file reads."""
    return list(_contents(jobs))


def _contents(jobs: Iterable[Job]) -> Iterator[bytes]:
    for job in jobs:
        with open(job.source.path, "rb") as file:
            file.seek(job.offset)
            yield file.read(job.length)
