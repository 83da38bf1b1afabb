"""Recognize files that are not weights: a Git LFS pointer, a web page, another format."""

from __future__ import annotations

import os
from collections.abc import Callable

from loader.checkpoint.files import open_file
from loader.errors import MalformedCheckpoint, from_os_error

HEAD = 512
"""Bytes that are enough to recognize each of them."""

LARGEST_POINTER = 1024
"""Bytes. A pointer is shorter, by the specification of Git LFS."""

_POINTERS = (b"version https://git-lfs", b"version https://hawser")
_POINTER = (
    "it is a Git LFS pointer, not the content; run `git lfs pull` in its repository, or fetch the model with `fetcher fetch`"
)
_PAGE = "it is a web page, such as a login page, or an error page of a server or proxy; fetch the file again"
_PAGES = (b"<!doctype", b"<html", b"<?xml", b"<head", b"<body")

_FORMATS = (
    (b"GGUF", "it is a GGUF file; rename it to .gguf, and load it with an engine that reads GGUF"),
    (b"FUGG", "it is a GGUF file; rename it to .gguf, and load it with an engine that reads GGUF"),
    (b"PK\3\4", "it is a ZIP archive, such as a PyTorch checkpoint (.bin, .pt); convert it to safetensors"),
    (b"PK\5\6", "it is an empty ZIP archive; fetch the file again"),
    (b"\x1f\x8b", "it is compressed with gzip; decompress it, or fetch the file again"),
    (b"\x28\xb5\x2f\xfd", "it is compressed with zstd; decompress it, or fetch the file again"),
    (b"\x89HDF", "it is an HDF5 file; convert it to safetensors"),
    (b"\x93NUMPY", "it is a numpy array; convert it to safetensors"),
)
_PICKLES = tuple(bytes([0x80, protocol]) for protocol in range(2, 6))
_PICKLE = "it is a Python pickle, such as an old PyTorch checkpoint (.bin, .pt); convert it to safetensors"
_JSON = "it is JSON, such as an error message of a server; read it, then fetch the file again"


def impostor(head: bytes) -> str | None:
    """Return the kind of a file that is not safetensors, by its first bytes, and the remedy; None if it is unknown."""
    if problem := misplaced(head):
        return problem
    for magic, problem in _FORMATS:
        if head.startswith(magic):
            return problem
    if head.startswith(_PICKLES):
        return _PICKLE
    return _JSON if _text(head).startswith((b"{", b"[")) else None


def misplaced(head: bytes) -> str | None:
    """Return the kind and the remedy of a pointer or a web page, which are never weights of any format; else None."""
    if head.startswith(_POINTERS):
        return _POINTER
    return _PAGE if _text(head).lower().startswith(_PAGES) else None


def read_head(descriptor: int, *, path: str) -> bytes:
    """Return the first bytes of the file, as many as `impostor` needs. Raises the errors of `from_os_error`."""
    try:
        return os.pread(descriptor, HEAD, 0)
    except OSError as error:
        raise from_os_error(error, doing="read the content", path=path) from error


def refuse_misplaced(path: str) -> None:
    """Refuse a pointer or a web page in place of weights. Raises MalformedCheckpoint, and the errors of `open_file`."""
    _refuse(path, misplaced)


def refuse_pointer(path: str) -> None:
    """Refuse a pointer in place of any file; a web page may be the right content. Raises the errors of `refuse_misplaced`."""
    _refuse(path, lambda head: _POINTER if head.startswith(_POINTERS) else None)


def _refuse(path: str, judge: Callable[[bytes], str | None]) -> None:
    descriptor = open_file(path)
    try:
        problem = judge(read_head(descriptor, path=path))
    finally:
        os.close(descriptor)
    if problem:
        raise MalformedCheckpoint(problem, path=path)


def _text(head: bytes) -> bytes:
    return head.removeprefix(b"\xef\xbb\xbf").lstrip()
