"""Answers one request on a thread that may block: whose it is, what it is for, and the bytes.

::

    GET /v1/<key>/<listing digest>/<path>       the file, or a range of it
    GET /v1/<key>/have?since=<mark>             which chunks are here; waits for a change since the mark
"""

from __future__ import annotations

import os
import re
import socket
import ssl
import threading
from typing import Literal

from fetcher.artifact import ByteRange
from fetcher.cache.offering import Offer, OfferedFile, Offers
from fetcher.planning.have import Mark
from fetcher.serving.answers import Field, head, of_file, short
from fetcher.serving.authorization import Authorization
from fetcher.serving.counts import Counts
from fetcher.serving.maps import Maps
from fetcher.serving.requests import BadRequest, NotSatisfiable, Request, part
from fetcher.serving.sending import Sender
from fetcher.values import dataclass

Outcome = Literal["next", "close", "wait"]
"""Another request may follow; the connection ends; or the answer is due when the map changes, or the wait has lasted."""

_DIGEST = re.compile("[0-9a-f]{64}")
_LATER: Field = ("Retry-After", "1")


@dataclass(frozen=True, slots=True)
class Answerer:
    """Answers requests of one server. `private`: nobody else reads what is sent, so it may be what is not for everybody.

    `slots`: one for each file that is sent at a time.
    """

    offers: Offers
    maps: Maps
    authorization: Authorization
    sender: Sender
    counts: Counts
    slots: threading.BoundedSemaphore
    private: bool

    def answer(self, peer: socket.socket, request: Request, *, due: bool) -> Outcome:
        """Answer `request`. `due`: it has waited long enough. Raises OSError if the peer has hung up or reads nothing."""
        try:
            key, rest = self._route(request)
            offer = self._offered(request, key)
            if rest == ("have",):
                return self._tell(peer, request, offer, due=due)
            return self._send(peer, request, offer, "/".join(rest[1:]), listing=rest[0])
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

    def unchanged(self, request: Request) -> bool:
        """Whether a request that waits still has nothing to learn."""
        offer = self.offers.find(request.segments[1])
        return offer is not None and self._seen(request) == self.maps.of(offer).at

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

    def _offered(self, request: Request, key: str) -> Offer:
        """The artifact, if the caller may have it. Raises _Refused; nobody learns what there is that is not for them."""
        verdict = self.authorization(request.bearer, key)
        if verdict == "unavailable":
            raise _Refused(503, "cannot ask now who you are; try again", (_LATER,))
        if verdict == "denied":
            raise _Refused(401, "show a token", (("WWW-Authenticate", "Bearer"),))
        offer = self.offers.find(key)
        if offer is None or (offer.authenticated and not (verdict == "granted" and self.private)):
            raise _Refused(404, "no such artifact here")
        return offer

    def _seen(self, request: Request) -> Mark | None:
        return Mark.parse(request.query.get("since", ""))

    def _tell(self, peer: socket.socket, request: Request, offer: Offer, *, due: bool) -> Outcome:
        present = self.maps.of(offer)
        if self._seen(request) == present.at and not due and request.method == "GET":
            return "wait"
        self.counts.answered(200)
        body, kind, only_head = present.to_bytes(), "application/json", request.method == "HEAD"
        peer.sendall(short(200, body, persistent=request.persistent, kind=kind, only_head=only_head))
        return "next" if request.persistent else "close"

    def _send(self, peer: socket.socket, request: Request, offer: Offer, path: str, *, listing: str) -> Outcome:
        file = offer.files.get(path) if listing == offer.listing else None
        if file is None:
            raise _Refused(404, "no such file in this listing")
        tag = f'"{file.tag}"'
        try:
            wanted = part(request, file.size, tag)
        except NotSatisfiable:
            raise _Refused(416, "no such range", (("Content-Range", f"bytes */{file.size}"),)) from None
        if not self.slots.acquire(blocking=False):
            raise _Refused(503, "too many uploads; try again", (_LATER,))
        try:
            self.counts.uploading(1)
            return self._upload(peer, request, offer, path, (file, tag, wanted))
        finally:
            self.counts.uploading(-1)
            self.slots.release()

    def _upload(
        self, peer: socket.socket, request: Request, offer: Offer, path: str, what: tuple[OfferedFile, str, ByteRange | None]
    ) -> Outcome:
        file, tag, wanted = what
        descriptor = self.offers.open(offer, path)
        if descriptor is None:
            raise _Refused(404, "the artifact is gone")
        try:
            status, fields = of_file(file.size, tag, wanted)
            sent = wanted or ByteRange(0, file.size)
            self.counts.answered(status)
            start = head(status, fields, length=len(sent), persistent=request.persistent)
            if request.method == "HEAD" or not len(sent):
                peer.sendall(start)
            else:
                _begin(peer, start)
                if not self.sender.send(peer, descriptor, sent):
                    return "close"
        finally:
            os.close(descriptor)  # until now the open file kept the artifact from being evicted
        return "next" if request.persistent else "close"


def _begin(peer: socket.socket, start: bytes) -> None:
    """Send the head of an answer; without TLS, together with the first bytes of the file in one packet."""
    peer.sendall(start, 0 if isinstance(peer, ssl.SSLSocket) else socket.MSG_MORE)


class _Refused(BadRequest):
    """The request has no answer but `status`; another may follow."""

    def __init__(self, status: int, why: str, fields: tuple[Field, ...] = ()) -> None:
        super().__init__(status, why)
        self.fields = fields
