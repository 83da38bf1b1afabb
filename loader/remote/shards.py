"""Finds a checkpoint among the files of an artifact, and reads the headers of its shards, several at a time."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

from fetcher.api import open_source
from fetcher.artifact import ByteRange, RemoteFile
from fetcher.errors import DigestUnavailable
from fetcher.values import dataclass
from loader.checkpoint.header import TensorInfo, read_header
from loader.checkpoint.index import AnyShard, Checkpoint, checkpoint_of
from loader.checkpoint.locations import in_directory
from loader.remote.files import RemoteFiles
from loader.remote.reading import RemoteReading

if TYPE_CHECKING:
    from fetcher.api import OpenArtifact

THREADS = 16
"""Ranges that are received at the same time. A store gives one connection 50 to 100 MB/s, and answers after 30 ms."""

_FIRST = 128 * 1024
"""Bytes of the first request: the headers of most shards in one round trip. 800 tensors have 90 KB."""


@dataclass(frozen=True, slots=True)
class RemoteShard(AnyShard):
    """A file of an artifact; `head` are its bytes before `data_start`."""

    artifact: OpenArtifact
    file: RemoteFile
    head: bytes

    def reading(self, infos: Sequence[TensorInfo]) -> RemoteReading:
        """Return the source of one reading of `infos`, its tensors in the order in which they are wanted.

        Raises DigestUnavailable if a digest or checksum is required and this reading cannot be compared with one.
        """
        if self.artifact.requires_proof and (reason := self.unverified(infos)):
            raise DigestUnavailable(f"{self.path} cannot be verified as required: {reason}", path=self.path)
        return RemoteReading(self.path, self.artifact, self.file, self.head, whole=self._is_whole(infos))

    def unverified(self, infos: Sequence[TensorInfo]) -> str | None:
        """Return why a reading of `infos` is not compared with a digest or checksum; None if it is."""
        if len(infos) < len(self.tensors):
            return f"only {len(infos)} of its {len(self.tensors)} tensors are read"
        if not self._is_whole(infos):
            return "its tensors are not read in their order"
        return "its source publishes no digest or checksum of it" if self.verified_by == "size" else None

    @property
    def verified_by(self) -> str:
        """What the whole file is compared with: `sha256`, `crc64nvme`, ..., or `size` if nothing is published of it."""
        return self.artifact.comparison(self.file).by

    def _is_whole(self, infos: Sequence[TensorInfo]) -> bool:
        return list(infos) == list(self.tensors)


def open_checkpoint(uri: str, options: dict[str, Any]) -> Checkpoint[RemoteShard]:
    """Open the checkpoint at `uri`, whose files are those in the directory that it names. Reads only headers.

    `options` are those of `fetcher.api.open_source`. The artifact stays open as long as a shard of it. Raises SourceError,
    NotFound, UsageError, MalformedCheckpoint.
    """
    artifact = open_source(uri, **{"max_concurrency": THREADS, **options})
    try:
        files = RemoteFiles(artifact)
        weights = in_directory(files.root, files)
        with ThreadPoolExecutor(THREADS, "header") as pool:
            shards = pool.map(partial(_shard, artifact), weights.paths, files.described(weights.paths))
            return checkpoint_of(list(shards), weights)
    except BaseException:
        artifact.close()
        raise


def _shard(artifact: OpenArtifact, path: str, file: RemoteFile) -> RemoteShard:
    size = file.size or 0  # a described file has a size
    begin = _Beginning(artifact, file)
    begin(min(size, _FIRST), 0)
    header = read_header(begin, size=size, path=path)
    head = begin(header.data_start, 0)
    shard = RemoteShard(path, size, header.tensors, header.metadata, header.data_start, artifact, file, head)
    if header.data_start == size:
        shard.reading(header.tensors).check()  # nothing else of it is ever read
    return shard


class _Beginning:
    """The first bytes of a file; each is requested once."""

    def __init__(self, artifact: OpenArtifact, file: RemoteFile) -> None:
        self._artifact = artifact
        self._file = file
        self._content = b""

    def __call__(self, count: int, offset: int) -> bytes:
        """See `loader.checkpoint.files.Read`."""
        have, stop = len(self._content), offset + count
        if stop > have:
            more = bytearray(stop - have)
            self._artifact.read(self._file, ByteRange(have, stop), memoryview(more))
            self._content += more
        return self._content[offset:stop]
