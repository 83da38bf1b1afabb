"""The basic values: the reference to an artifact, the files that a source publishes, their digests and byte ranges.

Pure values that import only errors, so that `loader` and other packages can use them too.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import field
from typing import Literal, Protocol
from urllib.parse import SplitResult, urlsplit, urlunsplit

from fetcher.errors import UsageError
from fetcher.values import dataclass

CHUNK_SIZE = 16 * 1024 * 1024
"""Bytes. The grid of journal, manifest and `verify`: XXH3-128 of each 16 MiB is 48 bytes of text per chunk, 2.4 MB of
manifest for 800 GB. After a flipped bit one chunk is fetched again, after a kill at most one chunk per connection."""

ORIGIN = "origin"
"""The supplier of bytes that come from where the URI points to. Any other supplier is a mirror, by its address."""
UNKNOWN = ""
"""The supplier of bytes that came before suppliers were recorded, or of a chunk of two: nobody is blamed for them."""

DigestAlgorithm = Literal["sha256", "git-sha1"]
ChecksumAlgorithm = Literal["crc64nvme", "crc32c", "crc32", "md5"]
_DIGEST_DIGITS = {"sha256": 64, "git-sha1": 40}
_CHECKSUM_DIGITS = {"crc64nvme": 16, "crc32c": 8, "crc32": 8, "md5": 32}


@dataclass(frozen=True, slots=True, order=True)
class ByteRange:
    """A half-open range: it contains byte `start` but not byte `stop`. Only the HTTP transport uses HTTP's inclusive ranges."""

    start: int
    stop: int

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.stop:
            raise ValueError(f"not a byte range: [{self.start}, {self.stop})")

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """A content digest, published or pinned: `sha256`, or `git-sha1` (`sha1("blob <size>\\0" + content)`)."""

    algorithm: DigestAlgorithm
    hex: str

    def __post_init__(self) -> None:
        if not _is_hex(self.hex, _DIGEST_DIGITS.get(self.algorithm)):
            raise UsageError(f"{self.algorithm}:{self.hex} is not a digest; write sha256:<64 hex digits>")

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Parse `sha256:HEX`, in any case. Raises UsageError."""
        algorithm, _, value = text.strip().partition(":")
        return cls(algorithm.lower(), value.lower())  # type: ignore[arg-type]  # __post_init__ checks it

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"


def _is_hex(text: str, digits: int | None) -> bool:
    """Whether `text` is a number of so many digits. A hit makes each digest of its manifest, and one expression for all lengths
    takes a third of the time."""
    return len(text) == digits and re.fullmatch("[0-9a-f]+", text) is not None


@dataclass(frozen=True, slots=True, order=True)
class Checksum:
    """A checksum that a store publishes. It finds damage, and no forgery: it never makes a file verified by a digest.

    `hex` is the value, its highest byte first. With `parts`, the sizes in bytes of the parts of an upload, it is the checksum
    of the checksums of these parts: a composite CRC, or the MD5 in an ETag of several parts.
    """

    algorithm: ChecksumAlgorithm
    hex: str
    parts: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not _is_hex(self.hex, _CHECKSUM_DIGITS.get(self.algorithm)):
            raise ValueError(f"not a checksum: {self.algorithm}:{self.hex}")

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}" + (f"-{len(self.parts)}" if self.parts else "")


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file of an artifact, as its source lists it.

    `size` is in bytes, None if the source does not give it before the end. All `digests` are checked; `checksums` identify
    nothing. `validator` identifies the content of a file without a digest (an HTTP ETag, a local file's inode and mtime).
    `ranges` is False if the source can only send the whole file. `facts` are details that a layout keeps (the Hub's
    `blob_id`, `xet_hash`).
    """

    path: str
    size: int | None
    digests: tuple[Digest, ...] = ()
    validator: str | None = None
    ranges: bool = True
    facts: Mapping[str, str] = field(default_factory=dict)
    checksums: tuple[Checksum, ...] = ()

    @property
    def identity(self) -> str | None:
        """A text that is equal as long as the content is unchanged; None without digest or validator: no resume is possible."""
        mark = ",".join(str(digest) for digest in sorted(self.digests)) or self.validator
        return f"{self.size}:{mark}" if mark else None


def published_content(identity: str) -> tuple[int, Digest] | None:
    """Return size and first digest of a file with this `identity`; None if only a validator identifies its content."""
    size, _, marks = identity.partition(":")
    with suppress(ValueError, UsageError):
        return int(size), Digest.parse(marks.partition(",")[0])
    return None


