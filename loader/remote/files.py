"""The files of an open artifact, as a checkpoint is looked for in them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from fetcher.artifact import ByteRange, RemoteFile
from fetcher.errors import NotFound
from loader.checkpoint.files import refuse_larger

if TYPE_CHECKING:
    from fetcher.api import OpenArtifact


class RemoteFiles:
    """`loader.checkpoint.files.Files` of an artifact. Paths begin with its address: `s3://bucket/model/config.json`."""

    def __init__(self, artifact: OpenArtifact) -> None:
        self.root = _root(artifact)
        self._artifact = artifact
        self._files: Mapping[str, RemoteFile] = {os.path.join(self.root, file.path): file for file in artifact.files}

    def is_directory(self, path: str) -> bool:
        return path not in self._files

    def names(self, directory: str) -> list[str]:
        names = (os.path.basename(path) for path in self._files if os.path.dirname(path) == directory)
        return [name for name in names if not name.startswith(".")]

    def exists(self, path: str) -> bool:
        return path in self._files

    def why_missing(self, path: str) -> str:
        return ""

    def below(self, directory: str) -> Iterable[str]:
        within = {os.path.dirname(path) for path in self._files if path.startswith(f"{directory}/")}
        return sorted(within - {directory})

    def content(self, path: str, most: int) -> bytes:
        """See `Files`. The file is compared with what is published of it. Raises SourceError, DigestMismatch."""
        (file,) = self.described([path])
        size = file.size or 0
        refuse_larger(size, most, path)
        content = bytearray(size)
        comparison = self._artifact.comparison(file)
        hasher = comparison.new_hasher(0)
        self._artifact.read(file, ByteRange(0, size), memoryview(content), hasher.update)
        comparison.add(0, memoryview(content), hasher)
        comparison.check()
        return bytes(content)

    def described(self, paths: Iterable[str]) -> tuple[RemoteFile, ...]:
        """Return the files at `paths` with all that is published of them. Raises NotFound, SourceError."""
        chosen = []
        for path in paths:
            if path not in self._files:
                raise NotFound(f"{path} is missing at the source", path=path)
            chosen.append(self._files[path])
        return self._artifact.described(chosen)


def _root(artifact: OpenArtifact) -> str:
    """Return the address that the paths of the files follow: for the address of one file, that of its directory."""
    address = artifact.uri.partition("?")[0].rstrip("/")
    if len(artifact.files) == 1:
        return address.removesuffix(f"/{artifact.files[0].path}")
    return address
