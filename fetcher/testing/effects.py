"""Effects that change the response: another status, head or body."""

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
    """Respond with this status, `headers` and `body` instead of the correct response."""

    final: ClassVar[bool] = True
    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b"requested by a test"

    def alter(self, request: Request, response: Response) -> Response:
        return Response(self.status, self.headers, body_of(self.body))


def rate_limited(*, retry_after: int | None = None, reset: int | None = None) -> Status:
    """Respond with 429: with `Retry-After` in seconds, with the Hub's `RateLimit` that resets in `reset` seconds, or bare."""
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
    """Treat the signature of this request as expired. `Origin.expire_signatures` expires all addresses."""

    final: ClassVar[bool] = True

    def alter(self, request: Request, response: Response) -> Response:
        return denied()


@dataclass(frozen=True, slots=True)
class Redirect(Effect):
    """Redirect to `location`, in which `{target}` is the request's target: `{target}` alone is a loop."""

    final: ClassVar[bool] = True
    location: str
    status: int = 302

    def alter(self, request: Request, response: Response) -> Response:
        return Response(self.status, (("Location", self.location.replace("{target}", request.target)),))


@dataclass(frozen=True, slots=True)
class Header(Effect):
    """Replace one header of the correct response; None removes it."""

    name: str
    value: str | None

    def alter(self, request: Request, response: Response) -> Response:
        if self.value is not None:
            return response.with_header(self.name, self.value)
        return replace(response, headers=tuple(pair for pair in response.headers if pair[0].lower() != self.name.lower()))


@dataclass(frozen=True, slots=True)
class HugeHeader(Effect):
    """Add a header of `size` bytes."""

    size: int

    def alter(self, request: Request, response: Response) -> Response:
        return response.with_header("X-Huge", "x" * self.size)


@dataclass(frozen=True, slots=True)
class Body(Effect):
    """Send `data` as the body under the correct head, e.g. invalid JSON."""

    data: bytes

    def alter(self, request: Request, response: Response) -> Response:
        return replace(response, body=body_of(self.data))


class ContentEffect(Effect):
    """An effect on responses with file content only."""

    def applies(self, request: Request, response: Response) -> bool:
        return response.content is not None and request.method != "HEAD" and len(response.body) > 0


@dataclass(frozen=True, slots=True)
class IgnoreRange(ContentEffect):
    """Ignore the requested range: respond with 200 and the whole file."""

    def alter(self, request: Request, response: Response) -> Response:
        whole = Header("Content-Range", None).alter(request, response)
        content = response.body.content
        return replace(whole, status=200, body=Slice(content, 0, content.size))


class PartEffect(ContentEffect):
    """An effect on responses to a range only."""

    def applies(self, request: Request, response: Response) -> bool:
        return ContentEffect.applies(self, request, response) and response.status == 206


@dataclass(frozen=True, slots=True)
class WrongContentRange(PartEffect):
    """Send the correct bytes with a Content-Range shifted by `shift` bytes and a size of `total` (None: the correct size)."""

    shift: int = 0
    total: int | None = None

    def alter(self, request: Request, response: Response) -> Response:
        first, last, size = re.findall(r"\d+", response.header("Content-Range") or "")
        wrong = f"bytes {int(first) + self.shift}-{int(last) + self.shift}/{self.total or size}"
        return response.with_header("Content-Range", wrong)


@dataclass(frozen=True, slots=True)
class LongBody(PartEffect):
    """Send `extra` bytes more than requested. Content-Length includes them, Content-Range does not."""

    extra: int

    def alter(self, request: Request, response: Response) -> Response:
        return replace(response, body=body_of(response.body.read() + bytes(self.extra)))


@dataclass(frozen=True, slots=True)
class UnaskedPart(ContentEffect):
    """Respond to a request without a range with 206 and a Content-Range of the whole file."""

    def applies(self, request: Request, response: Response) -> bool:
        return ContentEffect.applies(self, request, response) and response.status == 200

    def alter(self, request: Request, response: Response) -> Response:
        size = response.body.content.size
        return replace(response, status=206).with_header("Content-Range", f"bytes 0-{size - 1}/{size}")


@dataclass(frozen=True, slots=True)
class WrongBody(PartEffect):
    """Send bytes from a position `shift` bytes later in the file, within its size, under the correct head."""

    shift: int

    def alter(self, request: Request, response: Response) -> Response:
        body = response.body
        start = max(0, min(body.start + self.shift, body.content.size - len(body)))
        return replace(response, body=Slice(body.content, start, start + len(body)))


@dataclass(frozen=True, slots=True)
class ShortBody(ContentEffect):
    """Send `missing` bytes fewer than requested, with the Content-Length of the shorter body.

    Content-Range claims the requested range, unless `honest`: then it is the range that is sent.
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
    """Cut every range to its first `size` bytes, with a correct Content-Range."""

    size: int

    def alter(self, request: Request, response: Response) -> Response:
        return ShortBody(max(0, len(response.body) - self.size), honest=True).alter(request, response)


@dataclass(frozen=True, slots=True)
class ExtraBytes(ContentEffect):
    """Send `data` after the end of the body and keep the connection open."""

    data: bytes

    def alter(self, request: Request, response: Response) -> Response:
        return replace(response, trailing=self.data)


@dataclass(frozen=True, slots=True)
class Gzip(ContentEffect):
    """Compress the body although the client did not ask for it; with a Content-Encoding if `announced`."""

    announced: bool = True

    def alter(self, request: Request, response: Response) -> Response:
        packed = replace(response, body=body_of(gzip.compress(response.body.read(), compresslevel=1)))
        return packed.with_header("Content-Encoding", "gzip") if self.announced else packed


@dataclass(frozen=True, slots=True)
class FlipBit(ContentEffect):
    """Flip one bit of the file's byte at `offset`. Applies only to responses that contain the byte."""

    offset: int

    def applies(self, request: Request, response: Response) -> bool:
        contained = response.body.start <= self.offset < response.body.stop
        return contained and ContentEffect.applies(self, request, response)

    def alter(self, request: Request, response: Response) -> Response:
        body = response.body
        return replace(response, body=Slice(FlippedBit(body.content, self.offset), body.start, body.stop))


@dataclass(frozen=True, slots=True)
class Replace(ContentEffect):
    """Replace the file's content by `data`, with a new ETag, or the old one if `keep_etag`."""

    data: bytes
    keep_etag: bool = False

    def alter(self, request: Request, response: Response) -> Response:
        content = BytesContent(self.data)
        etag = response.header("ETag") if self.keep_etag else f'"{content.sha256[:32]}"'
        return serve_content(request, content, {"ETag": etag or ""})


@dataclass(frozen=True, slots=True)
class Chunked(ContentEffect):
    """Send the body with Transfer-Encoding: chunked and no Content-Length."""

    def alter(self, request: Request, response: Response) -> Response:
        return replace(response, chunked=True)
