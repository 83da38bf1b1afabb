"""Answers one request on a thread that may block: whose it is, what it is for, and the bytes.

::

    GET /v1/<key>/<listing digest>/<path>               the file, or a range of it
    GET /v1/<key>/have?listing=<digest>&since=<mark>    which chunks are here; waits for a change since the mark
"""

from __future__ import annotations

import os
import re
import socket
import ssl
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, closing
from functools import cache, partial
from typing import Any, Literal

from fetcher.artifact import ByteRange
from fetcher.cache.offer import Offer, OfferedFile
from fetcher.cache.offering import Offers
from fetcher.planning.have import Mark
from fetcher.serving.answers import Field, head, of_file, short
from fetcher.serving.authorization import Authorization, Caller
from fetcher.serving.counts import Counts
from fetcher.serving.maps import Maps
from fetcher.serving.places import Places
from fetcher.serving.requests import BadRequest, NotSatisfiable, Request, part
from fetcher.serving.sending import Buffered, Compared, Sender
from fetcher.values import dataclass

Outcome = Literal["next", "close", "wait"]
"""Another request may follow; the connection ends; or the answer is due when the map changes, or the wait has lasted."""

_DIGEST = re.compile("[0-9a-f]{64}")
_LATER: Field = ("Retry-After", "1")


@dataclass(frozen=True, slots=True)
class Answerer:
    """Answers requests of one server. `private`: nobody else reads what is sent, so it may be what is not for everybody.

    `places`: one for each file that is sent at a time. `named`: callers are told apart by their names, else by their addresses.
    """

    offers: Offers
    maps: Maps
    authorization: Authorization
    sender: Sender
    counts: Counts
    places: Places
    private: bool
    named: bool

    def answer(self, peer: socket.socket, request: Request, *, due: bool) -> Outcome:
        """Answer `request`. `due`: it has waited long enough. Raises OSError if the peer has hung up or reads nothing."""
        try:
            key, rest = self._route(request)
            caller = _caller(peer, request)
            offer = self._offered(caller, key, _listing(request))
            if rest == ("have",):
                return self._tell(peer, request, offer, due=due)
            who = "/".join(caller.names) if self.named else peer.getpeername()[0]
            return self._send(peer, request, offer, "/".join(rest[1:]), who)
        except _Refused as refused:
            return self.refuse(peer, request, refused.status, refused.why, refused.fields)

    def refuse(
        self, peer: socket.socket, request: Request | None, status: int, why: str, fields: tuple[Field, ...] = ()
    ) -> Outcome:
        """Send a status and a line that says why. Without a request the connection ends."""
        persistent = request is not None and request.persistent
        only_head = request is not None and request.method == "HEAD"
        self.counts.answered(status)
        peer.sendall(short(status, f"{why}\n".encode(), persistent=persistent, fields=fields, only_head=only_head))
        return "next" if persistent else "close"

    def patience(self, request: Request) -> float | None:
        """The seconds that a peer wants to wait for a change; None if it does not say."""
        wait = request.query.get("wait", "")
        return float(wait) if re.fullmatch("[0-9]{1,4}", wait) else None

    def changed(self, waiting: Sequence[Request]) -> list[bool]:
        """Whether each of the requests `waiting` has something to learn by now. Each artifact is looked at once for all."""
        find = cache(self.offers.find)
        offers = [find(each.segments[1], _listing(each)) for each in waiting]
        return [
            offer is None or (seen := _seen(each)) != self.maps.of(offer, seen).at
            for offer, each in zip(offers, waiting, strict=True)
        ]

    def _route(self, request: Request) -> tuple[str, tuple[str, ...]]:
        """The key, and what follows it: `have`, or the digest of a listing and the segments of a path. Raises _Refused."""
        if request.method not in ("GET", "HEAD"):
            raise _Refused(405, "only GET and HEAD", (("Allow", "GET, HEAD"),))
        match request.segments:
            case ("v1", key, "have"):
                return key, ("have",)
            case ("v1", key, listing, *path) if path and _DIGEST.fullmatch(listing):
                return key, (listing, *path)
        raise _Refused(404, "not found; ask for /v1/KEY/have or /v1/KEY/LISTING/FILE")

    def _offered(self, caller: Caller, key: str, listing: str | None) -> Offer:
        """The artifact, if the caller may have it. Raises _Refused; nobody learns what there is that is not for them."""
        verdict = self.authorization(caller, key)
        if verdict == "unavailable":
            raise _Refused(503, "cannot ask now who you are; try again", (_LATER,))
        if verdict == "denied":
            raise _Refused(
                401,
                "this is not for you; show a token, or a certificate, that has the right",
                (("WWW-Authenticate", "Bearer"),),
            )
        offer = self.offers.find(key, listing)
        if offer is None or (offer.authenticated and not (verdict == "granted" and self.private)):
            raise _Refused(404, "no such artifact here")
        return offer

    def _tell(self, peer: socket.socket, request: Request, offer: Offer, *, due: bool) -> Outcome:
        seen = _seen(request)
        present = self.maps.of(offer, seen)
        if seen == present.at and not due and request.method == "GET":
            return "wait"
        self.counts.answered(200)
        body, kind, only_head = present.to_bytes(), "application/json", request.method == "HEAD"
        peer.sendall(short(200, body, persistent=request.persistent, kind=kind, only_head=only_head))
        return "next" if request.persistent else "close"

    def _send(self, peer: socket.socket, request: Request, offer: Offer, path: str, who: str) -> Outcome:
        file = offer.files.get(path)
        if file is None:
            raise _Refused(404, "no such file in this listing")
        try:
            wanted = part(request, file.size, f'"{file.tag}"')
        except NotSatisfiable:
            raise _Refused(416, "no such range", (("Content-Range", f"bytes */{file.size}"),)) from None
        with ExitStack() as stack:
            if not self.places.take(who):
                raise _Refused(503, "too many uploads; try again", (_LATER,))
            stack.callback(self.places.give_back, who)
            self.counts.uploading(1)
            stack.callback(self.counts.uploading, -1)
            upload = _Upload(peer, request, file, wanted)
            return self._published(upload, offer, path) if offer.complete else self._staged(upload, offer, path)

    def _published(self, upload: _Upload, offer: Offer, path: str) -> Outcome:
        descriptor = self.offers.open(offer, path)
        if descriptor is None:
            raise _Refused(404, "the artifact is gone")
        try:
            return self._upload(upload, lambda: self.sender.send(upload.peer, descriptor, upload.part))
        finally:
            os.close(descriptor)  # until now the open file kept the artifact from being evicted

    def _staged(self, upload: _Upload, offer: Offer, path: str) -> Outcome:
        """Send chunks that are compared before. Nothing is answered before the first of them is right."""
        if not offer.holds(path, upload.part):
            raise _Refused(404, "not all of this is here")
        with closing(Compared(upload.file.size, partial(self.offers.chunk, offer, path))) as reading:
            way = Buffered(upload.peer, reading)
            if upload.has_body:
                try:
                    way.load(upload.part.start)
                except EOFError:
                    raise _Refused(404, "it is gone") from None
            return self._upload(upload, lambda: self.sender.send_checked(way, upload.part))

    def _upload(self, upload: _Upload, send: Callable[[], bool]) -> Outcome:
        status, fields = of_file(upload.file.size, upload.tag, upload.wanted)
        self.counts.answered(status)
        start = head(status, fields, length=len(upload.part), persistent=upload.request.persistent)
        if not upload.has_body:
            upload.peer.sendall(start)
        else:
            _begin(upload.peer, start)
            if not send():
                return "close"
        return "next" if upload.request.persistent else "close"


