"""Effects that put another response in place of the right one: other status, other head, other bytes."""

from __future__ import annotations

import gzip
import re
from dataclasses import dataclass, replace
from typing import ClassVar

from fetcher.testing.cdn import denied
from fetcher.testing.content import BytesContent, FlippedBit, Slice, body_of
from fetcher.testing.exchange import Request, Response, serve_content
from fetcher.testing.faults import Effect


@dataclass(frozen=True, slots=True)
class Status(Effect):
    """An answer of this status, with `headers` and `body`, instead of the right one."""

    final: ClassVar[bool] = True
    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b"as asked for by a test"

    def alter(self, request: Request, response: Response) -> Response:
        return Response(self.status, self.headers, body_of(self.body))


def rate_limited(*, retry_after: int | None = None, reset: int | None = None) -> Status:
    """429: with `Retry-After` in seconds, with the Hub's `RateLimit` header that resets in `reset` seconds, or bare."""
    headers: list[tuple[str, str]] = []
    if retry_after is not None:
        headers.append(("Retry-After", str(retry_after)))
    if reset is not None:
        headers += [
            ("RateLimit", f'"resolvers";r=0;t={reset}'),
            ("RateLimit-Policy", '"fixed window";"resolvers";q=3000;w=300'),
        ]
    return Status(429, tuple(headers))


@dataclass(frozen=True, slots=True)
class Expired(Effect):
    """This request's signature counts as expired. To expire all addresses at once: `Origin.expire_signatures`."""

    final: ClassVar[bool] = True

    def alter(self, request: Request, response: Response) -> Response:
        return denied()


@dataclass(frozen=True, slots=True)
class Redirect(Effect):
    """To `location`, where `{target}` stands for the request's own: with `{target}` alone it is a loop."""

    final: ClassVar[bool] = True
    location: str
    status: int = 302

    def alter(self, request: Request, response: Response) -> Response:
        return Response(self.status, (("Location", self.location.replace("{target}", request.target)),))


@dataclass(frozen=True, slots=True)
class Header(Effect):
    """The right response with one header replaced; None removes it."""

    name: str
    value: str | None

    def alter(self, request: Request, response: Response) -> Response:
        if self.value is not None:
            return response.with_header(self.name, self.value)
        return replace(response, headers=tuple(pair for pair in response.headers if pair[0].lower() != self.name.lower()))


@dataclass(frozen=True, slots=True)
class HugeHeader(Effect):
    """One more header, of `size` bytes."""

    size: int

    def alter(self, request: Request, response: Response) -> Response:
        return response.with_header("X-Huge", "x" * self.size)


@dataclass(frozen=True, slots=True)
class Body(Effect):
    """The right head with `data` as the body, e.g. JSON that is none."""

    data: bytes

    def alter(self, request: Request, response: Response) -> Response:
        return replace(response, body=body_of(self.data))


class ContentEffect(Effect):
    """Hits only responses that carry a file's bytes."""

    def applies(self, request: Request, response: Response) -> bool:
        return response.content is not None and request.method != "HEAD" and len(response.body) > 0


@dataclass(frozen=True, slots=True)
class IgnoreRange(ContentEffect):
    """200 and the whole file, whatever part was asked for."""

    def alter(self, request: Request, response: Response) -> Response:
        whole = Header("Content-Range", None).alter(request, response)
        content = response.body.content
        return replace(whole, status=200, body=Slice(content, 0, content.size))


class PartEffect(ContentEffect):
    """Hits only answers to a range."""

    def applies(self, request: Request, response: Response) -> bool:
        return ContentEffect.applies(self, request, response) and response.status == 206


@dataclass(frozen=True, slots=True)
class WrongContentRange(PartEffect):
    """The right bytes, said to lie `shift` bytes further on, of a file of `total` bytes (None: its size)."""

    shift: int = 0
    total: int | None = None

    def alter(self, request: Request, response: Response) -> Response:
        first, last, size = re.findall(r"\d+", response.header("Content-Range") or "")
        said = f"bytes {int(first) + self.shift}-{int(last) + self.shift}/{self.total or size}"
        return response.with_header("Content-Range", said)


