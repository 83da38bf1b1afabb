"""The Hugging Face Hub and its mirrors: `hf://`, and the Hub's own /resolve/ addresses.

Two metadata requests are enough: one for the commit, one for the tree with every size and digest. Each file's address is
resolved once, by the request for its first bytes. All its ranges use the signed address behind it until that expires.

`huggingface_hub` finds the token (environment, token file, OAuth refresh). Its listing is not used: `list_repo_tree` has no
deadline, sleeps in its own retry loop, which cannot be interrupted, and sends the token to any host that the next page's Link
names (read in huggingface_hub 2.4.0, `utils/_pagination.py`). This source follows a Link within the same origin only.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any
from urllib.parse import quote

from fetcher.artifact import ByteRange, Digest, Listing, RemoteFile
from fetcher.errors import (
    BadResponse,
    ConfigurationError,
    ContentChanged,
    NotFound,
    Transient,
    UsageError,
)
from fetcher.sources.access import HttpAccess
from fetcher.sources.addresses import DEFAULT_ENDPOINT, HubAddress, hub_credentials, hub_endpoint, is_commit
from fetcher.sources.base import Asking, Body, Remote, once
from fetcher.sources.locations import Location, expiry
from fetcher.sources.tokens import on_daemon_thread
from fetcher.transport.client import Answer, Credentials, HttpTransport, is_downgrade
from fetcher.transport.headers import given_headers, variable_for
from fetcher.transport.hub_endpoint import HubEndpoint
from fetcher.transport.ranges import check_part, check_whole, parts_differ, range_header, validator
from fetcher.transport.urls import origin_of

_PAGE_LIMIT = 32 * 1024 * 1024
"""Bytes of one page at most: 1,000 entries of 4 KiB paths and 20 numbers each are 8 MB."""
_PAGES = 1000
"""Pages of one listing at most. The largest repositories have some 100,000 files, 100 pages."""
_HOPS = 5
"""Redirects of one file within the Hub at most: the resolve cache is one, a mirror's own address another."""
_RENEWALS = 2
"""How often one range may renew an expired address: once because it expired, once if the new one expires meanwhile."""