@dataclass(frozen=True, slots=True)
class _Upload:
    """A file, or the range `wanted` of it, for the peer that asks."""

    peer: socket.socket
    request: Request
    file: OfferedFile
    wanted: ByteRange | None

    @property
    def tag(self) -> str:
        return f'"{self.file.tag}"'

    @property
    def part(self) -> ByteRange:
        return self.wanted or ByteRange(0, self.file.size)

    @property
    def has_body(self) -> bool:
        return self.request.method != "HEAD" and len(self.part) > 0


def _caller(peer: socket.socket, request: Request) -> Caller:
    """Who asks. A certificate's names are those for machines; one that was not verified has none."""
    shown = peer.getpeercert() if isinstance(peer, ssl.SSLSocket) else None
    names: Iterable[Any] = (shown or {}).get("subjectAltName", ())
    return Caller(request.bearer, tuple(str(name) for kind, name in names if kind == "DNS"))


def _listing(request: Request) -> str | None:
    """The digest of the listing that is asked for; None for any."""
    match request.segments:
        case (_, _, "have"):
            return request.query.get("listing")
        case (_, _, listing, *_):
            return listing
    return None


def _seen(request: Request) -> Mark | None:
    return Mark.parse(request.query.get("since", ""))


def _begin(peer: socket.socket, start: bytes) -> None:
    """Send the head of an answer; without TLS, together with the first bytes of the file in one packet."""
    peer.sendall(start, 0 if isinstance(peer, ssl.SSLSocket) else socket.MSG_MORE)


class _Refused(BadRequest):
    """The request has no answer but `status`; another may follow."""

    def __init__(self, status: int, why: str, fields: tuple[Field, ...] = ()) -> None:
        super().__init__(status, why)
        self.fields = fields