@dataclass(frozen=True, slots=True)
class LongBody(PartEffect):
    """`extra` bytes more than asked for, under a Content-Length that says so and a Content-Range that does not."""

    extra: int

    def alter(self, request: Request, response: Response) -> Response:
        return replace(response, body=body_of(response.body.read() + bytes(self.extra)))


@dataclass(frozen=True, slots=True)
class UnaskedPart(ContentEffect):
    """206 for what was asked for as a whole; Content-Range names all of it."""

    def applies(self, request: Request, response: Response) -> bool:
        return ContentEffect.applies(self, request, response) and response.status == 200

    def alter(self, request: Request, response: Response) -> Response:
        size = response.body.content.size
        return replace(response, status=206).with_header("Content-Range", f"bytes 0-{size - 1}/{size}")


@dataclass(frozen=True, slots=True)
class WrongBody(PartEffect):
    """The right head with bytes that lie `shift` bytes further on in the file, as far as it goes."""

    shift: int

    def alter(self, request: Request, response: Response) -> Response:
        body = response.body
        start = max(0, min(body.start + self.shift, body.content.size - len(body)))
        return replace(response, body=Slice(body.content, start, start + len(body)))


@dataclass(frozen=True, slots=True)
class ShortBody(ContentEffect):
    """`missing` bytes fewer than asked for, under a Content-Length that says so.

    Content-Range still claims them all, unless `honest`: then it names what is sent.
    """

    missing: int
    honest: bool = False

    def alter(self, request: Request, response: Response) -> Response:
        body = response.body
        short = replace(response, body=Slice(body.content, body.start, max(body.start, body.stop - self.missing)))
        if not self.honest or response.status != 206:
            return short
        return short.with_header("Content-Range", f"bytes {body.start}-{short.body.stop - 1}/{body.content.size}")


@dataclass(frozen=True, slots=True)
class Slices(PartEffect):
    """Every range is cut to its first `size` bytes, and Content-Range says so."""

    size: int

    def alter(self, request: Request, response: Response) -> Response:
        return ShortBody(max(0, len(response.body) - self.size), honest=True).alter(request, response)


@dataclass(frozen=True, slots=True)
class ExtraBytes(ContentEffect):
    """`data` after the end of the body, on a connection that stays open."""

    data: bytes

    def alter(self, request: Request, response: Response) -> Response:
        return replace(response, trailing=self.data)


@dataclass(frozen=True, slots=True)
class Gzip(ContentEffect):
    """The body compressed although nobody asked; unless `announced`, without a Content-Encoding."""

    announced: bool = True

    def alter(self, request: Request, response: Response) -> Response:
        packed = replace(response, body=body_of(gzip.compress(response.body.read(), compresslevel=1)))
        return packed.with_header("Content-Encoding", "gzip") if self.announced else packed


@dataclass(frozen=True, slots=True)
class FlipBit(ContentEffect):
    """One bit of the file's byte at `offset` turned over; hits only responses that carry that byte."""

    offset: int

    def applies(self, request: Request, response: Response) -> bool:
        carried = response.body.start <= self.offset < response.body.stop
        return carried and ContentEffect.applies(self, request, response)

    def alter(self, request: Request, response: Response) -> Response:
        body = response.body
        return replace(response, body=Slice(FlippedBit(body.content, self.offset), body.start, body.stop))


@dataclass(frozen=True, slots=True)
class Replace(ContentEffect):
    """The file has become `data`, under a new ETag; with `keep_etag` under the old one."""

    data: bytes
    keep_etag: bool = False

    def alter(self, request: Request, response: Response) -> Response:
        content = BytesContent(self.data)
        etag = response.header("ETag") if self.keep_etag else f'"{content.sha256[:32]}"'
        return serve_content(request, content, {"ETag": etag or ""})


@dataclass(frozen=True, slots=True)
class Chunked(ContentEffect):
    """Transfer-Encoding: chunked, and no Content-Length."""

    def alter(self, request: Request, response: Response) -> Response:
        return replace(response, chunked=True)