class HubSource(Remote):
    """The source of one repository of the Hub."""

    def __init__(
        self, address: HubAddress, transport: HttpTransport, environ: Mapping[str, str], *, access: HttpAccess | None = None
    ) -> None:
        """`access` replaces the credentials of the process, which otherwise are looked for at the first request."""
        self._address = address
        self._transport = transport
        self._environ = environ
        self._endpoint = hub_endpoint(environ)
        self._origin = origin_of(self._endpoint)
        self._hub = HubEndpoint(self._endpoint, DEFAULT_ENDPOINT)
        self._credentials: Credentials | None = None
        self._token_known = access is not None
        if access is not None and access.headers:
            self._credentials = Credentials(self._origin, access.headers, access.given_by)
        self._commit: str | None = None
        self._locations: dict[str, Location] = {}
        self._reached: dict[str, str] = {}
        self._resolving: dict[str, asyncio.Lock] = {}

    async def aclose(self) -> None:
        await self._transport.aclose()

    async def resolve(self, ask: Asking = once) -> str | None:
        """The commit. Sends no request if the revision is a commit already."""
        revision = self._address.revision
        if is_commit(revision):
            return revision
        url = f"{self._api}/revision/{quote(revision, safe='')}"
        what = f"revision {revision} of {self._address.repository}"
        document, _ = await ask(partial(self._metadata, url, what=what))
        commit = document.get("sha") if isinstance(document, dict) else None
        if not isinstance(commit, str) or not is_commit(commit):
            raise BadResponse(f"the Hub's answer about {self._address.repository} contains no commit")
        return commit

    async def list(self, revision: str | None, ask: Asking = once) -> Listing:
        self._commit = revision
        # If the listing is requested again, known addresses may be outdated.
        self._locations.clear()
        self._reached.clear()
        files = [file async for file in self._tree(revision or "", ask)]
        wanted = self._address.path
        if wanted is not None:
            files = [_with_pins(file, self._address.pins) for file in files if file.path == wanted]
            if not files:
                raise NotFound(f"{self._address.repository} has no file {wanted} at this revision", path=wanted)
        return Listing(revision, tuple(files), authenticated=self._credentials is not None)

    def address(self, file: RemoteFile) -> str | None:
        return self._resolve_address(file)

    @asynccontextmanager
    async def open(self, file: RemoteFile, byte_range: ByteRange | None) -> AsyncIterator[Body]:
        answer, length = await self._answer(file, byte_range)
        try:
            yield answer.body(length=length, what=file.path)
        finally:
            answer.close()

    # Metadata

    @property
    def _api(self) -> str:
        return f"{self._endpoint}/api/{self._address.kind}/{self._address.repository}"

    async def _tree(self, commit: str, ask: Asking) -> AsyncIterator[RemoteFile]:
        url: str | None = f"{self._api}/tree/{commit}?recursive=true&expand=false"
        for _ in range(_PAGES):
            files, next_page = await ask(partial(self._page, url or ""))
            for file in files:
                yield file
            if next_page is None:
                return
            url = self._hub.next_page(url or "", next_page)
        raise BadResponse(f"the Hub's listing of {self._address.repository} has more than {_PAGES} pages")

    async def _page(self, url: str) -> tuple[tuple[RemoteFile, ...], str | None]:
        """The files of one page, and the address of the next."""
        entries, next_page = await self._metadata(url, what=f"the files of {self._address.repository}")
        if not isinstance(entries, list):
            raise BadResponse(f"the Hub's listing of {self._address.repository} is not a list")
        return tuple(file for entry in entries if (file := listed_file(entry)) is not None), next_page

    async def _metadata(self, url: str, *, what: str) -> tuple[Any, str | None]:
        """A JSON document, and the address of the next page."""
        async with self._transport.request(url, credentials=await self._token(), onward=self._hub.onward) as answer:
            if answer.status != 200:
                raise await answer.refusal(what=what)
            try:
                document = json.loads(await answer.read(_PAGE_LIMIT, what=what))
            except (ValueError, RecursionError) as error:
                raise BadResponse(f"the Hub's answer about {what} is not JSON") from error
        link = re.search(r'<([^>]{1,4096})>\s*;\s*rel="?next"?', answer.headers.get("Link", ""))
        return document, link[1] if link else None

    # Bytes

    async def _answer(self, file: RemoteFile, byte_range: ByteRange | None) -> tuple[Answer, int | None]:
        """The answer to a range request with a checked head, and the length of its body in bytes."""
        headers = {"Range": range_header(byte_range)} if byte_range else {}
        for renewal in range(_RENEWALS + 1):
            location, answer = await self._asked(file, headers)
            try:
                if answer.status in (401, 403, 410) and not location.direct and renewal < _RENEWALS:
                    self._forget(file, location)
                    answer.close()
                    continue
                if answer.status >= 400 and answer.status != 416:
                    raise await answer.refusal(what=file.path)
                return answer, self._check_head(answer, file, byte_range, location)
            except BaseException:
                answer.close()
                raise
        raise AssertionError("unreachable")

    def _check_head(self, answer: Answer, file: RemoteFile, byte_range: ByteRange | None, location: Location) -> int | None:
        if answer.status == 416:
            raise ContentChanged("the file is shorter than its listing says", path=file.path)
        if byte_range is not None:
            length: int | None = check_part(answer.status, answer.headers, wanted=byte_range, size=file.size)
        else:
            length = check_whole(answer.status, answer.headers, size=file.size) or file.size
        seen = validator(answer.headers)
        if byte_range is not None and parts_differ(file, location.validator, seen):
            self._forget(file, location)
            raise ContentChanged(f"{file.path} was replaced at the server while it was fetched", path=file.path)
        location.validator = location.validator or seen
        return length

    async def _asked(self, file: RemoteFile, headers: Mapping[str, str]) -> tuple[Location, Answer]:
        """The location of `file`, and its answer to a request with `headers`.

        The first request resolves the location, and other ranges wait for that. It asks for bytes at once: a file that the Hub
        serves itself takes one request, one behind a redirect takes two, and no HEAD is sent before.
        """
        async with self._resolving.setdefault(file.path, asyncio.Lock()):
            location = self._locations.get(file.path)
            if location is None or location.stale():
                location, answer = await self._resolved(file, headers)
                self._locations[file.path] = location
                if answer is not None:
                    return location, answer
        credentials = await self._token() if location.direct else None
        return location, await self._transport.open(
            location.url, headers=headers, credentials=credentials, allow_downgrade=bool(file.digests)
        )

    async def _resolved(self, file: RemoteFile, headers: Mapping[str, str]) -> tuple[Location, Answer | None]:
        """The location of its bytes, with the answer if the Hub serves them itself.

        After a temporary failure the next call continues at the redirect that failed.
        """
        began = url = self._reached.pop(file.path, None) or self._resolve_address(file)
        for _ in range(_HOPS):
            try:
                answer, target = await self._redirect(url, file, headers)
            except Transient:
                if url != began:
                    self._reached[file.path] = url
                raise
            if target is None:
                return Location(url, None, direct=True), answer
            await answer.dismiss()
            url = self._hub.onward(url, target)
            if origin_of(url) != self._origin:
                if is_downgrade(self._endpoint, url) and not file.digests:
                    raise BadResponse(f"the Hub redirects {file.path} from https to http", path=file.path)
                return Location(url, expiry(url), direct=False), None
        raise BadResponse(f"the Hub redirects {file.path} in circles", path=file.path)

    def _resolve_address(self, file: RemoteFile) -> str:
        address = self._address
        return f"{self._endpoint}/{address.prefix}{address.repository}/resolve/{self._commit}/{quote(file.path)}"

    async def _redirect(self, url: str, file: RemoteFile, headers: Mapping[str, str]) -> tuple[Answer, str | None]:
        """The answer of the Hub for `file`, and the address that it redirects to; None if it serves the file itself."""
        answer = await self._transport.open(url, headers=headers, credentials=await self._token(), redirects=0)
        try:
            if answer.status >= 400 and answer.status != 416:
                raise await answer.refusal(what=f"{file.path} of {self._address.repository}")
            refuse_other_content(answer.headers, file, self._commit)
        except BaseException:
            answer.close()
            raise
        return answer, answer.headers.get("Location") if 300 <= answer.status < 400 else None

    def _forget(self, file: RemoteFile, location: Location) -> None:
        if self._locations.get(file.path) is location:
            del self._locations[file.path]

    # Credentials

    async def _token(self) -> Credentials | None:
        """The credentials, looked up once, on a separate thread: an OAuth token may be refreshed over the network."""
        if not self._token_known:
            headers, origins = await _authorization(self._environ)
            if extra := given_headers(self._endpoint, self._environ):
                headers |= extra
                origins.append(variable_for(self._endpoint))
            self._credentials = Credentials(self._origin, headers, " and ".join(origins)) if headers else None
            self._token_known = True
        return self._credentials


