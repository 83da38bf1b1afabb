"""The nouns everything else speaks of: what is asked for, what a source publishes, and byte ranges of it.

Pure values, importing nothing but errors, so that `loader` and outsiders may use them too.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import SplitResult, urlsplit, urlunsplit

from fetcher.errors import UsageError

CHUNK_SIZE = 16 * 1024 * 1024
"""Bytes. The grid of journal, manifest and `verify`: XXH3-128 of each 16 MiB is 48 bytes of text per chunk, 2.4 MB of
manifest for 800 GB; a flipped bit costs one chunk to fetch again, and a kill at most one chunk a connection."""

DigestAlgorithm = Literal["sha256", "git-sha1"]


@dataclass(frozen=True, slots=True, order=True)
class ByteRange:
    """Half-open: byte `start` is in it, byte `stop` is not. Only the HTTP transport knows that HTTP's are inclusive."""

    start: int
    stop: int

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.stop:
            raise ValueError(f"not a byte range: [{self.start}, {self.stop})")

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """A content digest as published or pinned: `sha256`, or `git-sha1` (`sha1("blob <size>\\0" + content)`)."""

    algorithm: DigestAlgorithm
    hex: str

    def __post_init__(self) -> None:
        length = {"sha256": 64, "git-sha1": 40}.get(self.algorithm)
        if length is None or not re.fullmatch(rf"[0-9a-f]{{{length}}}", self.hex):
            raise UsageError(f"not a digest: {self.algorithm}:{self.hex}; expected sha256:<64 hex digits>")

    @classmethod
    def parse(cls, text: str) -> Digest:
        """`sha256:HEX`, any case. Raises UsageError."""
        algorithm, _, value = text.strip().partition(":")
        return cls(algorithm.lower(), value.lower())  # type: ignore[arg-type]  # __post_init__ checks it

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file of an artifact, as its source lists it.

    `size` in bytes, None when the source won't say before the end. `digests` are all to be checked. `validator`
    identifies the content where no digest does (an HTTP ETag, a local file's inode and mtime). `ranges` is False when
    the source can only send it whole. `facts` are things a layout wants to keep (the Hub's `blob_id`, `xet_hash`).
    """

    path: str
    size: int | None
    digests: tuple[Digest, ...] = ()
    validator: str | None = None
    ranges: bool = True
    facts: Mapping[str, str] = field(default_factory=dict)

    @property
    def identity(self) -> str | None:
        """Equal for equal content at two moments; None when nothing vouches for it, so nothing may be resumed."""
        mark = ",".join(str(digest) for digest in sorted(self.digests)) or self.validator
        return f"{self.size}:{mark}" if mark else None


@dataclass(frozen=True, slots=True)
class Listing:
    """All files of an artifact at `revision` (the resolved one: a commit, an ETag), before any selection.

    `authenticated`: a credential was used to get it, so others may have no right to read the files.
    """

    revision: str | None
    files: tuple[RemoteFile, ...]
    authenticated: bool = False


@dataclass(frozen=True, slots=True)
class ArtifactRef:
    """What the user asked for: a URI exactly as written, and the selection given beside it."""

    uri: str
    revision: str | None = None
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    @property
    def key_text(self) -> str:
        """What the cache key is the hash of: the bare URI (KServe's and LLMKube's key) unless something is selected."""
        if self.revision is None and not self.include and not self.exclude:
            return self.uri
        selection = {"exclude": sorted(self.exclude), "include": sorted(self.include), "revision": self.revision}
        return self.uri + "\n" + json.dumps(selection, sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of `key_text`, 64 hex digits: what a manifest compares, since its own URI has secrets removed."""
        return hashlib.sha256(self.key_text.encode("utf-8", "surrogateescape")).hexdigest()

    @property
    def key(self) -> str:
        """The cache key: 16 hex digits."""
        return self.fingerprint[:16]


def redact(uri: str) -> str:
    """`uri` without userinfo and query values, fit for logs and manifests. Signed addresses carry secrets in both.

    The pin in the fragment stays: it is no secret, and a person wants to see it.
    """
    try:
        parts = urlsplit(uri)
    except ValueError:  # a host that can't be read; where its secrets begin and end can't be told either
        return f"{uri.partition(':')[0]}:..."
    if parts.scheme not in ("http", "https", "hf"):
        return uri
    if parts.scheme != "hf" and not _port_is_readable(parts):
        return f"{parts.scheme}:..."
    netloc = parts.netloc.rpartition("@")[2] if parts.scheme != "hf" else parts.netloc
    query = "&".join(f"{name}=..." if equals else "..." for name, equals, _ in _pairs(parts.query))
    return urlunsplit((parts.scheme, netloc, parts.path, query, parts.fragment))


def _port_is_readable(parts: SplitResult) -> bool:
    """A password with a raw / or # in it ends the host early, and its beginning stands where a port would."""
    with suppress(ValueError):
        return parts.port is None or parts.port > 0
    return False


def _pairs(query: str) -> Iterable[tuple[str, str, str]]:
    """Name, equals sign and value; what has no sign may be a secret as a whole."""
    return (pair.partition("=") for pair in query.split("&") if pair)


def total_size(files: Iterable[RemoteFile]) -> int:
    """Bytes of all files whose size is known."""
    return sum(file.size or 0 for file in files)