@dataclass(frozen=True, slots=True)
class Listing:
    """All files of an artifact at the resolved `revision` (a commit, an ETag), before any selection.

    `authenticated` is True if a credential was used to get it: other users may have no right to read the files.
    `unconfirmed` is True if the source was not asked: the list says what a directory holds.
    """

    revision: str | None
    files: tuple[RemoteFile, ...]
    authenticated: bool = False
    unconfirmed: bool = False


@dataclass(frozen=True, slots=True)
class ArtifactRef:
    """The user's request: a URI exactly as written, a revision, and the patterns that select files."""

    uri: str
    revision: str | None = None
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    @property
    def key_text(self) -> str:
        """The text whose hash is the cache key: without a selection the bare URI, which is KServe's and LLMKube's key."""
        if self.revision is None and not self.include and not self.exclude:
            return self.uri
        selection = {"exclude": sorted(self.exclude), "include": sorted(self.include), "revision": self.revision}
        return self.uri + "\n" + json.dumps(selection, sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of `key_text`, 64 hex digits. A manifest compares it, since secrets are removed from the manifest's URI."""
        return hashlib.sha256(self.key_text.encode("utf-8", "surrogateescape")).hexdigest()

    @property
    def key(self) -> str:
        """The cache key: 16 hex digits."""
        return self.fingerprint[:16]


class Described(Protocol):
    """A file as a listing or a manifest describes it."""

    @property
    def path(self) -> str: ...
    @property
    def size(self) -> int | None: ...
    @property
    def digests(self) -> tuple[Digest, ...]: ...
    @property
    def checksums(self) -> tuple[object, ...]: ...
    @property
    def validator(self) -> str | None: ...


def listing_digest(files: Iterable[Described]) -> str:
    """Return the SHA-256 of a listing, 64 hex digits: of a line for each file, sorted, with path, size, and digests.

    Checksums stand for the content of a file without a digest alone, since a file that was shared within a cache root was
    compared with its digest, and its manifest has no checksum. Without either its validator does. So a manifest has the digest
    of its listing, unless the source did not give a size, or `--expect` added a digest.
    """
    lines = (
        json.dumps([each.path, each.size, sorted(map(str, each.digests or each.checksums)) or each.validator]) for each in files
    )
    return hashlib.sha256("".join(f"{line}\n" for line in sorted(lines)).encode()).hexdigest()


def known_listing(files: Sequence[RemoteFile]) -> str | None:
    """Return the digest of a listing; None without the size of a file: its manifest will have another one."""
    return listing_digest(files) if all(file.size is not None for file in files) else None


def redact(uri: str) -> str:
    """Return `uri` without userinfo and query values, for logs and manifests. Signed URLs carry secrets in both.

    The pinned digest in the fragment stays: it is not secret.
    """
    try:
        parts = urlsplit(uri)
    except ValueError:  # the host is malformed, so the position of its secrets is unknown
        return f"{uri.partition(':')[0]}:..."
    if parts.scheme in ("s3", "gs", "oci", "oci+fetch"):
        return _redacted_place(uri)
    if parts.scheme not in ("http", "https", "hf", "az"):
        return uri
    if parts.scheme != "hf" and not _port_is_readable(parts):
        return f"{parts.scheme}:..."
    netloc = parts.netloc.rpartition("@")[2] if parts.scheme != "hf" else parts.netloc
    query = "&".join(f"{name}=..." if equals else "..." for name, equals, _ in _pairs(parts.query))
    return urlunsplit((parts.scheme, netloc, parts.path, query, parts.fragment))


def _redacted_place(uri: str) -> str:
    """An address of S3, Google Cloud Storage or a registry. A key may be any text; only what does not belong there is secret.

    With an `@` before the path, or far from its end, the position of a password is unknown, so all of it is left out.
    """
    scheme, _, rest = uri.partition("://")
    place, slash, path = rest.partition("/")
    if "@" in place or (":" in place and "@" in path and scheme in ("s3", "gs")):
        return f"{scheme}:..."
    key, mark, query = path.partition("?")
    split = (pair.partition("=") for pair in query.split("&"))
    pairs = (f"{name}={value if name == 'versionId' else '...'}" if equals else name for name, equals, value in split)
    return f"{scheme}://{place}{slash}{key}{mark}{'&'.join(pairs)}"


def _port_is_readable(parts: SplitResult) -> bool:
    """Whether the port is a number: a password with a raw / or # ends the host early, and its beginning looks like a port."""
    with suppress(ValueError):
        return parts.port is None or parts.port > 0
    return False


def _pairs(query: str) -> Iterable[tuple[str, str, str]]:
    """The name, equals sign and value of each pair; a pair without a sign may be a secret as a whole."""
    return (pair.partition("=") for pair in query.split("&") if pair)


def total_size(files: Iterable[RemoteFile]) -> int:
    """Return the bytes of all files whose size is known."""
    return sum(file.size or 0 for file in files)