async def _authorization(environ: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """The Authorization header, and the names of its origins.

    A mirror with its own password gets that password and not the token, which belongs to the Hub.
    """
    if own := hub_credentials(environ):
        return {"Authorization": own}, ["HF_ENDPOINT"]
    token = await on_daemon_thread(_find_token, what="the Hub's token")
    origin = token_origin(token)
    if authorization := _bearer(token, origin):
        return {"Authorization": authorization}, [origin]
    return {}, []


def listed_file(entry: Any) -> RemoteFile | None:
    """The file that an entry of the tree describes; None for a directory. Raises BadResponse.

    The Hub gives every file a digest. A mirror that lists no `oid` publishes none, which `--require-digests` refuses.
    """
    try:
        match entry:
            case {"type": "directory"}:
                return None
            case {"path": str(path), "size": int(size), "oid": str(oid)} if size >= 0:
                facts = {"blob_id": oid}
                if isinstance(entry.get("xetHash"), str):
                    facts["xet_hash"] = entry["xetHash"]
                match entry.get("lfs"):
                    case {"size": int(length), "oid": str(sha256)} if length >= 0:
                        facts["lfs_size"] = str(length)
                        return RemoteFile(path, length, (Digest("sha256", sha256),), facts=facts)
                    case dict():
                        raise BadResponse("the Hub's listing contains an LFS entry without size or digest")
                return RemoteFile(path, size, (Digest("git-sha1", oid),), facts=facts)
            case {"path": str(path), "size": int(size)} if size >= 0 and not entry.keys() & {"oid", "lfs"}:
                return RemoteFile(path, size, ())
    except UsageError as error:
        raise BadResponse("the Hub's listing contains an entry with an invalid digest") from error
    raise BadResponse("the Hub's listing contains an entry without path, size or digest")


def _with_pins(file: RemoteFile, pins: tuple[Digest, ...]) -> RemoteFile:
    return replace(file, digests=(*file.digests, *(pin for pin in pins if pin not in file.digests)))


def refuse_other_content(headers: Mapping[str, str], file: RemoteFile, commit: str | None) -> None:
    """Raise ContentChanged if the headers of a resolved file contradict its listing."""
    served = headers.get("X-Repo-Commit")
    if served and commit and served != commit:
        raise ContentChanged(f"{file.path}: the Hub answers for commit {served[:40]}, not {commit}", path=file.path)
    etag = headers.get("X-Linked-Etag", "").removeprefix("W/").strip('"')
    size = headers.get("X-Linked-Size", "")
    known = {digest.hex for digest in file.digests}
    if re.fullmatch(r"[0-9a-f]{64}|[0-9a-f]{40}", etag) and known and etag not in known:
        raise ContentChanged(f"{file.path}: the Hub lists one digest and links another", path=file.path)
    if re.fullmatch(r"[0-9]{1,19}", size) and file.size is not None and int(size) != file.size:
        raise ContentChanged(f"{file.path}: the Hub lists {file.size:,} bytes and links {int(size):,}", path=file.path)


def _bearer(token: str, origin: str) -> str | None:
    """The Authorization header for `token`; None without a token. Raises ConfigurationError, which does not show the token.

    Quotes, a byte order mark and a leading `Bearer`, which often get into secrets and .env files, are removed.
    """
    token = token.strip("\ufeff \t\r\n")
    while len(token) > 1 and token[0] == token[-1] and token[0] in "\"'":
        token = token[1:-1].strip()
    token = re.sub(r"^bearer(\s+|$)", "", token, flags=re.IGNORECASE)
    if not token:
        return None
    if not re.fullmatch(r"[!#-&(-~]+", token):
        raise ConfigurationError(f"the Hub's token (from {origin}) contains characters that no token has; set it again")
    return f"Bearer {token}"


def _find_token() -> str:
    """The token that huggingface_hub finds. Importing it takes 0.15 s, more than a small fetch. So the usual cases in a
    cluster, a token in the environment or none at all, do without it. Raises ConfigurationError."""
    if not os.environ.keys() & {"HF_OIDC_RESOURCE", "HF_TOKEN_PATH"} and "google.colab" not in sys.modules:
        token = os.environ.get("HF_TOKEN") or os.environ.get("HUGGING_FACE_HUB_TOKEN")
        if token or not os.path.lexists(_token_file()):
            return (token or "").strip()
    import huggingface_hub

    try:
        return (huggingface_hub.get_token() or "").strip()
    except PermissionError:
        if "HF_TOKEN_PATH" in os.environ:
            raise ConfigurationError(f"{token_origin('')} cannot be read; check its owner and mode") from None
        # HOME belongs to another user, such as an image's /root for a pod with runAsUser: its token is not meant for us.
        return ""
    except IsADirectoryError:
        raise ConfigurationError(f"{token_origin('')} is a directory; set HF_TOKEN_PATH to the file in it") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{token_origin('')} is not UTF-8 text; write it again, e.g. with hf auth login") from None


def token_origin(token: str) -> str:
    """The origin of the `token` that `_find_token` returned: the name of a variable, or the path of the token file."""
    for variable in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        if token and os.environ.get(variable, "").strip() == token:
            return variable
    if "HF_OIDC_RESOURCE" in os.environ:
        return "HF_OIDC_RESOURCE"
    path = os.path.expanduser(os.path.expandvars(os.environ.get("HF_TOKEN_PATH") or _token_file()))
    return f"the token file {path}" if os.path.lexists(path) else "huggingface_hub"


def _token_file() -> str:
    """The path that `hf auth login` writes the token to, unless HF_TOKEN_PATH is set."""
    caches = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    home = os.environ.get("HF_HOME") or os.path.join(caches, "huggingface")
    return os.path.join(os.path.expandvars(os.path.expanduser(home)), "token")
