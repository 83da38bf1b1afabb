"""The content network: blobs behind signed addresses, and plain files at plain addresses."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from fetcher.testing.content import Content, body_of
from fetcher.testing.exchange import Request, Response, serve_content
from fetcher.testing.signing import Signer

_DENIED = b'<?xml version="1.0"?><Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>'


@dataclass(slots=True)
class Cdn:
    """`blobs` by SHA-256, shared with the Hub; `files` by path."""

    signer: Signer
    blobs: dict[str, Content]
    files: dict[str, Content] = field(default_factory=dict)

    def answer(self, request: Request) -> Response:
        if request.path.startswith("/blob/"):
            if not self.signer.allows(request.target):
                return denied()
            content = self.blobs.get(request.path.removeprefix("/blob/"))
        else:
            content = self.files.get(request.path)
        if content is None:
            return Response(404, body=body_of(b"no such file"))
        return serve_content(request, content, {"ETag": _etag(content)})


def denied() -> Response:
    """Return the response of an object store to a wrong or expired signature."""
    return Response(403, (("Content-Type", "application/xml"),), body_of(_DENIED))


def _etag(content: Content) -> str:
    """Return an ETag that, like that of a multipart upload, is not a digest of the content."""
    return f'"{hashlib.md5(content.sha256.encode(), usedforsecurity=False).hexdigest()}-2"'
