"""What all object stores have in common: an artifact is one object, or all objects below a prefix of a bucket.

A store brings a `Bucket`: how one object is described, one page listed and one range asked for. The rest is here, once: which
objects an address names, their revision, and the checks of each answer.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Protocol

from fetcher.artifact import ByteRange, Checksum, Digest, Listing, RemoteFile
from fetcher.errors import BadResponse, ContentChanged, FetchError, NotFound, Unauthorized, UsageError
from fetcher.sources.base import Asking, Body, Remote, once
from fetcher.transport.client import Answer
from fetcher.transport.ranges import check_part, check_whole
from fetcher.values import dataclass

_OBJECTS = 1_000_000
"""Objects of one listing at most, which take 0.5 GB. The largest repositories of models have some 100,000 files."""
_EMPTY_PAGES = 100
"""Pages in a row without a new object. Stores send a few, where many objects were deleted."""
_DESCRIBED_AT_ONCE = 16
"""Requests for descriptions at the same time: 2,000 files take 125 round trips instead of 2,000."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One object of a bucket. `etag` is without quotes; `version` is the store's own name of this content, if it has one."""

    key: str
    size: int
    etag: str
    version: str | None = None
    digests: tuple[Digest, ...] = ()
    checksums: tuple[Checksum, ...] = ()


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a listing. `token` asks for the next page; None at the end."""

    objects: tuple[StoredObject, ...]
    token: str | None = None


class Bucket(Protocol):
    """One bucket as one caller sees it. Every call makes one request and raises SourceError; none retries.

    A call may make a second request if the first was refused for what this caller can change at once: an expired token, the
    region of the bucket, a wrong clock.
    """

    @property
    def uri(self) -> str:
        """The address of the bucket for messages, without secrets: `s3://bucket`."""
        ...

    @property
    def authenticated(self) -> bool:
        """Whether a credential is used."""
        ...

    async def find(self, key: str, version: str | None) -> StoredObject | None:
        """Return the object with exactly this key; None if there is none."""
        ...

    async def page(self, prefix: str, token: str | None) -> Page:
        """Return one page of all objects whose keys begin with `prefix`, which is empty or ends in `/`."""
        ...

    async def described(self, stored: StoredObject) -> StoredObject:
        """Return `stored` with the digests and checksums that the listing did not tell."""
        ...

    async def read(self, stored: StoredObject, byte_range: ByteRange | None) -> Answer:
        """Ask for bytes of exactly this content. The answer may have any status; the caller closes it."""
        ...

    async def refusal(self, answer: Answer, *, what: str) -> FetchError:
        """Return the error that an answer with a status from 300 on means: a store redirects nowhere."""
        ...

    async def aclose(self) -> None: ...


class ObjectSource(Remote):
    """The source of one object, or of all objects below a prefix. `path` is decoded, without a leading slash."""

    def __init__(self, bucket: Bucket, path: str, *, version: str | None = None) -> None:
        if version is not None and (not path or path.endswith("/")):
            raise UsageError("a version is of one object; name the object, or leave the version out")
        self._bucket = bucket
        self._path = path
        self._version = version
        self._found: dict[str, StoredObject] = {}
        self._revision: str | None = None

    async def aclose(self) -> None:
        await self._bucket.aclose()

    async def resolve(self, ask: Asking = once) -> str | None:
        """The SHA-256 of all keys, ETags, sizes and versions: a store has no revisions, so the listing is one."""
        found = await self._single(ask)
        self._found = {self._path.rpartition("/")[2]: found} if found is not None else await self._below(ask)
        self._revision = _revision_of(self._found.values())
        return self._revision

    async def list(self, revision: str | None, ask: Asking = once) -> Listing:
        if self._revision is None or self._revision != revision:
            await self.resolve(ask)
        if self._revision != revision:
            raise ContentChanged(f"{self._where} has other objects now than at revision {(revision or 'none')[:12]}")
        files = tuple(_file(path, stored) for path, stored in self._found.items())
        return Listing(revision, files, authenticated=self._bucket.authenticated)

    async def describe(self, files: Sequence[RemoteFile], ask: Asking = once) -> Sequence[RemoteFile]:
        places = asyncio.Semaphore(_DESCRIBED_AT_ONCE)
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._described(file, ask, places)) for file in files]
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None  # the others were cancelled for it
        return [task.result() for task in tasks]

    @asynccontextmanager
    async def open(self, file: RemoteFile, byte_range: ByteRange | None) -> AsyncIterator[Body]:
        stored = self._found[file.path]
        answer = await self._bucket.read(stored, byte_range)
        try:
            yield answer.body(length=await self._checked(answer, stored, file, byte_range), what=file.path)
        finally:
            answer.close()

    # Which objects

    @property
    def _where(self) -> str:
        return f"{self._bucket.uri}/{self._path}"

    async def _single(self, ask: Asking) -> StoredObject | None:
        """The object that the address names exactly; None if it can only name a prefix."""
        if not self._path or self._path.endswith("/"):
            return None
        try:
            found = await ask(partial(self._bucket.find, self._path, self._version))
        except Unauthorized:
            if self._version is not None:
                raise
            return None  # without the right to list, a missing object is refused too; the listing says what is wrong
        if found is None and self._version is not None:
            raise NotFound(f"there is no version {self._version} of {self._where}; check key and version")
        return found

    async def _below(self, ask: Asking) -> dict[str, StoredObject]:
        """All objects below the prefix by their paths. A prefix ends at a slash: `model` never means `model-old/`.

        The errors of a listing that lies are raised outside `ask`: asking again would bring the same.
        """
        prefix = f"{self._path.rstrip('/')}/" if self._path else ""
        found: dict[str, StoredObject] = {}
        seen: set[str] = set()
        token: str | None = None
        empty = 0
        while len(found) <= _OBJECTS and empty < _EMPTY_PAGES:
            page = await ask(partial(self._bucket.page, prefix, token))
            before = len(found)
            found.update(self._files_of(page, prefix))
            empty = 0 if len(found) > before else empty + 1
            token = page.token
            if token is None:
                if not found:
                    raise NotFound(f"there is no object {self._where}, and none below it; check bucket and path")
                return found
            if token in seen:
                raise BadResponse(f"the listing of {self._where} repeats itself")
            seen.add(token)
        if empty:
            raise BadResponse(f"the listing of {self._where} goes on for {empty} pages without a new object")
        raise BadResponse(f"the listing of {self._where} has more than {_OBJECTS:,} objects; name a prefix with fewer")

    def _files_of(self, page: Page, prefix: str) -> Iterator[tuple[str, StoredObject]]:
        """The objects of a page by their paths, without the markers of directories."""
        for stored in page.objects:
            if not stored.key.startswith(prefix):
                raise BadResponse(f"the listing of {self._where} contains {stored.key[:200]!r}, which is not below it")
            if stored.size or not stored.key.endswith("/"):
                yield stored.key[len(prefix) :], stored

    # One object

    async def _described(self, file: RemoteFile, ask: Asking, places: asyncio.Semaphore) -> RemoteFile:
        async with places:
            stored = await ask(partial(self._bucket.described, self._found[file.path]))
        self._found[file.path] = stored
        digests = (*file.digests, *(digest for digest in stored.digests if digest not in file.digests))
        return replace(file, digests=digests, checksums=stored.checksums)

    async def _checked(
        self, answer: Answer, stored: StoredObject, file: RemoteFile, byte_range: ByteRange | None
    ) -> int | None:
        """The length of the body in bytes. Raises the error that the answer means."""
        if answer.status in (404, 412, 416):
            raise ContentChanged(f"{file.path} was replaced or removed at the store while it was fetched", path=file.path)
        if answer.status >= 300:
            raise await self._bucket.refusal(answer, what=file.path)
        etag = answer.headers.get("ETag", "").strip().removeprefix("W/").strip('"')
        if etag and stored.etag and etag != stored.etag and not file.digests:
            raise ContentChanged(f"{file.path} was replaced at the store while it was fetched", path=file.path)
        if byte_range is not None:
            return check_part(answer.status, answer.headers, wanted=byte_range, size=file.size)
        return check_whole(answer.status, answer.headers, size=file.size) or file.size


def _file(path: str, stored: StoredObject) -> RemoteFile:
    mark = f'etag "{stored.etag}"' + (f" version {stored.version}" if stored.version else "")
    return RemoteFile(path, stored.size, stored.digests, mark, checksums=stored.checksums)


def _revision_of(objects: Iterable[StoredObject]) -> str:
    lines = sorted(repr((each.key, each.etag, each.size, each.version)) for each in objects)
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()
