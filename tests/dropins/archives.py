"""Archives for tests: valid ones, and ones that no ordinary program writes."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

from fetcher.archives.layers import UnpackedFile, unpack_layers

Compression = Literal["", "gz", "bz2", "xz"]


def tar(files: Mapping[str, bytes], compression: Compression = "", *, prefix: str = "") -> bytes:
    """Pack files as `tar -c` does; with `prefix="./"` as `tar -C DIR -c .` does."""
    return tar_of([regular(prefix + path, content) for path, content in files.items()], compression)


def tar_of(members: list[tuple[tarfile.TarInfo, bytes]], compression: Compression = "") -> bytes:
    """Pack any members, valid or not."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=f"w:{compression}") as archive:  # type: ignore[call-overload]  # a computed mode
        for member, content in members:
            archive.addfile(member, io.BytesIO(content) if content else None)
    return buffer.getvalue()


def zipped(files: Mapping[str, bytes], *, compress: bool = True) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED) as archive:
        for path, content in files.items():
            archive.writestr(zipfile.ZipInfo(path), content, archive.compression)
    return buffer.getvalue()


def regular(path: str, content: bytes = b"") -> tuple[tarfile.TarInfo, bytes]:
    """Return a member that is a file."""
    member = tarfile.TarInfo(path)
    member.size = len(content)
    return member, content


def special(path: str, kind: bytes, target: str = "") -> tuple[tarfile.TarInfo, bytes]:
    """Return a member that is not a regular file."""
    member = tarfile.TarInfo(path)
    member.type, member.linkname = kind, target
    return member, b""


FORMATS: dict[str, Callable[[Mapping[str, bytes]], bytes]] = {
    "model.zip": zipped,
    "model.tar": tar,
    "model.tgz": lambda files: tar(files, "gz"),
    "model.tar.gz": lambda files: tar(files, "gz", prefix="./"),
    "model.tar.bz2": lambda files: tar(files, "bz2"),
    "model.tar.xz": lambda files: tar(files, "xz"),
}
"""File name of an archive → function that packs files into that format."""


def unpack(archive: Path, directory: Path, *, stopped: Callable[[], bool] = lambda: False) -> Mapping[str, UnpackedFile]:
    """Unpack one archive without a limit, as the engine does."""
    return unpack_layers([archive], directory, make_room=lambda _: None, stopped=stopped)
